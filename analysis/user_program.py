"""A user's own ``rebalance_experts``, run in a process of its own that never sees the window it is scored on.

The windows go to the process over a pipe, one by one: the next is not written before the answer to the last is read. Messages in
both directions are a length, a JSON head and raw bytes. What comes back is untrusted: lengths, types and shapes are checked
before anything is allocated, nothing is unpickled, and the time is that of this side's clock, which the program cannot set. It
runs from before the window is sent until the last byte of the map is here, so it holds the way through the pipes too.

This is no sandbox. The process can read what its user can read; a program that looks for the loads on the disk is not stopped.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import os
import select
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self

import numpy as np

from eplb_gap.analysis.protocol import Answer
from eplb_gap.heuristics.environment import INTERPRET
from eplb_gap.problem import child
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.placement import Placement

FUNCTION = "rebalance_experts"
TENSORS = ("phy2log", "log2phy", "logcnt")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
LOAD_SECONDS = 120.0
CALL_SECONDS = 60.0
MEMORY_BYTES = 16 << 30
MAX_HEAD_BYTES = 1 << 16
MAX_MESSAGE = 300
END_SECONDS = 2.0
"""How long a process that has closed its pipe may take to end before it is killed."""
LENGTH = struct.Struct(">I")


class ProgramError(InputError):
    """A user's program failed; the message names the file, the window and what happened."""


class _GarbledError(Exception):
    """What came out of the process is no message."""


