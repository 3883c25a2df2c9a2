"""Best assignment of given replica counts: how good a map could still be made by moving its replicas, on other loads."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.kernels.local_search import pack_counts
from eplb_gap.heuristics.planner import uneven
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.bounds.bounds import cardinality_bound, pigeonhole_bound
from eplb_gap.problem.bounds.partition import bottleneck_cover
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

KICKS = 2000
"""Kicks of the two-GPU search on a whole layer; a node gets its share."""
STOP = 1e-5
"""Relative distance to a node's mean at which its packing is left."""
MAX_NODE_SETS = 20_000
"""Sets of groups that are looked at; beyond that the groups stay on the nodes where they are."""


@dataclass(frozen=True)
class Assignment:
    """The best assignment that was found, and what no assignment of the same counts can beat.

    Parameters
    ----------
    placement : Placement
        Same replica counts as the given one; verified.
    upper, lower : list of Fraction
        Makespan and bound of every layer, in tokens. The bound holds for these counts only.
    """

    placement: Placement
    upper: list[Fraction]
    lower: list[Fraction]


def best_assignment(placement: Placement, loads: Any, deployment: Deployment, seed: int = 0) -> Assignment:
    """Assign the replicas of a map anew, keeping every expert's count.

    Dead GPUs are left out; on GPUs with unequal slots the replicas are packed by projected load
    (:mod:`eplb_gap.heuristics.planner.uneven`). Groups change nodes where the counts let them: a node's groups must fill its
    slots exactly. Per node LPT, exchanges, exact two-GPU re-partitions; with two slots per GPU and duplicates allowed the fold,
    largest with smallest, which is optimal. Bounds: mean, cardinality and pigeonhole of the node's replicas, over the partition
    of the groups whose worst node is best.

    Parameters
    ----------
    placement : Placement
        Legal.
    loads : array_like of int [layers, experts]
        Need not be the loads the map was planned on.
    deployment : Deployment
    seed : int, default 0

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.problem.verify`.
    """
    checked = as_loads(loads, "loads", 2)
    given = verify(placement, checked, deployment)
    if deployment.dead_gpus:
        live = best_assignment(without_dead(placement, deployment), checked, deployment.live, seed)
        return Assignment(with_dead(live.placement, deployment), live.upper, live.lower)
    counts = placement.counts()
    maps, lower = [], []
    for layer, row in enumerate(checked):
        slots, bound = _assign_layer(placement.phy2log[layer], row, counts[layer], deployment, seed)
        maps.append(slots)
        lower.append(bound)
    found = Placement(np.array(maps), deployment.num_experts)
    upper = verify(found, checked, deployment)
    worse = [layer for layer, (new, old) in enumerate(zip(upper, given, strict=True)) if new > old]
    for layer in worse:
        found.phy2log[layer], upper[layer] = placement.phy2log[layer], given[layer]
    return Assignment(Placement(found.phy2log, deployment.num_experts), upper, lower)


