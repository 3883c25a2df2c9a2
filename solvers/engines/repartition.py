"""Upper-bound engine for five and more slots per GPU: counts, exchanges and exact two-GPU re-partitions until the clock ends.

There the mean is the bound (see :mod:`eplb_gap.heuristics.kernels.local_search`), so the engine yields maps only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eplb_gap.heuristics.kernels.local_search import SAFE_TOTAL, search_counts
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import ANY_SLOTS, Engine, Finding, Incumbent, Limits

TRIALS_PER_CALL = 10
"""Count vectors per compiled call: the clock and Ctrl-C are looked at in between."""


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better and better maps; repeatable for a seed as far as the clock lets it get.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map is the start, its bound and the target gap say where to stop.
    limits : Limits
    """
    if instance.total >= SAFE_TOTAL:
        return
    slots = np.array(incumbent.slots if incumbent.slots is not None else greedy_map(instance), dtype=np.int64)
    loads = np.array(instance.loads, dtype=np.int64)
    counts = np.bincount(slots, minlength=instance.num_experts)
    seed = limits.seed
    best = np.inf
    while limits.seconds_left > 0:
        seed += TRIALS_PER_CALL
        stop = float(incumbent.bound.value) * (1.0 + limits.target_gap)
        if limits.enough is not None:
            stop = max(stop, float(limits.enough))
        value = search_counts(
            loads,
            counts,
            instance.num_gpus,
            instance.max_count,
            instance.duplicates == "forbidden",
            stop,
            TRIALS_PER_CALL,
            seed,
            slots,
        )
        if value < best:
            best = value
            yield tuple(slots.tolist())


ENGINE = Engine("splitting", search, range(2, ANY_SLOTS.stop), exact=False)
