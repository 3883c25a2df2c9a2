"""What the environment asks of a plug-in, read once with the files that it names.

Ranks of one server that read a file at different times, or after an edit, would plan different maps; so neither a variable nor a
file is looked at again, not even after an error: a process whose settings are bad stays with its host's own policy.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.heuristics.plugins import CONFIG, CONTROLLER, DECIDING, HOST, MAP, METHOD, RECORD, THRESHOLD
from eplb_gap.heuristics.registry import DEFAULT_METHOD, HEURISTICS, choose
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.maps.map_checks import MAX_MAP_ARRAY_BYTES
from eplb_gap.problem.formats.maps.maps import MapFile, open_map

if TYPE_CHECKING:  # imports numba
    from eplb_gap.heuristics.control.controller import Controller


@dataclass(frozen=True)
class Settings:
    """What a plug-in does.

    Parameters
    ----------
    method : Heuristic or None
        None leaves the answers to the host's own policy.
    threshold : float
        Least gain for which a layer is changed.
    controller : Controller or None
        Decides in place of these two.
    map : MapFile or None
        Served first.
    summary : str
        All of it in one line, with a digest that is the same wherever the settings and the contents of their files are.
    """

    method: Heuristic | None
    threshold: float
    controller: Controller | None
    map: MapFile | None
    summary: str


def settings() -> Settings:
    """Return the settings of this process, read at the first call.

    Raises
    ------
    InputError
        Naming the variable that is not what it must be, or two that exclude each other; at every call then.
    """
    found = _read_once()
    if isinstance(found, InputError):
        raise found.with_traceback(None)
    return found


def forget() -> None:
    """Read the environment anew at the next call: for tests, which are many servers in one process."""
    _read_once.cache_clear()


@functools.cache
def _read_once() -> Settings | InputError:
    try:
        return _read()
    except InputError as error:
        return error
    except Exception as error:  # a file system or a library may raise anything; that too stays what it was
        return InputError(f"{', '.join(name for name in DECIDING if os.environ.get(name))}: {type(error).__name__}: {error}")


def _read() -> Settings:
    controller = _controller()
    method, threshold = _method(), _threshold()
    map_file = _map()
    values = {name: os.environ.get(name) or "" for name in DECIDING}
    contents = {name: _content(name) for name in (CONFIG, CONTROLLER, MAP)}
    told = [f"{name.removeprefix('EPLB_GAP_').lower()} {value}" for name, value in values.items() if value]
    # A file counts by its content: its path may differ from machine to machine.
    same = repr([(name, contents.get(name) or value) for name, value in values.items()])
    digest = hashlib.sha256(same.encode()).hexdigest()[:8]
    folder = os.environ.get(RECORD)  # may differ from rank to rank: not in the digest
    records = f", records into {folder}" if folder else ""
    summary = f"{', '.join(told) or f'method {DEFAULT_METHOD}'}{records}; settings {digest}"
    return Settings(method, threshold, controller, map_file, summary)


def _method() -> Heuristic | None:
    name, config = os.environ.get(METHOD) or DEFAULT_METHOD, os.environ.get(CONFIG) or None
    if name == HOST:
        for other in (CONFIG, THRESHOLD):
            if os.environ.get(other):
                raise InputError(
                    f"{METHOD} is {HOST!r} and {other} is set too, which the host's own policy does not know: unset one"
                )
        return None
    if config is None and name not in HEURISTICS:
        allowed = (HOST, *HEURISTICS)
        close = "".join(f", the closest is {match!r}" for match in difflib.get_close_matches(name, allowed, 1))
        raise InputError(f"{METHOD} is {name!r}; {HOST!r} and {len(HEURISTICS)} methods are allowed{close}")
    try:
        return choose(name, config)
    except InputError as error:
        raise InputError(f"{METHOD} or {CONFIG}: {error}") from None


def _threshold() -> float:
    text = os.environ.get(THRESHOLD) or "0"
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0.0 <= threshold < math.inf:
        raise InputError(f"{THRESHOLD} is {text!r}; a finite number of at least 0 is needed")
    return threshold


def _controller() -> Controller | None:
    text = os.environ.get(CONTROLLER)
    if not text:
        return None
    for name in (METHOD, CONFIG, THRESHOLD):
        if os.environ.get(name):
            raise InputError(f"{CONTROLLER} is {text!r} and {name} is set too; a controller says itself what it runs: unset one")
    try:
        return controller_from(text)
    except InputError as error:
        raise InputError(f"{CONTROLLER}: {error}") from None


def controller_from(text: str) -> Controller:
    """Return the controller that a setting says.

    Parameters
    ----------
    text : str
        As of :func:`eplb_gap.heuristics.control.controllers_file.parse_controller`, or the path of a TOML file with one
        ``[[controller]]``, which ends in ``.toml``.

    Raises
    ------
    InputError
        If it says none, or one that foresees the loads.
    """
    from eplb_gap.heuristics.control.catalogue import KINDS  # imports numba
    from eplb_gap.heuristics.control.controllers_file import parse_controller, read_controllers

    if text.endswith(".toml"):
        found = read_controllers(text)
        if len(found) != 1:
            raise InputError(f"{text} holds {len(found)} tables [[controller]]; exactly one is needed")
        controller = found[0]
    else:
        controller = parse_controller(text)
    if KINDS[controller.kind].foresees:
        allowed = ", ".join(name for name, kind in KINDS.items() if not kind.foresees)
        raise InputError(f"kind is {controller.kind!r}, which foresees the loads, as no server can; {allowed} are allowed")
    return controller


def _map() -> MapFile | None:
    path = os.environ.get(MAP)
    if not path:
        return None
    try:
        return open_map(path)
    except InputError as error:
        raise InputError(f"{MAP}: {error}") from None


def _content(name: str) -> str:
    """Return a digest of the file that a setting names; nothing where it names none."""
    text = os.environ.get(name) or ""
    if not text or (name == CONTROLLER and not text.endswith(".toml")):
        return ""
    with Path(text).open("rb") as file:
        return hashlib.sha256(file.read(MAX_MAP_ARRAY_BYTES)).hexdigest()
