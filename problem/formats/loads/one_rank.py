"""Whether loads look like those of one rank alone, of whose experts a dump holds the counts, instead of all ranks' together."""

from __future__ import annotations

import numpy as np

LEAST_EXPERTS = 8
"""With fewer experts half of them can be idle by chance."""


def one_rank_notice(loads: np.ndarray) -> str | None:
    """Return what to say where only the experts of one rank have load; None where loads do not look like that.

    They do where all load of all windows and layers is on one block of E/G experts, as ranks hold them (rank ``r`` of ``G`` those
    from ``r * E/G`` on), and in every layer at least two experts, and at least half of the block, have load. A single hot expert
    is no such block, and idle layers are none.

    Parameters
    ----------
    loads : ndarray of int [windows, layers, experts]
    """
    layers, experts = loads.shape[1:]
    used = np.asarray(loads.any(axis=0))
    found = np.flatnonzero(used.any(axis=0))
    if experts < LEAST_EXPERTS or found.size < 2:
        return None
    first, last = int(found[0]), int(found[-1])
    blocks = (size for size in range(last - first + 1, experts // 2 + 1) if experts % size == 0 and first // size == last // size)
    size = next(blocks, None)
    if size is None or (used[used.any(axis=1)].sum(axis=1) < max(2, size / 2)).any():
        return None
    start = first // size * size
    return (
        f"looks like the share of one rank of {experts // size}: of {experts} experts only {start} to {start + size - 1} have "
        f"load, the other {experts - size} none in any window of any of the {layers} layers; the loads of all ranks are needed"
    )
