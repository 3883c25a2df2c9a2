"""The process in which a Parquet file is decoded: the library ends its process, without an error, on some damaged files.

``parquet_process.py FILE MAX_ROWS COLUMN...`` writes the columns to the standard output as an npy array int64 [columns, rows],
or, with exit code 3, why it does not.
"""

from __future__ import annotations

import sys

import numpy as np

REFUSED = 3


def columns(path: str, max_rows: int, names: list[str]) -> np.ndarray:
    """Return the columns, int64 [columns, rows].

    Raises
    ------
    ValueError
        If the file has other columns, one is not of integers or has an empty entry, or there are too many rows.
    """
    import polars

    schema = polars.read_parquet_schema(path)
    if sorted(schema) != sorted(names):
        raise ValueError(f"has the columns {', '.join(schema)[:200]}; {', '.join(names)} are needed")
    for name, kind in schema.items():
        if not kind.is_integer():
            raise ValueError(f"has a column {name!r} of type {kind}; integers are needed")
    rows = polars.scan_parquet(path, glob=False).select(polars.len()).collect().item()
    if rows > max_rows:
        raise ValueError(f"claims {rows} rows; at most {max_rows} are read")
    table = polars.read_parquet(path, glob=False)
    for name in names:
        if table[name].null_count():
            raise ValueError(f"has empty entries in column {name!r}; integers are needed")
    return np.stack([table[name].cast(polars.Int64).to_numpy() for name in names])


def main(path: str, max_rows: str, *names: str) -> int:
    """Write the columns, or why not."""
    import polars

    try:
        found = columns(path, int(max_rows), list(names))
    except (ValueError, OSError, polars.exceptions.PolarsError) as error:
        sys.stdout.buffer.write(str(error).partition("\n")[0].encode())
        return REFUSED
    np.save(sys.stdout.buffer, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
