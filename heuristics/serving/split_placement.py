"""Placements for systems that may split an expert's tokens unevenly: the long chain.

With free shares, load flows between GPUs that hold a common expert. What a map can balance, on the loads it was planned for and
on those it will meet, therefore depends on how its replicated experts connect the GPUs. The cheapest good net is a ring: every
GPU shares one hot expert with the next, so that load can pass on all round (the "long chain" of process flexibility, Jordan and
Graves, 1995). Spare slots go to the hottest experts, one each before anyone gets a second, hot and less hot ones alternate along
the ring, and LPT deals the rest.

Finding a map whose best split is smallest is bin packing with splittable items and at most k parts per bin, which is hard for
every k >= 2 (Chung, Graham, Mao and Varghese, 2006; Epstein and van Stee, 2012). Where few slots make the ring miss the bound
(the mean, or Adams' largest replica: no replica takes more than the makespan, see :mod:`eplb_gap.problem.bounds.split_bounds`),
two more maps are tried, that of :mod:`eplb_gap.heuristics.planner.fast` and a sliding window that fills GPU after GPU and cuts
the last expert, and the best is improved by exchanges and replaced replicas around the GPUs that bound it. With one slot per GPU
nothing is gained: Adams' counts with even shares are optimal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import below, holds, kernel, random, rest, seed_random
from eplb_gap.heuristics.config import Effort
from eplb_gap.heuristics.planner.fast import plan as plan_fast
from eplb_gap.heuristics.planner.replicate_lpt import most_replicas, new_scratch, replicate
from eplb_gap.heuristics.serving.token_split import Flow, Search, new_flow, new_search, split_flow
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.placement import Placement

TOLERANCE = 1e-6
"""Relative distance to the layer's bound at which a map is good enough."""
TRIALS = 2000
"""Moves that the search tries on a node that misses the bound; some 2 - 20 ms."""
HOT_SHARE = 0.9
"""Part of the mean GPU load that one replica should not exceed: some of the GPU is left for its neighbour in the ring."""
SWEEPS = 2
"""Sweeps of a split of which only the makespan is wanted."""
BISECTION_STEPS = 24
ROUNDING = 1e-12
SEED = 0


def plan(weight: Any, deployment: Deployment, *, effort: Effort = "fast", trials: int = TRIALS) -> Placement:
    """Plan all layers for the best split; :func:`eplb_gap.heuristics.serving.token_split.optimal_split` then gives the shares.

    Parameters
    ----------
    weight : array_like [layers, experts]
        Loads, finite and non-negative, in any unit; computed with in float64.
    deployment : Deployment
        With equally many slots on all live GPUs; dead ones are left out. Duplicates are avoided whether allowed or not. Groups
        live on the nodes that :mod:`eplb_gap.heuristics.planner.fast` gives them.
    effort : {"lpt", "fast", "split", "counts"}, default "fast"
        Of the map of :mod:`eplb_gap.heuristics.planner.fast` that is tried where the ring misses the layer's bound.
    trials : int
        Most moves tried on each node that misses the layer's bound.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If the weights are not finite, negative or of another shape, ``trials`` is negative or the slots are unequal.

    Examples
    --------
    >>> from eplb_gap import Deployment, optimal_split, plan_for_split
    >>> from eplb_gap.problem.validation import verify_split
    >>> loads, deployment = [[10, 6, 2]], Deployment(3, 4, 2)
    >>> placement = plan_for_split(loads, deployment)
    >>> reached, bound = verify_split(placement, optimal_split(placement, loads, deployment), loads, deployment)
    >>> float(reached[0])  # half of all load
    9.0
    """
    require_kind("deployment", deployment, Deployment)
    if deployment.dead_gpus:
        return with_dead(plan(weight, deployment.live, effort=effort, trials=trials), deployment)
    deployment.require_regular("the placement for token splits")
    if not isinstance(trials, int) or trials < 0:
        raise InputError(f"trials is {trials!r}; a non-negative integer is needed")
    given = plan_fast(weight, deployment, effort=effort).phy2log
    loads = np.ascontiguousarray(weight, dtype=np.float64)
    peaks = loads.max(axis=1, keepdims=True)
    nodes = deployment.num_nodes if deployment.policy == "hierarchical" else 1
    relative, slots = np.divide(loads, peaks, out=np.zeros(loads.shape), where=peaks > 0), np.empty(given.shape, np.int64)
    _plan_layers(relative, given, nodes, deployment.num_gpus, trials, slots)
    return Placement(slots, deployment.num_experts)


