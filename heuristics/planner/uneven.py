"""Plans for GPUs with unequal slots: Adams' counts, packing by projected load, annealing over map and counts; compiled.

A GPU with few slots must get large replicas and one with many small ones, so a replica goes to the GPU that would end up lightest
if all its other free slots took replicas of mean size: with equal slots that is close to LPT. Where duplicates are avoided counts
are kept to what distinct GPUs can take (Gale and Ryser: the m most replicated experts have at most ``sum_g min(k_g, m)``
replicas). GPUs that stay light have too few slots for replicas of Adams' size: they get whole experts, and the rest is planned
anew without them. What that leaves, exchanges and :func:`eplb_gap.heuristics.kernels.annealing.anneal_on` improve.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import entry, holds, kernel
from eplb_gap.heuristics.kernels.annealing import LEVELS, anneal_on
from eplb_gap.heuristics.kernels.refinement import swap_descent_on
from eplb_gap.heuristics.planner.fast import checked_weight
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

TOLERANCE = 2e-3
"""Relative distance to the layer's bound at which the search stops."""
STEPS = 40_000
"""Moves of each cooling; there is one for every level of the annealing."""
LIGHT = 0.01
"""A GPU so far below the layer's bound, relative, is given whole experts."""
SEED = 0


def plan(weight: Any, deployment: Deployment, tolerance: float = TOLERANCE, steps: int = STEPS) -> Placement:
    """Plan all layers; deterministic.

    Parameters
    ----------
    weight : array_like [layers, experts]
        Loads, finite and non-negative, in any unit; computed with in float64.
    deployment : Deployment
        Global policy; dead GPUs are left out. Duplicates are avoided, whether allowed or not, unless a GPU has more slots than
        there are experts.
    tolerance : float, default 2e-3
        Relative distance to the layer's bound at which the search stops.
    steps : int, default 40000
        Annealing moves at each level; 0 leaves it out.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If the policy is hierarchical, or the weights are not finite, negative or of another shape.
    """
    if deployment.dead_gpus:
        return with_dead(plan(weight, deployment.live, tolerance, steps), deployment)
    if deployment.policy == "hierarchical":
        raise InputError("deployment is hierarchical; unequal slots are planned under the global policy")
    loads = checked_weight(weight, deployment)
    starts = np.cumsum((0, *deployment.slots_by_gpu))
    distinct = max(deployment.slots_by_gpu) <= deployment.num_experts
    phy2log = np.empty((loads.shape[0], deployment.num_slots), dtype=np.int64)
    for row, slots in zip(loads, phy2log, strict=True):
        plan_layer(row, starts, distinct, tolerance, steps, slots)
    return Placement(phy2log, deployment.num_experts)


def plan_layer(loads: np.ndarray, starts: np.ndarray, distinct: bool, tolerance: float, steps: int, slots: np.ndarray) -> float:
    """Plan one layer and return its makespan.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    starts : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    distinct : bool
        Whether no GPU may hold two replicas of an expert; only if none has more slots than there are experts.
    tolerance : float
    steps : int
    slots : ndarray
        int64 [slots]; overwritten with a legal map.
    """
    counts = replicate(loads, starts, distinct)
    pack(loads, counts, starts, distinct, slots)
    bound = lower_bound(loads, counts, starts)
    stop = bound * (1.0 + tolerance)
    value = exchange(loads, slots, starts, distinct, stop)
    if value > stop:
        other = _with_whole_experts(loads, slots, starts, distinct, bound)
        if other is not None and (found := exchange(loads, other, starts, distinct, stop)) < value:
            slots[:], value = other, found
    most = starts.size - 1 if distinct else slots.size - loads.size + 1
    for number, level in enumerate(LEVELS):
        if value <= stop or steps == 0:
            break
        anneal_on(loads, slots, starts, most, distinct, stop, level, steps, SEED + number)
        value = exchange(loads, slots, starts, distinct, stop)
    return value


def _with_whole_experts(
    loads: np.ndarray, slots: np.ndarray, starts: np.ndarray, distinct: bool, bound: float
) -> np.ndarray | None:
    """Return a map whose light GPUs hold whole experts and whose rest is planned without both; None if no GPU is light.

    Parameters
    ----------
    loads, slots, starts, distinct
        As in :func:`plan_layer`; the map tells which GPUs are light.
    bound : float
    """
    totals = np.add.reduceat((loads / np.bincount(slots, minlength=loads.size))[slots], starts[:-1])
    light = totals < bound * (1.0 - LIGHT)
    room = np.diff(starts)
    if not light.any() or light.all() or room[light].sum() >= loads.size:
        return None
    free = np.argsort(-loads, kind="stable").tolist()
    planned = np.empty_like(slots)
    for g in np.flatnonzero(light)[np.argsort(room[light], kind="stable")].tolist():
        held = 0.0
        for at in range(room[g]):
            # The others on this GPU are no smaller than the smallest expert left.
            target = bound - held - (room[g] - at - 1) * loads[free[-1]]
            expert = free.pop(next((i for i, e in enumerate(free) if loads[e] <= target), len(free) - 1))
            planned[starts[g] + at] = expert
            held += loads[expert]
    rest = np.sort(np.array(free))
    own_starts = np.append(0, np.cumsum(room[~light]))
    if distinct and room[~light].max() > rest.size:
        return None
    own = np.empty(int(own_starts[-1]), dtype=np.int64)
    pack(loads[rest], replicate(loads[rest], own_starts, distinct), own_starts, distinct, own)
    planned[np.repeat(~light, room)] = rest[own]
    return planned


