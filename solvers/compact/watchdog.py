"""A process of its own for solvers that can overrun their time limit: it hands over findings and is killed at the deadline."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any

from eplb_gap.problem import child
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import num_assignment_variables
from eplb_gap.solvers.engine import Finding, Incumbent, Limits, Search

GRACE_SECONDS = 0.5
"""What a solver may take beyond its deadline to hand over what it has."""
LARGE_MODEL = 20_000
"""Variables of a compact model above which its construction and presolve can overrun a time limit."""
LARGEST_MODEL = 1_000_000
"""Variables above which a compact model is not even built: it would take minutes and gigabytes to prove the mean."""
_ENDED = object()


def watched(engine: Search) -> Search:
    """Return the search of a compact model, run in a process of its own where the model is large, not at all where it is huge."""

    def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
        size = num_assignment_variables(instance, incumbent.upper)
        if size > LARGEST_MODEL:
            return iter(())
        if size > LARGE_MODEL:
            return search_in_process(engine, instance, incumbent, limits)
        return engine(instance, incumbent, limits)

    return search


def search_in_process(engine: Search, instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield what an engine finds in a process of its own; the process never outlives the deadline or this generator.

    Parameters
    ----------
    engine : Search
        A function of a module, so that the other process can import it.
    instance : Instance
    incumbent : Incumbent
    limits : Limits

    Raises
    ------
    Exception
        Whatever the engine raises.
    """
    program = "from eplb_gap.solvers.compact.watchdog import serve; serve()"
    worker = child.start(["-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin is not None and worker.stdout is not None  # both are pipes
    messages: queue.Queue[Any] = queue.Queue()
    reader = threading.Thread(target=_read, args=(worker.stdout, messages), daemon=True)
    reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((engine, instance, incumbent, limits), worker.stdin)
            worker.stdin.close()
        while True:
            try:
                message = messages.get(timeout=limits.seconds_left + GRACE_SECONDS)
            except queue.Empty:
                return
            if message is _ENDED:
                return
            if isinstance(message, Exception):
                raise message
            yield message
    finally:
        child.end(worker)
        reader.join()  # the end of the process is the end of its stream
        worker.stdout.close()


def _read(stream: IO[bytes], messages: queue.Queue[Any]) -> None:
    with contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            messages.put(pickle.load(stream))
    messages.put(_ENDED)


def serve() -> None:
    """Run the engine named on standard input and write its findings to standard output: the other end of the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a solver prints must not reach the pipe
    engine, instance, incumbent, limits = pickle.load(sys.stdin.buffer)
    try:
        for finding in engine(instance, incumbent, limits):
            pickle.dump(finding, answers)
            answers.flush()
    except Exception as error:
        pickle.dump(error, answers)
    answers.close()
