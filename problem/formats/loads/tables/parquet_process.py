"""The process in which a Parquet file is decoded: the library ends its process, without an error, on some damaged files.

``parquet_process.py FILE MAX_ROWS MAX_CELLS`` writes the names of all columns as a line of JSON, reads such a line of those that
are wanted, and writes ``{}`` and them as an npy array int64 [columns, rows]. Whatever is wrong it writes as ``{"refused": why}``.
It imports nothing of the package, which would take as long as the rest.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

MAX_EXACT = 1 << 53
"""Larger floating-point numbers do not tell which integer was meant."""


def columns(path: str, max_rows: int, max_cells: int, names: list[str]) -> np.ndarray:
    """Return columns, int64 [columns, rows].

    Raises
    ------
    ValueError
        If one is not of integral numbers or has an empty entry, or there are too many rows.
    """
    import polars

    schema = polars.read_parquet_schema(path)
    for name in names:
        if not schema[name].is_integer() and not schema[name].is_float():
            raise ValueError(f"has a column {name!r} of type {schema[name]}; integers are needed")
    rows = polars.scan_parquet(path, glob=False).select(polars.len()).collect().item()
    most = min(max_rows, max_cells // max(1, len(names)))
    if rows > most:
        raise ValueError(f"claims {rows} rows; at most {most} are read")
    table = polars.read_parquet(path, columns=names, glob=False)
    for name in names:
        if table[name].null_count():
            raise ValueError(f"has empty entries in column {name!r}; integers are needed")
    return np.stack([_integers(table[name], name) for name in names])


def _integers(column: Any, name: str) -> np.ndarray:
    import polars

    if not column.dtype.is_float():
        return np.asarray(column.cast(polars.Int64).to_numpy())
    found = np.asarray(column.to_numpy())
    wrong = ~(np.isfinite(found) & (np.floor(found) == found) & (np.abs(found) <= MAX_EXACT))
    if wrong.any():
        row = int(np.argmax(wrong))
        what = "a fraction" if abs(found[row]) <= MAX_EXACT else "no integer of 64 bits"
        raise ValueError(f"has {found[row]} in column {name!r}, row {row}, {what}; integers are needed")
    return found.astype(np.int64)


def main(path: str, max_rows: str, max_cells: str) -> None:
    """Write names and columns, or why not."""
    import polars

    try:
        _say(list(polars.read_parquet_schema(path)))
        found = columns(path, int(max_rows), int(max_cells), json.loads(sys.stdin.readline()))
    except (ValueError, OSError, polars.exceptions.PolarsError) as error:
        _say({"refused": str(error).partition("\n")[0]})
        return
    _say({})
    np.save(sys.stdout.buffer, found)


def _say(value: Any) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
