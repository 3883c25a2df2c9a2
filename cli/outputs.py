"""What commands write: looked at in one place before the work, and written over only where it is what that command writes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from eplb_gap.problem.atomic import check_writable
from eplb_gap.problem.errors import InputError

Force = Annotated[
    bool, typer.Option("--force", help="Write over files that are there, whatever they are; never over what is read.")
]
Recognise = Callable[[Path], bool]
ENDS = 4096
"""Bytes at both ends of a file in which its mark is looked for."""
METRICS = b"# HELP eplb_gap_"
FIGURE, PAGE = b"eplb-gap figure", b'<meta name="generator" content="eplb-gap">'
CERTIFICATE = b'{"schema": "eplb-gap certificate'
CONFIGURATION, CONTROLLER = b", chosen by eplb-gap calibrate for ", b"# Chosen by eplb-gap calibrate --online on "
PROFILE = b"Fitted by eplb-gap calibrate --timed-maps to "


@dataclass(frozen=True)
class Output:
    """A file that a command is to write.

    Parameters
    ----------
    option : str
        The option that names it, or its folder.
    path : Path or None
        None where the option is not given.
    kind : str
        What the command writes there, as a message says it.
    recognise : callable
        ``recognise(path)``: whether a file that is there is of that kind and can be written over.
    """

    option: str
    path: Path | None
    kind: str
    recognise: Recognise


def trace(option: str, path: Path) -> Output:
    """Return a trace as an output: a recording that is there is never one that can be made again."""
    return Output(option, path, "recording", lambda _: False)


def figure(option: str, path: Path | None) -> Output:
    """Return a figure as an output."""
    return Output(option, path, "figure of eplb-gap", marked(FIGURE))


def page(option: str, path: Path | None) -> Output:
    """Return a page as an output."""
    return Output(option, path, "page of eplb-gap", marked(PAGE))


def metrics(option: str, path: Path | None) -> Output:
    """Return metrics in Prometheus's text format as an output."""
    return Output(option, path, "metrics of eplb-gap", marked(METRICS))


def existing(names: Iterable[tuple[str, str | None]]) -> list[tuple[str, Path]]:
    """Return those options, each with the name of a method or file, that name a file which is there."""
    return [(option, Path(name)) for option, name in names if name is not None and os.path.exists(name)]


def marked(mark: bytes) -> Recognise:
    """Recognise files that have a mark near their start or end."""

    def recognise(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                start = file.read(ENDS)
                file.seek(max(0, os.fstat(file.fileno()).st_size - ENDS))
                return mark in start or mark in file.read(ENDS)
        except OSError:
            return False

    return recognise


def check_outputs(
    written: Iterable[Output], read: Iterable[tuple[str, Path | Sequence[Path] | None]] = (), force: bool = False
) -> None:
    """Check before any long work that files can be written, and that nothing is lost by it.

    Parameters
    ----------
    written : iterable of Output
    read : iterable of (str, Path, several or None)
        Options and the files and folders that they name, None where an option is not given.
    force : bool, default False
        Write over files that are there and of another kind; never over those that are read.

    Raises
    ------
    InputError
        If a file is there and of another kind, is read or written as another option says, or cannot be written.
    """
    sources = [
        (path, option) for option, paths in read if paths is not None for path in ([paths] if isinstance(paths, Path) else paths)
    ]
    taken: list[tuple[Path, str]] = []
    for output in written:
        path = output.path
        if path is None:
            continue
        for other, option in (*sources, *taken):
            if _same(path, other):
                raise InputError(f"{output.option} is {path}, which is the file of {option} too; another one is needed")
        taken.append((path, output.option))
        lost = os.path.isfile(path) and path.stat().st_size > 0 and not output.recognise(path)
        inside = next((option for other, option in sources if lost and _is_in(path, other)), None)
        if inside is not None:
            raise InputError(f"{output.option} is {path}, a file in the folder of {inside}; another one is needed")
        if lost and not force:
            raise InputError(
                f"{output.option} is {path}, which is there and {_said(path, output.kind)}; another name is needed, or "
                "--force to write over it"
            )
        try:
            check_writable(path)
        except InputError as error:
            raise InputError(f"{output.option} is {path}; {error}") from None


def check_folder(path: Path, option: str) -> None:
    """Refuse a name that is that of a file where a folder is needed, before any long work and before it is made."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(f"{option} is {path}; a folder that can be written to is needed")


def writable_folder(path: Path, option: str) -> Path:
    """Create the folder that a file will be written to, before any long work.

    Raises
    ------
    InputError
        If it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} is {path}; a folder that can be written to is needed ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{option} is {path}; a folder that can be written to is needed")
    return path


def rows_folder(path: Path, option: str) -> Path:
    """Create the folder that rows and the tables drawn from them go to; tables of others are not written over.

    Raises
    ------
    InputError
        As :func:`writable_folder`, or if it has tables and no rows.
    """
    writable_folder(path, option)
    tables = sorted(path.glob("*tables.md"))
    if tables and not any(path.glob("*.ndjson")):
        raise InputError(f"{option} is {path}, which holds {tables[0].name} and no rows of eplb-gap; another folder is needed")
    return path


def _same(path: Path, other: Path) -> bool:
    """Return whether two names are of one file, by links too."""
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except (OSError, RuntimeError):  # one is not there
        return False


def _is_in(path: Path, folder: Path) -> bool:
    """Return whether a file is in a folder or at any depth below, as the calls in a record folder are."""
    return folder.is_dir() and any(_same(parent, folder) for parent in path.resolve().parents)


def _said(path: Path, kind: str) -> str:
    from eplb_gap.problem.formats.loads.recorded import holds_loads

    return "holds a recording" if holds_loads(path) else f"is no {kind}"
