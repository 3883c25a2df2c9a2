"""Replica counts that a map within a known makespan can have, and the lattice that they put all loads on."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from eplb_gap.problem.instance import Instance


def count_ranges(instance: Instance, upper: Fraction | None) -> list[range]:
    """Return the counts that each expert can have in a map with a makespan of at most ``upper``; None stands for any map.

    No replica is larger than the makespan, so expert e needs ``ceil(w_e / upper)`` replicas, and all experts share the slots
    that those minimum counts leave.
    """
    least = [max(1, math.ceil(w / upper)) if upper else 1 for w in instance.loads]
    spare = instance.num_slots - sum(least)
    return [range(c, min(c + spare, instance.max_count) + 1) for c in least]


def denominator(ranges: Sequence[range]) -> int:
    """Return M, the least common multiple of the possible counts: every GPU load is a multiple of ``1 / M``."""
    return math.lcm(*{count for counts in ranges for count in counts})


def num_assignment_variables(instance: Instance, upper: Fraction | None) -> int:
    """Return how many variables the compact assignment model has: one per expert, possible count and GPU."""
    return sum(len(counts) for counts in count_ranges(instance, upper)) * instance.num_gpus


def assigned(slots: Sequence[int], starts: Sequence[int]) -> tuple[Counter[int], Counter[tuple[int, int, int]]]:
    """Return a map as the assignment model sees it: the count of every expert, the copies of every (expert, count, GPU).

    Parameters
    ----------
    slots : sequence of int [slots]
    starts : sequence of int [gpus + 1]
        First slot of every GPU and, last, the number of slots.
    """
    counted = Counter(slots)
    gpus = enumerate(itertools.pairwise(starts))
    return counted, Counter((expert, counted[expert], gpu) for gpu, (start, end) in gpus for expert in slots[start:end])