class UserProgram:
    """A Python file with ``rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus)``; a context manager.

    Called with a window, int64 [layers, experts], it returns an :class:`eplb_gap.analysis.protocol.Answer`. The function gets an
    int64 tensor and returns the three integer tensors of DeepSeek's interface. Its process has one thread per library, the file's
    folder as working directory and first place to import from, and standard output on standard error.

    Parameters
    ----------
    path : path
    deployment : Deployment
        The program is asked for a map of the live GPUs, which need equally many slots; the others get filler.
    call_seconds, load_seconds : float
        Wall seconds that one call, and starting the process with the file's imports, may take.
    memory_bytes : int
        Address space of the process, where no lower limit holds already.

    Raises
    ------
    InputError
        If there is no such file, or live GPUs have unequal slots.
    ProgramError
        On entering or calling: an exception or a missing function in the file, a time limit, the end of the process, an answer
        that is not three tensors or comes before its window.
    PlacementError
        On calling: tensors that are not integers, have the wrong shape or contradict each other. After any error the process is
        ended.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        deployment: Deployment,
        *,
        call_seconds: float = CALL_SECONDS,
        load_seconds: float = LOAD_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"program file {self.path} does not exist")
        self.deployment, self._live = deployment, deployment.live
        self._live.require_regular("a program")
        for name, seconds in (("call_seconds", call_seconds), ("load_seconds", load_seconds)):
            if not 0 < seconds < math.inf:
                raise InputError(f"{name} is {seconds}; a positive number of seconds is needed")
        self.call_seconds = call_seconds
        self.load_seconds = load_seconds
        self.memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._answers = -1
        self._window = 0

    def __enter__(self) -> Self:
        child_requests, self._requests = os.pipe()
        self._answers, child_answers = os.pipe()
        os.set_blocking(self._requests, False)
        settings = {
            "requests": child_requests,
            "answers": child_answers,
            "path": str(self.path.resolve()),
            "memory_bytes": self.memory_bytes,
            "shape": [
                self._live.num_slots,
                self._live.num_groups,
                self._live.num_nodes,
                self._live.num_gpus,
            ],
        }
        try:
            self._process = child.start(
                ["-P", "-B", "-m", "eplb_gap.analysis.user_program", json.dumps(settings)],
                {**child.ONE_THREAD, INTERPRET: "0"},
                stdin=subprocess.DEVNULL,
                stdout=2,
                cwd=self.path.resolve().parent,
                pass_fds=(child_requests, child_answers),
            )
        finally:
            os.close(child_requests)
            os.close(child_answers)
            if self._process is None:
                self._close_pipes()
        try:
            self._exchange(None, self.load_seconds, "while it is loaded")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __call__(self, window: np.ndarray) -> Answer:
        if self._process is None:
            raise ProgramError(f"program {self.path} is not running; it is started by 'with' and ended by its first error")
        where = f"window {self._window}"
        self._window += 1
        loads = np.ascontiguousarray(window, dtype=np.int64)
        start = time.perf_counter()
        try:
            tensors = self._exchange(loads, self.call_seconds, where)
            seconds = time.perf_counter() - start
            return Answer(with_dead(Placement.from_tensors(*tensors), self.deployment), seconds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process and all of its group."""
        if self._process is None:
            return
        self._close_pipes()
        child.end(self._process)
        self._process = None

    def _close_pipes(self) -> None:
        os.close(self._requests)
        os.close(self._answers)

    def _exchange(self, loads: np.ndarray | None, seconds: float, where: str) -> list[np.ndarray]:
        """Send a window, unless the process is just starting, and return the three arrays of the answer."""
        deadline = time.monotonic() + seconds
        try:
            if loads is not None:
                if _poll(self._answers, select.POLLIN, 0.0) & select.POLLIN:
                    raise _GarbledError("it came before the window was sent")
                self._write(_frame({"shape": loads.shape}) + loads.tobytes(), deadline)
            head = self._read_head(deadline)
            if isinstance(head.get("error"), str):
                self._fail(where, _one_line(head["error"]))
            if loads is None:
                return []
            layout = _checked_layout(head, loads.shape[0], self._live)
            payload = self._read(sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout), deadline)
        except TimeoutError:
            self._fail(where, f"no answer within {seconds:g} s")
        except (EOFError, BrokenPipeError):
            self._fail(where, f"its process {self._ending()} without an answer")
        except _GarbledError as error:
            self._fail(where, f"its answer is garbled ({error})")
        arrays, start = [], 0
        for dtype, shape in layout:
            arrays.append(np.frombuffer(payload, dtype, math.prod(shape), start).reshape(shape))
            start += arrays[-1].nbytes
        return arrays

    def _fail(self, where: str, what: str) -> NoReturn:
        raise ProgramError(f"program {self.path}, {where}: {what}") from None

    def _ending(self) -> str:
        assert self._process is not None  # a message was awaited
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            # Left as a zombie: close() still has to end the group under this id.
            ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None:
                exited = ended.si_code == os.CLD_EXITED
                return f"ended with exit code {ended.si_status}" if exited else f"was ended by signal {ended.si_status}"
            time.sleep(0.01)
        return "closed its pipe"

    def _write(self, message: bytes, deadline: float) -> None:
        rest = memoryview(message)
        while rest:
            _await(self._requests, select.POLLOUT, deadline)
            rest = rest[os.write(self._requests, rest) :]

    def _read_head(self, deadline: float) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
        if length > MAX_HEAD_BYTES:
            raise _GarbledError(f"a head of {length} bytes; at most {MAX_HEAD_BYTES} are read")
        try:
            head = json.loads(self._read(length, deadline))
        except (ValueError, RecursionError):
            raise _GarbledError("its head is no JSON") from None
        if not isinstance(head, dict):
            raise _GarbledError("its head is no JSON object")
        return head

    def _read(self, size: int, deadline: float) -> bytearray:
        found = bytearray(size)
        rest = memoryview(found)
        while rest:
            _await(self._answers, select.POLLIN, deadline)
            count = os.readv(self._answers, [rest])
            if not count:
                raise EOFError
            rest = rest[count:]
        return found


def _await(fd: int, event: int, deadline: float) -> None:
    """Wait until a pipe is ready or its other end is closed."""
    if not _poll(fd, event, max(0.0, deadline - time.monotonic())):
        raise TimeoutError


def _poll(fd: int, event: int, seconds: float) -> int:
    """Return the events of a pipe, 0 if none comes in time."""
    poller = select.poll()
    poller.register(fd, event)
    return next((found for _, found in poller.poll(seconds * 1000)), 0)


def _frame(head: dict[str, Any]) -> bytes:
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text


