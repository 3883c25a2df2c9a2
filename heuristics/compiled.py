"""What all compiled code shares: the decorators, the random numbers that kernels draw, and the orders they sort into.

In a kernel a sort of numpy's takes a second to compile, a slice assignment or a reduction a tenth, a loop next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

SMALL_PART = 15
"""Parts that differ by less in their ends are sorted by insertion."""


def kernel(function: F) -> F:
    """Compile a function that only other kernels call: without wrappers for Python that takes half the time."""
    compiled: F = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled


def entry(function: F) -> F:
    """Compile a function that Python calls, or Python and kernels."""
    compiled: F = njit(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    return compiled


def borrower(function: F) -> F:
    """Compile a kernel that makes no arrays and keeps none: it does not count references to those that it is given.

    As a layer's many arrays go from function to function the counting would take most of the time.
    """
    compiled: F = njit(cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function)
    return compiled


@kernel
def seed_random(value: int) -> None:
    """Start the random numbers of this thread's kernels anew."""
    np.random.seed(value)


@kernel
def random() -> float:
    """Draw a number from 0 to 1, 1 left out."""
    return np.random.random()


@kernel
def rest() -> None:
    """Do nothing; an interpreted kernel may give up here, as where it draws a number (:mod:`eplb_gap.heuristics.tiers`)."""


@kernel
def below(limit: int) -> int:
    """Draw one of the integers 0 .. limit - 1."""
    return np.random.randint(limit)


@kernel
def holds(experts: np.ndarray, start: int, k: int, expert: int) -> bool:
    """Whether the GPU whose k slots begin at ``start`` holds a replica of an expert; ``experts`` is int64 [slots]."""
    for slot in range(start, start + k):  # noqa: SIM110 - any() over a generator does not compile
        if experts[slot] == expert:
            return True
    return False


@kernel
def copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a vector."""
    for i in range(source.size):
        target[i] = source[i]


@kernel
def descending(values: np.ndarray) -> np.ndarray:
    """Return the order of values from the largest down, ties by index, int64 [n]: merges of ever longer runs."""
    n = values.size
    order, other = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        order[i] = i
    width = 1
    while width < n:
        for begin in range(0, n, 2 * width):
            a, middle, end = begin, min(begin + width, n), min(begin + 2 * width, n)
            b = middle
            for at in range(begin, end):
                if a < middle and (b >= end or not values[order[b]] > values[order[a]]):
                    other[at] = order[a]
                    a += 1
                else:
                    other[at] = order[b]
                    b += 1
        order, other = other, order
        width *= 2
    return order


@kernel
def ascending(values: np.ndarray, order: np.ndarray) -> None:
    """Write the order of values from the smallest up, int64 [n]: quicksort, whose ties are in no particular but a fixed order."""
    n = values.size
    for i in range(n):
        order[i] = i
    starts, ends = np.empty(64, np.int64), np.empty(64, np.int64)
    starts[0], ends[0] = 0, n - 1
    parts = 1
    while parts > 0:
        parts -= 1
        low, high = starts[parts], ends[parts]
        while high - low >= SMALL_PART:
            middle = (low + high) >> 1
            if values[order[middle]] < values[order[low]]:
                order[low], order[middle] = order[middle], order[low]
            if values[order[high]] < values[order[middle]]:
                order[high], order[middle] = order[middle], order[high]
            if values[order[middle]] < values[order[low]]:
                order[low], order[middle] = order[middle], order[low]
            pivot = values[order[middle]]
            order[high], order[middle] = order[middle], order[high]
            i, j = low, high - 1
            while True:
                while i < high and values[order[i]] < pivot:
                    i += 1
                while j >= low and pivot < values[order[j]]:
                    j -= 1
                if i >= j:
                    break
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
            order[i], order[high] = order[high], order[i]
            # The larger part waits, so that the stack stays as small as the logarithm of n.
            if high - i > i - low:
                starts[parts], ends[parts] = i + 1, high
                parts += 1
                high = i - 1
            else:
                starts[parts], ends[parts] = low, i - 1
                parts += 1
                low = i + 1
        for i in range(low + 1, high + 1):
            moved, j = order[i], i
            while j > low and values[moved] < values[order[j - 1]]:
                order[j] = order[j - 1]
                j -= 1
            order[j] = moved
