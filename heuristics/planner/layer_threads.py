"""Layers on several threads, never slower than on one: nobody waits for a thread that was not given a core."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="eplb-gap")


def run(work: Callable[[int], T], jobs: int, threads: int, deadline: float | None = None) -> dict[int, T]:
    """Run jobs on this thread and helpers; a job that a helper has begun but not finished at the end is done again here.

    Parameters
    ----------
    work : callable
        Does one job; deterministic, without side effects, and without the interpreter lock for most of its time.
    jobs : int
    threads : int
        This thread and ``threads - 1`` helpers.
    deadline : float, optional
        Value of ``time.perf_counter()`` after which no job is begun; without one all are done.

    Returns
    -------
    dict
        Results by job; some may be missing if there is a deadline.
    """
    numbers = itertools.count()  # handed out under the interpreter lock
    found: dict[int, T] = {}

    def late() -> bool:
        return deadline is not None and time.perf_counter() >= deadline

    def loop() -> None:
        for job in numbers:
            if job >= jobs or late():
                return
            found[job] = work(job)

    if threads > 1:
        for _ in range(threads - 1):
            _pool(threads - 1).submit(loop)
    loop()
    results: dict[int, T] = {}
    for job in range(jobs):
        if job in found:
            results[job] = found[job]
        elif not late():
            results[job] = work(job)
    return results
