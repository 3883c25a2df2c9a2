"""Processes of our own: started so that they find the project, limited in memory, ended with all that they started. POSIX only.

A process is started anew rather than forked or spawned by :mod:`multiprocessing` where native libraries keep threads that do not
survive a fork, or where a spawned process would run the user's script again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

ONE_THREAD: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
)
"""Environment in which libraries start no thread pools; it must be set before they are imported."""
ROOT = Path(__file__).absolute().parents[__name__.count(".")]
"""Folder that the project's packages are imported from."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def start(arguments: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start Python in a session and group of its own, where Ctrl-C does not reach it and which :func:`end` ends as a whole.

    Parameters
    ----------
    arguments : sequence of str
        What follows the interpreter; the project's packages can be imported.
    environment : mapping, optional
        What is added to this process's own.
    options
        As of :class:`subprocess.Popen`.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        start_new_session=True,
        **options,
    )


def end(process: subprocess.Popen[bytes]) -> int:
    """Kill a process that :func:`start` returned, with its group, and return its exit code; a negative one is a signal."""
    if process.returncode is None:  # until it is waited for nobody else can have its id
        kill_group(process.pid)
    return process.wait()


def kill_group(pid: int) -> None:
    """Kill a process and the group that it leads; it may not have come to make its group, and may have ended."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def end_with_parent(parent: int) -> bool:
    """Let this process be killed when its parent ends; return whether the parent, of that id, is still there."""
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def limit_memory(most: int, kind: int = resource.RLIMIT_AS, *, for_good: bool = False) -> int:
    """Limit what this process may allocate; return the limit in bytes, which is lower where a lower one holds already.

    Parameters
    ----------
    most : int
        Bytes.
    kind : int, default RLIMIT_AS
        One of the limits of :mod:`resource`.
    for_good : bool, default False
        Whether the process cannot raise the limit again.
    """
    hardest = resource.getrlimit(kind)[1]
    limit = most if hardest == resource.RLIM_INFINITY else min(most, hardest)
    resource.setrlimit(kind, (limit, limit if for_good else hardest))
    return limit


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Change this process's environment, for processes that are started meanwhile, and restore it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
