"""Exchanges between the fullest GPU and lighter ones, compiled; two pointers over the two sorted lists of replicas.

The replicas of every GPU are kept in descending order. The exchange of one replica each that brings a pair of GPUs nearest to
its mean is then found in ``2 k`` steps; of two replicas each, from the sorted sums of pairs, in ``k (k - 1)`` steps. Unlike
:mod:`eplb_gap.heuristics.kernels.refinement`, which looks at all slots for every exchange, partners that cannot help are never
looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import holds, kernel, rest
from eplb_gap.heuristics.planner.replicate_lpt import Flat

PASSES = 2
"""Most passes that exchange between the i-th fullest and the i-th emptiest GPU."""
PASS_GPUS = 12
"""On fewer GPUs the passes cost more than they gain."""
DOUBLE_SLOTS = 16
"""GPUs of more slots are not searched for exchanges of two replicas each."""
EXCHANGES_PER_SLOT = 100
"""Most exchanges of one descent per slot; descents end after far fewer."""
LEAST_GAIN = 1e-12
"""Relative; smaller gains are rounding."""


class PairScratch(NamedTuple):
    """Memory of the exchanges, allocated once for many instances.

    Parameters
    ----------
    order : ndarray
        GPUs by ascending load, int64 [gpus].
    sums : ndarray
        Sorted sums of two replicas of a GPU, float64 [2, k (k - 1) / 2].
    names : ndarray
        Their positions ``i * k + j``, int64 [2, k (k - 1) / 2].
    """

    order: np.ndarray
    sums: np.ndarray
    names: np.ndarray


@kernel
def new_pair_scratch(gpus: int, k: int) -> PairScratch:
    """Return memory for that many GPUs of k slots."""
    pairs = k * (k - 1) // 2 if k <= DOUBLE_SLOTS else 0
    return PairScratch(np.empty(gpus, np.int64), np.empty((2, pairs)), np.empty((2, pairs), np.int64))


@kernel
def replace(flat: Flat, gpu: int, slot: int, rank: int, size: float) -> None:
    """Put another replica in place of that on a slot, keep the GPU's list sorted and its load exact."""
    _, _, items, sizes, totals = flat
    k = items.size // totals.size
    first, at = gpu * k, slot
    while at > first and sizes[at - 1] < size:
        sizes[at], items[at] = sizes[at - 1], items[at - 1]
        at -= 1
    while at < first + k - 1 and sizes[at + 1] > size:
        sizes[at], items[at] = sizes[at + 1], items[at + 1]
        at += 1
    sizes[at], items[at] = size, rank
    total = 0.0
    for position in range(first, first + k):
        total += sizes[position]
    totals[gpu] = total