def _one_line(text: str) -> str:
    """Return untrusted text as one line of printable characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= MAX_MESSAGE else line[:MAX_MESSAGE] + "..."


def _checked_layout(head: dict[str, Any], layers: int, deployment: Deployment) -> list[tuple[np.dtype[Any], list[int]]]:
    """Return types and shapes of the tensors that a head announces, all of them of a size that the deployment can have."""
    tensors = head.get("tensors")
    if not isinstance(tensors, list) or len(tensors) != len(TENSORS) or not all(_is_layout(t) for t in tensors):
        raise _GarbledError("its head does not announce three tensors")
    shapes: dict[str, list[int | str]] = {
        "phy2log": [layers, deployment.num_slots],
        "log2phy": [layers, deployment.num_experts, "1 to the number of slots"],
        "logcnt": [layers, deployment.num_experts],
    }
    layout = []
    for name, (kind, shape) in zip(TENSORS, tensors, strict=True):
        if kind not in INTEGERS:
            raise PlacementError(f"{name} is {_one_line(kind)}; integers are needed")
        needed = shapes[name]
        fits = len(shape) == len(needed) and shape[:2] == needed[:2] and all(1 <= n <= deployment.num_slots for n in shape[2:])
        if not fits:
            raise PlacementError(f"{name} has shape {_one_line(str(shape))}; [{', '.join(map(str, needed))}] is needed")
        layout.append((np.dtype(kind).newbyteorder("<"), shape))
    return layout


def _is_layout(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], list)
        and all(type(n) is int and n >= 0 for n in value[1])
    )


def serve(settings: dict[str, Any]) -> None:
    """Load the user's file and answer windows until there are no more: the other end of the pipes."""
    for fd in (settings["requests"], settings["answers"]):
        os.set_inheritable(fd, False)
    requests, answers = os.fdopen(settings["requests"], "rb"), os.fdopen(settings["answers"], "wb")
    path = settings["path"]
    child.limit_memory(settings["memory_bytes"], for_good=True)
    try:
        function = _load(path)
        import torch  # within the time to load, not within that of the first window
    except BaseException as error:
        _send(answers, {"error": _describe(error, path)})
        return
    _send(answers, {"ready": True})
    while length := requests.read(LENGTH.size):
        shape = json.loads(requests.read(LENGTH.unpack(length)[0]))["shape"]
        window = np.frombuffer(bytearray(requests.read(math.prod(shape) * 8)), dtype=np.int64).reshape(shape)
        try:
            tensors = _tensors(function(torch.from_numpy(window), *settings["shape"]))
        except BaseException as error:
            _send(answers, {"error": _describe(error, path)})
            return
        # The head goes first: what is announced and cannot be is refused before its bytes are made.
        _send(answers, {"tensors": [[str(t.dtype).removeprefix("torch."), list(t.shape)] for t in tensors]})
        for tensor in tensors:
            answers.write(tensor.cpu().contiguous().numpy().data)
        answers.flush()


def _send(answers: BinaryIO, head: dict[str, Any]) -> None:
    answers.write(_frame(head))
    answers.flush()


def _load(path: str) -> Callable[..., Any]:
    folder = str(Path(path).parent)
    sys.path.insert(0, folder)
    sys.argv = [path]
    loader = importlib.machinery.SourceFileLoader("scored_program", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None  # the loader was given
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    function: Callable[..., Any] | None = getattr(module, FUNCTION, None)
    if not callable(function):
        raise AttributeError(f"it has no function {FUNCTION}")
    return function


def _tensors(result: Any) -> list[Any]:
    import torch

    if not isinstance(result, tuple | list) or len(result) != len(TENSORS):
        found = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
        raise TypeError(f"{FUNCTION} returned {found}; the tensors {', '.join(TENSORS)} are needed")
    return [torch.as_tensor(value).detach() for value in result]


def _describe(error: BaseException, path: str) -> str:
    """Return an exception as one line, with the last line of the user's file that it passed through."""
    text = _one_line(traceback.format_exception_only(error)[-1])
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{text} (line {lines[-1]})" if lines else text


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
