"""What all commands share: where they print, options that several take, and the checks of what they write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from eplb_gap.problem.atomic import check_writable
from eplb_gap.problem.errors import InputError

out, log = Console(), Console(stderr=True)

INTERRUPTED = 130
"""Exit code after Ctrl-C; typer turns the interrupt into it."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
PlanWindow = Annotated[int | None, typer.Option(help="Window to plan on; the last but one by default.")]
ServeWindow = Annotated[int | None, typer.Option(help="Window that is served; the one after by default.")]
MapFormat = Annotated[str | None, typer.Option(help="Format of map files; recognised by default.")]


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what goes on, and yield a function that changes the text; elsewhere nothing is written."""
    if not log.is_terminal:
        yield lambda changed: None
        return
    with Status(text, console=log) as status:
        yield status.update


def writable_file(path: Path, option: str) -> Path:
    """Check that a file can be written, also into a folder that will be made for it, before any long work.

    Raises
    ------
    InputError
        If it is there and no regular file, or it or its folder cannot be created or written to.
    """
    try:
        check_writable(path)
    except InputError as error:
        raise InputError(f"{option} is {path}; {error}") from None
    return path


def writable_files(written: Iterable[tuple[str, Path | None]], read: Iterable[tuple[str, Path | None]]) -> None:
    """Check that files can be written, and that none of them is read or written as another option says.

    Parameters
    ----------
    written, read : iterable of (str, Path or None)
        Options and their files, None where an option is not given.

    Raises
    ------
    InputError
        As :func:`writable_file`, or if one file is that of two options.
    """
    taken = {path.resolve(): option for option, path in read if path is not None}
    for option, path in written:
        if path is None:
            continue
        if path.resolve() in taken:
            raise InputError(f"{option} is {path}, which is the file of {taken[path.resolve()]} too; another one is needed")
        taken[path.resolve()] = option
        writable_file(path, option)


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
