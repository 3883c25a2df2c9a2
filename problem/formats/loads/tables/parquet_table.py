"""Parquet tables of loads: columns such as ``window``, ``layer``, ``expert``, ``tokens``, one row for each."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from eplb_gap.problem import child, files
from eplb_gap.problem.errors import MAX_REASON, InputError, reason
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.tables import parquet_process
from eplb_gap.problem.formats.loads.tables.columns import ROLES, needed_columns
from eplb_gap.problem.formats.loads.tables.grid import recording
from eplb_gap.problem.npy import read_array

MAX_FILE_BYTES = 1 << 31
MAX_ROWS = 1 << 26
MAGIC = b"PAR1"


def read_parquet(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read columns of integers, or integral numbers; which, and errors, as of :func:`.csv_table.read_csv`."""
    _check_magic(path)
    command = ["-P", parquet_process.__file__, str(path.absolute()), str(MAX_ROWS)]
    with tempfile.TemporaryFile() as output:
        process = child.start(command, stdout=output, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            done = process.wait()
        finally:
            child.end(process)
        output.seek(0)
        if done == parquet_process.REFUSED:
            said = output.read(MAX_REASON).decode("utf-8", "replace")
            raise InputError(f"file {path} {reason(ValueError(said))}")
        if done:
            raise InputError(f"file {path} is no readable Parquet: its reader ended with code {done}")
        columns = needed_columns(json.loads(output.readline()))
        read = read_array(output, MAX_ROWS * len(ROLES) * 8, f"file {path}")
    return recording(dict(zip(columns.places, read, strict=True)), path, left_out, columns.notes())


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
