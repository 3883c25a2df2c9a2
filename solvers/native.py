"""Calling native solvers so that Ctrl-C gets through and nothing of theirs reaches standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

MIN_HIGHSPY = (1, 15, 1)


def checked_highspy() -> str:
    """Return the version of highspy; RuntimeError if it is older than 1.15.1, for some of those return false optima."""
    version = metadata.version("highspy")
    if tuple(int(part) for part in version.split(".")[:3]) < MIN_HIGHSPY:
        raise RuntimeError(
            f"highspy is {version}; at least {'.'.join(map(str, MIN_HIGHSPY))} is needed, older ones return false optima"
        )
    return version


def run_interruptibly(work: Callable[[], object], stop: Callable[[], object]) -> bool:
    """Run ``work`` in a thread and return whether Ctrl-C was pressed; then ``stop`` has been called and ``work`` has ended.

    Native code that runs in the main thread would keep Python from seeing the signal until it returns.
    """
    interrupted = False
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while True:
            try:
                running.result()
            except KeyboardInterrupt:
                interrupted = True
                stop()
            else:
                return interrupted


@contextlib.contextmanager
def without_stdout() -> Iterator[None]:
    """Send what native code writes to standard output nowhere: it would corrupt output meant for machines."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
