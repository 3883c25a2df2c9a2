"""The project's own planner: Adams and LPT, then exchanges, exact re-partitions and other counts where they are needed.

Per layer, hierarchical or global: groups are folded onto nodes, every node gets Adams' counts and LPT without duplicates, and
only nodes above the layer's bound, the largest of the nodes' own bounds, are searched. How far, is the *effort*:

========== ==================================================================================================================
effort     what is done
========== ==================================================================================================================
"lpt"      Adams' counts and LPT
"fast"     exchanges everywhere; the counts search and the exact two-GPU split only on layers still above ``tolerance``
"split"    as "fast", then exchanges and the two-GPU split until ``tolerance``
"counts"   as "fast", then exchanges, split and a longer counts search until ``tolerance``
========== ==================================================================================================================

No GPU gets two replicas of an expert unless it has more slots than its node has experts. Maps are deterministic, the same for
any number of threads, unless a time budget cuts the search.
"""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np

from eplb_gap.heuristics.compiled import kernel, rest
from eplb_gap.heuristics.config import Effort
from eplb_gap.heuristics.kernels.two_gpu_split import MAX_SLOTS_PER_GPU, split_descent
from eplb_gap.heuristics.planner import layer_threads
from eplb_gap.heuristics.planner.pair_swap import (
    PairScratch,
    deal,
    descend,
    new_pair_scratch,
    order_gpus,
    pair_passes,
    remove_duplicates,
)
from eplb_gap.heuristics.planner.replicate_lpt import (
    Flat,
    Scratch,
    arrange,
    most_replicas,
    new_flat,
    new_scratch,
    replicate,
    sort_descending,
)
from eplb_gap.heuristics.planner.theta_counts import search_thetas
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_numbers
from eplb_gap.problem.placement import Placement

TOLERANCES: dict[str, float] = {"lpt": 0.0, "fast": 2e-3, "split": 4e-5, "counts": 1e-4}
"""Default distance to the layer's bound, relative, by effort."""
EXCHANGE_STOP = 4e-4
"""Distance to the bound at which the exchanges of the first round stop: finer costs more time than the layers are worth."""
SHORT_WORK, LONG_WORK = 6e4, 3.6e5
"""Trials of the counts search times slots of the node: some 4 and 25 ms."""
LAYERS_PER_CALL = 4
"""Layers per compiled call where one may take 30 ms: Ctrl-C is heard in between."""
EXTREME = 2.0**900
"""Layers with a largest load beyond this, or below its inverse, are scaled by a power of two first."""
SEED = 0


