"""FlashLB of vLLM-Ascend, compiled, as the original is: a tree search over replica counts with LPT as evaluation.

The original weighs the mean of several windows with their variance and covariance. One window has neither: its risk is the
load itself, and its score, the mean over windows of the largest over the mean GPU load, ranks plans as the makespan does.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel
from eplb_gap.heuristics.kernels.greedy import lpt

DEPTH = 4  # blocks of experts, hottest first
WIDTH = 8  # how far from the greedy's share of a block the search looks, each way
SMOOTHING = 1.0  # tokens added to every load


@entry
def greedy_history(loads: np.ndarray, extra: int) -> np.ndarray:
    """Return the counts after 0, 1, ... ``extra`` replicas given to the largest load per replica, int64 [extra + 1, experts].

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    extra : int
    """
    history = np.ones((extra + 1, loads.size), dtype=np.int64)
    for n in range(1, extra + 1):
        history[n] = history[n - 1]
        history[n, np.argmax(loads / history[n])] += 1
    return history


@entry
def plan_layer(loads: np.ndarray, num_gpus: int, slots: np.ndarray) -> None:
    """Write the map of a layer.

    Block after block, hottest first, the extra replicas are split between the block and all colder ones: from the greedy's
    split outwards, both sides by the greedy among themselves, and the split with the smallest makespan stays.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    num_gpus : int
    slots : ndarray
        int64 [slots], GPU-major; overwritten.
    """
    experts = loads.size
    order = np.argsort(-loads, kind="mergesort")
    hot_first = loads[order] + SMOOTHING
    block = (experts + DEPTH - 1) // DEPTH
    extra = slots.size - experts
    counts = greedy_history(hot_first, extra)[extra]
    for start in range(0, experts - block, block):
        end = start + block
        of_block = greedy_history(hot_first[start:end], extra)
        of_rest = greedy_history(hot_first[end:], extra)
        greedy = counts[start:end].sum() - block
        best, best_makespan = greedy, np.inf
        for step in range(2 * WIDTH + 1):
            share = greedy + (step + 1) // 2 * (1 if step % 2 == 0 else -1)
            if 0 <= share <= extra:
                counts[start:end] = of_block[share]
                counts[end:] = of_rest[extra - share]
                makespan = _makespan(hot_first, counts, num_gpus, slots)
                if makespan < best_makespan:
                    best, best_makespan = share, makespan
        counts[start:end] = of_block[best]
        extra -= best
        counts[end:] = of_rest[extra]
    lpt(hot_first, counts, num_gpus, slots)
    slots[:] = order[slots]


@kernel
def _makespan(loads: np.ndarray, counts: np.ndarray, num_gpus: int, slots: np.ndarray) -> float:
    """Return the fullest GPU's load after LPT, which keeps replicas of an expert apart while it can; overwrites ``slots``."""
    lpt(loads, counts, num_gpus, slots)
    sizes = loads / counts
    k = slots.size // num_gpus
    return float(max([sizes[slots[g * k : g * k + k]].sum() for g in range(num_gpus)]))
