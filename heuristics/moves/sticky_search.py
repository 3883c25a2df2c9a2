"""Local search from the map in use, compiled: for every number of moves the best map found.

A *move* copies a replica onto a GPU that did not hold its expert before. Two steps are taken: a replica gives its slot to one of
another expert of its node (at most one move), and two replicas of different GPUs change places (at most two). Every step lowers
the fullest GPU of the layer and raises none to its load. From the best map of each number of moves, ascending, the best steps of
one and of two moves lead on, so that two cheap steps compete with one dear one; steps that cost nothing are taken at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel

LEAST_GAIN = 1e-12
"""Relative; smaller gains are rounding."""
DRIFT = 0.02
"""Relative variance of an expert's load from a window to the next that is planned for: replicas of hot experts spread it."""
FREE_STEPS = 64
"""Most steps without a move from one map: they lower the fullest GPU each time, so that they end by themselves much earlier."""


class Layer(NamedTuple):
    """One layer's map and what is derived from it.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    items : ndarray
        Expert of every slot, int64 [slots], GPU-major.
    counts : ndarray
        int64 [experts].
    sizes : ndarray
        Load of a replica with one fewer, with as many and with one more of them, float64 [experts, 3].
    totals : ndarray
        Load of every GPU, float64 [gpus].
    order : ndarray
        GPUs by descending load, int64 [gpus].
    first, after : ndarray
        First slot of every expert, int64 [experts], and the next slot of the same expert, int64 [slots]; -1 behind the last.
    held, before : ndarray
        Replicas of every expert on every GPU now and in the map in use, int16 [experts, gpus].
    begin, home : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1], and the GPU of every slot, int64 [slots].
    """

    loads: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    sizes: np.ndarray
    totals: np.ndarray
    order: np.ndarray
    first: np.ndarray
    after: np.ndarray
    held: np.ndarray
    before: np.ndarray
    begin: np.ndarray
    home: np.ndarray


class Steps(NamedTuple):
    """Best steps by aim (least score, then least makespan) and number of moves (0, 1, 2).

    Parameters
    ----------
    values : ndarray
        Change of the score, or the makespan; float64 [aims, moves]; infinite where there is no step.
    slots : ndarray
        int64 [aims, moves, 2]: the slot that changes, and the one that it changes with or ``-1 - expert`` that it gets.
    """

    values: np.ndarray
    slots: np.ndarray


@kernel
def _derive(layer: Layer) -> None:
    """Recompute everything from the slots."""
    loads, items, counts, sizes, totals, order, first, after, held, _, begin, home = layer
    counts[:] = 0
    first[:] = -1
    held[:] = 0
    for slot in range(items.size - 1, -1, -1):
        e = items[slot]
        counts[e] += 1
        held[e, home[slot]] += 1
        after[slot] = first[e]
        first[e] = slot
    for e in range(loads.size):
        for copies in range(3):
            sizes[e, copies] = loads[e] / (counts[e] - 1 + copies)
    for gpu in range(totals.size):
        totals[gpu] = 0.0
        for slot in range(begin[gpu], begin[gpu + 1]):
            totals[gpu] += sizes[items[slot], 1]
        at = gpu
        while at > 0 and totals[order[at - 1]] < totals[gpu]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = gpu


@kernel
def _excess(total: float, target: float) -> float:
    over = max(0.0, total - target)
    return over * over


@kernel
def _score(layer: Layer, target: float) -> float:
    """Return what a map is searched on by: squared excess of the GPUs, and the variance of their next loads."""
    value = 0.0
    for total in layer.totals:
        value += _excess(total, target)
    for e in range(layer.loads.size):
        value += DRIFT * layer.loads[e] * layer.sizes[e, 1]
    return value


@kernel
def _note(values: np.ndarray, slots: np.ndarray, moves: int, change: float, makespan: float, slot: int, other: int) -> None:
    """Keep a step where it is the best of its number of moves."""
    moves = max(moves, 0)
    if change < values[0, moves]:
        values[0, moves], slots[0, moves, 0], slots[0, moves, 1] = change, slot, other
    if makespan < values[1, moves]:
        values[1, moves], slots[1, moves, 0], slots[1, moves, 1] = makespan, slot, other


