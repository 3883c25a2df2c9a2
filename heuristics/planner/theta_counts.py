"""Search over replica counts on one flat instance, compiled: a grid of size thresholds, then iterated local search.

Adams' counts minimise the largest replica. With a few hot experts that makes many equal large replicas that do not tile a GPU;
counts that keep every replica below a part theta of the mean GPU load often tile better. From the best of those the search moves
single replicas between experts on the packed map, which needs no new packing, only exchanges.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, holds, kernel, random, seed_random
from eplb_gap.heuristics.planner.pair_swap import (
    PairScratch,
    deal,
    descend,
    exchange,
    order_gpus,
    pair_passes,
    remove_duplicates,
    replace,
)
from eplb_gap.heuristics.planner.replicate_lpt import Flat, Scratch, arrange

THETAS = 16
"""Thresholds in the grid; every one is tried with two uses of the slots it leaves over."""
MOVE_SHARE = 0.6
"""Part of the trials that move a replica; the others make up to three random exchanges."""
ATTEMPTS = 20
"""Draws of a donor or of an exchange before a trial is given up."""


@kernel
def copy_flat(source: Flat, target: Flat) -> None:
    """Copy counts and packing; the loads are the same."""
    for r in range(source.counts.size):
        target.counts[r] = source.counts[r]
    for slot in range(source.items.size):
        target.items[slot], target.sizes[slot] = source.items[slot], source.sizes[slot]
    for g in range(source.totals.size):
        target.totals[g] = source.totals[g]


@kernel
def _threshold_counts(flat: Flat, threshold: float, most: int, fillers: bool) -> bool:
    """Write counts that keep replicas within a threshold; return False if they need more slots than there are.

    Spare slots go to the largest experts with one replica, or to the smallest as fillers.
    """
    loads, counts, items, _, _ = flat
    spare = items.size
    for r in range(loads.size):
        # The threshold itself is often a load per replica, which rounding must not push to one more.
        counts[r] = min(most, max(1, int(np.ceil(loads[r] / threshold * (1.0 - 1e-12)))))
        spare -= counts[r]
    if spare < 0:
        return False
    copies = 1
    while spare > 0:
        for position in range(loads.size):
            r = loads.size - 1 - position if fillers else position
            if spare > 0 and counts[r] == copies and copies < most:
                counts[r] += 1
                spare -= 1
        copies += 1
    return True


@kernel
def _resize(flat: Flat, rank: int, copies: int) -> None:
    """Give every replica of an expert its share for that many copies."""
    k = flat.items.size // flat.totals.size
    flat.counts[rank] = copies
    size = flat.loads[rank] / copies
    for gpu in range(flat.totals.size):
        for slot in range(gpu * k, gpu * k + k):
            if flat.items[slot] == rank:
                replace(flat, gpu, slot, rank, size)
                break


@kernel
def _move_replica(flat: Flat, full: int, most: int) -> bool:
    """Replace a random replica of a replicated expert by one of an expert of the fullest GPU; return whether one could."""
    counts, items = flat.counts, flat.items
    k = items.size // flat.totals.size
    taker = items[full * k + below(k)]
    if counts[taker] == most:
        return False
    for _ in range(ATTEMPTS):
        slot = below(items.size)
        donor, gpu = items[slot], slot // k
        if donor == taker or counts[donor] == 1 or holds(items, gpu * k, k, taker):
            continue
        copies = counts[taker] + 1
        replace(flat, gpu, slot, taker, flat.loads[taker] / copies)
        _resize(flat, donor, counts[donor] - 1)
        _resize(flat, taker, copies)
        return True
    return False


@kernel
def _random_exchange(flat: Flat) -> None:
    items = flat.items
    k = items.size // flat.totals.size
    for _ in range(ATTEMPTS):
        one, other = below(items.size), below(items.size)
        if one // k == other // k or holds(items, one // k * k, k, items[other]) or holds(items, other // k * k, k, items[one]):
            continue
        exchange(flat, one, other)
        return


@kernel
def search_thetas(
    flat: Flat, best: Flat, most: int, scratch: Scratch, pairs: PairScratch, stop: float, trials: int, seed: int
) -> float:
    """Improve a packing by other counts; never raises its makespan.

    Parameters
    ----------
    flat : Flat
        A packing without duplicates; changed in place to the best found.
    best : Flat
        Memory of the same shape; its loads are not used.
    most : int
        Replicas that an expert may have, at most the number of GPUs.
    scratch : Scratch
    pairs : PairScratch
    stop : float
        Makespan at which to stop.
    trials : int
        Steps of the iterated local search.
    seed : int

    Returns
    -------
    float
        Makespan.
    """
    gpus = flat.totals.size
    if gpus == 1:
        return float(flat.totals[0])
    seed_random(seed)
    copy_flat(flat, best)
    reached, total, largest = 0.0, 0.0, 0.0
    for g in range(gpus):
        reached = max(reached, flat.totals[g])
        total += flat.totals[g]
    for r in range(flat.loads.size):
        largest = max(largest, flat.loads[r] / flat.counts[r])
    mean = total / gpus
    for number in range(2 * THETAS):
        if reached <= stop:
            break
        threshold = largest + (mean - largest) * (number // 2) / (THETAS - 1)
        if largest < mean and _threshold_counts(flat, threshold, most, number % 2 == 1):
            if not arrange(flat, flat.loads.size, scratch) and not remove_duplicates(flat):
                deal(flat)
            pair_passes(flat, pairs, stop)
            value = descend(flat, pairs, stop, False)
            if value < reached:
                reached = value
                copy_flat(flat, best)
    copy_flat(best, flat)
    order_gpus(flat.totals, pairs.order)
    for _ in range(trials):
        if reached <= stop:
            break
        if random() < MOVE_SHARE:
            if not _move_replica(flat, pairs.order[gpus - 1], most):
                continue
        else:
            for _ in range(1 + below(3)):
                _random_exchange(flat)
        order_gpus(flat.totals, pairs.order)
        value = descend(flat, pairs, stop, False)
        if value <= reached:
            reached = value
            copy_flat(flat, best)
        else:
            copy_flat(best, flat)
            order_gpus(flat.totals, pairs.order)
    copy_flat(best, flat)
    return reached
