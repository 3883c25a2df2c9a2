"""One layer's map and what is derived from it, compiled: brought up to date slot by slot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import borrower, kernel

DRIFT = 0.02
"""Relative variance of an expert's load from a window to the next that is planned for: replicas of hot experts spread it."""


class Layer(NamedTuple):
    """A map, what is derived from it, and the map in use.

    All that is derived depends on the map alone, to the bit, not on the maps before it.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    items : ndarray
        Expert of every slot, int64 [slots], GPU-major.
    counts, sized : ndarray
        Replicas of every expert, and those that its sizes are up to date for, int64 [experts].
    sizes : ndarray
        Load of a replica with one fewer, with as many and with one more of them, float64 [experts, 3].
    parts : ndarray
        Load of the replica on every slot, float64 [slots].
    totals : ndarray
        Load of every GPU, float64 [gpus].
    order : ndarray
        GPUs by descending load, those of equal load by number, int64 [gpus].
    first, after : ndarray
        First slot of every expert, int64 [experts], and the next slot of the same expert, int64 [slots]; -1 behind the last.
    held, before : ndarray
        Replicas of every expert on every GPU now and in the map in use, int16 [experts, gpus].
    arrived : ndarray
        Replicas that every GPU did not hold in the map in use, int64 [gpus]; their sum is the number of moves.
    dirty : ndarray
        Whether a GPU's load must be summed anew, bool [gpus].
    begin, home : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1], and the GPU of every slot, int64 [slots].
    changed : ndarray
        Scratch: slots that differ, and the experts that they held, int64 [slots, 2].
    """

    loads: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    sized: np.ndarray
    sizes: np.ndarray
    parts: np.ndarray
    totals: np.ndarray
    order: np.ndarray
    first: np.ndarray
    after: np.ndarray
    held: np.ndarray
    before: np.ndarray
    arrived: np.ndarray
    dirty: np.ndarray
    begin: np.ndarray
    home: np.ndarray
    changed: np.ndarray


@kernel
def new_layer(experts: int, begin: np.ndarray) -> Layer:
    """Return memory for the maps of any layer, empty."""
    gpus = begin.size - 1
    slots = begin[gpus]
    home = np.empty(slots, np.int64)
    for gpu in range(gpus):
        for slot in range(begin[gpu], begin[gpu + 1]):
            home[slot] = gpu
    return Layer(
        np.empty(experts),
        np.empty(slots, np.int64),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty((experts, 3)),
        np.empty(slots),
        np.empty(gpus),
        np.arange(gpus),
        np.empty(experts, np.int64),
        np.empty(slots, np.int64),
        np.empty((experts, gpus), np.int16),
        np.empty((experts, gpus), np.int16),
        np.empty(gpus, np.int64),
        np.empty(gpus, np.bool_),
        begin,
        home,
        np.empty((slots, 2), np.int64),
    )


@borrower
def use(layer: Layer, loads: np.ndarray, in_use: np.ndarray) -> None:
    """Make a map the one in use and the present one."""
    own, items, counts, sized, sizes, parts, _, _, first, after, held, before, arrived, dirty, _, home, _ = layer
    for e in range(loads.size):
        own[e], counts[e], first[e] = loads[e], 0, -1
    for numbers in (held, before):
        for e in range(loads.size):
            for gpu in range(arrived.size):
                numbers[e, gpu] = 0
    for slot in range(in_use.size - 1, -1, -1):
        e = in_use[slot]
        items[slot] = e
        counts[e] += 1
        held[e, home[slot]] += 1
        before[e, home[slot]] += 1
        after[slot] = first[e]
        first[e] = slot
    for e in range(loads.size):
        sized[e] = counts[e]
        if counts[e] == 1:  # as below, without dear divisions
            sizes[e, 0], sizes[e, 1], sizes[e, 2] = np.inf, loads[e], loads[e] * 0.5
        else:
            for copies in range(3):
                sizes[e, copies] = loads[e] / (counts[e] - 1 + copies)
    for slot in range(in_use.size):
        parts[slot] = sizes[in_use[slot], 1]
    for gpu in range(arrived.size):
        arrived[gpu], dirty[gpu] = 0, True
    settle(layer)