@kernel
def exchange(flat: Flat, one: int, other: int) -> None:
    """Exchange the replicas on two slots of different GPUs."""
    _, _, items, sizes, totals = flat
    k = items.size // totals.size
    rank, size, rank_2, size_2 = items[one], sizes[one], items[other], sizes[other]
    replace(flat, one // k, one, rank_2, size_2)
    replace(flat, other // k, other, rank, size)


@kernel
def remove_duplicates(flat: Flat) -> bool:
    """Exchange replicas until no GPU holds two of one expert; return whether that worked."""
    _, counts, items, _, totals = flat
    gpus = totals.size
    k = items.size // gpus
    for slot in range(items.size):
        gpu, rank = slot // k, items[slot]
        if counts[rank] == 1 or not holds(items, slot + 1, gpu * k + k - slot - 1, rank):
            continue
        best, other, size = np.inf, -1, flat.sizes[slot]
        for candidate in range(items.size):
            g = candidate // k
            larger = max(totals[gpu] - size + flat.sizes[candidate], totals[g] + size - flat.sizes[candidate])
            if g != gpu and larger < best and not (holds(items, g * k, k, rank) or holds(items, gpu * k, k, items[candidate])):
                best, other = larger, candidate
        if other < 0:
            return False
        exchange(flat, slot, other)
    for slot in range(items.size):
        gpu = slot // k
        if holds(items, slot + 1, gpu * k + k - slot - 1, items[slot]):
            return False
    return True


@kernel
def deal(flat: Flat) -> None:
    """Deal the replicas to the GPUs in turn, copies of an expert in a row: never a duplicate where counts are at most G.

    Parameters
    ----------
    flat : Flat
        Loads and counts; items, sizes and totals are overwritten.
    """
    loads, counts, items, sizes, totals = flat
    gpus = totals.size
    k = items.size // gpus
    for gpu in range(gpus):
        totals[gpu] = 0.0
    number = 0
    for rank in range(loads.size):
        for _ in range(counts[rank]):
            at, gpu = number // gpus, number % gpus
            items[gpu * k + at], sizes[gpu * k + at] = rank, 0.0
            replace(flat, gpu, gpu * k + at, rank, loads[rank] / counts[rank])
            number += 1


@kernel
def _best_single(flat: Flat, full: int, other: int, best: float) -> tuple[float, int, int]:
    """Return the larger load and the two slots of the best exchange of one replica each, if it is below ``best``."""
    _, counts, items, sizes, totals = flat
    k = items.size // totals.size
    high, low = totals[full], totals[other]
    half = (high - low) * 0.5
    a, b, end_a, end_b = full * k, other * k, full * k + k, other * k + k
    give = take = -1
    while a < end_a and b < end_b:
        moved = sizes[a] - sizes[b]
        larger = high - moved if moved <= half else low + moved
        if larger < best and not (
            (counts[items[a]] > 1 and holds(items, other * k, k, items[a]))
            or (counts[items[b]] > 1 and holds(items, full * k, k, items[b]))
        ):
            best, give, take = larger, a, b
        if moved <= half:
            b += 1
        else:
            a += 1
    return best, give, take


@kernel
def _sort_gpus(totals: np.ndarray, order: np.ndarray) -> None:
    """Sort GPUs by ascending load, starting from the order given (Shell's sort)."""
    n = order.size
    step = 1
    while step < n // 3:
        step = 3 * step + 1
    while step > 0:
        for i in range(step, n):
            g, j = order[i], i
            total = totals[g]
            while j >= step and totals[order[j - step]] > total:
                order[j] = order[j - step]
                j -= step
            order[j] = g
        step //= 3


@kernel
def _settle(totals: np.ndarray, order: np.ndarray, at: int) -> None:
    """Move one GPU whose load has changed to its place in the order."""
    g, total = order[at], totals[order[at]]
    while at > 0 and totals[order[at - 1]] > total:
        order[at] = order[at - 1]
        at -= 1
    while at < order.size - 1 and totals[order[at + 1]] < total:
        order[at] = order[at + 1]
        at += 1
    order[at] = g


@kernel
def order_gpus(totals: np.ndarray, order: np.ndarray) -> None:
    """Write the GPUs by ascending load."""
    for g in range(order.size):
        order[g] = g
    _sort_gpus(totals, order)


@kernel
def pair_passes(flat: Flat, scratch: PairScratch, stop: float) -> None:
    """Exchange between the i-th fullest and the i-th emptiest GPU, all pairs at once, a few times.

    Parameters
    ----------
    flat : Flat
        Changed in place.
    scratch : PairScratch
        Its order is left sorted.
    stop : float
        Makespan at which to stop.
    """
    totals, order = flat.totals, scratch.order
    gpus = totals.size
    order_gpus(totals, order)
    if gpus < PASS_GPUS:
        return
    for _ in range(PASSES):
        if totals[order[gpus - 1]] <= stop:
            return
        changed = False
        for i in range(gpus // 2):
            full, other = order[gpus - 1 - i], order[i]
            _, give, take = _best_single(flat, full, other, totals[full] * (1.0 - LEAST_GAIN))
            if give >= 0:
                exchange(flat, give, take)
                changed = True
        if not changed:
            return
        _sort_gpus(totals, order)


@kernel
def _sort_sums(sizes: np.ndarray, gpu: int, k: int, sums: np.ndarray, names: np.ndarray) -> None:
    """Write the sums of any two replicas of a GPU in descending order, and their positions as ``i * k + j``."""
    n = 0
    for i in range(k - 1):
        for j in range(i + 1, k):
            total, at = sizes[gpu * k + i] + sizes[gpu * k + j], n
            while at > 0 and sums[at - 1] < total:
                sums[at], names[at] = sums[at - 1], names[at - 1]
                at -= 1
            sums[at], names[at] = total, i * k + j
            n += 1


@kernel
def _clash(flat: Flat, name: int, start: int, k: int, other_name: int, other_start: int) -> bool:
    """Whether one of two replicas would meet a copy of its expert among those that stay on the other GPU."""
    for position in (name // k, name % k):
        rank = flat.items[start + position]
        if flat.counts[rank] > 1:
            for at in range(k):
                if at != other_name // k and at != other_name % k and flat.items[other_start + at] == rank:
                    return True
    return False


@kernel
def _best_double(flat: Flat, scratch: PairScratch, full: int, other: int, best: float) -> tuple[float, int, int]:
    """Return the larger load and the two names of the best exchange of two replicas each, if it is below ``best``.

    The sums of the full GPU are in the first row of the scratch; those of the other are written to the second.
    """
    k = flat.items.size // flat.totals.size
    _, sums, names = scratch
    _sort_sums(flat.sizes, other, k, sums[1], names[1])
    high, low = flat.totals[full], flat.totals[other]
    half = (high - low) * 0.5
    a = b = 0
    give = take = -1
    pairs = k * (k - 1) // 2
    while a < pairs and b < pairs:
        moved = sums[0, a] - sums[1, b]
        larger = high - moved if moved <= half else low + moved
        if larger < best and not (
            _clash(flat, names[0, a], full * k, k, names[1, b], other * k)
            or _clash(flat, names[1, b], other * k, k, names[0, a], full * k)
        ):
            best, give, take = larger, names[0, a], names[1, b]
        if moved <= half:
            b += 1
        else:
            a += 1
    return best, give, take


@kernel
def _exchange_two(flat: Flat, full: int, give: int, other: int, take: int) -> None:
    items = flat.items
    k = items.size // flat.totals.size
    first, second = items[full * k + give // k], items[full * k + give % k]
    third, fourth = items[other * k + take // k], items[other * k + take % k]
    for mine, theirs in ((first, third), (second, fourth)):
        if mine != theirs:
            one, two = full * k, other * k
            while one < full * k + k - 1 and items[one] != mine:
                one += 1
            while two < other * k + k - 1 and items[two] != theirs:
                two += 1
            exchange(flat, one, two)


@kernel
def descend(flat: Flat, scratch: PairScratch, stop: float, doubles: bool) -> float:
    """Lower the fullest GPU by the best exchange with any other, emptiest first, until none helps; return the makespan.

    Parameters
    ----------
    flat : Flat
        Changed in place.
    scratch : PairScratch
        Its order must be sorted; it is kept so.
    stop : float
        Makespan at which to stop.
    doubles : bool
        Whether to try exchanges of two replicas each where no exchange of one helps.
    """
    totals, order = flat.totals, scratch.order
    k, gpus = flat.items.size // totals.size, totals.size
    for _ in range(EXCHANGES_PER_SLOT * flat.items.size):
        rest()
        full = order[gpus - 1]
        high: float = totals[full]
        if high <= stop:
            return high
        best = high * (1.0 - LEAST_GAIN)
        enough = max(stop, totals[order[gpus - 2]]) if gpus > 1 else stop
        give = take = -1
        for q in range(gpus - 1):
            other = order[q]
            if (high + totals[other]) * 0.5 >= best:
                break
            larger, a, b = _best_single(flat, full, other, best)
            if a >= 0:
                best, give, take = larger, a, b
                if best <= enough:
                    break
        if give >= 0:
            exchange(flat, give, take)
            other = take // k
        else:
            # Up to k = 3 two replicas are one exchanged the other way round; many replicas need no finer steps.
            if not doubles or k < 4 or k > DOUBLE_SLOTS:
                return high
            _sort_sums(flat.sizes, full, k, scratch.sums[0], scratch.names[0])
            partner = -1
            for q in range(gpus - 1):
                other = order[q]
                if (high + totals[other]) * 0.5 >= best:
                    break
                larger, a, b = _best_double(flat, scratch, full, other, best)
                if a >= 0:
                    best, give, take, partner = larger, a, b, other
                    if best <= stop:
                        break
            if partner < 0:
                return high
            _exchange_two(flat, full, give, partner, take)
            other = partner
        _settle(totals, order, gpus - 1)
        at = 0
        while at < gpus - 1 and order[at] != other:
            at += 1
        _settle(totals, order, at)
    return float(totals[order[gpus - 1]])
