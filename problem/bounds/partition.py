"""Partitions of groups: into given sets, by exact cover with memory of what has failed, and into all sets of a size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from eplb_gap.problem.errors import InputError


def cover(sets: Iterable[tuple[int, ...]], groups: int, limit: int | None = None) -> list[tuple[int, ...]] | None:
    """Return sets that contain each of the groups 0 .. ``groups - 1`` exactly once, or None if there are none.

    Parameters
    ----------
    sets : iterable of tuple of int
        Ascending groups of each set.
    groups : int
    limit : int, optional
        Sets that are tried.

    Raises
    ------
    InputError
        If more sets than the limit would have to be tried.
    """
    by_first: dict[int, list[tuple[int, ...]]] = {}
    for chosen in sets:
        by_first.setdefault(chosen[0], []).append(chosen)
    found: list[tuple[int, ...]] = []
    dead: set[frozenset[int]] = set()
    tried = itertools.count(1)

    def extend(free: frozenset[int]) -> bool:
        if not free:
            return True
        if free in dead:
            return False
        # The lowest free group must be the first of some set, so every partition is met once.
        for chosen in by_first.get(min(free), ()):
            if next(tried) > (limit or math.inf):
                raise InputError(f"more than {limit} sets of groups would have to be tried")
            if free.issuperset(chosen):
                found.append(chosen)
                if extend(free.difference(chosen)):
                    return True
                found.pop()
        dead.add(free)
        return False

    return found if extend(frozenset(range(groups))) else None


def bottleneck_cover(values: Mapping[tuple[int, ...], Fraction], groups: int) -> tuple[list[tuple[int, ...]], Fraction]:
    """Return the partition of groups into the given sets whose largest value is smallest, and that value; by bisection.

    Parameters
    ----------
    values : mapping of tuple of int to Fraction
        Value of every set that may be used; they must cover the groups.
    groups : int
    """

    def within(threshold: Fraction) -> list[tuple[int, ...]] | None:
        return cover((chosen for chosen, value in values.items() if value <= threshold), groups)

    thresholds = sorted(set(values.values()))
    low, high = 0, len(thresholds) - 1
    while low < high:
        middle = (low + high) // 2
        if within(thresholds[middle]) is None:
            low = middle + 1
        else:
            high = middle
    found = within(thresholds[low])
    assert found is not None  # all sets together cover the groups
    return found, thresholds[low]


def num_partitions(groups: int, nodes: int) -> int:
    """Return how many partitions of the groups into as many equal sets as there are nodes exist."""
    ordered = math.factorial(groups) // math.prod(math.factorial(groups // nodes) for _ in range(nodes))
    return ordered // math.factorial(nodes)


def partitions(groups: tuple[int, ...], size: int) -> Iterator[list[tuple[int, ...]]]:
    """Yield all partitions of groups into sets of that size; the lowest group left opens the next set, so none comes twice."""
    if not groups:
        yield []
    for others in itertools.combinations(groups[1:], size - 1) if groups else ():
        rest = tuple(group for group in groups[1:] if group not in others)
        for sets in partitions(rest, size):
            yield [(groups[0], *others), *sets]
