"""What the searches for several windows ask of GPU loads, float64 [gpus, windows]."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import kernel


@kernel
def total_makespan(loads: np.ndarray) -> float:
    """Return the sum over windows of the largest load; float64 [gpus, windows]."""
    total = 0.0
    for t in range(loads.shape[1]):
        highest = 0.0
        for g in range(loads.shape[0]):
            highest = max(highest, loads[g, t])
        total += highest
    return total


@kernel
def rank_gpus(loads: np.ndarray, top: np.ndarray) -> None:
    """Write the three fullest GPUs of every window, int64 [windows, 3]; -1 where there are fewer."""
    gpus, windows = loads.shape
    for t in range(windows):
        one = two = three = -1
        for g in range(gpus):
            load = loads[g, t]
            if one < 0 or load > loads[one, t]:
                one, two, three = g, one, two
            elif two < 0 or load > loads[two, t]:
                two, three = g, two
            elif three < 0 or load > loads[three, t]:
                three = g
        top[t, 0], top[t, 1], top[t, 2] = one, two, three


@kernel
def load_without(loads: np.ndarray, top: np.ndarray, t: int, one: int, other: int) -> float:
    """Return the largest load of a window on all GPUs but two."""
    for place in range(3):
        g = top[t, place]
        if g >= 0 and g != one and g != other:
            return float(loads[g, t])
    return 0.0
