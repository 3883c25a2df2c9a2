"""Untrusted files: sizes are looked at before anything is read, and nothing in a file is ever executed."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from eplb_gap.problem.errors import InputError, shown

MAX_JSON_BYTES = 1 << 28
"""A JSON document that is parsed at once; larger files are streamed or refused."""
MAX_ARRAY_BYTES = 4 << 30
"""Decompressed bytes of a file's arrays."""
MAX_LABEL = 60
"""Characters of a name that a file gives and a command prints."""
_LABEL = re.compile(r"[A-Za-z0-9._+-]+( [A-Za-z0-9._+-]+){0,3}")
"""Neither brackets nor commas: such a name cannot end the remark that it stands in."""


def size(path: Path, limit: int) -> int:
    """Return the size of a regular file in bytes.

    Raises
    ------
    InputError
        If it does not exist, is no regular file, is empty or larger than ``limit`` bytes.
    """
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"file {path!s} cannot be read ({error})") from None
    if not path.is_file():
        raise InputError(f"{path} is no regular file; a file is needed")
    if not found:
        raise InputError(f"file {path} is empty")
    if found > limit:
        raise InputError(f"file {path} has {found} bytes; at most {limit} are read")
    return found


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most ``limit`` bytes."""
    return read_start(path, limit, limit + 1)


def read_start(path: Path, limit: int, count: int) -> bytes:
    """Return the first ``count`` bytes of a file of at most ``limit`` bytes."""
    size(path, limit)
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None


def read_text(path: Path, limit: int) -> str:
    """Return the content of a UTF-8 file of at most ``limit`` bytes."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"file {path} is no UTF-8 text ({error.reason} at byte {error.start})") from None


def parse_json(path: Path, limit: int = MAX_JSON_BYTES) -> Any:
    """Return a JSON document; NaN, infinities, numbers that are none as floats (1e999), and repeated keys are refused.

    Raises
    ------
    InputError
        If the file is too large, no JSON, or nested too deeply.
    """
    text = read_text(path, limit)
    try:
        return strict_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"file {path} is no JSON ({error})") from None


def strict_json(text: str) -> Any:
    """Return what a JSON text says; NaN, infinities and repeated keys raise a ValueError, as what is no JSON does."""
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)


def fields(entry: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """Return a JSON object that has exactly the fields it must have, and maybe some that it can have.

    Raises
    ------
    InputError
        If it is no object, a field is missing, or there is one that nobody reads.
    """
    if not isinstance(entry, dict):
        raise InputError(f"{where} is {shown(entry)}; an object is needed")
    missing = [name for name in required if name not in entry]
    if missing:
        raise InputError(f"{where} has no field {missing[0]!r}")
    unknown = [name for name in entry if name not in required and name not in optional]
    if unknown:
        allowed = ", ".join([*required, *optional]) or "no field"
        raise InputError(f"{where} has the unknown field {shown(unknown[0])}; {allowed} may be there")
    return entry


def label(value: Any, where: str) -> str:
    """Return a name of a file that is printed as part of a line: a few plain words, so that it cannot forge or hide anything.

    Raises
    ------
    InputError
        If it is none, empty, or longer than :data:`MAX_LABEL`.
    """
    if not isinstance(value, str) or len(value) > MAX_LABEL or _LABEL.fullmatch(value) is None:
        raise InputError(
            f"{where} is {shown(value)}; one to four words of ASCII letters, digits and . _ + - are needed, at most {MAX_LABEL} "
            "characters"
        )
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object holds a key twice: {shown(repeated)}")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large for a number")
    return value
