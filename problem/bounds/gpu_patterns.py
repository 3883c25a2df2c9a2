"""What one GPU may hold within a threshold: all patterns of k replicas with a load in the band, enumerated plainly.

See :mod:`eplb_gap.problem.bounds.exhausted`, which searches for placements among them. It shares no code with the compiled
enumeration of the engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.problem.bounds.bounds import count_limits
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

MAX_EXPERTS = 255
MAX_PATTERNS = 400_000
MAX_PARTIAL = 1 << 27
"""Partial patterns that the enumeration may look at."""
LARGEST = 1 << 61
"""No sum of scaled loads exceeds this."""


@dataclass(frozen=True)
class Patterns:
    """What GPUs may hold within a threshold, in integers. Types are in the order of their experts.

    ``types[p]`` are the k types of pattern p, ``need[p, j]`` how many of the first j + 1 are of the last of them; patterns by
    descending load.
    """

    gpus: int
    slots: int
    threshold: int
    total: int
    expert: np.ndarray
    copies: np.ndarray
    load: np.ndarray
    types: np.ndarray
    need: np.ndarray

    @property
    def k(self) -> int:
        """Slots of one GPU."""
        return int(self.types.shape[1])


def patterns_within(instance: Instance, threshold: Fraction) -> Patterns | None:
    """Return the patterns of a threshold, or None if it is refuted without a search."""
    k, gpus, within = instance.slots_per_gpu, instance.num_gpus, count_limits(instance, threshold)
    if within is None or threshold < instance.mean:
        return None
    if instance.num_experts > MAX_EXPERTS:
        raise InputError(f"replayed search: {instance.num_experts} experts; at most {MAX_EXPERTS} are replayed")
    ranges = [range(low, high + 1) for low, high in zip(within.least, within.most, strict=True)]
    multiple = math.lcm(*{count for counts in ranges for count in counts})
    total, high = instance.total * multiple, math.floor(threshold * multiple)
    if max(total, high) * (gpus + 1) >= LARGEST:
        raise InputError(f"replayed search: loads of {total} multiples of 1/{multiple} are too large")
    expert = np.array([e for e, counts in enumerate(ranges) for _ in counts], dtype=np.int64)
    copies = np.array([c for counts in ranges for c in counts], dtype=np.int64)
    size = np.array([instance.loads[e] * multiple // c for e, c in zip(expert.tolist(), copies.tolist(), strict=True)])
    order = np.lexsort((copies, expert, -size))  # patterns are written with descending replicas
    most = np.ones_like(copies) if instance.duplicates == "forbidden" else copies
    low = total - (gpus - 1) * high
    found = [part for part in multisets(size[order], expert[order], most[order], k, low, high) if len(part)]
    if not found:
        return None
    rows = np.concatenate(found)
    if len(rows) > MAX_PATTERNS:
        raise InputError(f"replayed search: {len(rows)} patterns; at most {MAX_PATTERNS} are searched")
    load = size[order][rows].sum(axis=1)
    ranked = np.lexsort((*(rows[:, j] for j in range(k - 1, -1, -1)), -load))
    rows = rows[ranked]
    need = np.ones_like(rows)
    for j in range(1, k):
        need[:, j] = np.where(rows[:, j] == rows[:, j - 1], need[:, j - 1] + 1, 1)
    return Patterns(gpus, instance.num_slots, high, total, expert, copies, load[ranked], order[rows], need)


def multisets(size: np.ndarray, expert: np.ndarray, most: np.ndarray, k: int, low: int, high: int) -> Iterator[np.ndarray]:
    """Yield all multisets of k types, one per expert and each at most ``most`` times, with a load from low to high.

    Sizes descend; so do the types of a multiset, written as int64 [multisets, k].
    """
    looked_at, n = 0, len(size)
    for first in range(n):
        rows, sums = np.array([[first]]), size[first : first + 1]
        for length in range(1, k + 1):
            left = k - length
            rows_in = (sums + left * size[rows[:, -1]] >= low) & (sums + left * size[-1] <= high)
            rows, sums = rows[rows_in], sums[rows_in]
            if left == 0 or not len(rows):
                break
            # The next type is no larger than the last one, and fits with the smallest behind it.
            from_type = np.maximum(rows[:, -1], np.searchsorted(-size, -(high - sums - (left - 1) * size[-1]), side="left"))
            number = np.maximum(n - from_type, 0)
            looked_at += int(number.sum())
            if looked_at > MAX_PARTIAL:
                raise InputError(f"replayed search: more than {MAX_PARTIAL} partial patterns")
            parent = np.repeat(np.arange(len(rows)), number)
            new = np.arange(len(parent)) - np.repeat(np.cumsum(number) - number - from_type, number)
            before = rows[parent]
            same = before == new[:, None]
            clash = (expert[before] == expert[new][:, None]) & ~same
            fits = ~clash.any(axis=1) & (same.sum(axis=1) < most[new])
            parent, new = parent[fits], new[fits]
            rows, sums = np.column_stack([rows[parent], new]), sums[parent] + size[new]
        yield rows if rows.shape[1] == k else np.empty((0, k), dtype=np.int64)
