"""First pass over all layers, compiled: mean and apportionment bounds, and maps within a target of them.

Flat layers get counts, LPT, exchanges and exact two-GPU re-partitions. Hierarchical layers get the bottleneck partition of the
groups by node bounds; partitions are tried in the order of their largest node bound, nodes are solved once each and only while
their partition can still win. Most layers of large deployments are certified here; the engines see the rest.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.heuristics.compiled import copy, descending, kernel
from eplb_gap.heuristics.kernels.greedy import adams_counts
from eplb_gap.heuristics.kernels.local_search import SAFE_TOTAL, plan, search_counts
from eplb_gap.heuristics.tiers import seconds_compiling, tiered
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance

MAX_PARTITIONS = 20_000
FINEST_GAP = 1e-6
"""Below this the pass does not search on: exact methods decide there."""
FEW_SPARE = 8
"""Spare slots up to which the strongest bound is looked for before the first map."""
MAX_TRIALS, TRIALS_PER_SECOND = 400, 200
"""Count vectors that a node or a flat layer may try, and how many a second of its time allows at least."""
TRIALS_PER_CALL = 10
"""Count vectors, or first maps of nodes, per compiled call: the clock and Ctrl-C are looked at in between."""


@dataclass(frozen=True)
class FirstMap:
    """Map of one layer and the bound behind it; the map is None where the pass could not find a legal one."""

    slots: np.ndarray | None
    bound: Bound


def first_pass(
    loads: np.ndarray, deployment: Deployment, target_gap: float, seconds: float, seed: int, most_seconds: float = math.inf
) -> FirstMap | None:
    """Return a map and a closed-form bound of one layer, or None where the layer is outside what the pass can do.

    Parameters
    ----------
    loads : ndarray
        int64 [experts].
    deployment : Deployment
        Regular.
    target_gap : float
        The search stops within it.
    seconds : float
        What the layer may take for count vectors beyond the first.
    most_seconds : float, default inf
        What it may take in all; beyond that one map is enough.
    seed : int
    """
    deployment.require_regular("the first pass")
    if int(loads.sum()) >= SAFE_TOTAL:
        return None
    distinct = deployment.duplicates == "forbidden"
    gap, trials = max(target_gap, FINEST_GAP), min(MAX_TRIALS, int(seconds * TRIALS_PER_SECOND))
    started = _now()
    enough, latest = started + min(seconds, most_seconds), started + most_seconds
    row, slots = np.array(loads, np.int64), np.empty(deployment.num_slots, np.int64)
    if deployment.policy == "global":
        strong = _strong_bound(row, deployment)
        value = np.inf
        for done in range(0, trials + 1, TRIALS_PER_CALL):
            number = min(TRIALS_PER_CALL, trials - done + TRIALS_PER_CALL) if done else 0
            numerator, denominator, value, stop = _flat(
                row,
                deployment.num_gpus,
                _max_count(deployment, 1),
                distinct,
                float(strong.value),
                gap,
                number,
                seed + done,
                slots,
            )
            if value <= stop or value == np.inf or _now() >= enough:
                break
        plain = Fraction(int(numerator), int(denominator))  # interpreted kernels return numpy integers
        kind = "mean" if plain == Fraction(int(row.sum()), deployment.num_gpus) else "apportionment"
        bound = max(Bound(plain, kind), strong, key=lambda each: each.value)
        return FirstMap(slots if value < np.inf else None, bound)
    sets = _sets(deployment.num_groups, deployment.num_nodes)
    if sets is None:
        return None
    return _on_nodes(row, deployment, *sets, gap, trials, seed, enough, latest)


def _on_nodes(
    loads: np.ndarray, deployment: Deployment, sets: np.ndarray, partitions: np.ndarray, gap: float, trials: int, seed: int,
    enough: float, latest: float,
) -> FirstMap:  # fmt: skip
    """Plan a hierarchical layer by calls of a bounded length; count vectors are tried until ``enough``, maps until ``latest``."""
    shape = deployment.experts_per_group, deployment.gpus_per_node, _max_count(deployment, deployment.num_nodes)
    number, distinct = len(sets), deployment.duplicates == "forbidden"
    fractions, bounds, values = np.empty((number, 2), np.int64), np.empty(number), np.full(number, -1.0)
    maps, tried = np.empty((number, deployment.slots_per_node), np.int64), np.zeros(number, np.int64)
    order, at = np.empty(len(partitions), np.int64), np.array([0, -1])
    decisive = _order_partitions(loads, sets, partitions, *shape, deployment.slots_per_node, fractions, bounds, order)
    stop = bounds[decisive] * (1.0 + gap)
    while not _hierarchical(
        loads, sets, partitions, *shape, distinct, stop, trials, seed, TRIALS_PER_CALL, order, bounds, values, tried, maps, at
    ):
        if _now() >= latest and at[1] >= 0:
            break
        if _now() >= enough:
            trials = 0
    bound = Bound(Fraction(*fractions[decisive].tolist()), "hierarchical", {"nodes": []})
    if at[1] < 0:
        return FirstMap(None, bound)
    experts = np.arange(deployment.num_experts).reshape(deployment.num_groups, -1)
    chosen = partitions[at[1]]
    return FirstMap(np.concatenate([experts[sets[s]].ravel()[maps[s]] for s in chosen]), bound)


def _now() -> float:
    """Return the seconds on a clock that stands still while kernels are compiled or interpreted."""
    return time.monotonic() - seconds_compiling()


def load_kernels(deployment: Deployment) -> None:
    """Have the pass's kernels ready before a clock starts, unless they may be interpreted."""
    for each in (_flat,) if deployment.policy == "global" else (_order_partitions, _hierarchical):
        each.load()


