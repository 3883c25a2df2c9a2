"""Recording what a serving system tells a plug-in: every call as a file of a folder, while the server goes on.

With ``EPLB_GAP_RECORD=FOLDER`` a plug-in hands each call to :func:`record_call`: the loads, the map in use, the deployment, and
the map that was answered, ours or, with ``EPLB_GAP_METHOD=host``, the host's own. The call copies them and returns; a thread
writes them. Nothing of this raises into the server or waits for a disk: a call that cannot be kept, as the disk is full or the
folder read-only, is dropped, counted in the next file that is written, and said in at most one line a minute by the logger
"eplb_gap".

One process writes: rank 0, by ``torch.distributed`` or the environment (:data:`RANKS`), else whichever has the folder's lock.
Where files would exceed ``EPLB_GAP_RECORD_MB`` megabytes (512 if it is not set) the oldest are removed: the newest are kept. A
server that is started again goes on in the same folder. Models of a server are told apart by layers and experts. What a file
holds: :mod:`eplb_gap.problem.formats.containers.record_files`.
"""

from __future__ import annotations

import atexit
import errno
import importlib.metadata
import logging
import os
import queue
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.heuristics.plugins import MEGABYTES, RECORD
from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.files import label
from eplb_gap.problem.formats.containers.record_files import Call, call_number, call_path, call_paths, model_folders, write_call
from eplb_gap.problem.loads import as_loads, as_numbers

DEFAULT_MEGABYTES = 512.0
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
"""Variables that say the rank where ``torch.distributed`` is not initialised."""
MOST_WAITING = 64
"""Calls that wait to be written; what comes while so many wait is dropped."""
MOST_WAITING_BYTES = 1 << 28
"""Of one call alone more may wait."""
MOST_ROUNDED = 1e-3
"""Largest part of all tokens that rounding fractions may add or take away: loads that are shares are refused, not zeroed."""
SECONDS_BETWEEN_LINES = 60.0
SECONDS_AT_EXIT = 2.0
BLOCK_BYTES = 4096
"""What the smallest file takes of a disk."""
OLD_SECONDS = 3600.0
"""Age at which half a file of a process that was killed is removed."""
LOCK = ".eplb_gap_record.lock"
LOG = logging.getLogger("eplb_gap")


def record_call(
    host: str,
    history: Any,
    deployment: Deployment | None,
    in_use: Any,
    answered: Any,
    *,
    layer_ids: list[int] | None = None,
    rank: int | None = None,
) -> None:
    """Record a call of the host if ``EPLB_GAP_RECORD`` is set; return at once, and raise nothing.

    Parameters
    ----------
    host : str
        Name of the host's distribution, as "vllm", "sglang", "vllm-ascend"; its version is looked up.
    history : Tensor or array_like [layers, experts] or [samples, layers, experts]
        Loads of logical experts since the last call. Integral numbers are kept exactly; fractions are rounded to the nearest
        integer, which the file says, unless that changes their sum by more than :data:`MOST_ROUNDED`. A call without any load,
        as that of a host which measures its memory, is none.
    deployment : Deployment or None
        With the GPUs that are dead.
    in_use, answered : Placement, Tensor or array_like of int [layers, slots], or None
        The map that served these loads, where the host says it, and the one that it got in return. What is no map of these
        layers and experts is left out, the loads are kept.
    layer_ids : list of int, optional
        Index of each layer in the model, where the host says it.
    rank : int, optional
        Of this process, where the plug-in knows better than :func:`own_rank`.
    """
    folder = os.environ.get(RECORD)
    if not folder:
        return
    try:
        rank = own_rank() if rank is None else rank
        if rank is None or rank == 0:
            came = time.time()
            given = _Given(host, _copied(history), deployment, _copied(in_use), _copied(answered), layer_ids, came, rank)
            _recorder(folder).offer(given)
    except Exception as error:
        with suppress(Exception):
            _recorder(folder).lose(error)


