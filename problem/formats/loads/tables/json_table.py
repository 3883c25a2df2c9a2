"""JSON tables of loads, as dataframes write them: a list of records, a record on each line, or an object of columns."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.json_rows import count_row
from eplb_gap.problem.formats.loads.load_format import FileStart, LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.tables.columns import Columns, found_columns, needed_columns
from eplb_gap.problem.formats.loads.tables.grid import recording


def read_json(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read a table with the columns of :func:`.csv_table.read_csv`; errors as there.

    A column of an object is a list, or an object that gives each row's label its entry (pandas' ``to_json``).
    """
    document = _document(path)
    where = f"file {path}"
    if isinstance(document, dict):
        columns = _chosen(list(document), where)
        values = _by_label({role: document[columns.names[place]] for role, place in columns.places.items()}, where)
    else:
        if not document or not isinstance(document[0], dict):
            raise InputError(
                f"{where} is a list of {shown(document[0]) if document else 'nothing'}; records (objects) are needed"
            )
        columns = _chosen(list(document[0]), where)
        keys = {role: columns.names[place] for role, place in columns.places.items()}
        for row, record in enumerate(document):
            missing = next((key for key in keys.values() if not isinstance(record, dict) or key not in record), None)
            if missing is not None:
                raise InputError(f"{where}: record {row} is {shown(record)}; a key {missing!r} is needed")
        values = {role: [record[key] for record in document] for role, key in keys.items()}
    read = {role: count_row(value, f"{where}: column {role!r}") for role, value in values.items()}
    if len({column.size for column in read.values()}) > 1:
        raise InputError(
            f"{where} has columns of {sorted({column.size for column in read.values()})} rows; equally many are needed"
        )
    return recording(read, path, left_out, columns.notes())


def _document(path: Path) -> Any:
    """Return a JSON document, or the list of those that a file has on its lines."""
    text = text_files.read_text(path, files.MAX_JSON_BYTES)
    lines = text.strip().split("\n") if text.lstrip().startswith("{") else []
    try:
        if len(lines) > 1 and lines[0].rstrip().endswith("}"):
            return [files.strict_json(line) for line in lines]
        return files.strict_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"file {path} is no JSON ({error})") from None


def _chosen(names: list[str], where: str) -> Columns:
    try:
        return needed_columns(names)
    except InputError as error:
        raise InputError(f"{where} {error}") from None


def _by_label(columns: dict[str, Any], where: str) -> dict[str, Any]:
    """Return columns as lists: the entries of those with row labels in the order of the first one's labels."""
    labels = next((list(column) for column in columns.values() if isinstance(column, dict)), [])
    for role, column in columns.items():
        if isinstance(column, dict) and column.keys() != set(labels):
            odd = sorted(column.keys() ^ set(labels))[0]
            raise InputError(f"{where}: column {role!r} has other row labels than the rest ({shown(odd)}); the same are needed")
    return {role: [column[label] for label in labels] if isinstance(column, dict) else column for role, column in columns.items()}


def is_table(start: FileStart) -> bool:
    """Return whether a JSON file has the keys of such columns."""
    try:
        return found_columns(start.keys or start.record_keys) is not None
    except InputError:  # a key is there twice, of which the reader says more
        return True


JSON = LoadFormat(
    "json-table",
    "JSON of such a table: list of records, a record on each line, or object of columns",
    read_json,
    recognise=is_table,
    general=True,
    read_without=read_json,
)
