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
from numba import njit

from eplb_gap.heuristics.kernels.greedy import adams_counts
from eplb_gap.heuristics.kernels.local_search import SAFE_TOTAL, plan
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
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
    target_gap : float
        The search stops within it.
    seconds : float
        What the layer may take, roughly.
    seed : int
    """
    if int(loads.sum()) >= SAFE_TOTAL:
        return None
    distinct = deployment.duplicates == "forbidden"
    gap, trials = max(target_gap, FINEST_GAP), min(MAX_TRIALS, int(seconds * TRIALS_PER_SECOND))
    slots = np.empty(deployment.num_slots, dtype=np.int64)
    if deployment.policy == "global":
        bound = _global_bound(loads, deployment)
        stop = float(bound.value) * (1.0 + gap)
        value = plan(loads, deployment.num_gpus, _max_count(deployment, 1), distinct, stop, trials, seed, slots)
        return FirstMap(slots if value < np.inf else None, bound)
    sets = _sets(deployment.num_groups, deployment.num_nodes)
    if sets is None:
        return None
    numerator, denominator, value = _hierarchical(
        loads, *sets, deployment.experts_per_group, deployment.slots_per_node, deployment.gpus_per_node,
        _max_count(deployment, deployment.num_nodes), distinct, gap, trials, seed, slots,
    )  # fmt: skip
    bound = Bound(Fraction(numerator, denominator), "hierarchical", {"nodes": []})
    return FirstMap(slots if value < np.inf else None, bound)


def _global_bound(loads: np.ndarray, deployment: Deployment) -> Bound:
    if deployment.num_slots == deployment.num_experts:  # one replica each: bounds for given counts hold, and they are far better
        return best_joint_bound(Instance.of_layer(loads, deployment))
    value = Fraction(*_flat_bound(loads, deployment.num_slots, deployment.num_gpus, _max_count(deployment, 1)))
    return Bound(value, "mean" if value == Fraction(int(loads.sum()), deployment.num_gpus) else "apportionment")


@cache
def compile_kernels() -> None:
    """Run the pass once on two tiny layers: the first call of an installation compiles, later ones load from the disk."""
    loads = np.array([9, 4, 2, 1])
    for deployment in (Deployment(4, 8, 4), Deployment(4, 8, 4, num_nodes=2, num_groups=2)):
        first_pass(loads, deployment, 0.0, 0.02, 0)


def _max_count(deployment: Deployment, nodes: int) -> int:
    spare = (deployment.num_slots - deployment.num_experts) // nodes + 1
    return spare if deployment.duplicates == "allowed" else min(spare, deployment.num_gpus // nodes)


@cache
def _sets(groups: int, nodes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return all sets of groups a node can host, int64 [sets, groups per node], and all partitions, int64 [partitions, nodes]."""
    size, count = groups // nodes, 1
    for left in range(groups, 0, -size):
        count *= _choose(left - 1, size - 1)
    if count > MAX_PARTITIONS:
        return None
    sets = list(itertools.combinations(range(groups), size))
    index = {chosen: number for number, chosen in enumerate(sets)}

    def extend(free: tuple[int, ...]) -> list[list[int]]:
        if not free:
            return [[]]
        found = []
        for others in itertools.combinations(free[1:], size - 1):
            rest = tuple(g for g in free[1:] if g not in others)
            found += [[index[(free[0], *others)], *tail] for tail in extend(rest)]
        return found

    return np.array(sets, dtype=np.int64), np.array(extend(tuple(range(groups))), dtype=np.int64)


def _choose(n: int, k: int) -> int:
    value = 1
    for i in range(k):
        value = value * (n - i) // (i + 1)
    return value


@njit(cache=True)
def _flat_bound(loads: np.ndarray, num_slots: int, num_gpus: int, max_count: int) -> tuple[int, int]:
    """Return the larger of mean and apportionment bound as numerator and denominator."""
    total = loads.sum()
    if loads.max() * num_gpus <= total:  # no replica can exceed the mean
        return total, num_gpus
    counts = adams_counts(loads, num_slots, max_count)
    worst = 0
    for e in range(loads.size):
        if loads[e] * counts[worst] > loads[worst] * counts[e]:
            worst = e
    if loads[worst] * num_gpus > total * counts[worst]:
        return loads[worst], counts[worst]
    return total, num_gpus


@njit(cache=True)
def _hierarchical(
    loads: np.ndarray, sets: np.ndarray, partitions: np.ndarray, group_size: int, node_slots: int, node_gpus: int,
    max_count: int, distinct: bool, target_gap: float, trials: int, seed: int, slots: np.ndarray,
) -> tuple[int, int, float]:  # fmt: skip
    """Write the best map found to ``slots``; return the bound as numerator and denominator, and the makespan in tokens."""
    num_sets, per_node = sets.shape
    experts = np.empty((num_sets, per_node * group_size), dtype=np.int64)
    numerators, denominators, bounds = np.empty(num_sets, np.int64), np.empty(num_sets, np.int64), np.empty(num_sets)
    for s in range(num_sets):
        for i in range(per_node):
            for j in range(group_size):
                experts[s, i * group_size + j] = sets[s, i] * group_size + j
        numerators[s], denominators[s] = _flat_bound(loads[experts[s]], node_slots, node_gpus, max_count)
        bounds[s] = numerators[s] / denominators[s]
    worst = np.empty(partitions.shape[0])
    for p in range(partitions.shape[0]):
        worst[p] = bounds[partitions[p]].max()
    order = np.argsort(worst, kind="mergesort")
    first = partitions[order[0]]
    decisive = first[np.argmax(bounds[first])]
    stop = bounds[decisive] * (1.0 + target_gap)
    values = np.full(num_sets, -1.0)
    maps = np.empty((num_sets, node_slots), dtype=np.int64)
    best, chosen = np.inf, -1
    for p in order:
        if worst[p] >= best or best <= stop:
            break
        nodes = partitions[p]
        value = 0.0
        for position in np.argsort(-bounds[nodes], kind="mergesort"):
            s = nodes[position]
            if values[s] < 0.0:
                values[s] = plan(loads[experts[s]], node_gpus, max_count, distinct, max(stop, bounds[s]), trials, seed, maps[s])
            value = max(value, values[s])
            if value >= best:
                break
        if value < best:
            best, chosen = value, p
    if chosen >= 0:
        for node in range(partitions.shape[1]):
            s = partitions[chosen, node]
            for i in range(node_slots):
                slots[node * node_slots + i] = experts[s, maps[s, i]]
    return numerators[decisive], denominators[decisive], best
