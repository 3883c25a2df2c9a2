"""Local search on the sum of the windows' makespans, compiled: exchanges of replicas, and replicas handed to other experts.

Only GPUs that are the fullest of some window can lower the sum, so each of them is tried against all GPUs of its node.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import holds, kernel, rest
from eplb_gap.heuristics.kernels.window_loads import load_without, rank_gpus, total_makespan
from eplb_gap.heuristics.serving.window_packing import WindowPacking, refresh

WORK = 2_000_000
"""Most searches of one descent times what each looks at: GPUs of a node times slots per GPU squared times windows."""
FEW_SLOTS = 64
"""On nodes of more slots a full GPU gives no replica away: that takes time and gains nothing measurable."""
LEAST_GAIN = 1e-12
"""Relative; smaller gains are rounding."""


class Scratch(NamedTuple):
    """Memory of the search, allocated once for many layers.

    Parameters
    ----------
    top, relieved_top : ndarray
        The three fullest GPUs of every window, int64 [windows, 3]; -1 where there are fewer.
    least : ndarray
        What an exchange with a GPU reaches at best, float64 [gpus].
    rest : ndarray
        Largest load of every window on GPUs that an exchange does not touch, float64 [windows].
    sizes : ndarray
        Replicas of one GPU, float64 [windows, slots per GPU].
    totals : ndarray
        float64 [slots per GPU].
    relieved : ndarray
        GPU loads, float64 [gpus, windows].
    first_of, next_of : ndarray
        First slot of every expert, int64 [experts], and the next of the same expert, int64 [slots]; -1 where there is none.
    """

    top: np.ndarray
    relieved_top: np.ndarray
    least: np.ndarray
    rest: np.ndarray
    sizes: np.ndarray
    totals: np.ndarray
    relieved: np.ndarray
    first_of: np.ndarray
    next_of: np.ndarray


@kernel
def new_scratch(experts: int, slots: int, gpus: int, windows: int) -> Scratch:
    """Return memory for packings of that shape."""
    k = slots // gpus
    return Scratch(
        np.empty((windows, 3), np.int64),
        np.empty((windows, 3), np.int64),
        np.empty(gpus),
        np.empty(windows),
        np.empty((windows, k)),
        np.empty(k),
        np.empty((gpus, windows)),
        np.empty(experts, np.int64),
        np.empty(slots, np.int64),
    )


@kernel
def is_met(top: np.ndarray, t: int) -> bool:
    """Whether the fullest GPU of a window is that of an earlier one."""
    for earlier in range(t):  # noqa: SIM110 - any() over a generator does not compile
        if top[earlier, 0] == top[t, 0]:
            return True
    return False


@kernel
def _exchange(packing: WindowPacking, full: int, per_node: int, distinct: bool, value: float, scratch: Scratch) -> float:
    """Make the best exchange between a GPU and the others of its node, if one lowers the value; return the value."""
    weights, counts, items, loads = packing
    windows, k = loads.shape[1], items.size // loads.shape[0]
    top, least, rest, sizes, totals = scratch.top, scratch.least, scratch.rest, scratch.sizes, scratch.totals
    first = full // per_node * per_node
    for gpu in range(first, first + per_node):
        least[gpu] = np.inf if gpu == full else 0.0
        for t in range(windows):
            # No exchange can bring the pair below its own mean.
            least[gpu] += max(load_without(loads, top, t, full, gpu), 0.5 * (loads[full, t] + loads[gpu, t]))
    best, give, take = value * (1.0 - LEAST_GAIN), -1, -1
    while True:
        gpu = first
        for other in range(first + 1, first + per_node):
            if least[other] < least[gpu]:
                gpu = other
        if least[gpu] >= best or give >= 0:
            break
        least[gpu] = np.inf
        for t in range(windows):
            rest[t] = load_without(loads, top, t, full, gpu)
            for j in range(k):
                e = items[gpu * k + j]
                sizes[t, j] = weights[e, t] / counts[e]
        for own in range(full * k, full * k + k):
            e = items[own]
            if distinct and counts[e] > 1 and holds(items, gpu * k, k, e):
                continue
            for j in range(k):
                totals[j] = 0.0
            for t in range(windows):
                size, others = weights[e, t] / counts[e], rest[t]
                here, there = loads[full, t] - size, loads[gpu, t] + size
                for j in range(k):
                    totals[j] += max(others, max(here + sizes[t, j], there - sizes[t, j]))
            for j in range(k):
                if totals[j] < best:
                    slot = gpu * k + j
                    other = items[slot]
                    if other == e or (distinct and counts[other] > 1 and holds(items, full * k, k, other)):
                        continue
                    best, give, take = totals[j], own, slot
    if give < 0:
        return value
    apply_exchange(packing, give, take)
    return total_makespan(loads)


@kernel
def apply_exchange(packing: WindowPacking, one: int, other: int) -> None:
    """Exchange the replicas on two slots of different GPUs."""
    weights, counts, items, loads = packing
    k = items.size // loads.shape[0]
    e, f = items[one], items[other]
    for t in range(loads.shape[1]):
        moved = weights[e, t] / counts[e] - weights[f, t] / counts[f]
        loads[one // k, t] -= moved
        loads[other // k, t] += moved
    items[one], items[other] = f, e


@kernel
def _hand_over(packing: WindowPacking, full: int, per_node: int, most: int, value: float, scratch: Scratch) -> float:
    """Hand the replica on one slot of a GPU's node to another expert there, if such a change lowers the value; return the value.

    Only where no GPU holds two replicas of one expert, before and after.
    """
    weights, counts, items, loads = packing
    windows, k = loads.shape[1], items.size // loads.shape[0]
    relieved, top, first_of, next_of = scratch.relieved, scratch.relieved_top, scratch.first_of, scratch.next_of
    begin, end = full // per_node * per_node * k, (full // per_node + 1) * per_node * k
    for e in range(counts.size):
        first_of[e] = -1
    for slot in range(end - 1, begin - 1, -1):
        next_of[slot] = first_of[items[slot]]
        first_of[items[slot]] = slot
    best, receiver, given = value * (1.0 - LEAST_GAIN), -1, -1
    gives = False
    if end - begin <= FEW_SLOTS:
        for slot in range(full * k, full * k + k):
            gives |= counts[items[slot]] > 1
    for e in range(counts.size):
        on_full = holds(items, full * k, k, e)
        if first_of[e] < 0 or counts[e] >= most or not (on_full or gives):
            continue
        for gpu in range(loads.shape[0]):
            for t in range(windows):
                relieved[gpu, t] = loads[gpu, t]
        relief = 1.0 / counts[e] - 1.0 / (counts[e] + 1)
        slot = first_of[e]
        while slot >= 0:
            for t in range(windows):
                relieved[slot // k, t] -= weights[e, t] * relief
            slot = next_of[slot]
        rank_gpus(relieved, top)
        # The full GPU is relieved if it holds the receiver or gives the replica.
        for slot in range(begin if on_full else full * k, end if on_full else full * k + k):
            d, gpu = items[slot], slot // k
            if d == e or counts[d] == 1 or holds(items, gpu * k, k, e):
                continue
            total, burden = 0.0, 1.0 / (counts[d] - 1) - 1.0 / counts[d]
            for t in range(windows):
                load = relieved[gpu, t] - weights[d, t] / counts[d] + weights[e, t] / (counts[e] + 1)
                highest = max(load, load_without(relieved, top, t, gpu, gpu))
                other = first_of[d]
                while other >= 0:
                    if other != slot:
                        highest = max(highest, relieved[other // k, t] + weights[d, t] * burden)
                    other = next_of[other]
                total += highest
            if total < best:
                best, receiver, given = total, e, slot
    if receiver < 0:
        return value
    replace(packing, given, receiver)
    return total_makespan(loads)


@kernel
def replace(packing: WindowPacking, slot: int, expert: int) -> None:
    """Give a slot to another expert; the one that held it must have other replicas."""
    _, counts, items, _ = packing
    counts[items[slot]] -= 1
    counts[expert] += 1
    items[slot] = expert
    refresh(packing)


@kernel
def descend(packing: WindowPacking, nodes: int, most: int, scratch: Scratch) -> float:
    """Exchange replicas and hand them over until neither lowers the sum of the windows' makespans; return that sum.

    Ends early after :data:`WORK`, which only wide nodes with many slots per GPU and many windows reach.

    Parameters
    ----------
    packing : WindowPacking
        Map, counts and loads are changed in place.
    nodes : int
        Replicas stay on their node.
    most : int
        Largest count; if it is at most the GPUs of a node, no GPU gets two replicas of an expert.
    scratch : Scratch
    """
    loads, top = packing.loads, scratch.top
    gpus, windows = loads.shape
    per_node, k = gpus // nodes, packing.items.size // gpus
    distinct = most <= per_node
    searches = WORK // (per_node * k * k * windows)
    value = total_makespan(loads)
    while True:
        rest()
        before = value
        rank_gpus(loads, top)
        for t in range(windows):
            if is_met(top, t):
                continue
            moved = _exchange(packing, top[t, 0], per_node, distinct, value, scratch)
            if moved < value:
                value = moved
                rank_gpus(loads, top)
        searches -= windows
        if searches <= 0:
            return value
        if value < before:
            continue
        if distinct:
            for t in range(windows):
                if is_met(top, t):
                    continue
                moved = _hand_over(packing, top[t, 0], per_node, most, value, scratch)
                if moved < value:
                    value = moved
                    rank_gpus(loads, top)
        searches -= windows
        if value >= before:
            return value
