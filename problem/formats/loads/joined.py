"""Several recordings as one: which files stand for which recording, their order in time, and what must not be joined."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from eplb_gap.problem.errors import InputError, printable, shown
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.one_rank import one_rank_notice
from eplb_gap.problem.formats.loads.recording import MAX_NOTICES, Recording
from eplb_gap.problem.loads import as_loads

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One recording, or the files and folders of several."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
SPANS = {
    "windows": "windows",
    "forward_passes": "forward passes",
    "recorded_steps": "steps",
    "iterations": "iterations",
    "recorded_seconds": "seconds",
}
"""Notes of readers that say which steps a recording holds, the first and the last; the server counts them, or the time."""
SHARED_PART = 0.1
"""Two recordings of which so large a part is the same were taken at the same time."""


def as_paths(value: Paths) -> list[Path]:
    """Return the paths that an argument names, in its order.

    Raises
    ------
    InputError
        If it names none, or anything but paths.
    """
    try:
        found = [value] if isinstance(value, str | os.PathLike) else list(value)
        paths = [Path(one) for one in found]
    except TypeError:
        raise InputError(f"path is {shown(value)}; a path, or several, are needed") from None
    if not paths:
        raise InputError("path names no file; a path, or several, are needed")
    return paths


def named(paths: Sequence[Path]) -> str:
    """Return what loads of these files are called: the name of the only one, or of the first and how many more there are."""
    first = paths[0].name or paths[0].absolute().name
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def recordings(given: Sequence[Path], format: LoadFormat) -> list[Path]:
    """Return one path for each recording that the given files and folders hold, in their order.

    Raises
    ------
    InputError
        If a file is given twice, or a folder and a file of a recording in it.
    """
    files: dict[Path, Path] = {}
    for path in given:
        if path.resolve() in files:
            raise InputError(f"{files[path.resolve()]} and {path} are one file; each is joined once")
        files[path.resolve()] = path
    found: dict[Path, tuple[Path, Path]] = {}
    for path in given:
        for one in [path] if format.recordings is None else format.recordings(path):
            _, before = found.setdefault(one.resolve(), (one, path))
            if before is not path and (before.is_dir() or path.is_dir()):
                raise InputError(f"{before} and {path} hold the same recording, {one}; each is joined once")
    return [one for one, _ in found.values()]


def unread_notice(given: Sequence[Path], paths: Sequence[Path], format: LoadFormat) -> str | None:
    """Return what to say of files in the given folders that are not of their format, and so are not read; None if there are none.

    Parameters
    ----------
    given : sequence of Path
    paths : sequence of Path
        Of each recording, as :func:`recordings` returns them.
    format : LoadFormat
        Of all of them. Hidden files, as an operating system and half-written copies leave them, are not counted.
    """
    folders = [path for path in given if path.is_dir()]
    if format.names is None or not folders:
        return None
    others = 0
    for folder in folders:
        names = [path.name for path in folder.iterdir() if path.is_file()]
        known = [name for name in names if format.names.fullmatch(name) or name in format.companions or name.startswith(".")]
        others += len(names) - len(known)
    if not others:
        return None
    read = f"{len(paths)} recording{'s' * (len(paths) > 1)} read"
    where = "the folder" if len(folders) == 1 else f"{len(folders)} folders"
    return f"{read}; {others} other file{'s' * (others > 1)} in {where} not looked at"


def in_order(paths: Sequence[Path], format: LoadFormat) -> tuple[list[Path], str] | None:
    """Return recordings in the order of the times or numbers in their names, and how they were ordered.

    Returns
    -------
    (list of Path, str) or None
        None where the names do not tell.

    Raises
    ------
    InputError
        If two have the same time, or numbers such as 1.9 and 1.10 that can be read in two ways.
    """
    times = [time for path in paths if (time := _time(path, format)) is not None]
    if len(times) == len(paths):
        _refuse_ties(paths, times, "the same time")
        return _sorted(paths, times), "times in their names"
    tied = None
    for texts in ([path.name for path in paths], [path.as_posix() for path in paths]):
        numbers = [tuple(NUMBER.findall(text)) for text in texts]
        if len({NUMBER.sub("#", text) for text in texts}) > 1 or not numbers[0]:
            continue
        _refuse_two_readings(paths, numbers)
        keys = [tuple(map(Decimal, each)) for each in numbers]
        if len(set(keys)) == len(keys):
            return _sorted(paths, keys), "numbers in their names"
        tied = keys
    if tied is not None:
        _refuse_ties(paths, tied, "the same numbers")
    return None


def joined(parts: Sequence[tuple[Path, Recording]], how: str | None) -> Recording:
    """Return recordings one after the other as one.

    Parameters
    ----------
    parts : sequence of (Path, Recording)
        Two or more, in the order of their names or as given.
    how : str or None
        How the names ordered them; without that the steps that they hold do, where they say so.

    Raises
    ------
    InputError
        Naming two files, if they differ in layers, experts or steps of a window, or share steps.
    """
    first_path, first = parts[0]
    for path, part in parts[1:]:
        for what, mine, other in _traits(first, part):
            if mine != other:
                hint = " (those that never occur are added where experts says how many there are)" if what == "experts" else ""
                raise InputError(f"{first_path} has {mine}, {path} has {other}; {what} must be the same to be joined{hint}")
    told: dict[str, list[list[float]]] = {}
    for key in SPANS:
        spans = [span for _, part in parts if _is_span(span := part.notes.get(key))]
        if len(spans) == len(parts):
            told[key] = spans
    if how is None and told:
        starts = next(iter(told.values()))
        parts = [parts[index] for index in sorted(range(len(parts)), key=lambda index: starts[index])]
        how = "steps that they hold"
    for key in told:
        _refuse_shared_spans(parts, key)
    paths = [path for path, _ in parts]
    check_elements((sum(len(part.steps) for _, part in parts), *first.steps.shape[1:]), f"{named(paths)}: loads")
    steps = [as_loads(part.steps, f"file {path}: loads", 3) for path, part in parts]
    _refuse_shared_steps(paths, steps)
    same = {key: value for key, value in first.notes.items() if all(part.notes.get(key) == value for _, part in parts)}
    same.pop("file", None)  # of traces, each of which knows the file that it was made of
    ends = {key: [min(low for low, _ in found), max(high for _, high in found)] for key, found in told.items()}
    files = [
        {
            **{key: value for key, value in part.notes.items() if key not in same},
            "file": path.name or path.absolute().name,
            "rows": len(part.steps),
        }
        for path, part in parts
    ]
    loads = np.concatenate(steps)
    notices = list(dict.fromkeys(text for _, part in parts for text in part.notes.get("notices", ())))
    notices = [*_shares(paths, steps, loads), *notices][:MAX_NOTICES]
    same |= {"notices": notices} if notices else {}
    notes = {**same, **ends, "joined": files, "joined_by": how or "order in which they were given"}
    return Recording(loads, first.layer_ids, first.num_model_layers, first.row_steps, notes)


def _shares(paths: Sequence[Path], steps: Sequence[np.ndarray], loads: np.ndarray) -> list[str]:
    """Return what to say of recordings each of which looks like one rank's share, where that does not show in all together."""
    said = {path.name: text for path, part in zip(paths, steps, strict=True) if (text := one_rank_notice(part)) is not None}
    if not said or one_rank_notice(loads) is not None:
        return []
    name, text = next(iter(said.items()))
    return [f"{printable(name)}, one of {len(said)} such of {len(paths)} that follow one another in time, {text}"]


