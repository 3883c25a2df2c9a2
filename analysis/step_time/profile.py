"""Step-time profiles: what is known of how long a step takes on some hardware, with its source, as small TOML files.

A profile has one part or more. Its *hinge* says how the time of a whole step grows with the imbalance; its *tiles* how long the
experts of a GPU take; its *network* how long the tokens travel. The shipped ones are in the folder ``profiles`` beside this file,
whose README says where their numbers come from and what is not shipped.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from eplb_gap.analysis.step_time.hinge import Hinge
from eplb_gap.problem import files
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError, listed, reason, shown
from eplb_gap.problem.routing.traffic import Dispatch

MAX_BYTES = 1 << 16
FOLDER = Path(__file__).parent / "profiles"
PROFILES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
"""Names of the shipped profiles."""


@dataclass(frozen=True)
class Tiles:
    """How long a GPU works on its replicas: a replica costs its weights' read, or its tiles of rows if they take longer.

    ``cost(m) = max(weight_bytes / memory_bytes_per_second, tile_seconds ceil(m / tile_rows))``, summed over the GPU's replicas.

    Parameters
    ----------
    weight_bytes : float
        Weights of one expert that are read, bytes; 0 where the time of a tile contains the read.
    tile_seconds : float
        Time of one started tile of rows (tau).
    tile_rows : int
        Rows of a tile: tokens that are multiplied in the time of one.
    memory_bytes_per_second : float, optional
        Memory bandwidth of a GPU; needed where weights are counted.
    """

    weight_bytes: float
    tile_seconds: float
    tile_rows: int
    memory_bytes_per_second: float | None = None

    @property
    def read_seconds(self) -> float:
        """Time in which the weights of one expert are read."""
        return 0.0 if self.memory_bytes_per_second is None else self.weight_bytes / self.memory_bytes_per_second


@dataclass(frozen=True)
class Network:
    """How long a layer's tokens travel to their experts and back.

    Parameters
    ----------
    latency_seconds : float
        Of a dispatch, and again of a combine, whatever they carry (alpha).
    bytes_per_copy : float
        Of one copy of a token in dispatch.
    dispatch : {"node-dedup", "rank-dedup", "none"}
        What is sent once; the traffic must have been counted for it.
    combine_factor : float, default 2.0
        Bytes of a copy in combine over those in dispatch: 2 for 16 bits after 8.
    rdma_bytes_per_second : float, optional
        Of one GPU's network card, in each direction at once; a node has as many cards as GPUs. Not for ``rank-dedup``, which is
        one NVLink domain.
    nvlink_bytes_per_second : float, optional
        Of one GPU's NVLink, in each direction at once. Not for ``none``, where every copy takes the network card.
    """

    latency_seconds: float
    bytes_per_copy: float
    dispatch: Dispatch
    combine_factor: float = 2.0
    rdma_bytes_per_second: float | None = None
    nvlink_bytes_per_second: float | None = None


@dataclass(frozen=True)
class Profile:
    """What is known of step times, and where it comes from; every predicted time is printed with both.

    Parameters
    ----------
    name : str
    source : str
        Citation or address.
    measured_on : str
        Hardware, model, size of the expert-parallel group, date as far as known.
    timed : str
        What the times of the hinge, and without one of the tiles, are times of, such as "a step", "16,384 requests" or "gate and
        up projection of the experts".
    hinge : Hinge, optional
    tiles : Tiles, optional
    network : Network, optional
    gpus, nodes : int, optional
        GPUs of the expert-parallel group that was measured, and its nodes (an NVLink domain is one), as far as known.
    scatter : float, optional
        Coefficient of variation of the timings behind the hinge: smaller differences are within it.

    Raises
    ------
    InputError
        If there is no part, or a field of one is out of range; the message names it as ``part.field``.
    """

    name: str
    source: str
    measured_on: str
    timed: str = "a step"
    hinge: Hinge | None = None
    tiles: Tiles | None = None
    network: Network | None = None
    gpus: int | None = None
    nodes: int | None = None
    scatter: float | None = None

    def __post_init__(self) -> None:
        for field in TEXTS:
            found = getattr(self, field)
            if not isinstance(found, str) or not found.strip() or not found.isprintable():
                raise InputError(f"{field} is {shown(found)}; a text of one line is needed")
        if all(getattr(self, part) is None for part in PARTS):
            raise InputError(f"no part is given; at least one of {', '.join(PARTS)} is needed")
        for part in PARTS:
            if (given := getattr(self, part)) is not None:
                _check_part(part, given)
        for size in ("gpus", "nodes"):
            found = getattr(self, size)
            if found is not None and (type(found) is not int or not 1 <= found < 1 << 31):
                raise InputError(f"{size} is {shown(found)}; a whole number of at least 1 is needed")
        if self.scatter is not None:
            _check_number("scatter", self.scatter)
            if self.hinge is None or self.scatter >= 1:
                raise InputError(
                    f"scatter is {self.scatter}; a part below 1 of the hinge's times is needed, and only with a hinge"
                )


TEXTS = ("name", "source", "measured_on", "timed")
MEASURED = ("gpus", "nodes", "scatter")
"""Numbers of a profile beside its parts; each may be missing."""
PARTS: dict[str, type[Any]] = {"hinge": Hinge, "tiles": Tiles, "network": Network}
MAY_BE_ZERO = {"hinge.beta", "tiles.weight_bytes", "network.latency_seconds"}
MAY_BE_MISSING = {
    "hinge.seconds",
    "tiles.memory_bytes_per_second",
    "network.rdma_bytes_per_second",
    "network.nvlink_bytes_per_second",
}
LINKS: dict[str, tuple[str, ...]] = {
    "node-dedup": ("rdma_bytes_per_second", "nvlink_bytes_per_second"),
    "rank-dedup": ("nvlink_bytes_per_second",),
    "none": ("rdma_bytes_per_second",),
}
"""Links that the copies of a dispatch take."""


def read_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Read a shipped profile by its name, or a TOML file by its path.

    Parameters
    ----------
    name_or_path : str or path
        One of :data:`PROFILES`, or a file; what ends in ``.toml`` or has a folder is a file.

    Returns
    -------
    Profile

    Raises
    ------
    InputError
        If there is no such profile or file, it is no TOML, or a field is missing, unknown or out of range.

    Examples
    --------
    >>> from eplb_gap.analysis.step_time.profile import read_profile
    >>> profile = read_profile("qwen2-57b-ep8-h20")
    >>> profile.hinge.beta, profile.hinge.knee, profile.hinge.seconds
    (0.285, 1.099, 82.86)
    """
    text = os.fspath(name_or_path)
    if text in PROFILES:
        return _read(FOLDER / f"{text}.toml")
    path = Path(text)
    if path.suffix != ".toml" and len(path.parts) < 2:
        near = get_close_matches(text, PROFILES, 1)
        meant = f"; {near[0]} is meant, or" if near else ";"
        raise InputError(f"profile {shown(text)} is not known{meant} one of {', '.join(PROFILES)}, or a TOML file")
    return _read(path)


