"""vLLM-Ascend's policy 1, compiled: extra replicas one per GPU in the order of experts, then every expert once by LPT."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.heuristics.kernels.greedy import adams_counts, lightest_gpu


@entry
def plan_layer(loads: np.ndarray, num_gpus: int, slots: np.ndarray) -> None:
    """Write the map of a layer; there must be at most as many extra replicas as GPUs.

    The original puts an expert on the last GPU, full or not, where every GPU with room holds it already; here it then goes
    to the lightest GPU with room.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    num_gpus : int
    slots : ndarray
        int64 [slots], GPU-major; overwritten.
    """
    k = slots.size // num_gpus
    counts = adams_counts(loads, slots.size, slots.size)
    sizes = loads / counts
    filled = np.zeros(num_gpus, dtype=np.int64)
    totals = np.zeros(num_gpus)
    extra = np.full(num_gpus, -1, dtype=np.int64)  # the expert of the extra replica of a GPU
    gpu = 0
    for e in range(loads.size):
        for _ in range(counts[e] - 1):
            extra[gpu] = slots[gpu * k] = e
            filled[gpu] = 1
            totals[gpu] = sizes[e]
            gpu += 1
    for e in np.argsort(-sizes, kind="mergesort"):
        gpu = lightest_gpu(totals, filled, k, extra, e)
        slots[gpu * k + filled[gpu]] = e
        filled[gpu] += 1
        totals[gpu] += sizes[e]
