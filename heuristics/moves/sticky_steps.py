"""The best steps from a map, compiled: what another replica, or an exchange of two, does for the fullest GPU.

Most steps are left out by what they can reach at best, from sums that many of them share; the others are looked at in full.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import borrower, kernel
from eplb_gap.heuristics.moves.sticky_map import DRIFT, Layer, excess

LEAST_GAIN = 1e-12
"""Relative; smaller gains are rounding."""
BITS = 63
"""GPUs are bits of a word by the last digits of their numbers: sets without a common bit have no common GPU."""
SLACK = 1e-12
"""Relative to the fullest GPU, or to its square: what a quick bound is trusted less, for rounding."""


class Steps(NamedTuple):
    """Best steps by aim (least score, then least makespan) and number of moves (0, 1, 2).

    Parameters
    ----------
    values : ndarray
        Change of the score, or the makespan; float64 [aims, moves]; infinite where there is no step.
    slots : ndarray
        int64 [aims, moves, 2]: the slot that changes, and the one that it changes with or ``-1 - expert`` that it gets.
    falls, peaks : ndarray
        Scratch: change of the score, and largest load, of the GPUs of an expert with one more replica, the fullest apart; float64
        [experts].
    shared : ndarray
        Scratch: these GPUs, as bits, several to a bit where there are many; int64 [experts].
    comers : ndarray
        Scratch: the experts that may come to the fullest GPU, ascending; int64 [experts + slots].
    own : ndarray
        Scratch: the experts of the fullest GPU; int64 [slots].
    near : ndarray
        Scratch: whether an expert is on a GPU of one of them; bool [experts], all False between calls.
    """

    values: np.ndarray
    slots: np.ndarray
    falls: np.ndarray
    peaks: np.ndarray
    shared: np.ndarray
    comers: np.ndarray
    own: np.ndarray
    near: np.ndarray


@kernel
def new_steps(experts: int, slots: int) -> Steps:
    """Return memory for the steps of any layer."""
    return Steps(
        np.empty((2, 3)),
        np.empty((2, 3, 2), np.int64),
        np.empty(experts),
        np.empty(experts),
        np.empty(experts, np.int64),
        np.empty(experts + slots, np.int64),
        np.empty(slots, np.int64),
        np.zeros(experts, np.bool_),
    )


@borrower
def find_steps(layer: Layer, nodes: int, target: float, steps: Steps) -> None:
    """Write the best steps that lower the fullest GPU."""
    per_node = layer.totals.size // nodes
    start = layer.order[0] // per_node * per_node
    for aim in range(2):
        for moves in range(3):
            steps.values[aim, moves] = np.inf
    _try_replacements(layer, start, start + per_node, target, steps)
    _try_exchanges(layer, start, start + per_node, target, steps)


@borrower
def _note(values: np.ndarray, slots: np.ndarray, moves: int, change: float, makespan: float, slot: int, other: int) -> None:
    """Keep a step where it is the best of its number of moves."""
    if change < values[0, moves]:
        values[0, moves], slots[0, moves, 0], slots[0, moves, 1] = change, slot, other
    if makespan < values[1, moves]:
        values[1, moves], slots[1, moves, 0], slots[1, moves, 1] = makespan, slot, other


@borrower
def _try_exchanges(layer: Layer, start: int, end: int, target: float, steps: Steps) -> None:
    """Try the replicas of the fullest GPU with all of the GPUs ``start`` to ``end``."""
    items, parts, totals, order = layer.items, layer.parts, layer.totals, layer.order
    held, before, arrived, begin = layer.held, layer.before, layer.arrived, layer.begin
    values, slots = steps.values, steps.slots
    full = order[0]
    high = totals[full]
    enough = high * (1.0 - LEAST_GAIN)
    for position in range(order.size - 1, 0, -1):
        # Emptiest first: the sooner are the others cut off by what no exchange can pass, the mean.
        gpu = order[position]
        if not start <= gpu < end:
            continue
        low = totals[gpu]
        others = totals[order[1]]
        if gpu == order[1]:
            others = totals[order[2]] if order.size > 2 else 0.0
        both = excess(high, target) + excess(low, target)
        half = (high + low) * 0.5
        # While both are as in use two replicas arrive where they never were.
        as_in_use = arrived[full] == 0 and arrived[gpu] == 0
        change_cut, cut = values[0, 2], values[1, 2]
        if not as_in_use:
            change_cut, cut = max(change_cut, values[0, 1]), max(cut, values[1, 1])
        if 2.0 * excess(half, target) - both >= change_cut and max(half, others) >= cut:
            continue
        for own in range(begin[full], begin[full + 1]):
            a = items[own]
            if held[a, gpu] > 0:
                continue
            size = parts[own]
            arrive = 2 if as_in_use else int(before[a, gpu] == 0) - int(held[a, full] > before[a, full])
            for slot in range(begin[gpu], begin[gpu + 1]):
                moved = size - parts[slot]
                larger = max(high - moved, low + moved)
                if larger >= enough:
                    continue
                b = items[slot]
                moves = arrive
                if not as_in_use:
                    moves = max(0, moves + int(before[b, full] == 0) - int(held[b, gpu] > before[b, gpu]))
                change = excess(high - moved, target) + excess(low + moved, target) - both
                makespan = max(larger, others)
                if (change < values[0, moves] or makespan < values[1, moves]) and held[b, full] == 0:
                    _note(values, slots, moves, change, makespan, own, slot)


@borrower
def _untouched(totals: np.ndarray, order: np.ndarray, held: np.ndarray, a: int, b: int) -> float:
    """Return the largest load of the GPUs that hold neither of two experts."""
    for g in order:
        if held[a, g] == 0 and held[b, g] == 0:
            return float(totals[g])
    return 0.0


@borrower
def _try_replacements(layer: Layer, start: int, end: int, target: float, steps: Steps) -> None:
    """Try to give slots of the GPUs ``start`` to ``end`` to experts of the fullest, and its own slots to any of the node."""
    # All by name here, nothing handed to other functions inside: counting references would take most of the time.
    loads, items, counts, _, sizes, _, totals, order, first, after, held, before, arrived, _, begin, home, _ = layer
    values, slots, falls, peaks, shared, comers, own, near = steps
    full = order[0]
    high = totals[full]
    second = order[1] if order.size > 1 else full
    enough = high * (1.0 - LEAST_GAIN)
    change_slack, slack, of_full = SLACK * high * high, 1.0 - SLACK, excess(high, target)
    own_best, own_shared = 0.0, 0  # least change by one more replica alone; GPUs that own experts are on beside this one
    lightest = high
    for gpu in range(start, end):
        lightest = min(lightest, totals[gpu])
    for slot in range(begin[full], begin[full + 1]):
        a = items[slot]
        own[slot - begin[full]] = a
        near[a] = True
        down = sizes[a, 2] - sizes[a, 1]
        fall, peak, also = 0.0, 0.0, 0
        if counts[a] > 1:
            at = first[a]
            for _ in range(counts[a]):
                g = home[at]
                at = after[at]
                if g != full:
                    total = totals[g] + held[a, g] * down
                    fall += excess(total, target) - excess(totals[g], target)
                    peak = max(peak, total)
                    also |= 1 << (g & BITS)
                    for other in range(begin[g], begin[g + 1]):
                        near[items[other]] = True
            if held[a, full] > 1:  # no quick reckoning
                fall, also, lightest = -np.inf, -1, -np.inf
        falls[a], peaks[a], shared[a] = fall, peak, also
        own_shared |= also
        own_best = min(own_best, DRIFT * loads[a] * down + excess(high + down, target) - of_full + fall)
    for slot in range(begin[start], begin[end]):
        b = items[slot]
        if counts[b] == 1:
            continue
        gpu, part, fewer = home[slot], sizes[b, 1], sizes[b, 0]
        up = fewer - part
        if lightest + up >= enough and not near[b] and counts[b] > held[b, gpu]:
            continue  # whichever of its other GPUs it is
        # One replica fewer on this GPU: the others, but that on the fullest; nothing follows where one holds two.
        rise, summit, twice, met = 0.0, 0.0, False, 0
        at = first[b]
        for _ in range(counts[b]):
            g = home[at]
            if held[b, g] > 1:
                twice = True
            if g != gpu and g != full:
                total = totals[g] + up
                rise += excess(total, target) - excess(totals[g], target)
                summit = max(summit, total)
                met |= 1 << (g & BITS)
            at = after[at]
        back = int(held[b, gpu] > before[b, gpu])
        of_gpu, up_full = excess(totals[gpu], target), up if held[b, full] > 0 else 0.0
        hopeless, barred = not twice, met
        candidates, number, best = own, begin[full + 1] - begin[full], own_best
        if gpu == full:
            candidates, number, best = comers, 0, 0.0
            if hopeless and summit >= enough:
                # Only those on its GPUs, in ascending order as otherwise.
                at = first[b]
                for _ in range(counts[b]):
                    g = home[at]
                    at = after[at]
                    if g == full:
                        continue
                    for other in range(begin[g], begin[g + 1]):
                        a = items[other]
                        if high + sizes[a, 2] - part < enough and held[a, full] == 0:
                            place = number
                            while place > 0 and comers[place - 1] > a:
                                comers[place] = comers[place - 1]
                                place -= 1
                            comers[place] = a
                            number += 1
            else:
                for a in range(counts.size):
                    # A replica on a node makes it one of its experts: only they may come.
                    if high + sizes[a, 2] - part < enough and held[a, full] == 0 and start <= home[first[a]] < end:
                        comers[number] = a
                        number += 1
            for candidate in range(number):
                # One more replica: change of the score, largest load afterwards. Only few have several.
                a = comers[candidate]
                down = sizes[a, 2] - sizes[a, 1]
                fall, peak, also = 0.0, 0.0, 0
                at = first[a]
                for _ in range(counts[a]):
                    g = home[at]
                    at = after[at]
                    total = totals[g] + held[a, g] * down
                    fall += excess(total, target) - excess(totals[g], target)
                    peak = max(peak, total)
                    also |= 1 << (g & BITS)
                falls[a], peaks[a], shared[a] = fall, peak, also
                best = min(best, DRIFT * loads[a] * down + fall)
        # What none can pass that is on no GPU of the other, nor on the second fullest where that one sets the largest load.
        least = rise + DRIFT * loads[b] * up + best - change_slack
        least += excess(totals[gpu] - part, target) - of_gpu
        off_second = held[b, second] == 0
        others = totals[second] if off_second and gpu != full else 0.0
        if hopeless and summit < enough:
            hopeless = arrived[gpu] == 0 and least >= values[0, 1] and max(summit, others) >= values[1, 1]
            barred |= 1 << (second & BITS)
        if gpu != full and hopeless and own_shared & barred == 0:
            continue
        for candidate in range(number):
            a = candidates[candidate]
            if hopeless and shared[a] & barred == 0:
                continue
            more = sizes[a, 2]
            moved_to = totals[gpu] + more - part
            if moved_to >= enough or held[a, gpu] > 0:
                continue
            moves = max(0, int(before[a, gpu] == 0) - back)
            down = more - sizes[a, 1]
            if not twice:
                # A quick reckoning. What is the same to the bit in the full one needs no slack.
                spread = DRIFT * (loads[a] * down + loads[b] * up) + excess(moved_to, target) - of_gpu - change_slack
                spread += falls[a]
                peak = max(moved_to * slack, peaks[a])
                if gpu != full:
                    total = high + down + up_full
                    spread += excess(total, target) - of_full
                    peak = max(peak, total)
                if shared[a] & met == 0:
                    spread += rise
                    peak = max(peak, summit)
                others = totals[second] if off_second and held[a, second] == 0 else 0.0
                if peak >= enough or (max(peak, others) >= values[1, moves] and spread >= values[0, moves]):
                    continue
            change = DRIFT * (loads[a] * down + loads[b] * up)  # of the sum of w**2 / c
            highest = 0.0
            for expert in (b, a):
                at = first[expert]
                for _ in range(counts[expert]):
                    g = home[at]
                    at = after[at]
                    if expert == a and held[b, g] > 0:
                        continue  # met with b
                    total = totals[g] + held[a, g] * down + held[b, g] * up
                    if g == gpu:
                        total += more - fewer
                    highest = max(highest, total)
                    change += excess(total, target) - excess(totals[g], target)
            if highest < enough:
                highest = max(highest, _untouched(totals, order, held, a, b))
                if change < values[0, moves] or highest < values[1, moves]:
                    _note(values, slots, moves, change, highest, slot, -1 - a)
    for slot in range(begin[full], begin[full + 1]):
        a = items[slot]
        near[a] = False
        at = first[a]
        for _ in range(counts[a] if counts[a] > 1 else 0):
            g = home[at]
            at = after[at]
            for other in range(begin[g], begin[g + 1]):
                near[items[other]] = False