@tiered("(f8[:, ::1], i8[:, ::1], i8, i8, i8, i8[:, ::1])")
def _plan_layers(weight: np.ndarray, given: np.ndarray, nodes: int, gpus: int, trials: int, phy2log: np.ndarray) -> None:
    """Plan layers one after the other.

    Parameters
    ----------
    weight : ndarray
        float64 [layers, experts], non-negative.
    given : ndarray
        int64 [layers, slots]: a legal map, whose experts stay on their nodes.
    nodes, gpus, trials : int
    phy2log : ndarray
        int64 [layers, slots]; overwritten.
    """
    layers, experts = weight.shape
    m, s, g = experts // nodes, phy2log.shape[1] // nodes, gpus // nodes
    most = most_replicas(m, s, g)
    scratch, flow, search = new_scratch(m, g), new_flow(m, np.arange(g + 1) * (s // g)), new_search(m, s, g)
    critical = np.empty(g, np.bool_)
    logical, loads, adams = np.empty((nodes, m), np.int64), np.empty((nodes, m)), np.empty((nodes, m), np.int64)
    best, other, rank = np.empty(s, np.int64), np.empty(s, np.int64), np.empty(experts, np.int64)
    for layer in range(layers):
        rest()
        bound = 0.0
        for node in range(nodes):
            held = np.unique(given[layer, node * s : node * s + s])
            logical[node] = held[np.argsort(-weight[layer][held], kind="mergesort")]
            total = 0.0
            for r in range(m):
                loads[node, r] = weight[layer, logical[node, r]]
                total += loads[node, r]
            replicate(loads[node], adams[node], s, most, scratch)
            bound = max(bound, total / g)
            for r in range(m):
                bound = max(bound, loads[node, r] / adams[node, r])
        stop = bound * (1.0 + TOLERANCE)
        for node in range(nodes):
            value = np.inf
            if _chain(loads[node], adams[node], g, best):
                value = split_flow(best, loads[node], SWEEPS, flow, search, critical)
            if value > stop:
                for r in range(m):
                    rank[logical[node, r]] = r
                for slot in range(s):
                    other[slot] = rank[given[layer, node * s + slot]]
                value = _better(other, best, value, loads[node], flow, search, critical)
            if value > stop and _fill_bisected(loads[node], g, bound, value, other):
                value = _better(other, best, value, loads[node], flow, search, critical)
            if value > stop:
                _descend(best, loads[node], stop, trials, flow, search, critical)
            for slot in range(s):
                phy2log[layer, node * s + slot] = logical[node, best[slot]]


@kernel
def _better(
    other: np.ndarray, best: np.ndarray, value: float, loads: np.ndarray, flow: Flow, search: Search, critical: np.ndarray
) -> float:
    """Copy a map over the best one if its split is better; return the smaller makespan."""
    found = split_flow(other, loads, SWEEPS, flow, search, critical)
    if found < value:
        best[:] = other
        return found
    return value


@kernel
def _chain(loads: np.ndarray, adams: np.ndarray, gpus: int, slots: np.ndarray) -> bool:
    """Write the ring with LPT for the rest; False if it leaves no legal map without duplicates.

    ``loads`` is float64 [experts] in descending order, ``adams`` Adams' counts, ``slots`` int64 [slots], GPU-major.
    """
    k = slots.size // gpus
    counts = _ring_counts(loads, adams, gpus, slots.size)
    totals, filled = np.zeros(gpus), np.zeros(gpus, np.int64)
    hot = np.flatnonzero(counts > 1)
    at = 0
    for turn in range(hot.size):
        r = hot[turn // 2] if turn % 2 == 0 else hot[hot.size - 1 - turn // 2]
        placed, last = 0, at
        for step in range(gpus):
            g = (at + step) % gpus
            if placed < counts[r] and filled[g] < k:
                slots[g * k + filled[g]] = r
                filled[g] += 1
                totals[g] += loads[r] / counts[r]
                placed, last = placed + 1, g
        if placed < counts[r]:
            return False
        at = last
    for r in range(loads.size):
        if counts[r] == 1:
            lightest = -1
            for g in range(gpus):
                if filled[g] < k and (lightest < 0 or totals[g] < totals[lightest]):
                    lightest = g
            slots[lightest * k + filled[lightest]] = r
            filled[lightest] += 1
            totals[lightest] += loads[r]
    return True


@kernel
def _ring_counts(loads: np.ndarray, adams: np.ndarray, gpus: int, slots: int) -> np.ndarray:
    """Return what hot experts need, then one more for the hottest of those with fewest; Adams' counts if that is too much."""
    counts = np.ones(loads.size, np.int64)
    total = 0.0
    for load in loads:
        total += load
    limit = HOT_SHARE * total / gpus
    spare = slots - loads.size
    for r in range(loads.size):
        if loads[r] > limit:
            counts[r] = min(gpus, int(np.ceil(loads[r] / limit)))
            spare -= counts[r] - 1
    if spare < 0 or loads.size * gpus < slots:
        counts[:] = adams
        return counts
    fewest = 1
    while spare > 0:
        for r in range(loads.size):
            if counts[r] == fewest and spare > 0:
                counts[r] += 1
                spare -= 1
        fewest += 1
    return counts


@kernel
def _fill_bisected(loads: np.ndarray, gpus: int, low: float, high: float, slots: np.ndarray) -> bool:
    """Write the map of the smallest level between two at which the sliding window places everything; False if there is none."""
    high = min(high, 4.0 * low)
    found = False
    for step in range(BISECTION_STEPS):
        level = low * (1.0 + ROUNDING) if step == 0 else 0.5 * (low + high)
        if _fill(loads, gpus, level, slots):
            found, high = True, level
            if step == 0:
                break
        else:
            low = level
    return found and _fill(loads, gpus, high, slots) and _top_up(loads, gpus, slots)


@kernel
def _fill(loads: np.ndarray, gpus: int, level: float, slots: np.ndarray) -> bool:
    """Fill GPUs up to a level: the k experts of the first window, by ascending load, that reach it; the last is cut and put back.

    When every remaining slot is needed for an expert of its own nothing may be cut: the last window below the level is taken.
    Slots left open are -1. Returns whether all load was placed.
    """
    k, n = slots.size // gpus, loads.size
    left, rank = loads[::-1].copy(), np.arange(n)[::-1].copy()
    slots[:] = -1
    for g in range(gpus):
        width = min(k, n)
        may_cut = (gpus - g) * k > n
        begin, sums = 0, 0.0
        for i in range(width):
            sums += left[i]
        while begin + width < n:
            following = sums - left[begin] + left[begin + width]
            if (sums >= level) if may_cut else (following > level):
                break
            sums, begin = following, begin + 1
        room, taken = level * (1.0 + ROUNDING), 0
        while taken < width and left[begin + taken] <= room:
            room -= left[begin + taken]
            slots[g * k + taken] = rank[begin + taken]
            taken += 1
        rest, cut = 0.0, -1
        if taken < width and room > level * 1e-9:
            cut, rest = rank[begin + taken], left[begin + taken] - room
            slots[g * k + taken] = cut
        whole = taken + (cut >= 0)
        for i in range(begin + whole, n):
            left[i - whole], rank[i - whole] = left[i], rank[i]
        n -= whole
        if cut >= 0:
            at = n
            while at > 0 and left[at - 1] > rest:
                left[at], rank[at] = left[at - 1], rank[at - 1]
                at -= 1
            left[at], rank[at] = rest, cut
            n += 1
    return n == 0


@kernel
def _top_up(loads: np.ndarray, gpus: int, slots: np.ndarray) -> bool:
    """Give every open slot the expert with the largest load per replica that its GPU does not hold; False if there is none."""
    k = slots.size // gpus
    counts = np.zeros(loads.size, np.int64)
    for r in slots:
        if r >= 0:
            counts[r] += 1
    for slot in range(slots.size):
        if slots[slot] >= 0:
            continue
        start, chosen = slot // k * k, -1
        for r in range(loads.size):
            if not holds(slots, start, k, r) and (chosen < 0 or loads[r] * counts[chosen] > loads[chosen] * counts[r]):
                chosen = r
        if chosen < 0:
            return False
        slots[slot] = chosen
        counts[chosen] += 1
    return True


@kernel
def _descend(
    slots: np.ndarray, loads: np.ndarray, stop: float, trials: int, flow: Flow, search: Search, critical: np.ndarray
) -> None:
    """Exchange replicas across the border of the critical GPUs, or replicate their experts outside; keep what is not worse."""
    seed_random(SEED)
    gpus = critical.size
    k = slots.size // gpus
    counts = np.zeros(loads.size, np.int64)
    for r in slots:
        counts[r] += 1
    value = split_flow(slots, loads, SWEEPS, flow, search, critical)
    border = critical.copy()
    for _ in range(trials):
        if value <= stop:
            return
        own, far = below(slots.size), below(slots.size)
        if not border[own // k] or border[far // k]:
            continue
        give, take = slots[own], slots[far]
        if holds(slots, far // k * k, k, give):
            continue
        exchange = counts[take] == 1 or random() < 0.5
        if exchange and holds(slots, own // k * k, k, take):
            continue
        slots[far] = give
        if exchange:
            slots[own] = take
        found = split_flow(slots, loads, SWEEPS, flow, search, critical)
        if found <= value:
            value = found
            border[:] = critical
            if not exchange:
                counts[give] += 1
                counts[take] -= 1
        else:
            slots[far], slots[own] = take, give