def write_profile(path: str | os.PathLike[str], profile: Profile, comment: str = "") -> None:
    """Write a profile that :func:`read_profile` gives back; every line of the comment goes above it."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [f"{name} = {json.dumps(getattr(profile, name), ensure_ascii=False)}" for name in TEXTS]
    lines += [f"{name} = {json.dumps(value)}" for name in MEASURED if (value := getattr(profile, name)) is not None]
    for part in PARTS:
        if (given := getattr(profile, part)) is not None:
            values = {field.name: getattr(given, field.name) for field in fields(given)}
            lines += ["", f"[{part}]"]
            lines += [f"{name} = {_toml(value)}" for name, value in values.items() if value is not None]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


NOT_BOUNDED = "not bounded"
"""An end of an interval, in a file, that is None."""


def _toml(value: Any) -> str:
    return json.dumps([NOT_BOUNDED if end is None else end for end in value] if isinstance(value, tuple) else value)


def _read(path: Path) -> Profile:
    try:
        document = tomllib.loads(files.read_text(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:  # no TOML, or integers beyond Python's own limit
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no TOML ({reason(error)})") from None
    unknown = document.keys() - {*TEXTS, *MEASURED, *PARTS}
    if unknown:
        raise InputError(f"{path}: {listed(sorted(unknown))} is not known; {', '.join([*TEXTS, *MEASURED, *PARTS])} are")
    values: dict[str, Any] = {name: _built(path, name, document[name]) for name in PARTS if name in document}
    for name in (*TEXTS, *MEASURED):
        if name in document:
            values[name] = document[name]
        elif name in TEXTS and name != "timed":
            raise InputError(f"{path}: {name} is missing")
    if values.get("hinge") is not None and values["hinge"].seconds is not None and "timed" not in document:
        raise InputError(f"{path}: timed is missing; hinge.seconds need to say what they are the time of")
    try:
        return Profile(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _built(path: Path, part: str, table: Any) -> Any:
    """Make a part of a profile of its table; ranges are checked by the profile."""
    if not isinstance(table, dict):
        raise InputError(f"{path}: {part} is {shown(table)}; a table is needed")
    kind = PARTS[part]
    known = {field.name: field for field in fields(kind)}
    if unknown := table.keys() - known.keys():
        raise InputError(f"{path}: {part}.{listed(sorted(unknown), 1)} is not known; {', '.join(known)} are")
    for name, field in known.items():
        if name not in table and field.default is MISSING and f"{part}.{name}" not in MAY_BE_MISSING:
            raise InputError(f"{path}: {part}.{name} is missing")
    values = {name: _ends(value) if isinstance(value, list) else value for name, value in table.items()}
    return kind(**({"seconds": None} if kind is Hinge else {}) | values)


def _ends(found: list[Any]) -> tuple[Any, ...]:
    return tuple(None if isinstance(end, str) and end == NOT_BOUNDED else end for end in found)


def _check_part(part: str, given: Any) -> None:
    if not isinstance(given, PARTS[part]):
        raise InputError(f"{part} is {shown(given)}; a {PARTS[part].__name__} is needed")
    for field in fields(given):
        name, found = f"{part}.{field.name}", getattr(given, field.name)
        if field.name.endswith("_interval"):
            value = getattr(given, field.name.removesuffix("_interval"))
            _check_interval(name, found, value)
        elif name == "network.dispatch":
            if found not in get_args(Dispatch):
                raise InputError(f"{name} is {shown(found)}; one of {', '.join(get_args(Dispatch))} is needed")
        elif name == "tiles.tile_rows":
            if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found < 1 << 31:
                raise InputError(f"{name} is {shown(found)}; a whole number of rows of at least 1 is needed")
        elif found is not None or name not in MAY_BE_MISSING:
            _check_number(name, found)
    if isinstance(given, Tiles) and (given.memory_bytes_per_second is None) != (given.weight_bytes == 0):
        raise InputError(
            f"tiles.memory_bytes_per_second is {given.memory_bytes_per_second} with weight_bytes = {given.weight_bytes}; it is "
            "needed where weights are read, and there alone"
        )
    if isinstance(given, Network):
        for link in LINKS["node-dedup"]:
            needed, found = link in LINKS[given.dispatch], getattr(given, link)
            if needed and found is None:
                raise InputError(f"network.{link} is missing; {given.dispatch} sends copies over it")
            if found is not None and not needed:
                raise InputError(f"network.{link} is {shown(found)}; {given.dispatch} sends nothing over it, leave it out")


def _check_number(name: str, found: Any) -> None:
    number = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 1e300
    if not number or not math.isfinite(found) or found < 0 or (found == 0 and name not in MAY_BE_ZERO):
        allowed = "of at least 0" if name in MAY_BE_ZERO else "above 0"
        raise InputError(f"{name} is {shown(found)}; a finite number {allowed} is needed")
    if name == "hinge.knee" and found < 1:
        raise InputError(f"{name} is {shown(found)}; the fullest GPU over the mean, a number of at least 1, is needed")


def _check_interval(name: str, found: Any, value: float) -> None:
    if found is None:
        return
    if not isinstance(found, tuple) or len(found) != 2:
        raise InputError(f"{name} is {shown(found)}; its two ends are needed")
    for end in found:
        if end is not None and (not isinstance(end, int | float) or isinstance(end, bool) or not math.isfinite(end)):
            raise InputError(f'{name} is {shown(found)}; two finite numbers are needed, or "{NOT_BOUNDED}" for an end')
    low, high = found
    if (low is not None and low > value) or (high is not None and high < value):
        raise InputError(f"{name} is {shown(found)}; it does not hold the value {value:g}")