def _time(path: Path, format: LoadFormat) -> Decimal | None:
    match = None if format.names is None else format.names.fullmatch(path.name)
    return Decimal(match["time"]) if match is not None and "time" in match.re.groupindex else None


def _sorted(paths: Sequence[Path], keys: Sequence[Any]) -> list[Path]:
    return [paths[index] for index in sorted(range(len(paths)), key=lambda index: keys[index])]


def _refuse_ties(paths: Sequence[Path], keys: Sequence[Any], what: str) -> None:
    first: dict[Any, Path] = {}
    for path, key in zip(paths, keys, strict=True):
        if key in first:
            raise InputError(f"{first[key]} and {path} have {what} in their names; what is joined needs an order")
        first[key] = path


def _refuse_two_readings(paths: Sequence[Path], numbers: Sequence[tuple[str, ...]]) -> None:
    """Refuse names that decimal fractions order in another way than numbers between points."""
    decimal = sorted(range(len(paths)), key=lambda index: tuple(map(Decimal, numbers[index])))
    for one, other in pairwise(decimal):
        parts = [[list(map(int, number.split("."))) for number in numbers[index]] for index in (one, other)]
        if parts[0] > parts[1]:
            raise InputError(
                f"{paths[one]} and {paths[other]} can be ordered in two ways, as decimal fractions or as numbers between points; "
                "names with equally many digits behind the point are needed"
            )