@borrower
def put(layer: Layer, slot: int, expert: int) -> None:
    """Put a replica in place of another; sizes of experts whose counts change, loads and order wait for :func:`settle`."""
    _, items, counts, _, sizes, parts, _, _, first, after, held, before, arrived, dirty, _, home, _ = layer
    gpu, old = home[slot], items[slot]
    if first[old] == slot:
        first[old] = after[slot]
    else:
        at = first[old]
        for _ in range(counts[old]):
            if after[at] == slot:
                after[at] = after[slot]
                break
            at = after[at]
    counts[old] -= 1
    arrived[gpu] -= int(held[old, gpu] > before[old, gpu])
    held[old, gpu] -= 1
    if first[expert] < 0 or first[expert] > slot:
        after[slot] = first[expert]
        first[expert] = slot
    else:
        at = first[expert]
        for _ in range(counts[expert]):
            if after[at] < 0 or after[at] > slot:
                after[slot] = after[at]
                after[at] = slot
                break
            at = after[at]
    counts[expert] += 1
    held[expert, gpu] += 1
    arrived[gpu] += int(held[expert, gpu] > before[expert, gpu])
    items[slot], parts[slot] = expert, sizes[expert, 1]
    dirty[gpu] = True


@borrower
def _settle_expert(layer: Layer, e: int) -> None:
    """Bring the sizes of an expert's replicas up to date."""
    loads, _, counts, sized, sizes, parts, _, _, first, after, _, _, _, dirty, _, home, _ = layer
    sized[e] = counts[e]
    for copies in range(3):
        sizes[e, copies] = loads[e] / (counts[e] - 1 + copies)
    slot = first[e]
    for _ in range(counts[e]):
        parts[slot] = sizes[e, 1]
        dirty[home[slot]] = True
        slot = after[slot]


@borrower
def settle(layer: Layer) -> None:
    """Sum the loads of GPUs that have changed, and order all."""
    totals, order, parts, begin, dirty = layer.totals, layer.order, layer.parts, layer.begin, layer.dirty
    for gpu in range(totals.size):
        if dirty[gpu]:
            dirty[gpu] = False
            total = 0.0
            for slot in range(begin[gpu], begin[gpu + 1]):
                total += parts[slot]
            totals[gpu] = total
    for position in range(1, order.size):
        gpu, at = order[position], position
        total = totals[gpu]
        while at > 0 and (totals[order[at - 1]] < total or (totals[order[at - 1]] == total and order[at - 1] > gpu)):
            order[at] = order[at - 1]
            at -= 1
        order[at] = gpu


@borrower
def become(layer: Layer, items: np.ndarray) -> None:
    """Change the map into another."""
    now, counts, sized, changed = layer.items, layer.counts, layer.sized, layer.changed
    number = 0
    for slot in range(items.size):
        if now[slot] != items[slot]:
            changed[number, 0], changed[number, 1] = slot, now[slot]
            number += 1
    if number == 0:
        return
    for i in range(number):
        put(layer, changed[i, 0], items[changed[i, 0]])
    for i in range(number):
        for e in (changed[i, 1], now[changed[i, 0]]):
            if counts[e] != sized[e]:
                _settle_expert(layer, e)
    settle(layer)


@borrower
def apply(layer: Layer, slot: int, other: int) -> None:
    """Take a step: a slot changes with another, or gets the expert ``-1 - other``."""
    a = layer.items[slot]
    b = layer.items[other] if other >= 0 else -1 - other
    put(layer, slot, b)
    if other >= 0:
        put(layer, other, a)
    else:
        _settle_expert(layer, a)
        _settle_expert(layer, b)
    settle(layer)


@borrower
def moves_of(layer: Layer) -> int:
    """Return how many replicas are on a GPU that did not hold them."""
    moves = 0
    for number in layer.arrived:
        moves += number
    return moves


@borrower
def excess(total: float, target: float) -> float:
    """Return the square of what a load is above the target."""
    over = max(0.0, total - target)
    return over * over


@borrower
def score(layer: Layer, target: float) -> float:
    """Return what a map is searched on by: squared excess of the GPUs, and the variance of their next loads."""
    value = 0.0
    for total in layer.totals:
        value += excess(total, target)
    for e in range(layer.counts.size):
        value += DRIFT * layer.loads[e] * layer.sizes[e, 1]
    return value
