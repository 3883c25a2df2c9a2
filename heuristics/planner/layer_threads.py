"""Layers on several threads, never slower than on one: nobody waits for a thread that was not given a core."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from eplb_gap.problem.errors import InputError

T = TypeVar("T")

VARIABLE = "EPLB_GAP_THREADS"


def number(threads: int | None) -> int:
    """Return how many threads to use: as many as are given, or else as the environment says, or else 1.

    Raises
    ------
    InputError
        If that is no positive integer.
    """
    if threads is None:
        text = os.environ.get(VARIABLE) or "1"
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"{VARIABLE} is {text!r}; a positive integer is needed")
        return int(text)
    if not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads is {threads!r}; a positive integer is needed")
    return threads


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="eplb-gap")


def run(work: Callable[[int], T], jobs: int, threads: int) -> list[T]:
    """Run jobs on this thread and helpers; a job that a helper has begun but not finished at the end is done again here.

    Parameters
    ----------
    work : callable
        Does one job; deterministic, without side effects, and without the interpreter lock for most of its time.
    jobs : int
    threads : int
        This thread and ``threads - 1`` helpers.

    Returns
    -------
    list
        Results by job.
    """
    numbers = itertools.count()  # handed out under the interpreter lock
    found: dict[int, T] = {}

    def loop() -> None:
        for job in numbers:
            if job >= jobs:
                return
            found[job] = work(job)

    for _ in range(threads - 1):
        _pool(threads - 1).submit(loop)
    loop()
    return [found[job] if job in found else work(job) for job in range(jobs)]
