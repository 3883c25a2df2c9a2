"""A record folder as it grows: every call once, scored with the map that served it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eplb_gap.analysis.watch.scored import Window, scored
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.record_files import Call, call_number, call_paths, model_folders, read_call

LAST = 20


def watch(folder: str | os.PathLike[str], last: int = LAST, left_out: Callable[[str], None] | None = None) -> list[Window]:
    """Score what a server recorded last: balance, gap to a bound, moved replicas.

    Parameters
    ----------
    folder : path
        A record folder of the plug-ins, or the folder of one of its models.
    last : int, default 20
        Windows of every model.
    left_out : callable, optional
        ``left_out(what is wrong)``, called for each file that cannot be read, where there are others; by default it is an error.

    Returns
    -------
    list of Window
        Oldest first.

    Raises
    ------
    InputError
        If there is no such folder, it holds no recorded calls, or a file of it, with ``left_out`` all, cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from eplb_gap import Deployment, watch
    >>> from eplb_gap.problem.formats.containers.record_files import Call, call_path, write_call
    >>> table, loads = np.array([[0, 1, 2, 3]]), np.array([[[4, 1, 2, 3]]])
    >>> call = Call(loads, 1.7e9, "vllm", "0.33.0", Deployment(4, 4, 2), in_use=table, answered=table)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = call_path(pathlib.Path(folder), 1, 1, 4)
    ...     path.parent.mkdir()
    ...     with path.open("wb") as file:
    ...         write_call(file, call)
    ...     [window] = watch(folder)
    >>> window.served.balancedness, window.best, window.moved
    (1.0, 1.0, 0)
    """
    if last < 1:
        raise InputError(f"last is {last}; a positive number of windows is needed")
    follower = Follower(Path(folder), last)
    found = follower.new()
    if follower.broken and (left_out is None or not found):
        raise InputError(follower.broken[0])
    if not found:
        raise InputError(f"record folder {folder} holds no recorded calls")
    if left_out is not None:
        for wrong in follower.broken:
            left_out(wrong)
    return found


@dataclass(frozen=True)
class _Answer:
    """What is needed of a call to know the map that served the next one; its loads are not kept."""

    deployment: Deployment | None
    table: np.ndarray | None


@dataclass
class Follower:
    """Looks into a record folder again and again.

    Parameters
    ----------
    folder : Path
    last : int
        Windows of every model that are scored at the first look.
    broken : list of str
        What was wrong with files that the last look could not read; they are not tried again.

    Raises
    ------
    InputError
        If there is no such folder.
    """

    folder: Path
    last: int
    broken: list[str] = field(default_factory=list)
    _seen: dict[str, int] = field(default_factory=dict)
    _before: dict[str, _Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder; one that a server records into (EPLB_GAP_RECORD) is needed")

    def new(self) -> list[Window]:
        """Return the windows since the last look, by the numbers of their calls; none while the folder is away."""
        self.broken = []
        found: list[Window] = []
        if self.folder.is_dir():
            try:
                for model in model_folders(self.folder):
                    found += self._of_model(model)
            except InputError as error:
                self.broken.append(str(error))
        return sorted(found, key=lambda window: window.call)

    def _of_model(self, model: Path) -> list[Window]:
        calls = [(number, path) for path in call_paths(model) if (number := call_number(path)) is not None]
        seen = self._seen.get(model.name)
        if calls and seen is not None and calls[-1][0] < seen:  # another folder of that name
            del self._seen[model.name]
            self._before.pop(model.name, None)  # none where its calls could not be read
            seen = None
        first = calls[-self.last][0] if seen is None and len(calls) >= self.last else (seen or 0)
        windows = []
        for number, path in calls[-self.last - 1 :] if seen is None else calls:
            if seen is not None and number <= seen:
                continue
            self._seen[model.name] = number
            before = self._before.pop(model.name, None)  # none of a call that cannot be read: what it answered is not known
            try:
                call = read_call(path)
            except InputError as error:
                if path.exists():  # else the server has removed it, as its folder is full
                    self.broken.append(str(error))
                continue
            self._before[model.name] = _Answer(call.deployment, call.answered)
            if number >= first:  # of the one before that only the map is needed
                try:
                    windows.append(scored(call, number, _in_use(call, before)))
                except InputError as error:
                    self.broken.append(f"file {path}: {error}")
        return windows


def _in_use(call: Call, before: _Answer | None) -> np.ndarray | None:
    """Return the map that served a call: what the host says, else what it was given by the call before."""
    if call.in_use is not None or before is None or before.deployment != call.deployment:
        return call.in_use
    return before.table
