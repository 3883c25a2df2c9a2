"""First answers from interpreted kernels, while another process compiles them; later ones from the compiled.

Compiling the planner takes some ten seconds, interpreting it on one model a quarter of one. A tiered kernel is therefore run as
plain Python until its compiled form lies in numba's cache on the disk. When more than a moment has gone into interpreting it, a
process that outlives this one compiles it: at once if the calls are dear, otherwise when this process ends. As soon as the
compiled form is there a call that is still interpreting gives up and is made again, compiled. Both give the same maps to the bit.
With ``EPLB_GAP_INTERPRET=0`` in the environment the first call compiles: for measurements of time, and where no process may be
started.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from eplb_gap.heuristics import compiled
from eplb_gap.heuristics.environment import interprets

LONG, DEAR, CHEAP = 0.4, 4.0, 0.25
"""CPU seconds of one call, and of all calls, after which a kernel is compiled at once; those after which it is at the end."""
GLANCE = 0.1
"""Seconds between two looks at whether it is ready."""
SETTLED = 1.0
"""Seconds after which a file of another process's compiler counts as written."""


class Ready(BaseException):
    """Raised in an interpreted kernel whose compiled form has been found: no error, and not to be caught as one."""


class _Interpreter(threading.local):
    """What interpreted kernels of a thread share: their random numbers, and when to look for the compiled ones."""

    def __init__(self) -> None:
        self.numbers = np.random.RandomState(0)
        self.kernel: TieredKernel | None = None
        self.next_glance = 0.0

    def glance(self) -> None:
        now = time.perf_counter()
        if now >= self.next_glance and self.kernel is not None:
            self.next_glance = now + GLANCE
            self.kernel.glance()


_interpreter = _Interpreter()


def _seed_random(value: int) -> None:
    _interpreter.numbers.seed(value)


def _random() -> float:
    _interpreter.glance()
    return _interpreter.numbers.random_sample()


def _rest() -> None:
    _interpreter.glance()


def _below(limit: int) -> int:
    return int(_interpreter.numbers.randint(limit))


_twins: dict[int, Callable[..., Any]] = {
    id(compiled.seed_random): _seed_random,
    id(compiled.random): _random,
    id(compiled.rest): _rest,
    id(compiled.below): _below,
}
"""Plain functions by the id of the kernel that they stand for; kernels live as long as their modules."""


def interpreted(kernel: Any) -> Callable[..., Any]:
    """Return a kernel as a plain function, which calls plain functions in place of all other kernels."""
    found = _twins.get(id(kernel))
    if found is None:
        function = kernel.py_func
        names = dict(function.__globals__)
        found = _twins[id(kernel)] = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
        for name in function.__code__.co_names:
            if isinstance(names.get(name), Dispatcher):
                names[name] = interpreted(names[name])
    return found


def begin(kernels: Iterable[TieredKernel]) -> None:
    """Have kernels compiled, as :meth:`TieredKernel.begin`, by one process one after the other."""
    cold = [kernel for kernel in kernels if kernel.is_cold()]
    if cold:
        process = _start_compiler(cold)
        for kernel in cold:
            kernel.leave_to(process)


KERNELS: list[TieredKernel] = []
"""All tiered kernels of the modules imported so far."""


