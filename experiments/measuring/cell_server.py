"""The process that cells are forked from: warm, of one thread, so that a fresh process per cell costs milliseconds.

A server is started anew and told of one cell at a time. It imports the cell's module, forks, watches the child's limits, and
hands on the row. It ends, and its cell with it, when the other end of its connection closes: a runner that is killed leaves
nothing behind. POSIX only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.problem import child

_TASKS = Path("/proc/self/task")


def serve(descriptor: int) -> None:
    """Run cells from a connection until it closes.

    Parameters
    ----------
    descriptor : int
        File descriptor of one end of a :func:`multiprocessing.Pipe`. A :class:`Cell` comes in; out goes JSON,
        ``{"row": {...}}`` or ``{"failure": "what happened"}``.
    """
    runner = Connection(descriptor)
    rows.environment()  # kept, for every child
    while True:
        try:
            cell: Cell = runner.recv()  # imports the module of the cell's function
        except EOFError:
            return
        except Exception as error:  # a module that cannot be imported is the cell's failure, not the server's
            answer = _failure(f"failed: {type(error).__name__}: {error}")
        else:
            answer = _run(cell, runner)
        try:
            runner.send_bytes(answer)
        except BrokenPipeError:
            return


def _run(cell: Cell, runner: Connection) -> bytes:
    _ = cell.code  # read now, with the module, and kept for every child
    if "eplb_gap.heuristics" in sys.modules:
        import torch  # noqa: F401  (heuristics import it in their first call: a second per cell)
    if _TASKS.exists() and len(list(_TASKS.iterdir())) > 1:
        return _failure(f"failed: importing {cell.function.__module__} starts threads, which do not survive a fork")
    read, write = os.pipe()
    answers, server = Connection(read, writable=False), os.getpid()
    pid = os.fork()
    if not pid:
        answers.close()
        runner.close()
        _child(cell, Connection(write, readable=False), server)
    os.close(write)
    with answers:
        return _watch(cell, pid, answers, runner)


def _watch(cell: Cell, pid: int, answers: Connection, runner: Connection) -> bytes:
    """Return the child's answer, or what happened to it; nothing of its process group is left afterwards."""
    ready = wait([answers, runner], timeout=cell.seconds)
    answer = None
    if answers in ready and runner not in ready:
        try:
            answer = answers.recv_bytes()
        except (EOFError, OSError):  # died before it was through with it
            answer = None
    child.kill_group(pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not ready:
        return _failure(f"timed out after {cell.seconds:g} s")
    if runner in ready:
        sys.exit()  # nobody listens any more
    return answer or _failure(ending(code))


def _child(cell: Cell, answers: Connection, server: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        if child.end_with_parent(server):
            answers.send_bytes(_answer(cell))
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(0)  # whatever happened: the server's loop is not this process's to go on with


def _answer(cell: Cell) -> bytes:
    _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
    limit = child.limit_memory(cell.memory_bytes, resource.RLIMIT_DATA)
    try:
        answer = json.dumps({"row": _row(cell)}).encode()
    except MemoryError:
        answer = _failure(f"out of memory: the limit is {limit / 2**30:g} GiB")
    except BaseException as error:  # whatever a cell raises, SystemExit included, is its row
        answer = _failure(f"failed: {type(error).__name__}: {error}")
    resource.setrlimit(resource.RLIMIT_DATA, (hardest, hardest))  # the answer must get through
    return answer


def _row(cell: Cell) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    fields = cell.function(**cell.arguments)
    return {
        **cell.key._asdict(),
        "code": cell.code,
        "cell_wall_seconds": time.perf_counter() - wall,
        "cell_cpu_seconds": time.process_time() - cpu,
        "timestamp": rows.now(),
        **rows.environment(),
        **fields,
    }


def _failure(status: str) -> bytes:
    return json.dumps({"failure": status}).encode()


def ending(code: int) -> str:
    """Return how a process ended, in words, from its exit code; negative is a signal, as :mod:`subprocess` has it."""
    return f"killed by signal {-code}" if code < 0 else f"failed: the process ended with exit code {code} before its row"