@kernel
def _try_exchanges(layer: Layer, start: int, end: int, target: float, steps: Steps) -> None:
    """Try the replicas of the fullest GPU with all of the GPUs ``start`` to ``end``."""
    _, items, _, sizes, totals, order, _, _, held, before, begin, _ = layer
    values, slots = steps
    full = order[0]
    high = totals[full]
    enough = high * (1.0 - LEAST_GAIN)
    for gpu in order[::-1]:  # emptiest first: the sooner are the others cut off by what no exchange can pass, the mean
        low = totals[gpu]
        if gpu == full or not start <= gpu < end:
            continue
        others = totals[order[1]]
        if gpu == order[1]:
            others = totals[order[2]] if order.size > 2 else 0.0
        both = _excess(high, target) + _excess(low, target)
        half = (high + low) * 0.5
        if 2.0 * _excess(half, target) - both >= max(values[0, 1], values[0, 2]) and max(half, others) >= max(
            values[1, 1], values[1, 2]
        ):
            continue
        for own in range(begin[full], begin[full + 1]):
            a = items[own]
            if held[a, gpu] > 0:
                continue
            size = sizes[a, 1]
            arrive = (before[a, gpu] == 0) - (held[a, full] > before[a, full])
            for slot in range(begin[gpu], begin[gpu + 1]):
                b = items[slot]
                moved = size - sizes[b, 1]
                larger = max(high - moved, low + moved)
                if larger >= enough or held[b, full] > 0:
                    continue
                moves = arrive + (before[b, full] == 0) - (held[b, gpu] > before[b, gpu])
                change = _excess(high - moved, target) + _excess(low + moved, target) - both
                _note(values, slots, moves, change, max(larger, others), own, slot)


@kernel
def _untouched(totals: np.ndarray, order: np.ndarray, held: np.ndarray, a: int, b: int) -> float:
    """Return the largest load of the GPUs that hold neither of two experts."""
    for g in order:
        if held[a, g] == 0 and held[b, g] == 0:
            return float(totals[g])
    return 0.0


@kernel
def _try_replacements(layer: Layer, start: int, end: int, target: float, steps: Steps) -> None:
    """Try to give slots of the GPUs ``start`` to ``end`` to experts of the fullest, and its own slots to any of the node."""
    loads, items, counts, sizes, totals, order, first, after, held, before, begin, home = layer
    full = order[0]
    own = items[begin[full] : begin[full + 1]]
    enough = totals[full] * (1.0 - LEAST_GAIN)
    for slot in range(begin[start], begin[end]):
        gpu, b = home[slot], items[slot]
        if counts[b] == 1:
            continue
        fewer = sizes[b, 0]
        up = fewer - sizes[b, 1]
        for candidate in range(counts.size if gpu == full else own.size):
            a = candidate if gpu == full else own[candidate]
            # A replica on a node makes it one of its experts: only they may come.
            if held[a, gpu] > 0 or not start <= home[first[a]] < end:
                continue
            more = sizes[a, 2]
            down = more - sizes[a, 1]
            if totals[gpu] + more - sizes[b, 1] >= enough:
                continue
            change = DRIFT * (loads[a] * down + loads[b] * up)  # of the sum of w**2 / c
            highest = 0.0
            for expert in (b, a):
                at = first[expert]
                while at >= 0 and highest < enough:
                    g = home[at]
                    at = after[at]
                    if expert == a and held[b, g] > 0:
                        continue  # met with b
                    total = totals[g] + held[a, g] * down + held[b, g] * up
                    if g == gpu:
                        total += more - fewer
                    highest = max(highest, total)
                    change += _excess(total, target) - _excess(totals[g], target)
            if highest < enough:
                moves = (before[a, gpu] == 0) - (held[b, gpu] > before[b, gpu])
                highest = max(highest, _untouched(totals, order, held, a, b))
                _note(steps.values, steps.slots, moves, change, highest, slot, -1 - a)


