"""The oracle of sample-average placement: exhaustive search over partitions, counts and packings, independent of every model.

Its only cut is the best value so far; symmetric GPUs and the identical replicas of an expert are met once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.solvers.engines.oracle import MAX_SLOTS


def least_sample_average(history: np.ndarray, deployment: Deployment) -> Fraction:
    """Return the smallest mean makespan of any map of one layer.

    Parameters
    ----------
    history : array_like of int [windows, experts]
    deployment : Deployment
        With at most 12 slots on live GPUs.

    Raises
    ------
    InputError
        If the history is not as described or the deployment has more slots.
    """
    checked = as_loads(history, "history", 2)
    live = deployment.live
    if checked.shape[1] != live.num_experts:
        raise InputError(f"history has {checked.shape[1]} experts; the deployment has {live.num_experts}")
    if live.num_slots > MAX_SLOTS:
        raise InputError(f"num_slots is {live.num_slots}; the oracle enumerates at most {MAX_SLOTS} slots")
    shape = live if live.policy == "hierarchical" else live.as_global()
    scale = math.lcm(*range(1, shape.num_slots + 1))
    best: int | None = None
    for home in _homes(shape):
        for counts in _counts(shape, home):
            # Multiples of 1/scale: the division is exact for every possible count.
            sizes = [[int(w) * scale // c for w in checked[:, e]] for e, c in enumerate(counts)]
            best = _pack(shape, home, counts, sizes, best)
    assert best is not None
    return Fraction(best, scale * len(checked))


def _homes(shape: Deployment) -> Iterator[list[int]]:
    """Yield the node of every expert for every partition of the groups; nodes are alike, so the first group is on the first."""
    for nodes in itertools.product(range(shape.num_nodes), repeat=shape.num_groups):
        even = all(nodes.count(node) == shape.groups_per_node for node in range(shape.num_nodes))
        new = all(node <= max(nodes[:group], default=-1) + 1 for group, node in enumerate(nodes))
        if even and new:
            yield [nodes[e // shape.experts_per_group] for e in range(shape.num_experts)]


def _counts(shape: Deployment, home: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield all counts that fill every node."""
    room = shape.num_slots // shape.num_nodes
    limit = shape.gpus_per_node if shape.duplicates == "forbidden" else room
    for counts in itertools.product(range(1, limit + 1), repeat=shape.num_experts):
        filled = [0] * shape.num_nodes
        for node, count in zip(home, counts, strict=True):
            filled[node] += count
        if all(slots == room for slots in filled):
            yield counts


def _pack(shape: Deployment, home: list[int], counts: tuple[int, ...], sizes: list[list[int]], best: int | None) -> int | None:
    """Return the smallest sum of makespans of any packing, or ``best`` if none is below it."""
    order = sorted(range(len(counts)), key=lambda e: -sum(sizes[e]))
    replicas = [expert for expert in order for _ in range(counts[expert])]
    windows = range(len(sizes[0]))
    loads, filled, chosen = [[0 for _ in windows] for _ in range(shape.num_gpus)], [0] * shape.num_gpus, [0] * len(replicas)
    apart, room = shape.duplicates == "forbidden", shape.slots_by_gpu

    def place(position: int) -> None:
        nonlocal best
        value = sum(max(load[t] for load in loads) for t in windows)
        if best is not None and value >= best:
            return
        if position == len(replicas):
            best = value
            return
        expert = replicas[position]
        # Identical replicas go to GPUs in ascending order, strictly where no GPU may hold two.
        again = position > 0 and replicas[position - 1] == expert
        first = home[expert] * shape.gpus_per_node
        met = set()
        for gpu in range(chosen[position - 1] + apart if again else first, first + shape.gpus_per_node):
            state = (tuple(loads[gpu]), filled[gpu], room[gpu])
            if filled[gpu] == room[gpu] or state in met:
                continue
            met.add(state)
            filled[gpu] += 1
            chosen[position] = gpu
            for t in windows:
                loads[gpu][t] += sizes[expert][t]
            place(position + 1)
            filled[gpu] -= 1
            for t in windows:
                loads[gpu][t] -= sizes[expert][t]

    place(0)
    return best
