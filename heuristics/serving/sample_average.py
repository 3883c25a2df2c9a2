"""Sample-average placement: one map for all past windows, with the least mean of the windows' makespans.

Planning on the sum of a history balances loads that no window ever had: experts that are hot in different windows look alike
there and may share a GPU. The mean over windows of ``max_g load_t(g)`` keeps them apart. Hierarchical or global: groups go to
the nodes with the least sum of the windows' largest node loads, counts, LPT on load vectors and exchanges follow
(:mod:`eplb_gap.heuristics.serving.window_packing`, :mod:`eplb_gap.heuristics.serving.window_descent`).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import below, copy, holds, kernel, random, seed_random
from eplb_gap.heuristics.planner.replicate_lpt import most_replicas
from eplb_gap.heuristics.serving.window_descent import apply_exchange, descend, new_scratch, replace
from eplb_gap.heuristics.serving.window_packing import WindowPacking, fold_groups, rank_partitions, refresh, start
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.bounds.sample_average import MAX_PARTITIONS
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.loads import as_numbers
from eplb_gap.problem.placement import Placement

WORK = 300_000
"""Work of the default search: trials times slots squared times windows."""
MAX_TRIALS = 400
PATIENT = 40
"""Trials of a search that may take its time, some 30 ms for ten windows of 256 experts."""
MAX_KICKS = 3
SEED = 0


def plan(history: Any, deployment: Deployment, *, trials: int | None = None) -> Placement:
    """Plan all layers on the windows of a history.

    Parameters
    ----------
    history : array_like [windows, layers, experts]
        Loads, finite and non-negative, in any one unit; a window counts as much as its tokens. Computed with in float64.
    deployment : Deployment
        With equally many slots on all live GPUs; dead ones are left out. Duplicates are avoided whether allowed or not, unless a
        GPU has more slots than its node has experts.
    trials : int, optional
        Perturbations of every layer that are descended from after the first descent; -1 makes the start only. By default as
        many as :data:`WORK` allows.

    Returns
    -------
    Placement
        The same for the same history on every run.

    Raises
    ------
    InputError
        If the history is not finite, negative or of another shape, trials is below -1 or the slots are unequal.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap import Deployment, sample_average
    >>> history = np.array([[[9, 1, 5, 5]], [[1, 9, 5, 5]]])  # two windows: experts 0 and 1 take turns
    >>> sorted(map(sorted, sample_average(history, Deployment(4, 4, 2)).by_gpu(2)[0].tolist()))
    [[0, 1], [2, 3]]
    """
    require_kind("deployment", deployment, Deployment)
    if deployment.dead_gpus:
        return with_dead(plan(history, deployment.live, trials=trials), deployment)
    deployment.require_regular("the sample-average placement")
    loads = _checked(history, deployment)
    shape = deployment if deployment.policy == "hierarchical" else deployment.as_global()
    if trials is None:
        trials = _usual_trials(shape, loads.shape[0])
    if not isinstance(trials, int) or trials < -1:
        raise InputError(f"trials is {trials!r}; an integer of at least -1 is needed")
    homes = _homes(shape.num_groups, shape.num_nodes)
    slots = np.empty((loads.shape[1], shape.num_slots), np.int64)
    _plan_layers(loads, shape.num_groups, shape.num_nodes, shape.num_gpus, homes, trials, slots)
    return Placement(slots, shape.num_experts)


def _usual_trials(deployment: Deployment, windows: int) -> int:
    """Return how many trials the default search makes."""
    return min(MAX_TRIALS, WORK // (deployment.num_slots**2 * windows))


def patient_plan(history: Any, deployment: Deployment) -> Placement:
    """Plan as :func:`plan` with at least :data:`PATIENT` trials: for steps that are known, not for a server that waits.

    Parameters
    ----------
    history, deployment
        As of :func:`plan`.

    Raises
    ------
    InputError
        As :func:`plan`.
    """
    return plan(history, deployment, trials=max(PATIENT, _usual_trials(deployment.live, len(history))))


def prepare() -> None:
    """Have the kernels compiled in another process if they are not: for callers who will plan on several histories."""
    _plan_layers.begin()


def _checked(history: Any, deployment: Deployment) -> np.ndarray:
    """Return the history as float64, every layer scaled by its largest load."""
    given = as_numbers(history, "history")
    if given.ndim != 3 or not given.size:
        raise InputError(f"history is {given.dtype} of shape {given.shape}; real numbers [windows, layers, experts] are needed")
    if given.shape[2] != deployment.num_experts:
        raise InputError(f"history has {given.shape[2]} experts; the deployment has {deployment.num_experts}")
    loads = given.astype(np.float64, order="C")
    if not (loads.min() >= 0.0 and math.isfinite(loads.max())):
        bad = np.argwhere(~(np.isfinite(loads) & (loads >= 0.0)))[0].tolist()
        raise InputError(f"history{bad} is {loads[tuple(bad)]}; loads must be finite and non-negative")
    peaks = loads.max(axis=(0, 2))
    return np.asarray(np.ldexp(loads, -np.frexp(peaks)[1][:, None]))


@cache
def _homes(groups: int, nodes: int) -> np.ndarray:
    """Return the node of every group in all partitions into equal sets, int64 [partitions, groups]; no rows if too many."""
    if num_partitions(groups, nodes) > MAX_PARTITIONS:
        return np.empty((0, groups), np.int64)
    homes = []
    for sets in partitions(tuple(range(groups)), groups // nodes):
        home = np.empty(groups, np.int64)
        for node, members in enumerate(sets):
            home[list(members)] = node
        homes.append(home)
    return np.array(homes)


@kernel
def _kick(packing: WindowPacking, nodes: int, most: int) -> None:
    """Hand a random replica to another expert of its node, most often one on a fullest GPU, or exchange random pairs."""
    _, counts, items, loads = packing
    gpus = loads.shape[0]
    per_node, k = gpus // nodes, items.size // gpus
    distinct = most <= per_node
    if random() < 0.6:
        full, t = 0, below(loads.shape[1])
        for gpu in range(1, gpus):
            if loads[gpu, t] > loads[full, t]:
                full = gpu
        if random() < 0.3:
            full = below(gpus)
        expert = items[full * k + below(k)]
        slot = full // per_node * per_node * k + below(per_node * k)
        if (
            counts[expert] < most
            and items[slot] != expert
            and counts[items[slot]] > 1
            and not (distinct and holds(items, slot // k * k, k, expert))
        ):
            replace(packing, slot, expert)
            return
    for _ in range(1 + below(3)):
        one = below(items.size)
        other = one // (per_node * k) * per_node * k + below(per_node * k)
        if one // k == other // k:
            continue
        if distinct and (holds(items, other // k * k, k, items[one]) or holds(items, one // k * k, k, items[other])):
            continue
        apply_exchange(packing, one, other)


@tiered("(f8[:, :, ::1], i8, i8, i8, i8[:, ::1], i8, i8[:, ::1])")
def _plan_layers(
    history: np.ndarray, groups: int, nodes: int, gpus: int, homes: np.ndarray, trials: int, phy2log: np.ndarray
) -> None:
    """Plan layers one after the other.

    Parameters
    ----------
    history : ndarray
        float64 [windows, layers, experts], non-negative.
    groups, nodes, gpus : int
    homes : ndarray
        Node of every group, int64 [partitions, groups]; without rows the groups are placed by LPT and exchanges.
    trials : int
        -1 for the start alone.
    phy2log : ndarray
        int64 [layers, slots]; overwritten.
    """
    windows, layers, experts = history.shape
    slots = phy2log.shape[1]
    m, s, g = experts // nodes, slots // nodes, gpus // nodes
    most = most_replicas(m, s, g)
    home, counts, items = np.zeros(groups, np.int64), np.empty(experts, np.int64), np.empty(slots, np.int64)
    one = int(np.int64(1))  # a literal would be compiled for on its own
    scratch, fold_scratch = new_scratch(experts, slots, gpus, windows), new_scratch(groups, groups, nodes, windows)
    for layer in range(layers):
        seed_random(SEED)
        weights = np.empty((experts, windows))
        for e in range(experts):
            for t in range(windows):
                weights[e, t] = history[t, layer, e]
        packing = WindowPacking(weights, np.empty(experts, np.int64), phy2log[layer], np.empty((gpus, windows)))
        if homes.shape[0] > 0:
            order = rank_partitions(weights, nodes, homes)
            copy(homes[order[0]], home)
        else:
            order = np.zeros(1, np.int64)
            folded = fold_groups(weights, groups, nodes)
            descend(folded, one, one, fold_scratch)
            for slot in range(groups):
                home[folded.items[slot]] = slot // (groups // nodes)
        start(packing, home, nodes, most)
        if trials < 0:
            continue
        value = descend(packing, nodes, most, scratch)
        copy(packing.counts, counts)
        copy(packing.items, items)
        # The best partition by node loads need not be the best by GPU loads.
        for row in order[1 : 1 + trials // 4]:
            start(packing, homes[row], nodes, most)
            found = descend(packing, nodes, most, scratch)
            if found < value:
                value = found
                copy(packing.counts, counts)
                copy(packing.items, items)
        copy(counts, packing.counts)
        copy(items, packing.items)
        refresh(packing)
        for _ in range(trials):
            for _ in range(1 + below(MAX_KICKS)):
                _kick(packing, nodes, most)
            refresh(packing)
            found = descend(packing, nodes, most, scratch)
            if found <= value:
                value = found
                copy(packing.counts, counts)
                copy(packing.items, items)
            else:
                copy(counts, packing.counts)
                copy(items, packing.items)
                refresh(packing)