def plan(
    weight: Any, deployment: Deployment, *, effort: Effort = "fast", tolerance: float | None = None, threads: int | None = None
) -> Placement:
    """Plan all layers.

    Parameters
    ----------
    weight : array_like [layers, experts]
        Loads, finite and non-negative, in any unit; computed with in float64.
    deployment : Deployment
        With equally many slots on all live GPUs (:mod:`eplb_gap.heuristics.planner.uneven` plans on unequal ones); dead ones are
        left out. Duplicates are avoided whether allowed or not.
    effort : {"lpt", "fast", "split", "counts"}, default "fast"
        See :mod:`eplb_gap.heuristics.planner.fast`.
    tolerance : float, optional
        Relative distance to the layer's lower bound at which the search stops; by default that of :data:`TOLERANCES`.
    threads : int, optional
        By default what ``EPLB_GAP_THREADS`` in the environment says, or else 1. More help on an idle machine and cost nothing on
        a busy one.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If the weights are not finite, negative or of another shape, an option is out of range or the slots are unequal.
    """
    if effort not in get_args(Effort):
        raise InputError(f"effort is {effort!r}; one of {', '.join(get_args(Effort))} is needed")
    if tolerance is not None and not tolerance >= 0.0:
        raise InputError(f"tolerance is {tolerance!r}; a number of at least 0 is needed")
    if deployment.dead_gpus:
        return with_dead(plan(weight, deployment.live, effort=effort, tolerance=tolerance, threads=threads), deployment)
    threads = layer_threads.number(threads)
    deployment.require_regular("this planner")
    loads = checked_weight(weight, deployment)
    shape = deployment if deployment.policy == "hierarchical" else deployment.as_global()
    layers = loads.shape[0]
    rounds = _rounds(effort, TOLERANCES[effort] if tolerance is None else tolerance)
    sizes = shape.num_groups, shape.num_nodes, shape.num_gpus
    slots, ranks = np.empty((layers, shape.num_slots), np.int64), np.empty((layers, shape.num_slots), np.int64)
    if threads == 1:
        step = layers if effort in ("lpt", "fast") else LAYERS_PER_CALL
        for begin in range(0, layers, step):
            part = slice(begin, begin + step)
            _plan_layers(loads[part], *sizes, rounds, slots[part], ranks[part])
        return Placement(slots, shape.num_experts, ranks)
    size = max(1, layers // (4 * threads))

    def improve(job: int) -> tuple[np.ndarray, np.ndarray]:
        part = loads[job * size : (job + 1) * size]
        own = np.empty((len(part), shape.num_slots), np.int64), np.empty((len(part), shape.num_slots), np.int64)
        _plan_layers(part, *sizes, rounds, *own)
        return own

    for job, own in enumerate(layer_threads.run(improve, -(-layers // size), threads)):
        slots[job * size : (job + 1) * size], ranks[job * size : (job + 1) * size] = own
    return Placement(slots, shape.num_experts, ranks)


def checked_weight(weight: Any, deployment: Deployment) -> np.ndarray:
    """Return the loads as float64, contiguous, without negative zeros and without extreme magnitudes; always a copy.

    Raises
    ------
    InputError
        If they are no finite, non-negative numbers [layers, experts] of the deployment.
    """
    given = as_numbers(weight, "weight")
    if given.ndim != 2 or not given.size:
        raise InputError(f"weight is {given.dtype} of shape {given.shape}; real numbers [layers, experts] are needed")
    if given.shape[1] != deployment.num_experts:
        raise InputError(f"weight has {given.shape[1]} experts; the deployment has {deployment.num_experts}")
    loads = np.empty(given.shape)
    np.add(given, 0.0, out=loads, casting="same_kind")
    peaks = loads.max(axis=1)
    if not (loads.min() >= 0.0 and math.isfinite(peaks.max())):
        bad = np.argwhere(~(np.isfinite(loads) & (loads >= 0.0)))[0].tolist()
        raise InputError(f"weight{bad} is {loads[tuple(bad)]}; loads must be finite and non-negative")
    if peaks.max() > EXTREME or peaks.min() < 1.0 / EXTREME:
        loads = np.ldexp(loads, -np.frexp(peaks)[1][:, None])
    return loads


def _rounds(effort: Effort, tolerance: float) -> np.ndarray:
    """Return the rounds of search, float64 [rounds, 4]: where to stop, where to split, where to search counts, with what work."""
    if effort == "lpt":
        return np.empty((0, 4))
    loose = tolerance if effort == "fast" else TOLERANCES["fast"]
    rounds = [(min(EXCHANGE_STOP, loose), loose, loose, SHORT_WORK)]
    if effort == "split":
        rounds.append((tolerance, tolerance, np.inf, 0.0))
    elif effort == "counts":
        rounds.append((tolerance / 2, tolerance, tolerance, LONG_WORK))
    return np.array(rounds)


@kernel
def _place_groups(
    group_loads: np.ndarray, keys: np.ndarray, order: np.ndarray, buckets: np.ndarray, flat: Flat, scratch: Scratch,
    pairs: PairScratch,
) -> None:  # fmt: skip
    """Put equally many groups on every node: with two per node LPT is the fold, which is optimal; with more it is improved."""
    groups, nodes = group_loads.size, flat.totals.size
    sort_descending(group_loads.view(np.int64), keys[:groups], order[:groups], buckets)
    for r in range(groups):
        flat.loads[r], flat.counts[r] = group_loads[order[r]], 1
    arrange(flat, 0, scratch)
    if groups > 2 * nodes:
        pair_passes(flat, pairs, 0.0)
        descend(flat, pairs, 0.0, True)


@kernel
def _split(flat: Flat, distinct: bool, stop: float) -> float:
    """Re-partition pairs of GPUs exactly; sort every GPU again."""
    value, _ = split_descent(flat.items, flat.sizes, flat.totals.size, distinct, stop, 0, SEED)
    _, _, items, sizes, totals = flat
    k = items.size // totals.size
    for g in range(totals.size):
        totals[g] = 0.0
        for slot in range(g * k, g * k + k):
            at, size, rank = slot, sizes[slot], items[slot]
            totals[g] += size
            while at > g * k and sizes[at - 1] < size:
                sizes[at], items[at] = sizes[at - 1], items[at - 1]
                at -= 1
            sizes[at], items[at] = size, rank
    return value


@kernel
def _improve(flat: Flat, spare: Flat, most: int, scratch: Scratch, pairs: PairScratch, bound: float, rounds: np.ndarray) -> None:
    """Search on one node while it is above the layer's bound."""
    gpus = flat.totals.size
    k = flat.items.size // gpus
    value = 0.0
    for total in flat.totals:
        value = max(value, total)
    for number in range(rounds.shape[0]):
        stop, split_above = bound * (1.0 + rounds[number, 0]), bound * (1.0 + rounds[number, 1])
        counts_above, trials = bound * (1.0 + rounds[number, 2]), int(rounds[number, 3]) // flat.items.size
        # The counts search, if any, comes between two goes of exchanges and splits.
        for go in range(2):
            if value > stop:
                if number + go == 0:
                    pair_passes(flat, pairs, stop)
                else:
                    order_gpus(flat.totals, pairs.order)
                value = descend(flat, pairs, stop, True)
            if value > split_above and k <= MAX_SLOTS_PER_GPU:
                value = _split(flat, most <= gpus, stop)
            if go == 1 or value <= counts_above or trials == 0 or most > gpus:
                break
            value = search_thetas(flat, spare, most, scratch, pairs, stop, trials, SEED)


@tiered("(f8[:, ::1], i8, i8, i8, f8[:, ::1], i8[:, ::1], i8[:, ::1])")
def _plan_layers(
    weight: np.ndarray, groups: int, nodes: int, gpus: int, rounds: np.ndarray, phy2log: np.ndarray, ranks: np.ndarray
) -> None:
    """Plan layers one after the other.

    Parameters
    ----------
    weight : ndarray
        float64 [layers, experts], non-negative, no negative zeros.
    groups, nodes, gpus : int
    rounds : ndarray
        float64 [rounds, 4]; see :func:`_rounds`.
    phy2log, ranks : ndarray
        int64 [layers, slots]; overwritten with the map and the replica ranks.
    """
    layers, experts = weight.shape
    group_size, per_node = experts // groups, groups // nodes
    m, s, g = experts // nodes, phy2log.shape[1] // nodes, gpus // nodes
    most = most_replicas(m, s, g)
    width = 256
    while width < experts:
        width *= 2
    bits = weight.view(np.int64)
    buckets, keys, order = np.empty(width, np.int64), np.empty(experts, np.int64), np.empty(experts, np.int64)
    values = keys.view(np.float64)
    flat, spare, scratch, pairs = new_flat(m, s, g), new_flat(m, s, g), new_scratch(m, g), new_pair_scratch(g, s // g)
    folded, fold_scratch = new_flat(groups, groups, nodes), new_scratch(groups, nodes)
    fold_pairs, group_loads = new_pair_scratch(nodes, per_node), np.empty(groups)
    logical, loads, counts = np.empty((nodes, m), np.int64), np.empty((nodes, m)), np.empty((nodes, m), np.int64)
    replicated, filled = np.empty(nodes, np.int64), np.empty(nodes, np.int64)
    home, seen = np.zeros(experts, np.int64), np.empty(m, np.int64)
    for layer in range(layers):
        rest()
        if nodes > 1:
            for group in range(groups):
                total = 0.0
                for e in range(group * group_size, (group + 1) * group_size):
                    total += weight[layer, e]
                group_loads[group] = total
            _place_groups(group_loads, keys, order, buckets, folded, fold_scratch, fold_pairs)
            for at in range(groups):
                group = order[folded.items[at]]
                for e in range(group * group_size, (group + 1) * group_size):
                    home[e] = at // per_node
        sort_descending(bits[layer], keys, order, buckets)
        for node in range(nodes):
            filled[node] = 0
        for position in range(experts):
            e = order[position]
            node = home[e]
            at = filled[node]
            filled[node] = at + 1
            logical[node, at], loads[node, at] = e, values[position]
        bound = 0.0
        for node in range(nodes):
            replicated[node] = replicate(loads[node], counts[node], s, most, scratch)
            total = 0.0
            for r in range(m):
                total += loads[node, r]
            bound = max(bound, total / g)
            for r in range(min(replicated[node] + 1, m)):  # behind them all are smaller and have one replica
                bound = max(bound, loads[node, r] / counts[node, r])
        for node in range(nodes):
            state = Flat(loads[node], counts[node], flat.items, flat.sizes, flat.totals)
            if not arrange(state, replicated[node], scratch) and most <= g and not remove_duplicates(state):
                deal(state)
            if rounds.shape[0] > 0:
                _improve(state, spare, most, scratch, pairs, bound, rounds)
            for r in range(m):
                seen[r] = 0
            for slot in range(s):
                r = state.items[slot]
                phy2log[layer, node * s + slot] = logical[node, r]
                ranks[layer, node * s + slot] = seen[r]
                seen[r] += 1
