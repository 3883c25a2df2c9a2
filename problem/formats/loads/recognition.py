"""Which format recorded loads have: told by names, first bytes and keys, never by trying readers."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads.load_format import FileStart, LoadFormat

MAX_BYTES = 1 << 40
"""Each reader has its own limit."""
START_BYTES = 1 << 16


def recognised(path: Path, formats: Collection[LoadFormat]) -> str | None:
    """Return the name of the format, or None if it is none of them.

    Raises
    ------
    InputError
        If the path cannot be read, or a folder has files of several formats.
    """
    if path.is_dir():
        return _of_folder(path, formats)
    for format in formats:
        if (format.names is not None and format.names.fullmatch(path.name)) or path.name in format.companions:
            return format.name
    start = FileStart(path, files.read_start(path, MAX_BYTES, START_BYTES))
    by_key = {key: format.name for format in formats for key in format.keys}
    for key in start.keys:
        if key in by_key:
            return by_key[key]
    for format in sorted(formats, key=lambda format: format.general):
        if format.recognise is not None and format.recognise(start):
            return format.name
    return None


def _of_folder(folder: Path, formats: Collection[LoadFormat]) -> str | None:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror})") from None
    found = [format.name for format in formats if format.names is not None and any(map(format.names.fullmatch, names))]
    if len(found) > 1:
        raise InputError(f"folder {folder} holds files of the formats {', '.join(found)}; name one of them, or the format")
    return found[0] if found else None
