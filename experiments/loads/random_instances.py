"""Random small instances that brute force can judge; the same ones on every machine."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem import Deployment, Instance

FLAT_SHAPES = [
    (3, 4, 2),
    (3, 6, 3),
    (4, 6, 2),
    (4, 6, 3),
    (5, 6, 6),
    (4, 8, 4),
    (5, 8, 2),
    (6, 8, 4),
    (6, 9, 3),
    (7, 8, 2),
    (2, 5, 1),
]
HIERARCHICAL_SHAPES = [
    (4, 6, 2, 2, 2),
    (4, 6, 2, 2, 4),
    (6, 8, 4, 2, 6),
    (8, 8, 4, 2, 4),
    (6, 9, 3, 3, 3),
    (6, 9, 3, 3, 6),
    (4, 8, 4, 2, 4),
]


EXTREME_SHAPES = [
    Deployment(4, 6, 3),
    Deployment(5, 8, 4),
    Deployment(6, 8, 2),
    Deployment(6, 9, 3),
    Deployment(4, 8, 4, duplicates="forbidden"),
    Deployment(5, 6, 6),
    Deployment(6, 9, 3, duplicates="forbidden"),
    Deployment(6, 8, 4, 2, 6),
]
SHAPES_OF_KINDS = {
    "hot": EXTREME_SHAPES,
    "tied": EXTREME_SHAPES,
    "zero": EXTREME_SHAPES,
    "S = E": [
        Deployment(6, 6, 2),
        Deployment(6, 6, 3),
        Deployment(8, 8, 4),
        Deployment(8, 8, 2),
        Deployment(9, 9, 3),
        Deployment(5, 5, 5),
        Deployment(8, 8, 4, duplicates="forbidden"),
        Deployment(8, 8, 4, 2, 4),
    ],
    "forced counts": [  # every GPU holds every expert, or one expert alone can use the slots to spare
        Deployment(2, 6, 3, duplicates="forbidden"),
        Deployment(3, 6, 2, duplicates="forbidden"),
        Deployment(3, 9, 3, duplicates="forbidden"),
        Deployment(4, 8, 2, duplicates="forbidden"),
        Deployment(5, 6, 3),
        Deployment(6, 8, 4),
        Deployment(7, 9, 3),
        Deployment(7, 8, 4, duplicates="forbidden"),
    ],
    "unequal slots": [
        Deployment(4, slots_per_gpu=(1, 3, 2)),
        Deployment(5, slots_per_gpu=(2, 4, 2)),
        Deployment(6, slots_per_gpu=(1, 2, 5)),
        Deployment(7, slots_per_gpu=(3, 2, 2, 1)),
        Deployment(5, slots_per_gpu=(1, 1, 3, 4), duplicates="forbidden"),
        Deployment(6, slots_per_gpu=(4, 5), duplicates="forbidden"),
    ],
    "dead GPUs": [
        Deployment(5, 8, 4, active=(True, False, True, True)),
        Deployment(5, 12, 4, active=(True, True, False, True)),
        Deployment(4, 10, 5, active=(False, True, True, False, True), duplicates="forbidden"),
        Deployment(6, 8, 2, active=(True, True)),
        Deployment(6, slots_per_gpu=(2, 3, 3, 2), active=(True, True, False, True)),
        Deployment(5, slots_per_gpu=(4, 2, 4), active=(True, False, True), duplicates="forbidden"),
    ],
}
"""Deployments of at most ten slots on live GPUs, by the kind of case that is drawn on them."""
HOTTEST = 6
"""Largest power of ten of a hot expert's load; the others have ones, or some tokens."""


def loads(experts: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Return loads of one of four kinds: lognormal, with zeros, with ties, with one hot expert."""
    kind = generator.integers(4)
    values = np.rint(np.exp(generator.normal(size=experts)) * 40).astype(int)
    if kind == 1:
        values[generator.integers(experts)] = 0
    elif kind == 2:
        values = generator.integers(1, 4, size=experts)
    elif kind == 3:
        values[generator.integers(experts)] *= 12
    return tuple(int(w) for w in values)


def flat_instances(count: int, seed: int, shapes: list[tuple[int, int, int]] = FLAT_SHAPES) -> list[Instance]:
    """Return ``count`` flat instances, duplicates allowed and forbidden in turn where that is feasible."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        experts, slots, gpus = shapes[number % len(shapes)]
        forbidden = number // len(shapes) % 2 == 1 and slots // gpus <= experts
        found.append(Instance(loads(experts, generator), slots, gpus, "forbidden" if forbidden else "allowed"))
    return found


def hierarchical_cases(count: int, seed: int) -> list[tuple[np.ndarray, Deployment]]:
    """Return ``count`` layers, int64 [1, experts], with hierarchical deployments."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        experts, slots, gpus, nodes, groups = HIERARCHICAL_SHAPES[number % len(HIERARCHICAL_SHAPES)]
        forbidden = number // len(HIERARCHICAL_SHAPES) % 2 == 1 and slots // gpus <= experts // nodes
        deployment = Deployment(experts, slots, gpus, nodes, groups, "forbidden" if forbidden else "allowed")
        found.append((np.array([loads(experts, generator)]), deployment))
    return found


def cases_of_kind(kind: str, count: int, seed: int) -> list[tuple[np.ndarray, Deployment]]:
    """Return ``count`` layers, int64 [1, experts], with deployments, of an extreme kind.

    Parameters
    ----------
    kind : str
        Key of :data:`SHAPES_OF_KINDS`: "hot", one expert with 10^2 to 10^6 tokens; "tied", few different loads, one or powers of
        two among them; "zero", one expert or none with any load, or half of them; the others draw loads like :func:`loads`, and
        every second of "forced counts" where counts could differ has a hot expert that takes the slots to spare.
    count, seed : int
    """
    generator = np.random.default_rng(seed)
    shapes = SHAPES_OF_KINDS[kind]
    found = []
    for number in range(count):
        deployment = shapes[number % len(shapes)]
        experts, turn = deployment.num_experts, number // len(shapes)
        if kind == "hot" or kind == "forced counts":
            values = generator.integers(1, 40, size=experts) if turn % 2 else np.ones(experts, dtype=np.int64)
            values[generator.integers(experts)] = 10 ** int(generator.integers(2, HOTTEST + 1))
        elif kind == "tied":
            values = [np.full(experts, 7), 2 ** generator.integers(0, 4, size=experts), generator.integers(1, 3, size=experts)][
                turn % 3
            ]
        elif kind == "zero":
            values = generator.integers(1, 60, size=experts)
            kept = (0, 1, experts // 2)[turn % 3]
            values[generator.permutation(experts)[kept:]] = 0
        else:
            values = np.array(loads(experts, generator))
        found.append((values[None].astype(np.int64), deployment))
    return found
