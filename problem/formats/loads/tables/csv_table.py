"""CSV tables of loads: columns such as ``window,layer,expert,tokens``, one row for each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, reason, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.loads.load_format import FileStart, LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.tables.columns import MAX_EXACT, Columns, found_columns, needed_columns
from eplb_gap.problem.formats.loads.tables.grid import recording

MAX_ROWS = 1 << 26
ROW_BYTES = 8
"""A row has at least three digits, two commas and a line end; few have as few."""


def read_csv(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read comma-separated integers under a header such as ``window,layer,expert,tokens``, in any order, or without windows.

    Integral floating-point numbers are counts too: dataframes write 730 as 730.0. Further columns are ignored, and named in the
    notes.

    Raises
    ------
    InputError
        If a column is missing, an entry is no integer, or a window, layer and expert is missing or given twice.
    """
    with _plain(path) as plain:
        start = text_files.read_start(plain, MAX_ROWS * ROW_BYTES, text_files.MAX_HEADER_BYTES)
        try:
            columns = needed_columns(text_files.header(start))
        except InputError as error:
            raise InputError(f"file {path} {error}") from None
        _check_first_row(start, columns, path)
        read = _columns(plain, path, columns)
    return recording(read, path, left_out, columns.notes())


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Yield a file that is not packed."""
    with text_files.opened(path, MAX_ROWS * ROW_BYTES) as (file, text):
        if not text.packed:
            yield path
            return
        with tempfile.NamedTemporaryFile() as plain:
            shutil.copyfileobj(file, plain)
            plain.flush()
            yield Path(plain.name)


def _check_first_row(start: bytes, columns: Columns, path: Path) -> None:
    """Refuse a first row that has other columns than the header: all others are held against it."""
    rest = start.partition(b"\n")[2].lstrip()
    if not rest:
        raise InputError(f"file {path} has no rows; one per layer and expert is needed")
    entries = len(text_files.header(rest))
    if entries != len(columns.names) and b"\n" in rest:
        raise InputError(f"file {path}: line 2 has {entries} entries; the header has {len(columns.names)}")


def _columns(plain: Path, path: Path, columns: Columns) -> dict[str, np.ndarray]:
    """Return the columns as integers: read as such where all are, else entry by entry."""
    import polars

    # Names in place of the header's: two columns that are not read may have one name.
    names = [f"column_{place}" for place in range(len(columns.names))]
    chosen = {names[place]: role for role, place in columns.places.items()}
    text_schema = dict.fromkeys(names, polars.String)
    options: dict[str, Any] = {"has_header": False, "skip_rows": 1, "columns": list(chosen), "glob": False}
    try:
        table = polars.read_csv(plain, schema=text_schema | dict.fromkeys(chosen, polars.Int64), **options)
        if not any(table[name].null_count() for name in chosen):
            return {role: table[name].to_numpy() for name, role in chosen.items()}
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError):
        pass  # what is wrong is found out below
    try:
        text = polars.read_csv(plain, schema=text_schema, **options)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise InputError(f"file {path} is truncated or no CSV of such columns ({reason(error)})") from None
    return {role: _integers(text[name], columns.names[columns.places[role]], path) for name, role in chosen.items()}


def _integers(column: Any, name: str, path: Path) -> np.ndarray:
    """Return a column of text as integers."""
    import polars

    column = column.str.strip_chars()
    whole = column.cast(polars.Int64, strict=False)
    rest = np.flatnonzero(whole.is_null().to_numpy())
    values: np.ndarray = whole.fill_null(0).to_numpy().copy()
    floats = column.gather(rest).cast(polars.Float64, strict=False).to_numpy()
    integral = np.isfinite(floats) & (np.floor(floats) == floats) & (np.abs(floats) <= MAX_EXACT)
    if not integral.all():
        place = int(np.argmin(integral))
        entry, line = column[int(rest[place])], int(rest[place]) + 2
        what = "a fraction" if np.isfinite(floats[place]) and abs(floats[place]) <= MAX_EXACT else "no integer of 64 bits"
        said = f"is {shown(entry)}, {what}; integers" if entry else "has empty entries; integers"
        raise InputError(f"file {path}: line {line}: column {name!r} {said} are needed")
    values[rest] = floats.astype(np.int64)
    return values


def is_table(start: FileStart) -> bool:
    """Return whether the first line of a file has the names of such columns."""
    try:
        return found_columns(start.header) is not None
    except InputError:  # a name is there twice, of which the reader says more
        return True


CSV = LoadFormat(
    "csv",
    "CSV with columns such as layer,expert,tokens or window,layer,expert,tokens, a row for each",
    read_csv,
    recognise=is_table,
    general=True,
    read_without=read_csv,
)
