"""Partition of groups into given sets: exact cover with memory of what has failed."""

from __future__ import annotations

from collections.abc import Iterable


def cover(sets: Iterable[tuple[int, ...]], groups: int) -> list[tuple[int, ...]] | None:
    """Return sets that contain each of the groups 0 .. ``groups - 1`` exactly once, or None if there are none.

    Parameters
    ----------
    sets : iterable of tuple of int
        Ascending groups of each set.
    groups : int
    """
    by_first: dict[int, list[tuple[int, ...]]] = {}
    for chosen in sets:
        by_first.setdefault(chosen[0], []).append(chosen)
    found: list[tuple[int, ...]] = []
    dead: set[frozenset[int]] = set()

    def extend(free: frozenset[int]) -> bool:
        if not free:
            return True
        if free in dead:
            return False
        # The lowest free group must be the first of some set, so every partition is met once.
        for chosen in by_first.get(min(free), ()):
            if free.issuperset(chosen):
                found.append(chosen)
                if extend(free.difference(chosen)):
                    return True
                found.pop()
        dead.add(free)
        return False

    return found if extend(frozenset(range(groups))) else None
