"""A new map within a number of moves for loads of several windows: each move where it lowers the sum of their makespans most.

:func:`eplb_gap.heuristics.moves.migration.replan` plans on one window, a sum of steps, of which the fullest GPU is that of no
single step. Here every step counts: from the map in use the step is taken, in any layer, that lowers the sum over windows of the
largest GPU load most for each replica that it copies, and so on until the moves are spent. Two steps are known, two replicas of
different GPUs of a node that change places, and a replica of an expert on a fullest GPU that takes the slot of another's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import kernel, rest
from eplb_gap.heuristics.kernels.window_loads import load_without, rank_gpus, total_makespan
from eplb_gap.heuristics.moves.lost_experts import lost_experts
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import keep_slots, replica_ranks
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.loads import as_numbers
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check

LEAST_GAIN = 1e-9
"""Relative to the sum of the makespans; smaller gains are rounding."""
STEPS_A_MOVE = 4
"""So many steps are taken at most for every move and layer."""
ENOUGH = 3
"""Full GPUs, those of most to gain first, after which no others are looked at if a step was found."""


def replan_on_windows(history: Any, deployment: Deployment, previous: Placement, total_moves: int) -> Placement:
    """Return a map that the map in use can become within a number of moves, planned on several windows at once.

    Parameters
    ----------
    history : array_like [windows, layers, experts]
        Loads, finite and non-negative; the sum over windows and layers of the largest GPU load is made small.
    deployment : Deployment
        With the GPUs that are dead by now; where experts were on those alone, :func:`replan` plans on the sum of the windows.
    previous : Placement
        The map in use, legal but for lost experts.
    total_moves : int
        Most replicas copied to GPUs that did not hold them, all layers together.

    Returns
    -------
    Placement
        Without new duplicates on a GPU; what stays on its GPU stays in its slot.

    Raises
    ------
    InputError
        If loads, map and deployment do not belong together or the number is no non-negative integer.
    PlacementError
        If the map in use is not legal.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement
    >>> from eplb_gap.heuristics.moves.window_moves import replan_on_windows
    >>> history = [[[9, 8, 1, 2]], [[8, 9, 2, 1]]]  # the two hottest experts share a GPU
    >>> replan_on_windows(history, Deployment(4, 4, 2), Placement([[0, 1, 2, 3]], 4), 2).phy2log.tolist()
    [[0, 3, 2, 1]]
    """
    loads = np.asarray(as_numbers(history, "history"), dtype=np.float64)
    expected = (previous.num_layers, previous.num_experts)
    if loads.ndim != 3 or not len(loads) or loads.shape[1:] != expected:
        raise InputError(f"history has shape {loads.shape}; windows of {expected} [layers, experts] are needed")
    if not (np.isfinite(loads) & (loads >= 0.0)).all():
        bad = np.argwhere(~(np.isfinite(loads) & (loads >= 0.0)))[0].tolist()
        raise InputError(f"history{bad} is {loads[tuple(bad)]}; loads must be finite and non-negative")
    if isinstance(total_moves, bool) or not isinstance(total_moves, int | np.integer) or total_moves < 0:
        raise InputError(f"total_moves is {total_moves!r}; an integer of at least 0 is needed")
    if any(lost_experts(previous, deployment)):
        return replan(loads.sum(axis=0), deployment, previous, total_moves=total_moves)
    try:
        check(previous, deployment)
    except PlacementError as error:
        raise PlacementError(f"previous: {error}") from None
    live = deployment.live
    nodes = live.num_nodes if live.policy == "hierarchical" else 1
    in_use = without_dead(previous, deployment).phy2log
    maps = in_use.copy()
    weights = np.ascontiguousarray(loads.transpose(1, 2, 0))
    _spend(weights, np.cumsum((0, *live.slots_by_gpu)), nodes, int(total_moves), maps)
    kept = keep_slots(maps, in_use, live)
    return with_dead(Placement(kept, previous.num_experts, replica_ranks(kept, previous.num_experts)), deployment)


class _Layer(NamedTuple):
    """A layer's map on several windows.

    Parameters
    ----------
    weights : ndarray
        float64 [experts, windows].
    items, counts : ndarray
        Expert of every slot and replicas of every expert, int64.
    held, before : ndarray
        Replicas of every expert on every GPU, now and in the map in use, int16 [experts, gpus].
    loads : ndarray
        float64 [gpus, windows].
    """

    weights: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    held: np.ndarray
    before: np.ndarray
    loads: np.ndarray


class _Scratch(NamedTuple):
    """Memory of the search.

    Parameters
    ----------
    begin, home : ndarray
        First slot of every GPU, int64 [gpus + 1], and GPU of every slot, int64 [slots].
    sizes : ndarray
        Load of the replica on every slot, float64 [slots, windows].
    relieved : ndarray
        float64 [gpus, windows].
    top, relieved_top : ndarray
        The three fullest GPUs of every window, int64 [windows, 3]; -1 where there are fewer.
    order : ndarray
        Windows, those of which a GPU is the fullest first, int64 [windows].
    others : ndarray
        Largest load of every window on GPUs that a step leaves alone, float64 [windows].
    totals : ndarray
        Load of the replica on every slot over the windows of which a GPU is the fullest, float64 [slots].
    spare : ndarray
        What every GPU is above the next fullest, summed over the windows of which it is the fullest, float64 [gpus].
    hopes : ndarray
        What an exchange with a GPU can gain at most, float64 [gpus]; -1 when it has been looked at.
    """

    begin: np.ndarray
    home: np.ndarray
    sizes: np.ndarray
    relieved: np.ndarray
    top: np.ndarray
    relieved_top: np.ndarray
    order: np.ndarray
    others: np.ndarray
    totals: np.ndarray
    spare: np.ndarray
    hopes: np.ndarray


@kernel
def _refresh(layer: _Layer, begin: np.ndarray) -> float:
    """Recompute the GPU loads; return the sum over windows of the largest."""
    weights, items, counts, _, _, loads = layer
    for g in range(loads.shape[0]):
        for t in range(loads.shape[1]):
            loads[g, t] = 0.0
        for slot in range(begin[g], begin[g + 1]):
            share = 1.0 / counts[items[slot]]
            for t in range(loads.shape[1]):
                loads[g, t] += weights[items[slot], t] * share
    return total_makespan(loads)


@kernel
def _price(layer: _Layer, gpu: int, old: int, new: int) -> int:
    """Return the moves that it takes to replace a replica on a GPU by one of another expert; -1 where it undoes one."""
    held, before = layer.held, layer.before
    return int(held[new, gpu] >= before[new, gpu]) - int(held[old, gpu] > before[old, gpu])


@kernel
def _exchanges(
    layer: _Layer, full: int, per_node: int, value: float, most: int, scratch: _Scratch, rate: float
) -> tuple[float, int, int]:
    """Return the best gain per move of exchanges with a full GPU, above a rate, and the two slots; -1 where there is none."""
    _, items, _, held, _, loads = layer
    begin, sizes, top, order, others = scratch.begin, scratch.sizes, scratch.top, scratch.order, scratch.others
    windows = loads.shape[1]
    totals = scratch.totals
    one = two = -1
    first = full // per_node * per_node
    least = value * LEAST_GAIN
    for slot in range(begin[first], begin[first + per_node]):
        totals[slot] = 0.0
        for t in order:
            if top[t, 0] != full:
                break
            totals[slot] += sizes[slot, t]
    for gpu in range(first, first + per_node):
        if gpu == full:
            continue
        hope = 0.0
        for t in range(windows):
            others[t] = load_without(loads, top, t, full, gpu)
            # No exchange can bring the pair below its own mean.
            hope += loads[top[t, 0], t] - max(others[t], 0.5 * (loads[full, t] + loads[gpu, t]))
        if hope <= max(least, rate):
            continue
        between = 0.0
        for t in order:
            if top[t, 0] != full:
                break
            between += loads[full, t] - loads[gpu, t]
        for a in range(begin[full], begin[full + 1]):
            e = items[a]
            if held[e, gpu] > 0:
                continue
            for b in range(begin[gpu], begin[gpu + 1]):
                d = items[b]
                # The full GPU is relieved of no more than the difference, and the other is the fuller by it.
                moved = totals[a] - totals[b]
                if min(moved, between - moved) <= max(least, rate) or held[d, full] > 0:
                    continue
                moves = _price(layer, full, e, d) + _price(layer, gpu, d, e)
                count = max(moves, 1)
                needed = max(least, rate * count)
                if moves > most or min(hope, min(moved, between - moved)) <= needed:
                    continue
                # Only where the full GPU is the fullest can anything be gained: these windows come first.
                gain, position = 0.0, 0
                for t in order:
                    if top[t, 0] != full and gain <= needed:
                        break
                    moved = sizes[a, t] - sizes[b, t]
                    after = max(others[t], max(loads[full, t] - moved, loads[gpu, t] + moved))
                    gain += loads[top[t, 0], t] - after
                    position += 1
                if position == windows and gain > needed:
                    rate, one, two = gain / count, a, b
    return rate, one, two


@kernel
def _replacements(
    layer: _Layer, full: int, per_node: int, value: float, most: int, scratch: _Scratch, rate: float
) -> tuple[float, int, int]:
    """Return the same of replicas, of experts that a full GPU holds, in the slots of others, and the slot and the expert."""
    weights, items, counts, held, _, loads = layer
    begin, home, relieved, top = scratch.begin, scratch.home, scratch.relieved, scratch.relieved_top
    spare = scratch.spare
    windows = loads.shape[1]
    slot, expert = -1, -1
    first = full // per_node * per_node
    least = value * LEAST_GAIN
    for a in range(begin[full], begin[full + 1]):
        e = items[a]
        if counts[e] >= per_node:
            continue
        hope = 0.0
        for t in range(windows):
            hope += weights[e, t] * (1.0 / counts[e] - 1.0 / (counts[e] + 1))
        if hope <= max(least, rate):  # steps that pay by what the other gives away are left out
            continue
        for g in range(loads.shape[0]):
            share = held[e, g] * (1.0 / counts[e] - 1.0 / (counts[e] + 1))
            for t in range(windows):
                relieved[g, t] = loads[g, t] - weights[e, t] * share
        rank_gpus(relieved, top)
        hope = value
        for t in range(windows):
            hope -= relieved[top[t, 0], t]
        # On top of that what a GPU that gives a slot may gain beyond the GPU that is the next fullest.
        widest = 0.0
        for g in range(first, first + per_node):
            spare[g] = 0.0
        for t in range(windows):
            g = top[t, 0]
            if first <= g < first + per_node:
                spare[g] += relieved[g, t] - load_without(relieved, top, t, g, g)
                widest = max(widest, spare[g])
        if hope + widest <= max(least, rate):
            continue
        for s in range(begin[first], begin[first + per_node]):
            d, gpu = items[s], home[s]
            if counts[d] == 1 or held[e, gpu] > 0:
                continue
            moves = _price(layer, gpu, d, e)
            count = max(moves, 1)
            needed = max(least, rate * count)
            if moves > most or hope + spare[gpu] <= needed:
                continue
            out, into = 1.0 / counts[d], 1.0 / (counts[e] + 1)
            gain = hope + spare[gpu]
            for t in range(windows):
                if gain <= needed:
                    break
                rest_of = load_without(relieved, top, t, gpu, gpu)
                here = relieved[gpu, t] - weights[d, t] * out + weights[e, t] * into
                gain -= max(here, rest_of) - rest_of
            if gain <= needed:
                continue
            burden = 1.0 / (counts[d] - 1) - out
            gain = hope + spare[gpu]
            for t in range(windows):
                rest_of = load_without(relieved, top, t, gpu, gpu)
                highest = max(rest_of, relieved[gpu, t] - weights[d, t] * out + weights[e, t] * into)
                for g in range(first, first + per_node):
                    left = int(held[d, g]) - int(g == gpu)
                    if left > 0:
                        more = weights[d, t] * burden * left
                        highest = max(
                            highest, relieved[g, t] + more - (weights[d, t] * out - weights[e, t] * into if g == gpu else 0.0)
                        )
                gain -= highest - rest_of
            if gain > needed:
                rate, slot, expert = gain / count, s, e
    return rate, slot, expert


@kernel
def _find(layer: _Layer, value: float, per_node: int, most: int, scratch: _Scratch, step: np.ndarray) -> float:
    """Write the best step of at most so many moves, two slots or a slot and ``-1 - expert``; return its gain per move or 0."""
    weights, items, counts, _, _, loads = layer
    sizes, top, order = scratch.sizes, scratch.top, scratch.order
    gpus, windows = loads.shape
    for slot in range(items.size):
        for t in range(windows):
            sizes[slot, t] = weights[items[slot], t] / counts[items[slot]]
    rank_gpus(loads, top)
    best = 0.0
    step[0] = step[1] = -1
    hopes = scratch.hopes
    for t in range(windows):
        hopes[top[t, 0]] = 0.0
    for t in range(windows):
        hopes[top[t, 0]] += loads[top[t, 0], t] - load_without(loads, top, t, top[t, 0], top[t, 0])
    for looked in range(gpus):
        # Where most can be gained first: what is found there rules out much of the others.
        full = top[0, 0]
        for t in range(1, windows):
            if hopes[top[t, 0]] > hopes[full]:
                full = top[t, 0]
        if hopes[full] < 0.0 or (looked >= ENOUGH and best > 0.0):
            break
        at = 0
        for first in (True, False):
            for t in range(windows):
                if (top[t, 0] == full) == first:
                    order[at] = t
                    at += 1
        if hopes[full] > best:
            rate, one, two = _exchanges(layer, full, per_node, value, most, scratch, best)
            if one >= 0:
                best, step[0], step[1] = rate, one, two
        rate, one, two = _replacements(layer, full, per_node, value, most, scratch, best)
        if one >= 0:
            best, step[0], step[1] = rate, one, -1 - two
        hopes[full] = -1.0
    return best


@kernel
def _take(layer: _Layer, step: np.ndarray, home: np.ndarray) -> int:
    """Take a step, GPU loads apart; return its moves."""
    _, items, counts, held, _, _ = layer
    slot, other = step[0], step[1]
    a, b = items[slot], items[other] if other >= 0 else -1 - other
    moves = _price(layer, home[slot], a, b)
    held[a, home[slot]] -= 1
    held[b, home[slot]] += 1
    items[slot] = b
    if other < 0:
        counts[a] -= 1
        counts[b] += 1
        return moves
    moves += _price(layer, home[other], b, a)
    held[b, home[other]] -= 1
    held[a, home[other]] += 1
    items[other] = a
    return moves


@tiered("(f8[:, :, ::1], i8[::1], i8, i8, i8[:, ::1])")
def _spend(weights: np.ndarray, begin: np.ndarray, nodes: int, total: int, maps: np.ndarray) -> None:
    """Spend moves step by step, each on the layer where it gains most.

    Parameters
    ----------
    weights : ndarray
        float64 [layers, experts, windows].
    begin : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    nodes : int
        Replicas stay on their node.
    total : int
        Moves of all layers together.
    maps : ndarray
        The maps in use, int64 [layers, slots]; overwritten by the new ones.
    """
    layers, experts, windows = weights.shape
    gpus, slots = begin.size - 1, maps.shape[1]
    scratch = _Scratch(
        begin,
        np.empty(slots, np.int64),
        np.empty((slots, windows)),
        np.empty((gpus, windows)),
        np.empty((windows, 3), np.int64),
        np.empty((windows, 3), np.int64),
        np.empty(windows, np.int64),
        np.empty(windows),
        np.empty(slots),
        np.empty(gpus),
        np.empty(gpus),
    )
    home = scratch.home
    for g in range(gpus):
        for slot in range(begin[g], begin[g + 1]):
            home[slot] = g
    counts = np.zeros((layers, experts), np.int64)
    held, before = np.zeros((layers, experts, gpus), np.int16), np.zeros((layers, experts, gpus), np.int16)
    loads = np.empty((layers, gpus, windows))
    values, rates = np.empty(layers), np.empty(layers)
    steps = np.empty((layers, 2), np.int64)
    for row in range(layers):
        for slot in range(slots):
            e = maps[row, slot]
            counts[row, e] += 1
            held[row, e, home[slot]] += 1
            before[row, e, home[slot]] += 1
        layer = _Layer(weights[row], maps[row], counts[row], held[row], before[row], loads[row])
        values[row] = _refresh(layer, begin)
        rates[row] = _find(layer, values[row], gpus // nodes, total, scratch, steps[row])
    left = total
    # Steps that cost no move are few; whatever rounding does, this ends.
    for _ in range(STEPS_A_MOVE * (total + layers)):
        rest()
        row = 0
        for other in range(1, layers):
            if rates[other] > rates[row]:
                row = other
        if rates[row] <= 0.0:
            break
        layer = _Layer(weights[row], maps[row], counts[row], held[row], before[row], loads[row])
        # Found when more moves were left: it may be too dear by now, and then another is found.
        slot, other = steps[row, 0], steps[row, 1]
        a, b = layer.items[slot], layer.items[other] if other >= 0 else -1 - other
        moves = _price(layer, home[slot], a, b) + (_price(layer, home[other], b, a) if other >= 0 else 0)
        if moves <= left:
            left -= _take(layer, steps[row], home)
            values[row] = _refresh(layer, begin)
        rates[row] = _find(layer, values[row], gpus // nodes, left, scratch, steps[row])
