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