def own_rank() -> int | None:
    """Return the rank of this process as ``torch.distributed`` or the environment says it, or None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in RANKS:
        text = os.environ.get(name, "")
        if text.isdecimal():
            return int(text)
    return None


def flush(seconds: float = SECONDS_AT_EXIT) -> bool:
    """Wait until every call that was handed over is written or dropped; return whether it is."""
    return all([recorder.flush(seconds) for recorder in list(_RECORDERS.values())])


@dataclass(frozen=True)
class _Given:
    """What a call handed over, copied but not looked at."""

    host: str
    history: np.ndarray
    deployment: Deployment | None
    in_use: np.ndarray | None
    answered: np.ndarray | None
    layer_ids: list[int] | None
    came: float
    rank: int | None

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (self.history, self.in_use, self.answered) if array is not None)

    def call(self) -> Call | None:
        """Return what is written, checked; None where there is no load."""
        counts = as_numbers(self.history, "loads")
        if not counts.any():
            return None
        rounded = False
        if counts.dtype.kind == "f":
            whole = np.rint(counts)
            rounded = bool((whole != counts).any())
            if rounded and abs(float(whole.sum()) - float(counts.sum())) > MOST_ROUNDED * float(counts.sum()):
                raise InputError("loads are fractions that rounding changes too much; numbers of tokens are needed")
            counts = whole
        history = counts.ndim == 3
        counts = as_loads(counts if history else counts[None], "loads", 3)
        in_use, answered = _if_map(self.in_use, counts), _if_map(self.answered, counts)
        host, version = label(self.host, "host"), _version(self.host)
        ids = None if self.layer_ids is None else [int(one) for one in self.layer_ids]
        return Call(counts, self.came, host, version, self.deployment, in_use, answered, ids, history, rounded)


def _copied(value: Any) -> Any:
    """Return a copy on the host of what the server may change as soon as the call returns; None of None."""
    if value is None:
        return None
    value = getattr(value, "phy2log", value)
    array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.ndim == 3 and array.size and array.dtype.kind in "iu" and array.min() >= 0:
        return array.astype(np.min_scalar_type(int(array.max())))  # a history of 1000 steps is large: fewer bytes are faster
    return np.array(array)


def _if_map(table: np.ndarray | None, counts: np.ndarray) -> np.ndarray | None:
    """Return a map of these layers and experts, -1 allowed; None of what is none: the loads are worth keeping without it."""
    layers, experts = counts.shape[1:]
    if table is None or table.ndim != 2 or table.shape[0] != layers or table.dtype.kind not in "iu" or not table.size:
        return None
    return table if -1 <= table.min() <= table.max() < experts else None


def _version(host: str) -> str:
    with suppress(importlib.metadata.PackageNotFoundError, InputError):
        return label(importlib.metadata.version(host), "version")
    return "unknown"


class Recorder:
    """Writes the calls of one server into one folder, in a thread of its own.

    Parameters
    ----------
    folder : str
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._waiting: queue.Queue[_Given] = queue.Queue(MOST_WAITING)
        self._waiting_bytes = 0
        self._lost = 0
        self._lost_in_all = 0
        self._last_line = -SECONDS_BETWEEN_LINES
        self._held: int | None = None
        self._number = 0
        self._kept: deque[tuple[Path, int]] = deque()
        self._kept_bytes = 0
        self._thread = threading.Thread(target=self._run, name="eplb-gap record", daemon=True)
        self._thread.start()
        atexit.register(self.flush, SECONDS_AT_EXIT)

    def offer(self, given: _Given) -> None:
        """Take a call if there is room for it, else drop it."""
        with self._lock:
            room = not self._waiting_bytes or self._waiting_bytes + given.bytes <= MOST_WAITING_BYTES
            if room:
                try:
                    self._waiting.put_nowait(given)
                    self._waiting_bytes += given.bytes
                except queue.Full:
                    room = False
        if not room:
            self.lose("calls come faster than they can be written")

    def lose(self, why: object) -> None:
        """Count a call as dropped, and say so unless something was said a short while ago."""
        with self._lock:
            self._lost += 1
            self._lost_in_all += 1
            now = time.monotonic()
            silent = now - self._last_line < SECONDS_BETWEEN_LINES
            self._last_line = self._last_line if silent else now
            lost = self._lost_in_all
        if not silent:
            LOG.warning(
                "recording into %s: %d calls are not recorded so far, the last as %s; the server goes on", self.folder, lost, why
            )

    def flush(self, seconds: float) -> bool:
        """Wait until nothing waits any more; return whether that is so. In a forked process there is nobody to wait for."""
        end = time.monotonic() + seconds
        while self._waiting.unfinished_tasks and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
        return not self._waiting.unfinished_tasks

    def _run(self) -> None:
        while True:
            given = self._waiting.get()
            try:
                self._record(given)
            except Exception as error:
                self.lose(error)
            finally:
                with self._lock:
                    self._waiting_bytes -= given.bytes
                del given
                self._waiting.task_done()

    def _record(self, given: _Given) -> None:
        call = given.call()
        if call is None:
            return
        limit = int(_megabytes() * 1e6)
        if not self._may_write(given.rank):
            if given.rank == 0:
                raise InputError("another server records into this folder; each needs one of its own")
            return
        with self._lock:
            lost = self._lost
        call = replace(call, not_recorded=lost)
        path = call_path(self.folder, self._number + 1, *call.counts.shape[1:])
        with replacing(path) as partial:
            with partial.open("wb") as file:
                write_call(file, call)
                file.flush()
                os.fsync(file.fileno())
            size = _on_disk(partial)
            if size > limit:
                raise InputError(f"it takes {size / 1e6:.3g} MB, and {MEGABYTES} allows {limit / 1e6:.3g}")
            self._make_room(limit - size)
        self._number += 1
        self._kept.append((path, size))
        self._kept_bytes += size
        with self._lock:
            self._lost -= lost

    def _may_write(self, rank: int | None) -> bool:
        """Return whether this process has the folder's lock, and take it if it is free."""
        lock = self.folder / LOCK
        if self._held is not None:
            with suppress(OSError):
                if os.path.samestat(os.fstat(self._held), lock.stat()):
                    return True
            os.close(self._held)  # the folder was removed, or moved away: the lock with it
            self._held = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(f"{RECORD} is a file; a folder is needed") from None
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _locked(held, rank):
                os.close(held)
                return False
            self._look_around()
        except BaseException:
            os.close(held)
            raise
        self._held = held
        LOG.info(
            "recording into %s: %d calls are there, of at most %s MB the newest are kept",
            self.folder,
            len(self._kept),
            _megabytes(),
        )
        return True

    def _look_around(self) -> None:
        """Find out what the folder holds already: numbers go on from there, and it counts for the limit."""
        found = []
        for model in model_folders(self.folder):
            for path in call_paths(model):
                with suppress(FileNotFoundError):
                    found.append((call_number(path) or 0, path, _on_disk(path)))
            for partial in model.glob(".*.partial"):
                with suppress(OSError):
                    if time.time() - partial.stat().st_mtime > OLD_SECONDS:
                        partial.unlink()
        found.sort()
        self._number = found[-1][0] if found else 0
        self._kept = deque((path, size) for _, path, size in found)
        self._kept_bytes = sum(size for _, size in self._kept)

    def _make_room(self, most: int) -> None:
        while self._kept_bytes > most and self._kept:
            path, size = self._kept[0]
            path.unlink(missing_ok=True)
            self._kept.popleft()
            self._kept_bytes -= size


def _megabytes() -> float:
    text = os.environ.get(MEGABYTES) or str(DEFAULT_MEGABYTES)
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1e12:
        raise InputError(f"{MEGABYTES} is {text!r}; a positive number of megabytes is needed")
    return found


def _on_disk(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES


def _locked(file: int, rank: int | None) -> bool:
    """Take the lock of an open file, which goes with the process; where the file system has no locks, rank 0 has it."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return rank == 0
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if rank != 0:
            raise
    return True


_RECORDERS: dict[str, Recorder] = {}
_MAKING = threading.Lock()


def _recorder(folder: str) -> Recorder:
    with _MAKING:
        if folder not in _RECORDERS:
            _RECORDERS[folder] = Recorder(folder)
        return _RECORDERS[folder]


def _forget() -> None:
    """Begin anew in a forked process, in which the threads and locks of the other do not live."""
    global _MAKING
    _MAKING = threading.Lock()
    _RECORDERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