def _assign_layer(
    slots: np.ndarray, loads: np.ndarray, counts: np.ndarray, deployment: Deployment, seed: int
) -> tuple[np.ndarray, Fraction]:
    if not deployment.is_regular:
        return _assign_unequal(loads, counts, deployment)
    if deployment.policy == "global":
        everything = np.arange(deployment.num_experts)
        packed = _pack(everything, slots, loads, counts, deployment.num_gpus, deployment, seed)
        return packed, _bound(loads, counts, deployment.num_gpus)
    size = deployment.experts_per_group
    present = [tuple(sorted({int(e) // size for e in on_node})) for on_node in slots.reshape(deployment.num_nodes, -1)]
    partition, bound = _best_partition(present, loads, counts, deployment)
    own = dict(zip(present, slots.reshape(deployment.num_nodes, -1), strict=True))
    nodes = [
        _pack(_experts(groups, size), own.get(groups), loads, counts, deployment.gpus_per_node, deployment, seed)
        for groups in partition
    ]
    return np.concatenate(nodes), bound


def _assign_unequal(loads: np.ndarray, counts: np.ndarray, deployment: Deployment) -> tuple[np.ndarray, Fraction]:
    """Return a map by projected load and exchanges, and the larger of the mean and the largest replica."""
    starts, distinct = np.cumsum((0, *deployment.slots_by_gpu)), deployment.duplicates == "forbidden"
    slots, weight = np.empty(deployment.num_slots, np.int64), loads.astype(np.float64)
    uneven.pack(weight, counts, starts, distinct, slots)
    uneven.exchange(weight, slots, starts, distinct, float(loads.sum()) / deployment.num_gpus * (1.0 + STOP))
    largest = max(Fraction(int(w), int(c)) for w, c in zip(loads, counts, strict=True))
    return slots, max(Fraction(int(loads.sum()), deployment.num_gpus), largest)


def _best_partition(
    present: list[tuple[int, ...]], loads: np.ndarray, counts: np.ndarray, deployment: Deployment
) -> tuple[list[tuple[int, ...]], Fraction]:
    """Return the partition of the groups into nodes whose largest bound is smallest, and that bound.

    Raises
    ------
    InputError
        If there are too many sets of groups to look at them all.
    """
    groups, per_node, size = deployment.num_groups, deployment.groups_per_node, deployment.experts_per_group
    if math.comb(groups, per_node) > MAX_NODE_SETS:
        raise InputError(
            f"num_groups is {groups} with {per_node} per node: {math.comb(groups, per_node)} sets of groups; "
            f"at most {MAX_NODE_SETS} are looked at"
        )
    slots_of_group = counts.reshape(groups, size).sum(axis=1)
    bounds = {}
    for chosen in itertools.combinations(range(groups), per_node):
        if int(slots_of_group[list(chosen)].sum()) == deployment.slots_per_node:
            experts = _experts(chosen, size)
            bounds[chosen] = _bound(loads[experts], counts[experts], deployment.gpus_per_node)
    found, value = bottleneck_cover(bounds, groups)
    return (present if max(bounds[chosen] for chosen in present) == value else found), value


def _experts(groups: tuple[int, ...], size: int) -> np.ndarray:
    return np.concatenate([np.arange(group * size, (group + 1) * size) for group in groups])


def _bound(loads: np.ndarray, counts: np.ndarray, num_gpus: int) -> Fraction:
    sizes = [Fraction(int(w), int(c)) for w, c in zip(loads, counts, strict=True) for _ in range(c)]
    return max(Fraction(int(loads.sum()), num_gpus), cardinality_bound(sizes, num_gpus), pigeonhole_bound(sizes, num_gpus))


def _pack(
    experts: np.ndarray,
    present: np.ndarray | None,
    loads: np.ndarray,
    counts: np.ndarray,
    num_gpus: int,
    deployment: Deployment,
    seed: int,
) -> np.ndarray:
    """Return the experts of a node's slots, GPU-major; the present ones where LPT makes forbidden duplicates."""
    own_loads, own_counts = loads[experts], counts[experts]
    if deployment.slots_per_gpu == 2 and deployment.duplicates == "allowed":
        return np.asarray(experts[_fold(own_loads, own_counts)])
    packed = np.empty(int(own_counts.sum()), np.int64)
    distinct = deployment.duplicates == "forbidden"
    kicks = max(1, KICKS * num_gpus // deployment.num_gpus)
    stop = float(own_loads.sum()) / num_gpus * (1.0 + STOP)
    value = _pack_node(own_loads, own_counts, num_gpus, distinct, stop, kicks, seed, packed)
    if not np.isfinite(value):
        return present if present is not None else experts[_dealt(own_counts, num_gpus)]
    return experts[packed]


@tiered("(i8[::1], i8[::1], i8, b1, f8, i8, i8, i8[::1])")
def _pack_node(
    loads: np.ndarray, counts: np.ndarray, num_gpus: int, distinct: bool, stop: float, kicks: int, seed: int, slots: np.ndarray
) -> float:
    return pack_counts(loads, counts, num_gpus, distinct, stop, kicks, seed, slots)


def _dealt(counts: np.ndarray, num_gpus: int) -> np.ndarray:
    """Deal the replicas, expert after expert, round the GPUs: copies of an expert meet on no GPU."""
    return np.asarray(np.repeat(np.arange(counts.size), counts).reshape(-1, num_gpus).T.ravel())


def _fold(loads: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pair the largest replica with the smallest, the second with the second smallest, and so on: optimal for given counts."""
    replicas = np.repeat(np.arange(counts.size), counts)
    order = replicas[np.argsort(-(loads / counts)[replicas], kind="stable")]
    half = order.size // 2
    return np.asarray(np.column_stack([order[:half], order[: half - 1 : -1]]).ravel())
