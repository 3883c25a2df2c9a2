"""First pass over all layers, compiled: mean and apportionment bounds, and maps within a target of them.

Flat layers get counts, LPT, exchanges and exact two-GPU re-partitions. Hierarchical layers get the bottleneck partition of the
groups by node bounds; partitions are tried in the order of their largest node bound, nodes are solved once each and only while
their partition can still win. Most layers of large deployments are certified here; the engines see the rest.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.heuristics.compiled import descending, kernel
from eplb_gap.heuristics.kernels.greedy import adams_counts
from eplb_gap.heuristics.kernels.local_search import SAFE_TOTAL, plan
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance

MAX_PARTITIONS = 20_000
FINEST_GAP = 1e-6
"""Below this the pass does not search on: exact methods decide there."""
MAX_TRIALS, TRIALS_PER_SECOND = 400, 200
"""Count vectors that a node or a flat layer may try, and how many a second of its time allows at least."""


@dataclass(frozen=True)
class FirstMap:
    """Map of one layer and the bound behind it; the map is None where the pass could not find a legal one."""

    slots: np.ndarray | None
    bound: Bound


def first_pass(loads: np.ndarray, deployment: Deployment, target_gap: float, seconds: float, seed: int) -> FirstMap | None:
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
        What the layer may take, roughly.
    seed : int
    """
    deployment.require_regular("the first pass")
    if int(loads.sum()) >= SAFE_TOTAL:
        return None
    distinct = deployment.duplicates == "forbidden"
    gap, trials = max(target_gap, FINEST_GAP), min(MAX_TRIALS, int(seconds * TRIALS_PER_SECOND))
    row, slots = np.array(loads, np.int64), np.empty(deployment.num_slots, np.int64)
    if deployment.policy == "global":
        strong = _strong_bound(row, deployment)
        numerator, denominator, value = _flat(
            row, deployment.num_gpus, _max_count(deployment, 1), distinct, float(strong.value), gap, trials, seed, slots
        )
        plain = Fraction(int(numerator), int(denominator))  # interpreted, the kernel returns numpy integers
        kind = "mean" if plain == Fraction(int(row.sum()), deployment.num_gpus) else "apportionment"
        bound = max(Bound(plain, kind), strong, key=lambda each: each.value)
        return FirstMap(slots if value < np.inf else None, bound)
    sets = _sets(deployment.num_groups, deployment.num_nodes)
    if sets is None:
        return None
    numerator, denominator, value = _hierarchical(
        row, *sets, deployment.experts_per_group, deployment.slots_per_node, deployment.gpus_per_node,
        _max_count(deployment, deployment.num_nodes), distinct, gap, trials, seed, slots,
    )  # fmt: skip
    bound = Bound(Fraction(int(numerator), int(denominator)), "hierarchical", {"nodes": []})
    return FirstMap(slots if value < np.inf else None, bound)


def load_kernels(deployment: Deployment) -> None:
    """Have the pass's kernels ready before a clock starts, unless they may be interpreted."""
    (_flat if deployment.policy == "global" else _hierarchical).load()


def _strong_bound(loads: np.ndarray, deployment: Deployment) -> Bound:
    """Return a bound of a flat layer that is worth its time here: with one replica each, bounds for given counts hold."""
    if deployment.num_slots == deployment.num_experts:
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
) -> tuple[int, int, float]:  # fmt: skip
    """Write a map to ``slots``; return the bound as numerator and denominator, and the makespan in tokens.

    No map has a makespan below ``known``: there the search ends if that is above the bound.
    """
    numerator, denominator = _flat_bound(loads, slots.size, num_gpus, max_count)
    stop = max(numerator / denominator, known) * (1.0 + target_gap)
    return numerator, denominator, plan(loads, num_gpus, max_count, distinct, stop, trials, seed, slots)


@tiered("(i8[::1], i8[:, ::1], i8[:, ::1], i8, i8, i8, i8, b1, f8, i8, i8, i8[::1])")
def _hierarchical(
    loads: np.ndarray, sets: np.ndarray, partitions: np.ndarray, group_size: int, node_slots: int, node_gpus: int,
    max_count: int, distinct: bool, target_gap: float, trials: int, seed: int, slots: np.ndarray,
) -> tuple[int, int, float]:  # fmt: skip
    """Write the best map found to ``slots``; return the bound as numerator and denominator, and the makespan in tokens."""
    num_sets, nodes = sets.shape[0], partitions.shape[1]
    numerators, denominators, bounds = np.empty(num_sets, np.int64), np.empty(num_sets, np.int64), np.empty(num_sets)
    values, held = np.empty(num_sets), np.empty(sets.shape[1] * group_size, np.int64)
    for s in range(num_sets):
        _loads_of(loads, sets[s], group_size, held)
        numerators[s], denominators[s] = _flat_bound(held, node_slots, node_gpus, max_count)
        bounds[s], values[s] = numerators[s] / denominators[s], -1.0
    goodness, on_nodes = np.empty(partitions.shape[0]), np.empty(nodes)  # less the largest bound of a partition's nodes
    for p in range(partitions.shape[0]):
        worst = 0.0
        for node in range(nodes):
            worst = max(worst, bounds[partitions[p, node]])
        goodness[p] = -worst
    order = descending(goodness)
    decisive = partitions[order[0], 0]
    for node in range(nodes):
        if bounds[partitions[order[0], node]] > bounds[decisive]:
            decisive = partitions[order[0], node]
    stop = bounds[decisive] * (1.0 + target_gap)
    maps = np.empty((num_sets, node_slots), dtype=np.int64)
    best, chosen = np.inf, -1
    for p in order:
        if -goodness[p] >= best or best <= stop:
            break
        for node in range(nodes):
            on_nodes[node] = bounds[partitions[p, node]]
        value = 0.0
        for position in descending(on_nodes):
            s = partitions[p, position]
            if values[s] < 0.0:
                _loads_of(loads, sets[s], group_size, held)
                values[s] = plan(held, node_gpus, max_count, distinct, max(stop, bounds[s]), trials, seed, maps[s])
            value = max(value, values[s])
            if value >= best:
                break
        if value < best:
            best, chosen = value, p
    if chosen >= 0:
        for node in range(nodes):
            s = partitions[chosen, node]
            for i in range(node_slots):
                e = maps[s, i]
                slots[node * node_slots + i] = sets[s, e // group_size] * group_size + e % group_size
    return numerators[decisive], denominators[decisive], best


@kernel
def _loads_of(loads: np.ndarray, groups: np.ndarray, group_size: int, held: np.ndarray) -> None:
    """Write the loads of the experts of some groups."""
    for i in range(groups.size):
        for j in range(group_size):
            held[i * group_size + j] = loads[groups[i] * group_size + j]
