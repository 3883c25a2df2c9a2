"""Local search on a finished packing, compiled: exchanges that lower the fullest GPU.

Unlike :mod:`eplb_gap.heuristics.programs.swaps`, which repeats what the published programs do, an exchange is taken only if the
maximum of the two GPUs involved falls below the fullest GPU's load, so the makespan never rises.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry, holds

MOST_LOOKS = 50_000_000
"""Most exchanges that one descent looks at: some 50 ms, which the largest deployments do not come near."""


@entry
def swap_descent(experts: np.ndarray, sizes: np.ndarray, num_gpus: int, distinct: bool, stop: float) -> int:
    """Run :func:`swap_descent_on` on ``num_gpus`` GPUs of equally many slots."""
    starts = np.empty(num_gpus + 1, np.int64)
    for gpu in range(num_gpus + 1):
        starts[gpu] = gpu * (experts.size // num_gpus)
    return swap_descent_on(experts, sizes, starts, distinct, stop)


@entry
def swap_descent_on(experts: np.ndarray, sizes: np.ndarray, starts: np.ndarray, distinct: bool, stop: float) -> int:
    """Exchange replicas of the fullest GPU with smaller ones elsewhere, best exchange first, until none helps.

    Ends after :data:`MOST_LOOKS` at the latest, since neither a clock nor Ctrl-C can end it.

    Parameters
    ----------
    experts : ndarray
        Logical expert of every slot, int64 [slots]; changed in place.
    sizes : ndarray
        Load of the replica on every slot, float64 [slots] in tokens; changed in place.
    starts : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    distinct : bool
        Whether an exchange may not put two replicas of one expert on a GPU.
    stop : float
        Makespan in tokens at which to stop.

    Returns
    -------
    int
        Number of exchanges.
    """
    num_gpus = starts.size - 1
    loads = np.zeros(num_gpus)
    for gpu in range(num_gpus):
        for slot in range(starts[gpu], starts[gpu + 1]):
            loads[gpu] += sizes[slot]
    steps, looks = 0, MOST_LOOKS
    while looks > 0:  # every turn looks at something
        full = np.argmax(loads)
        looks -= num_gpus + sizes.size * (starts[full + 1] - starts[full])
        if loads[full] <= stop:
            break
        best = loads[full] * (1.0 - 1e-13)
        give = take = receiver = -1
        mine, count = starts[full], starts[full + 1] - starts[full]
        for gpu in range(num_gpus):
            # No exchange can bring the pair below its own mean.
            if gpu == full or (loads[gpu] + loads[full]) * 0.5 >= best:
                continue
            theirs, theirs_count = starts[gpu], starts[gpu + 1] - starts[gpu]
            for slot in range(theirs, theirs + theirs_count):
                for own in range(mine, mine + count):
                    moved = sizes[own] - sizes[slot]
                    larger = max(loads[full] - moved, loads[gpu] + moved)
                    if moved > 0.0 and larger < best:
                        if distinct and (
                            holds(experts, theirs, theirs_count, experts[own]) or holds(experts, mine, count, experts[slot])
                        ):
                            continue
                        best, give, take, receiver = larger, own, slot, gpu
        if give < 0:
            break
        moved = sizes[give] - sizes[take]
        loads[full] -= moved
        loads[receiver] += moved
        experts[give], experts[take] = experts[take], experts[give]
        sizes[give], sizes[take] = sizes[take], sizes[give]
        steps += 1
    return steps
