"""Smallest sets of nodes that hold all experts of a token, compiled; nodes are bits of a number."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import borrower

MOST_NODES = 24
"""That smallest covers are looked for on: sets of nodes are gone through as bits of a number."""


@borrower
def hashed(token: int, below: int) -> int:
    """Return one of 0 .. below - 1 by Knuth's multiplicative hash."""
    return (((token + 1) * 2654435761) & 0xFFFFFFFF) * below >> 32


@borrower
def hashed_within(token: int, below: int) -> int:
    """Return one of 0 .. below - 1 by another such hash: which replica inside a cover must not follow from which cover.

    Both multipliers are irrational parts of 2^32 that no whole numbers relate, so that pairs of draws are even as each is.
    """
    return (((token + 1) * 3242174889) & 0xFFFFFFFF) * below >> 32


@borrower
def cover_size(row: np.ndarray, held: np.ndarray) -> int:
    """Return how many nodes hold all experts of a token at least; ``held`` has each expert's nodes as bits, int64 [experts]."""
    forced = several = 0
    for e in row:
        nodes = held[e]
        if nodes & (nodes - 1):
            several += 1
        else:
            forced |= nodes
    size = ones(forced)
    if not several:
        return size
    common, either = -1, 0
    for e in row:
        if not held[e] & forced:
            common &= held[e]
            either |= held[e]
    if not either:
        return size
    if common:
        return size + 1
    if _two_cover(row, held, forced):
        return size + 2
    more = 3
    while more < 64 and not covers(row, held, forced, either, more, 1):
        more += 1
    return size + more


@borrower
def _two_cover(row: np.ndarray, held: np.ndarray, forced: int) -> bool:
    """Whether two nodes beside those that are forced cover a token: one of them has the first expert that is missing."""
    first = 0
    for e in row:
        if not held[e] & forced:
            first = held[e]
            break
    for node in range(MOST_NODES):
        if first >> node & 1:
            common, nodes = -1, forced | 1 << node
            for e in row:
                if not held[e] & nodes:
                    common &= held[e]
            if common:
                return True
    return False


@borrower
def chosen_cover(row: np.ndarray, held: np.ndarray, free: int, token: int) -> int:
    """Return the nodes of a smallest cover, as bits, with those that are free; of several the one that the token's hash says."""
    forced = free
    for e in row:
        if held[e] & (held[e] - 1) == 0:  # on one node alone
            forced |= held[e]
    either = 0
    for e in row:
        if not held[e] & forced:
            either |= held[e]
    if not either:
        return forced
    for size in range(1, 64):
        found = covers(row, held, forced, either, size, 0)
        if found:
            return covers(row, held, forced, either, size, hashed(token, found) + 1)
    return forced


@borrower
def covers(row: np.ndarray, held: np.ndarray, forced: int, either: int, size: int, wanted: int) -> int:
    """Return how many sets of ``size`` nodes out of ``either`` cover a token together with those that are forced.

    Where a number is wanted, return the cover of that number, counted from one, or 0 if there are fewer.
    """
    count, seen = ones(either), 0
    subset = (1 << size) - 1
    while subset < 1 << count:
        cover, left = forced, either
        for i in range(count):
            if subset >> i & 1:
                cover |= left & -left
            left &= left - 1
        complete = True
        for e in row:
            if not held[e] & cover:
                complete = False
                break
        if complete:
            seen += 1
            if seen == wanted:
                return cover
        lowest = subset & -subset  # the next larger number with as many bits (Gosper)
        ripple = subset + lowest
        subset = ripple | (((subset ^ ripple) >> 2) // lowest)
    return 0 if wanted else seen


@borrower
def ones(bits: int) -> int:
    """Return how many bits are set."""
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count
