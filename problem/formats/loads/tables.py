"""Tables of loads, CSV and Parquet: one row per window, layer and expert with the columns ``window,layer,expert,tokens``."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import MAX_REASON, InputError, reason, shown
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads import parquet_process
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording, left_out_note
from eplb_gap.problem.npy import read_array

COLUMNS = ("window", "layer", "expert", "tokens")
MAX_FILE_BYTES = 1 << 31
MAX_ROWS = 1 << 26
MAX_TABLE = 1 << 22
MAGIC = b"PAR1"


def read_csv(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read comma-separated integers under the header ``window,layer,expert,tokens`` (columns in any order).

    Raises
    ------
    InputError
        If the columns are others, an entry is no integer, or a window, layer and expert is missing or given twice.
    """
    import polars

    size = files.size(path, MAX_FILE_BYTES)
    if size > MAX_ROWS * 8:  # a row has at least four digits, three commas and a line end
        raise InputError(f"file {path} has {size} bytes; at most {MAX_ROWS} rows are read")
    _check_columns(files.csv_header(path), path)
    try:
        table = polars.read_csv(path, schema_overrides=dict.fromkeys(COLUMNS, polars.Int64), glob=False)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise InputError(f"file {path} is truncated or no CSV of such columns ({reason(error)})") from None
    for name in COLUMNS:
        if table[name].null_count():
            raise InputError(f"file {path} has empty entries in column {name!r}; integers are needed")
    return _recording({name: table[name].to_numpy() for name in COLUMNS}, path, left_out)


def read_parquet(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read integer columns ``window``, ``layer``, ``expert`` and ``tokens``; errors as of :func:`read_csv`."""
    _check_magic(path)
    command = [sys.executable, "-P", parquet_process.__file__, str(path.absolute()), str(MAX_ROWS), *COLUMNS]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
        output.seek(0)
        if done.returncode == parquet_process.REFUSED:
            said = output.read(MAX_REASON).decode("utf-8", "replace")
            raise InputError(f"file {path} {reason(ValueError(said))}")
        if done.returncode:
            raise InputError(f"file {path} is no readable Parquet: its reader ended with code {done.returncode}")
        columns = read_array(output, MAX_ROWS * len(COLUMNS) * 8, f"file {path}")
    return _recording(dict(zip(COLUMNS, columns, strict=True)), path, left_out)


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


def _check_columns(found: list[str], path: Path) -> None:
    if sorted(found) != sorted(COLUMNS):
        raise InputError(f"file {path} has the columns {shown(found)}; {', '.join(COLUMNS)} are needed")


def _recording(columns: dict[str, np.ndarray], path: Path, left_out: Collection[int]) -> Recording:
    if not columns["tokens"].size:
        raise InputError(f"file {path} has no rows; one per window, layer and expert is needed")
    for name in COLUMNS[:3]:
        if columns[name].min() < 0:
            raise InputError(f"file {path}: column {name!r} has {columns[name].min()}; numbers from 0 on are needed")
    notes: dict[str, Any] = {}
    if left_out:
        notes |= left_out_note(set(np.unique(columns["layer"]).tolist()), left_out)
        kept = ~np.isin(columns["layer"], list(left_out))
        columns = {name: column[kept] for name, column in columns.items()}
    axes = [_labels(columns[name]) for name in COLUMNS[:3]]
    shape = tuple(labels.size for labels, _ in axes)
    experts = axes[2][0]
    if experts[-1] != shape[2] - 1:
        raise InputError(f"file {path}: column 'expert' has {shape[2]} experts up to {experts[-1]}; all from 0 on are needed")
    check_elements(shape, f"file {path}")
    cells = np.ravel_multi_index(tuple(places for _, places in axes), shape)
    in_order = np.sort(cells)
    twice = np.flatnonzero(in_order[1:] == in_order[:-1])
    if twice.size:
        raise InputError(f"file {path}: {_cell(int(in_order[twice[0]]), axes, shape)} is given twice")
    if cells.size < math.prod(shape):
        absent = np.flatnonzero(in_order != np.arange(cells.size))
        cell = int(absent[0]) if absent.size else cells.size
        raise InputError(
            f"file {path}: {_cell(cell, axes, shape)} is missing; each of {shape} windows, layers, experts needs a row"
        )
    loads = np.empty_like(columns["tokens"])
    loads[cells] = columns["tokens"]
    windows = axes[0][0]
    notes["windows"] = [int(windows[0]), int(windows[-1])]
    return Recording(loads.reshape(shape), axes[1][0].tolist(), notes=notes)


def _labels(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different numbers of a column, ascending, and the place of each entry among them."""
    largest = int(column.max())
    if largest >= MAX_TABLE:
        return np.unique(column, return_inverse=True)
    there = np.zeros(largest + 1, dtype=bool)  # many times faster than sorting
    there[column] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[column]


def _cell(cell: int, axes: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> str:
    window, rest = divmod(cell, shape[1] * shape[2])
    layer, expert = divmod(rest, shape[2])
    return f"window {axes[0][0][window]}, layer {axes[1][0][layer]}, expert {axes[2][0][expert]}"


CSV = LoadFormat(
    "csv",
    "CSV with the columns window,layer,expert,tokens, a row for each",
    read_csv,
    recognise=lambda start: set(COLUMNS) <= set(start.header),
    general=True,
    read_without=read_csv,
)
PARQUET = LoadFormat(
    "parquet",
    "Parquet with the columns window, layer, expert, tokens, a row for each",
    read_parquet,
    recognise=lambda start: start.content.startswith(MAGIC),
    general=True,
    read_without=read_parquet,
)