def exchange(loads: np.ndarray, slots: np.ndarray, starts: np.ndarray, distinct: bool, stop: float) -> float:
    """Lower the fullest GPU by exchanges until none helps; return the makespan."""
    sizes = (loads / np.bincount(slots, minlength=loads.size))[slots]
    swap_descent_on(slots, sizes, starts, distinct, stop)
    return float(np.add.reduceat(sizes, starts[:-1]).max())


def lower_bound(loads: np.ndarray, counts: np.ndarray, starts: np.ndarray) -> float:
    """Return, in float64, the larger of Adams' largest replica and :func:`~eplb_gap.problem.bounds.bounds.capacity_bound`."""
    most = np.append(0.0, np.cumsum(np.sort(loads)[::-1]))
    smallest = np.cumsum(np.sort(np.diff(starts)))[:-1]
    held = np.append(0, np.minimum(smallest, loads.size))
    left = np.maximum(most[-1] - most[held], 0.0) / np.arange(starts.size - 1, 0, -1)
    return float(max(left.max(), (loads / counts).max()))


@entry
def replicate(loads: np.ndarray, starts: np.ndarray, distinct: bool) -> np.ndarray:
    """Return Adams' counts, int64 [experts]; if ``distinct``, the best among those that GPUs can hold without duplicates."""
    experts, gpus = loads.size, starts.size - 1
    counts = np.ones(experts, dtype=np.int64)
    closed = np.zeros(experts, dtype=np.bool_)
    room = np.zeros(experts + 1, dtype=np.int64)
    for m in range(1, experts + 1):
        for g in range(gpus):
            room[m] += min(starts[g + 1] - starts[g], m)
    for _ in range(starts[gpus] - experts):
        for _ in range(experts):  # every turn but the last closes one
            best = -1
            for e in range(experts):
                if not closed[e] and (best < 0 or loads[e] * counts[best] > loads[best] * counts[e]):
                    best = e
            counts[best] += 1
            if not distinct or _fits(counts, room):
                break
            # A set of experts that is full stays full: whoever meets it is done.
            counts[best] -= 1
            closed[best] = True
    return counts


@kernel
def _fits(counts: np.ndarray, room: np.ndarray) -> bool:
    total = 0
    ordered = np.sort(counts)
    for m in range(1, counts.size + 1):
        total += ordered[counts.size - m]
        if total > room[m]:
            return False
    return True


@entry
def pack(loads: np.ndarray, counts: np.ndarray, starts: np.ndarray, distinct: bool, slots: np.ndarray) -> float:
    """Write a map by projected load to ``slots``, copies of an expert apart where there is room, and return its makespan."""
    gpus = starts.size - 1
    sizes = loads / counts
    filled, totals = np.zeros(gpus, dtype=np.int64), np.zeros(gpus)
    left, rest = slots.size, (sizes * counts).sum()
    for e in np.argsort(-sizes, kind="mergesort"):
        for _ in range(counts[e]):
            mean = max(rest, 0.0) / left
            best = spare = -1
            lowest = lowest_spare = np.inf
            for g in range(gpus):
                free = starts[g + 1] - starts[g] - filled[g]
                if free == 0:
                    continue
                projected = totals[g] + free * mean
                if not holds(slots, starts[g], filled[g], e):
                    if projected < lowest:
                        best, lowest = g, projected
                elif projected < lowest_spare:
                    spare, lowest_spare = g, projected
            if best < 0 and distinct:
                return _deal(sizes, counts, starts, slots)
            g = best if best >= 0 else spare
            slots[starts[g] + filled[g]] = e
            filled[g] += 1
            totals[g] += sizes[e]
            rest -= sizes[e]
            left -= 1
    return float(totals.max())


@kernel
def _deal(sizes: np.ndarray, counts: np.ndarray, starts: np.ndarray, slots: np.ndarray) -> float:
    """Write a map without duplicates: experts by descending count, each on the GPUs with most free slots (Gale)."""
    gpus = starts.size - 1
    filled, totals = np.zeros(gpus, dtype=np.int64), np.zeros(gpus)
    for e in np.argsort(-counts, kind="mergesort"):
        for _ in range(counts[e]):
            best, most = -1, 0
            for g in range(gpus):
                free = starts[g + 1] - starts[g] - filled[g]
                if free > most and not holds(slots, starts[g], filled[g], e):
                    best, most = g, free
            slots[starts[best] + filled[best]] = e
            filled[best] += 1
            totals[best] += sizes[e]
    return float(totals.max())
