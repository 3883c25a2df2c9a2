"""Parquet tables of loads: columns such as ``window``, ``layer``, ``expert``, ``tokens``, one row for each."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from eplb_gap.problem import child, files
from eplb_gap.problem.arrays.npy import read_array
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.tables import parquet_process
from eplb_gap.problem.formats.loads.tables.columns import ROLES, Columns, needed_columns
from eplb_gap.problem.formats.loads.tables.grid import recording

MAX_FILE_BYTES = 1 << 31
MAX_ROWS = 1 << 26
MAX_CELLS = MAX_ROWS * len(ROLES)
MAX_LINE = 1 << 24
"""Bytes of the names of all columns."""
MAGIC = b"PAR1"


def read_parquet(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read columns of integers, or integral numbers; which, and errors, as of :func:`.csv_table.read_csv`."""
    columns: list[Columns] = []

    def choose(names: list[str]) -> list[str]:
        columns.append(_chosen(names, path))
        return [names[place] for place in columns[0].places.values()]

    read = read_columns(path, choose)
    return recording(dict(zip(columns[0].places, read, strict=True)), path, left_out, columns[0].notes())


def read_columns(path: Path, choose: Callable[[list[str]], list[str]]) -> np.ndarray:
    """Return columns of integers, or integral numbers, int64 [columns, rows].

    Parameters
    ----------
    path : Path
    choose : callable
        ``choose(names)``: those that are wanted, of the names of all columns.

    Raises
    ------
    InputError
        If the file is no Parquet, has too many rows, or a column is of other values or has an empty entry.
    """
    _check_magic(path)
    command = ["-P", parquet_process.__file__, str(path.absolute()), str(MAX_ROWS), str(MAX_CELLS)]
    process = child.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None and process.stdout is not None
    try:
        wanted = choose(_answer(process.stdout, path))
        with suppress(BrokenPipeError):  # of a process that ended, which its answer says
            process.stdin.write(json.dumps(wanted).encode() + b"\n")
            process.stdin.close()
        _answer(process.stdout, path)
        return read_array(process.stdout, MAX_CELLS * 8, f"file {path}")
    finally:
        child.end(process)
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()


def _answer(output: IO[bytes], path: Path) -> Any:
    """Return what the process says on a line, which no crash of its library can make up."""
    line = output.readline(MAX_LINE)
    try:
        said = json.loads(line)
    except ValueError:
        raise InputError(f"file {path} is no readable Parquet: its reader ended without an answer") from None
    if isinstance(said, dict) and "refused" in said:
        raise InputError(f"file {path} {reason(ValueError(said['refused']))}")
    return said


def _chosen(names: list[str], path: Path) -> Columns:
    try:
        return needed_columns(names)
    except InputError as error:
        raise InputError(f"file {path} {error}") from None


def _check_magic(path: Path) -> None:
    size = files.size(path, MAX_FILE_BYTES)
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
            file.seek(max(0, size - len(MAGIC)))
            end = file.read(len(MAGIC))
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None
    if start != MAGIC or end != MAGIC:
        raise InputError(f"file {path} is truncated or no Parquet: it does not begin and end with {MAGIC.decode()}")


PARQUET = LoadFormat(
    "parquet",
    "Parquet with the columns of such a CSV",
    read_parquet,
    recognise=lambda start: start.content.startswith(MAGIC),
    general=True,
    read_without=read_parquet,
)
