"""TensorRT-LLM's load balancer, compiled, as the original is: Adams' counts, then LPT by a heap."""

from __future__ import annotations

from heapq import heappop, heapreplace

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.heuristics.kernels.greedy import adams_counts


@entry
def replica_counts(loads: np.ndarray, num_slots: int) -> np.ndarray:
    """Return Adams' counts with ties to the *higher* expert; without any load, as even as possible.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    num_slots : int

    Returns
    -------
    ndarray
        int64 [experts].
    """
    if loads.sum() > 0.0:
        return adams_counts(loads[::-1].copy(), num_slots, num_slots)[::-1].copy()
    counts = np.full(loads.size, num_slots // loads.size, dtype=np.int64)
    counts[: num_slots % loads.size] += 1
    return counts


@entry
def plan_layer(loads: np.ndarray, num_gpus: int, slots: np.ndarray) -> None:
    """Write the map of a layer: largest replica next, to the lightest GPU with a free slot, whatever that GPU holds.

    Ties go to the lower expert and the lower GPU.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    num_gpus : int
    slots : ndarray
        int64 [slots], GPU-major; overwritten.
    """
    k = slots.size // num_gpus
    counts = replica_counts(loads, slots.size)
    sizes = loads / counts
    filled = np.zeros(num_gpus, dtype=np.int64)
    lightest = [(0.0, g) for g in range(num_gpus)]  # a heap of the GPUs with a free slot
    for e in np.argsort(-sizes, kind="mergesort"):
        for _ in range(counts[e]):
            load, g = lightest[0]
            slots[g * k + filled[g]] = e
            filled[g] += 1
            if filled[g] < k:
                heapreplace(lightest, (load + sizes[e], g))
            else:
                heappop(lightest)
