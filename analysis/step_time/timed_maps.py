"""Files of timed maps: how long a deployment took under each of several maps, with their imbalances or the maps themselves."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, listed, shown

MAX_BYTES = 1 << 18
MAX_MAPS = 256
ABOUT = ("measured_on", "timed")
"""What a file may say beside its maps: the hardware and model, and what the seconds are the time of."""
_ABOUT = re.compile(rf"# *({'|'.join(ABOUT)}): *(.+)")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{0,15})?([eE][-+]?[0-9]{1,2})?")


@dataclass(frozen=True)
class TimedMaps:
    """What a file of timed maps says.

    Parameters
    ----------
    seconds : tuple of float [maps]
    imbalance : tuple of float [maps] or None
        Mean over layers of the largest GPU load over the mean.
    maps : tuple of Path [maps] or None
        Files of the maps, where the imbalance is not given.
    measured_on, timed : str or None
        Hardware and model, and what the seconds are the time of, as far as the file says it.
    """

    seconds: tuple[float, ...]
    imbalance: tuple[float, ...] | None
    maps: tuple[Path, ...] | None
    measured_on: str | None = None
    timed: str | None = None


def read_timed_maps(path: str | os.PathLike[str]) -> TimedMaps:
    """Read timed maps.

    Parameters
    ----------
    path : path
        CSV with a header, in front of which lines ``# measured_on: TEXT`` and ``# timed: TEXT`` may stand; or, ending in
        ``.json``, a list ``[{"imbalance": 1.05, "seconds": 82.7}, ...]``, or an object with that under ``maps``, which may have
        both texts too. Every map has ``seconds`` and either its ``imbalance`` or a ``map``, the name of its file, seen from the
        folder of this one.

    Raises
    ------
    InputError
        Naming the file, the line or entry, what was found and what is needed.
    """
    path = Path(path)
    if path.suffix == ".json":
        parsed = files.parse_json(path, MAX_BYTES)
        document = {"maps": parsed} if isinstance(parsed, list) else files.fields(parsed, str(path), ("maps",), ABOUT)
        rows = document.pop("maps")
        if not isinstance(rows, list):
            raise InputError(f"{path}: maps is {shown(rows)}; a list of objects is needed")
        about, entries = document, [(f"{path}: maps[{i}]", row) for i, row in enumerate(rows)]
    else:
        about, entries = _read_csv(path)
    for name, text in about.items():
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise InputError(f"{path}: {name} is {shown(text)}; a text of one line is needed")
    if len(entries) > MAX_MAPS:
        raise InputError(f"{path} has {len(entries)} maps; at most {MAX_MAPS} are read")
    if not entries:
        raise InputError(f"{path} has no maps; at least three are needed")
    columns = [name for name in ("imbalance", "map") if isinstance(entries[0][1], dict) and name in entries[0][1]]
    if len(columns) != 1:
        raise InputError(f"{entries[0][0]} has {' and '.join(columns) or 'neither'}; either imbalance or map is needed")
    [column] = columns
    read = [files.fields(entry, where, ("seconds", column)) for where, entry in entries]
    seconds = tuple(_number(row["seconds"], f"{where}: seconds") for row, (where, _) in zip(read, entries, strict=True))
    if column == "imbalance":
        found = tuple(_number(row[column], f"{where}: imbalance") for row, (where, _) in zip(read, entries, strict=True))
        return TimedMaps(seconds, found, None, **about)
    for row, (where, _) in zip(read, entries, strict=True):
        if not isinstance(row["map"], str) or not row["map"] or "\0" in row["map"]:
            raise InputError(f"{where}: map is {shown(row['map'])}; the name of a file is needed")
    return TimedMaps(seconds, None, tuple(path.parent / row["map"] for row in read), **about)


def _read_csv(path: Path) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Return what the lines in front say, and every map as an object with where it stands."""
    lines = files.read_text(path, MAX_BYTES).splitlines()
    about: dict[str, Any] = {}
    start = 0
    while start < len(lines) and (lines[start].startswith("#") or not lines[start].strip()):
        if said := _ABOUT.fullmatch(lines[start].strip()):
            if said[1] in about:
                raise InputError(f"{path}: line {start + 1} says {said[1]} again; it is needed once")
            about[said[1]] = said[2]
        start += 1
    try:
        table = list(csv.reader(io.StringIO("\n".join(lines[start:])), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error})") from None
    header, *rows = [[cell.strip() for cell in row] for row in table] or [[]]
    if len(set(header)) < len(header) or not {"seconds"} <= set(header) <= {"seconds", "imbalance", "map"}:
        raise InputError(f"{path}: the header is {listed(header) or 'missing'}; seconds, and imbalance or map, are needed")
    entries: list[tuple[str, Any]] = []
    for line, row in enumerate(rows, start=start + 2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} values; the header has {len(header)}")
        entries.append((f"{path}: line {line}", dict(zip(header, row, strict=True))))
    return about, entries


def _number(value: Any, where: str) -> float:
    text = json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _NUMBER.fullmatch(text) is None:
        raise InputError(f"{where} is {shown(value)}; a positive number is needed")
    return float(text)