def _traits(first: Recording, other: Recording) -> list[tuple[str, str, str]]:
    """Return what two recordings must have in common, as a message says it."""
    both = (first, other)
    experts = [f"{part.steps.shape[2]} experts" for part in both]
    layers = [f"{part.steps.shape[1]} layers ({_ids(part.layer_ids)})" for part in both]
    model = [f"a model of {part.num_model_layers or 'unknown'} layers" for part in both]
    rows = [f"windows of {part.row_steps} steps" for part in both]
    modes = [f"the mode {part.notes.get('mode')}" for part in both]
    return [
        ("layers", layers[0], layers[1]),
        ("experts", experts[0], experts[1]),
        ("models", model[0], model[1]),
        ("windows", rows[0], rows[1]),
        ("modes", modes[0], modes[1]),
    ]


def _ids(layer_ids: Sequence[int]) -> str:
    """Return layer numbers as ranges, so that two texts are the same where the numbers are."""
    ids = np.asarray(layer_ids)
    ranges = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in ranges)


def _is_span(value: Any) -> TypeGuard[list[float]]:
    pair = isinstance(value, list) and len(value) == 2 and all(type(end) in (int, float) for end in value)
    return pair and value[0] <= value[1]


def _refuse_shared_spans(parts: Sequence[tuple[Path, Recording]], key: str) -> None:
    for (one, part), (other, following) in pairwise(sorted(parts, key=lambda part: part[1].notes[key][0])):
        (low, high), (start, end) = part.notes[key], following.notes[key]
        if start <= high:
            raise InputError(
                f"{one} holds {SPANS[key]} {low} to {high} and {other} {start} to {end}; recordings that are joined share none"
            )


def _refuse_shared_steps(paths: Sequence[Path], steps: Sequence[np.ndarray]) -> None:
    """Refuse two recordings of the same tokens under different names: all their steps, or a part of them, are the same.

    Steps of real counts are hardly alike by chance: only an idle server's are, which holds them more than once, or a few of many.
    A recording whose own steps are alike is synthetic, and steady on purpose.
    """
    whole: dict[bytes, int] = {}
    once: dict[bytes, int] = {}
    sizes = []
    for index, loads in enumerate(steps):
        digests = [hashlib.sha256(step.data).digest() for step in loads if step.any()]
        sizes.append(len(digests))
        before = whole.setdefault(hashlib.sha256(b"".join(digests)).digest(), index)
        if before != index and digests:
            raise InputError(f"{paths[before]} and {paths[index]} hold the same loads; each recording is joined once")
        shared: Counter[int] = Counter()
        for digest, count in Counter(digests).items():
            if count == 1:
                shared[once.setdefault(digest, index)] += 1
        for other in shared.keys() - {index}:
            found = shared[other]
            if found >= SHARED_PART * min(sizes[other], sizes[index]):
                raise InputError(
                    f"{paths[other]} and {paths[index]} share steps of the same loads ({found}); what is joined shares none"
                )
