"""Local search from the map in use, compiled: for every number of moves the best map found.

A *move* copies a replica onto a GPU that did not hold its expert before. Two steps are taken: a replica gives its slot to one of
another expert of its node (at most one move), and two replicas of different GPUs change places (at most two). Every step lowers
the fullest GPU of the layer and raises none to its load. From the best map of each number of moves, ascending, the best steps of
one and of two moves lead on, so that two cheap steps compete with one dear one; steps that cost nothing are taken at once. What a
number of moves leads to does not depend on how many more are allowed: a search can be stopped and taken up again.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import borrower, copy, entry
from eplb_gap.heuristics.moves.sticky_map import apply, become, moves_of, new_layer, score, use
from eplb_gap.heuristics.moves.sticky_steps import Steps, find_steps, new_steps

FREE_STEPS = 64
"""Most steps without a move from one map: they lower the fullest GPU each time, so that they end by themselves much earlier."""


@borrower
def _lead_on(moves: int, limit: int, best: float, steps: Steps, key: np.ndarray, origin: np.ndarray) -> None:
    """Note the maps that the best steps of one and of two moves lead to, where they are the best of their number of moves."""
    for after in range(moves + 1, min(moves + 2, limit) + 1):
        for aim in range(2):
            value = steps.values[aim, after - moves] + (best if aim == 0 else 0.0)
            if value < key[aim, after]:
                key[aim, after] = value
                slot, other = steps.slots[aim, after - moves]
                origin[aim, after, 0], origin[aim, after, 1], origin[aim, after, 2] = moves, slot, other


@entry
def sticky_paths(
    loads: np.ndarray, in_use: np.ndarray, starts: np.ndarray, fresh: int, numbers: np.ndarray, begin: np.ndarray, nodes: int,
    targets: np.ndarray, limits: np.ndarray, until: np.ndarray, reached: np.ndarray, scores: np.ndarray, keys: np.ndarray,
    origins: np.ndarray, maps: np.ndarray,
) -> None:  # fmt: skip
    """Find for every number of moves the best map, layer by layer; go on where the call before ended.

    Two maps for every number: the first, of least score, is searched on, the second, of least makespan, is the answer. All is
    written to arrays of the caller: Ctrl-C while numba wraps new ones is an error of the interpreter's.

    Parameters
    ----------
    loads : ndarray
        float64 [layers, experts], any unit.
    in_use : ndarray
        The map in use, int64 [layers, slots]; it may have lost experts.
    starts : ndarray
        Legal maps to search from, as well as from those of the calls before, integers [layers, starts, slots]. Those of more
        moves than the limit are not used; the others must have more than the calls before have reached.
    fresh : int
        The first start that calls before have not seen.
    numbers : ndarray
        How many starts each layer has, int64 [layers].
    begin : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    nodes : int
        Replicas stay on the node that they are on in a start.
    targets : ndarray
        Makespan at which the search of a layer ends, float64 [layers].
    limits : ndarray
        Most moves of every layer, int64 [layers], the same in all calls.
    until : ndarray
        Moves up to which this call searches, int64 [layers].
    reached : ndarray
        Number of moves to go on with, int64 [layers]; 0 before the first call, the limit plus one where the search has ended.
    scores : ndarray
        The least score so far, float64 [layers]; infinite before the first call.
    keys : ndarray
        Scores and makespans, float64 [layers, 2, moves], by number of moves (at most), infinite before the first call; so they
        stay where no map was found. As many as the limit allows, but no more than two beyond ``until`` are needed for the
        search, and those of the starts.
    origins : ndarray
        Where maps come from, integers [layers, 2, moves, 3], as :func:`read_maps` reads them.
    maps : ndarray
        Maps searched on, of the type of the starts [layers, moves, slots], with room for the moves up to ``until``.
    """
    layer = new_layer(loads.shape[1], begin)
    steps = new_steps(loads.shape[1], in_use.shape[1])
    for row in range(loads.shape[0]):
        if numbers[row] <= fresh and reached[row] > until[row]:
            continue
        target, limit, key, origin, found = targets[row], limits[row], keys[row], origins[row], maps[row]
        use(layer, loads[row], in_use[row])
        for number in range(fresh, numbers[row]):
            become(layer, starts[row, number])
            moves = moves_of(layer)
            for aim in range(2):
                value = score(layer, target) if aim == 0 else layer.totals[layer.order[0]]
                if moves <= limit and value < key[aim, moves]:
                    key[aim, moves] = value
                    origin[aim, moves, 0], origin[aim, moves, 1] = -1 - number, -1
        at = -1  # number of moves of the present map
        for moves in range(reached[row], min(until[row], limit) + 1):
            if key[0, moves] < scores[row]:
                parent, slot, other = origin[0, moves]
                if parent < 0 or parent != at:
                    become(layer, starts[row, -1 - parent] if parent < 0 else found[parent])
                step = parent >= 0
                for _ in range(FREE_STEPS + 1):
                    if step:
                        apply(layer, slot, other)
                    if layer.totals[layer.order[0]] <= target:
                        break
                    find_steps(layer, nodes, target, steps)
                    if steps.values[0, 0] >= 0.0:
                        break
                    step, slot, other = True, steps.slots[0, 0, 0], steps.slots[0, 0, 1]
                at = moves
                copy(layer.items, found[moves])
                best, value = score(layer, target), layer.totals[layer.order[0]]
                if value < key[1, moves]:
                    key[1, moves] = value
                    origin[1, moves, 0], origin[1, moves, 1] = moves, -1
                if value <= target:
                    reached[row] = limit + 1
                    break
                _lead_on(moves, limit, best, steps, key, origin)
                scores[row] = best
            reached[row] = moves + 1


@entry
def read_maps(starts: np.ndarray, origins: np.ndarray, maps: np.ndarray, moves: np.ndarray, found: np.ndarray) -> None:
    """Write the map of least makespan of a number of moves, layer by layer.

    Parameters
    ----------
    starts, origins, maps : ndarray
        As of :func:`sticky_paths`. An origin is a start, ``-1 - number``, or the number of moves of a map that was searched on; a
        slot, -1 where that is the map; and the slot that it changes with, or ``-1 - expert`` that it gets.
    moves : ndarray
        Of every layer, int64 [layers].
    found : ndarray
        int64 [layers, slots]; overwritten.
    """
    for row in range(moves.size):
        parent, slot, other = origins[row, 1, moves[row]]
        if parent < 0:
            copy(starts[row, -1 - parent], found[row])
            continue
        copy(maps[row, parent], found[row])
        if slot >= 0:
            own = found[row, slot]
            found[row, slot] = found[row, other] if other >= 0 else -1 - other
            if other >= 0:
                found[row, other] = own
