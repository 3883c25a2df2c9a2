"""Calling native solvers so that Ctrl-C gets through and nothing of theirs reaches standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from importlib import metadata
from typing import Any

MIN_HIGHSPY = (1, 15, 1)
POLL_SECONDS = 0.1


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

    Native code that runs in the main thread would keep Python from seeing the signal until it returns. So would one long wait
    where a library has put a handler of its own under Python's that restarts system calls: the waits are short.
    """
    interrupted = False
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while True:
            try:
                wait([running], timeout=POLL_SECONDS)
                if running.done():
                    running.result()
                    return interrupted
            except KeyboardInterrupt:
                interrupted = True
                stop()


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


def new_highs(options: dict[str, Any]) -> Any:
    """Return a quiet ``highspy.Highs`` with these options; RuntimeError if it rejects one."""
    import highspy

    with without_stdout():  # the first instance of a process prints a banner before any option can be set
        highs = highspy.Highs()
    for name, value in {"output_flag": False, **options}.items():
        if highs.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise RuntimeError(f"HiGHS rejects the option {name} = {value!r}")
    return highs


def run_highs(highs: Any, stop: Callable[[], object]) -> Any:
    """Run HiGHS in a thread and return its status; on Ctrl-C call ``stop``, let it end and raise KeyboardInterrupt."""
    import highspy

    ended: list[Any] = []

    def work() -> None:
        ended.append(highs.run())
        # The scheduler belongs to the thread that ran the solver; left alone it would outlive it.
        highspy.Highs.resetThreadScheduler(True)

    if run_interruptibly(work, stop):
        raise KeyboardInterrupt
    return ended[0]


def check_status(highs: Any, status: Any) -> None:
    """Raise RuntimeError if a status that ``run`` returned is an error."""
    import highspy

    if status == highspy.HighsStatus.kError:
        raise RuntimeError(f"HiGHS failed with model status {highs.modelStatusToString(highs.getModelStatus())}")
