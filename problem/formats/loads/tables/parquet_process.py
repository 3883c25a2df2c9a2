"""The process in which a Parquet file is decoded: the library ends its process, without an error, on some damaged files.

``parquet_process.py FILE MAX_ROWS`` writes to the standard output the names of all columns, as a line of JSON, and those that say
loads as an npy array int64 [columns, rows]; or, with exit code 3, why it does not.
"""

from __future__ import annotations

import json
import sys

import numpy as np

from eplb_gap.problem.errors import shown
from eplb_gap.problem.formats.loads.tables.columns import MAX_EXACT, needed_columns

REFUSED = 3


def columns(path: str, max_rows: int) -> tuple[list[str], np.ndarray]:
    """Return the names of all columns, and those that say loads, int64 [columns, rows].

    Raises
    ------
    ValueError
        If one is missing, is not of integral numbers or has an empty entry, or there are too many rows.
    """
    import polars

    schema = polars.read_parquet_schema(path)
    names = list(schema)
    chosen = {role: names[place] for role, place in needed_columns(names).places.items()}
    for name in chosen.values():
        if not schema[name].is_integer() and not schema[name].is_float():
            raise ValueError(f"has a column {name!r} of type {schema[name]}; integers are needed")
    rows = polars.scan_parquet(path, glob=False).select(polars.len()).collect().item()
    if rows > max_rows:
        raise ValueError(f"claims {rows} rows; at most {max_rows} are read")
    table = polars.read_parquet(path, columns=list(chosen.values()), glob=False)
    found = []
    for name in chosen.values():
        if table[name].null_count():
            raise ValueError(f"has empty entries in column {name!r}; integers are needed")
        found.append(
            _integers(table[name].to_numpy(), name) if schema[name].is_float() else table[name].cast(polars.Int64).to_numpy()
        )
    return names, np.stack(found)


def _integers(column: np.ndarray, name: str) -> np.ndarray:
    wrong = ~(np.isfinite(column) & (np.floor(column) == column) & (np.abs(column) <= MAX_EXACT))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"has {shown(float(column[row]))} in column {name!r}, row {row}, a fraction or too large; integers are needed"
        )
    return column.astype(np.int64)


def main(path: str, max_rows: str) -> int:
    """Write the columns, or why not."""
    import polars

    try:
        names, found = columns(path, int(max_rows))
    except (ValueError, OSError, polars.exceptions.PolarsError) as error:
        sys.stdout.buffer.write(str(error).partition("\n")[0].encode())
        return REFUSED
    sys.stdout.buffer.write(json.dumps(names).encode() + b"\n")
    np.save(sys.stdout.buffer, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