def _strong_bound(loads: np.ndarray, deployment: Deployment) -> Bound:
    """Return a bound of a flat layer that is worth its time here, some milliseconds, where few slots are spare.

    There counts are often forced, and the loads that maps can have lie far apart: the bound is rounded up to them.
    """
    if deployment.num_slots - deployment.num_experts <= FEW_SPARE:
        return best_joint_bound(Instance.of_layer(loads, deployment))
    return Bound(Fraction(0), "mean")


def _max_count(deployment: Deployment, nodes: int) -> int:
    spare = (deployment.num_slots - deployment.num_experts) // nodes + 1
    return spare if deployment.duplicates == "allowed" else min(spare, deployment.num_gpus // nodes)


@cache
def _sets(groups: int, nodes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return all sets of groups a node can host, int64 [sets, groups per node], and all partitions, int64 [partitions, nodes]."""
    if num_partitions(groups, nodes) > MAX_PARTITIONS:
        return None
    sets = list(itertools.combinations(range(groups), groups // nodes))
    index = {chosen: number for number, chosen in enumerate(sets)}
    found = [[index[chosen] for chosen in partition] for partition in partitions(tuple(range(groups)), groups // nodes)]
    return np.array(sets, dtype=np.int64), np.array(found, dtype=np.int64)


@kernel
def _flat_bound(loads: np.ndarray, num_slots: int, num_gpus: int, max_count: int) -> tuple[int, int]:
    """Return the larger of mean and apportionment bound as numerator and denominator."""
    total = largest = 0
    for load in loads:
        total += load
        largest = max(largest, load)
    if largest * num_gpus <= total:  # no replica can exceed the mean
        return total, num_gpus
    counts = adams_counts(loads, num_slots, max_count)
    worst = 0
    for e in range(loads.size):
        if loads[e] * counts[worst] > loads[worst] * counts[e]:
            worst = e
    if loads[worst] * num_gpus > total * counts[worst]:
        return loads[worst], counts[worst]
    return total, num_gpus


@tiered("(i8[::1], i8, i8, b1, f8, f8, i8, i8, i8[::1])")
def _flat(
    loads: np.ndarray, num_gpus: int, max_count: int, distinct: bool, known: float, target_gap: float, trials: int, seed: int,
    slots: np.ndarray,
) -> tuple[int, int, float, float]:  # fmt: skip
    """Write a map to ``slots``, or improve it by trials; return the bound as a fraction, the makespan and where the search stops.

    No map has a makespan below ``known``: there the search ends if that is above the bound.
    """
    numerator, denominator = _flat_bound(loads, slots.size, num_gpus, max_count)
    stop = max(numerator / denominator, known) * (1.0 + target_gap)
    if trials == 0:
        value = plan(loads, num_gpus, max_count, distinct, stop, 0, seed, slots)
    else:
        counts = _counts_of(slots, loads.size)
        value = search_counts(loads, counts, num_gpus, max_count, distinct, stop, trials, seed, slots)
    return numerator, denominator, value, stop


@kernel
def _counts_of(slots: np.ndarray, experts: int) -> np.ndarray:
    """Return the replicas of every expert, int64 [experts]."""
    counts = np.zeros(experts, np.int64)
    for expert in slots:
        counts[expert] += 1
    return counts


@tiered("(i8[::1], i8[:, ::1], i8[:, ::1], i8, i8, i8, i8, i8[:, ::1], f8[::1], i8[::1])")
def _order_partitions(
    loads: np.ndarray, sets: np.ndarray, partitions: np.ndarray, group_size: int, node_gpus: int, max_count: int, node_slots: int,
    fractions: np.ndarray, bounds: np.ndarray, order: np.ndarray,
) -> int:  # fmt: skip
    """Write the bounds of all sets, as fractions and as floats, and the partitions by the largest bound of their nodes.

    Returns the set with the largest bound of the first partition.
    """
    nodes, held = partitions.shape[1], np.empty(sets.shape[1] * group_size, np.int64)
    for s in range(sets.shape[0]):
        _loads_of(loads, sets[s], group_size, held)
        fractions[s, 0], fractions[s, 1] = _flat_bound(held, node_slots, node_gpus, max_count)
        bounds[s] = fractions[s, 0] / fractions[s, 1]
    goodness = np.empty(partitions.shape[0])  # less the largest bound of a partition's nodes
    for p in range(partitions.shape[0]):
        worst = 0.0
        for node in range(nodes):
            worst = max(worst, bounds[partitions[p, node]])
        goodness[p] = -worst
    copy(descending(goodness), order)
    decisive = partitions[order[0], 0]
    for node in range(nodes):
        if bounds[partitions[order[0], node]] > bounds[decisive]:
            decisive = partitions[order[0], node]
    return int(decisive)


@tiered(
    "(i8[::1], i8[:, ::1], i8[:, ::1], i8, i8, i8, b1, f8, i8, i8, i8, i8[::1], f8[::1], f8[::1], i8[::1], i8[:, ::1], i8[::1])"
)
def _hierarchical(
    loads: np.ndarray, sets: np.ndarray, partitions: np.ndarray, group_size: int, node_gpus: int, max_count: int, distinct: bool,
    stop: float, trials: int, seed: int, most_plans: int, order: np.ndarray, bounds: np.ndarray, values: np.ndarray,
    tried: np.ndarray, maps: np.ndarray, at: np.ndarray,
) -> bool:  # fmt: skip
    """Go on with the partitions in their order until one is within ``stop`` or all are done; return whether that is so.

    Parameters
    ----------
    loads, sets, partitions, group_size, node_gpus, max_count, distinct
    stop : float
        Makespan in tokens.
    trials : int
        Count vectors that a node may try beyond its first.
    seed : int
    most_plans : int
        Count vectors to try in this call.
    order, bounds : ndarray
        As of :func:`_order_partitions`.
    values, tried, maps : ndarray
        Makespan (-1 before the first map), count vectors tried and map of every set, changed in place.
    at : ndarray
        Place in the order and best partition so far, -1 without one; changed in place.
    """
    nodes, plans = partitions.shape[1], 0
    on_nodes, held = np.empty(nodes), np.empty(sets.shape[1] * group_size, np.int64)
    best = np.inf
    if at[1] >= 0:
        best = 0.0
        for node in range(nodes):
            best = max(best, values[partitions[at[1], node]])
    for place in range(at[0], order.size):
        p = order[place]
        at[0] = place
        value = worst = 0.0
        for node in range(nodes):
            on_nodes[node] = bounds[partitions[p, node]]
            worst = max(worst, on_nodes[node])
        if worst >= best or best <= stop:
            return True
        for position in descending(on_nodes):
            s = partitions[p, position]
            goal = max(stop, bounds[s])
            if values[s] < 0.0 or (goal < values[s] < np.inf and tried[s] < trials):
                if plans >= most_plans:
                    return False
                _loads_of(loads, sets[s], group_size, held)
                if values[s] < 0.0:
                    values[s] = plan(held, node_gpus, max_count, distinct, goal, 0, seed, maps[s])
                    plans += 1
                number = min(most_plans - plans, trials - tried[s])
                if goal < values[s] < np.inf and number > 0:
                    counts = _counts_of(maps[s], held.size)
                    values[s] = search_counts(
                        held, counts, node_gpus, max_count, distinct, goal, number, seed + tried[s], maps[s]
                    )
                    tried[s] += number
                    plans += number
                if goal < values[s] < np.inf and tried[s] < trials:
                    return False
            value = max(value, values[s])
            if value >= best:
                break
        if value < best:
            best = value
            at[1] = p
    return True


@kernel
def _loads_of(loads: np.ndarray, groups: np.ndarray, group_size: int, held: np.ndarray) -> None:
    """Write the loads of the experts of some groups."""
    for i in range(groups.size):
        for j in range(group_size):
            held[i * group_size + j] = loads[groups[i] * group_size + j]