class TieredKernel:
    """A kernel for callers in Python; made by :func:`tiered`."""

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        self.kernel: Any = compiled.entry(function)
        self.module, self.name = function.__module__, function.__name__
        self._signature = signature
        self._file = f"{self.module.rpartition('.')[2]}.{self.name}-*.nbi"
        self._source = Path(function.__code__.co_filename)
        self._spent = 0.0  # CPU seconds of interpreting
        self._began = 0.0
        self._compiler: int | None = None  # its process
        self._alone = False  # no process could be started
        self.is_compiled = not isinstance(self.kernel, Dispatcher)  # with NUMBA_DISABLE_JIT there is nothing to compile
        self._lock = threading.Lock()
        KERNELS.append(self)

    def __call__(self, *arguments: Any) -> Any:
        self.load()
        if self.is_compiled:
            return self.kernel(*arguments)
        began, self._began = time.perf_counter(), time.thread_time()
        outer, _interpreter.kernel, _interpreter.next_glance = _interpreter.kernel, self, began + GLANCE
        given = [(array, array.copy()) for array in arguments if isinstance(array, np.ndarray)]
        try:
            with np.errstate(all="ignore"):
                return interpreted(self.kernel)(*arguments)
        except Ready:
            for array, before in given:  # it is called again with what it was called with
                array[...] = before
            self.compile()
        finally:
            _interpreter.kernel = outer
            self._spent += time.thread_time() - self._began
            _clock.seconds += time.perf_counter() - began
            self._think()
        return self.kernel(*arguments)

    def load(self) -> None:
        """Load the compiled form if it is there; make it if kernels are not to be interpreted."""
        if not self.is_compiled and (not interprets() or self.found()):
            self.compile()

    def compile(self) -> None:
        """Compile, or load from the disk."""
        began = time.perf_counter()
        with self._lock:
            if not self.kernel.signatures:
                self.kernel.compile(self._signature)
                self.kernel.disable_compile()  # one specialisation: arguments of other types are errors
            self.is_compiled = True
        _clock.seconds += time.perf_counter() - began

    def glance(self) -> None:
        """Raise :class:`Ready` if the compiled form is there; have it made if interpreting has become dear."""
        if self.found():
            raise Ready
        self._think(time.thread_time() - self._began)

    def begin(self) -> None:
        """Have it compiled in another process unless it is: for callers who know that they will need it for long."""
        begin([self])

    def is_cold(self) -> bool:
        """Return whether nothing compiles it yet, nor ever did."""
        return self._compiler is None and not (self.is_compiled or not interprets() or self.found())

    def leave_to(self, process: int | None) -> None:
        """Wait for a process that compiles it; None if there is none, so that it is compiled here."""
        self._compiler, self._alone = process, process is None
        _later.discard(self)

    def _think(self, more: float = 0.0) -> None:
        if self._compiler is None and not self.is_compiled:
            if more > LONG or self._spent + more > DEAR:
                self.begin()
            elif self._spent + more > CHEAP:
                _later.add(self)

    def found(self) -> bool:
        """Whether the disk has the compiled form, or never will."""
        if self._compiler is not None:
            try:
                ended = os.waitpid(self._compiler, os.WNOHANG)[0] != 0
            except ChildProcessError:  # waited for elsewhere
                ended = True
            return ended
        if self._alone:
            return True
        oldest = self._source.stat().st_mtime
        for file in Path(self.kernel.stats.cache_path).glob(self._file):
            written = file.stat().st_mtime
            if written > oldest and time.time() - written > SETTLED:
                return True
        return False


def tiered(signature: str) -> Callable[[Callable[..., Any]], TieredKernel]:
    """Compile a function that only Python calls, in its own time; see :mod:`eplb_gap.heuristics.tiers`.

    Parameters
    ----------
    signature : str
        Types of the arguments in numba's notation. A call may be given up and made a second time, with arrays as they were.
    """
    return lambda function: TieredKernel(function, signature)


class _Clock:
    seconds = 0.0


_clock = _Clock()


def seconds_compiling() -> float:
    """Return how long this process has compiled tiered kernels, or interpreted them instead: time limits leave that out."""
    return _clock.seconds


_later: set[TieredKernel] = set()
"""Kernels to compile when this process ends."""


@atexit.register
def _compile_later() -> None:
    if _later:
        _start_compiler(sorted(_later, key=lambda kernel: kernel.module))


def compile_alone(kernel: TieredKernel) -> None:
    """Compile a kernel while no other process does: what one has just compiled the next only loads."""
    folder = Path(kernel.kernel.stats.cache_path)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "eplb-gap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel.compile()


def _start_compiler(kernels: list[TieredKernel]) -> int | None:
    """Return the process that compiles some kernels; None if none could be started."""
    python = sys.executable
    code = f"import sys\nsys.path[:] = sys.argv[1:]\nfrom {__name__} import compile_alone\n"
    code += "".join(f"from {kernel.module} import {kernel.name}\ncompile_alone({kernel.name})\n" for kernel in kernels)
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    try:
        # Of its own session, so that Ctrl-C here does not end it; it ends by itself after some seconds.
        return os.posix_spawn(python, [python, "-c", code, *sys.path], os.environ, file_actions=nothing, setsid=True)
    except (OSError, ValueError):  # an interpreter inside another program may have no executable
        return None
