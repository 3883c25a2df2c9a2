"""Adams' counts and LPT on one flat instance, compiled: the start of every search."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import descending, entry


@entry
def adams_counts(loads: np.ndarray, num_slots: int, max_count: int) -> np.ndarray:
    """Return Adams' counts, int64 [experts], at most ``max_count`` each; exact for loads below 2**47, ties to the lower expert.

    Parameters
    ----------
    loads : ndarray
        int64 or float64 [experts].
    num_slots, max_count : int
    """
    experts = loads.size
    counts = np.ones(experts, dtype=np.int64)
    for _ in range(num_slots - experts):
        best = -1
        for e in range(experts):
            # w_e / c_e > w_best / c_best without rounding.
            if counts[e] < max_count and (best < 0 or loads[e] * counts[best] > loads[best] * counts[e]):
                best = e
        counts[best] += 1
    return counts


@entry
def lightest_gpu(totals: np.ndarray, filled: np.ndarray, k: int, held: np.ndarray, expert: int) -> int:
    """Return the lightest GPU with a free slot that does not hold the expert; the lightest with a free slot if all do.

    Parameters
    ----------
    totals : ndarray
        Loads, float64 [gpus].
    filled : ndarray
        Slots in use, int64 [gpus]; at least one is below ``k``.
    k : int
    held : ndarray
        The one expert of a GPU that matters, int64 [gpus].
    expert : int
    """
    best = spare = -1
    for g in range(totals.size):
        if filled[g] == k:
            continue
        if held[g] != expert:
            if best < 0 or totals[g] < totals[best]:
                best = g
        elif spare < 0 or totals[g] < totals[spare]:
            spare = g
    return best if best >= 0 else spare


@entry
def lpt(loads: np.ndarray, counts: np.ndarray, num_gpus: int, slots: np.ndarray) -> bool:
    """Write an LPT map to ``slots`` (GPU-major), copies of an expert on distinct GPUs where room allows.

    Parameters
    ----------
    loads : ndarray
        int64 or float64 [experts].
    counts : ndarray
        int64 [experts].
    num_gpus : int
    slots : ndarray
        int64 [slots]; overwritten.

    Returns
    -------
    bool
        Whether no GPU holds two replicas of one expert.
    """
    k = slots.size // num_gpus
    sizes = np.empty(loads.size)
    for e in range(loads.size):
        sizes[e] = loads[e] / counts[e]
    filled, totals = np.zeros(num_gpus, np.int64), np.zeros(num_gpus)
    last = np.empty(num_gpus, np.int64)  # expert that a GPU got last; copies of one expert are placed in a row
    for g in range(num_gpus):
        last[g] = -1
    distinct = True
    for e in descending(sizes):
        for _ in range(counts[e]):
            g = lightest_gpu(totals, filled, k, last, e)
            distinct &= last[g] != e
            slots[g * k + filled[g]] = e
            filled[g] += 1
            totals[g] += sizes[e]
            last[g] = e
    return distinct