@kernel
def _find_steps(layer: Layer, nodes: int, target: float, steps: Steps) -> None:
    """Write the best steps that lower the fullest GPU."""
    per_node = layer.totals.size // nodes
    start = layer.order[0] // per_node * per_node
    steps.values[:] = np.inf
    _try_replacements(layer, start, start + per_node, target, steps)
    _try_exchanges(layer, start, start + per_node, target, steps)


@kernel
def _apply(items: np.ndarray, step: np.ndarray) -> None:
    slot, other = step
    if other >= 0:
        items[slot], items[other] = items[other], items[slot]
    else:
        items[slot] = -1 - other


@kernel
def _moves(layer: Layer) -> int:
    """Return how many replicas are on a GPU that did not hold them."""
    moves = 0
    for e in range(layer.counts.size):
        for gpu in range(layer.totals.size):
            moves += max(0, layer.held[e, gpu] - layer.before[e, gpu])
    return moves


@entry
def sticky_path(
    loads: np.ndarray, in_use: np.ndarray, starts: np.ndarray, begin: np.ndarray, nodes: int, target: float, keys: np.ndarray,
    maps: np.ndarray,
) -> None:  # fmt: skip
    """Find for every number of moves the best map.

    Two maps for every number: the first, of least score, is searched on, the second, of least makespan, is the answer. Both are
    written to arrays of the caller: Ctrl-C while numba wraps new ones is an error of the interpreter's.

    Parameters
    ----------
    loads : ndarray
        float64 [experts], any unit.
    in_use : ndarray
        The map in use, int64 [slots]; it may have lost experts.
    starts : ndarray
        Legal maps, int64 [starts, slots]. Those of more moves than the limit are not used.
    begin : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    nodes : int
        Replicas stay on the node that they are on in a start.
    target : float
        Makespan at which the search ends.
    keys : ndarray
        Scores and makespans, float64 [2, limit + 1], by number of moves (at most), all infinite; so they stay where no map was
        found.
    maps : ndarray
        int64 [2, limit + 1, slots]; overwritten where a map was found.
    """
    limit = keys.shape[1] - 1
    slots, experts, gpus = starts.shape[1], loads.size, begin.size - 1
    layer = Layer(
        loads,
        np.empty(slots, np.int64),
        np.empty(experts, np.int64),
        np.empty((experts, 3)),
        np.empty(gpus),
        np.empty(gpus, np.int64),
        np.empty(experts, np.int64),
        np.empty(slots, np.int64),
        np.empty((experts, gpus), np.int16),
        np.zeros((experts, gpus), np.int16),
        begin,
        np.empty(slots, np.int64),
    )
    for gpu in range(gpus):
        for slot in range(begin[gpu], begin[gpu + 1]):
            layer.home[slot] = gpu
            layer.before[in_use[slot], gpu] += 1
    steps = Steps(np.empty((2, 3)), np.empty((2, 3, 2), np.int64))
    for start in starts:
        layer.items[:] = start
        _derive(layer)
        moves = _moves(layer)
        for aim, key in enumerate((_score(layer, target), layer.totals.max())):
            if moves <= limit and key < keys[aim, moves]:
                keys[aim, moves] = key
                maps[aim, moves] = start
    best = np.inf
    for moves in range(limit + 1):
        if keys[0, moves] >= best:
            continue
        layer.items[:] = maps[0, moves]
        for _ in range(FREE_STEPS):
            _derive(layer)
            if layer.totals[layer.order[0]] <= target:
                break
            _find_steps(layer, nodes, target, steps)
            if steps.values[0, 0] >= 0.0:
                break
            _apply(layer.items, steps.slots[0, 0])
        best, value = _score(layer, target), layer.totals[layer.order[0]]
        if value < keys[1, moves]:
            keys[1, moves] = value
            maps[1, moves] = layer.items
        if value <= target:
            break
        for after in range(moves + 1, min(moves + 2, limit) + 1):
            for aim in range(2):
                key = steps.values[aim, after - moves] + (best if aim == 0 else 0.0)
                if key < keys[aim, after]:
                    keys[aim, after] = key
                    maps[aim, after] = layer.items
                    _apply(maps[aim, after], steps.slots[aim, after - moves])
