"""The container of our traces: an npz file of a head, which says format, version and provenance, and arrays."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.arrays.npy import MOST_HEADER_BYTES, read_array
from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.files import strict_json

MOST_HEAD_BYTES = 1 << 20
"""Of a trace's format, version and provenance, decompressed."""


def write_trace_file(
    path: str | os.PathLike[str], name: str, version: int, provenance: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a trace of ours as a compressed npz: a head that says format, version and provenance, and arrays; atomic."""
    head = {"format": name, "version": version, "provenance": provenance}
    text = np.frombuffer(json.dumps(head, sort_keys=True).encode(), dtype=np.uint8)
    if text.nbytes > MOST_HEAD_BYTES - MOST_HEADER_BYTES:  # so that what is written can be read
        raise InputError(f"provenance takes {text.nbytes} bytes; at most {MOST_HEAD_BYTES - MOST_HEADER_BYTES} are written")
    with replacing(path) as partial, partial.open("wb") as file:
        named: dict[str, Any] = {"head": text, **arrays}
        np.savez_compressed(file, **named)


def read_trace_file(
    path: str | os.PathLike[str], name: str, version: int, needed: Sequence[str], limit: int, optional: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return provenance and arrays of a file that :func:`write_trace_file` wrote.

    Parameters
    ----------
    path : path
    name : str
        The format that it must say it is of.
    version : int
    needed, optional : sequence of str
        Entries to read; of the optional ones those that are there.
    limit : int
        Bytes that an entry may claim decompressed; the head has a lower limit of its own.

    Raises
    ------
    InputError
        If the file does not exist, is truncated, is no trace, is of another version, is too large, or holds pickled objects.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            head = _read_member(archive, "head", path, min(limit, MOST_HEAD_BYTES))
            there = set(archive.namelist())
            wanted = (*needed, *(entry for entry in optional if f"{entry}.npy" in there))
            arrays = {entry: _read_member(archive, entry, path, limit) for entry in wanted}
    except FileNotFoundError:
        raise InputError(f"trace file {path} does not exist") from None
    except InputError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"trace file {path} is truncated or no npz file ({reason(error)})") from None
    try:
        meta = strict_json(head.tobytes().decode())
        found = meta["format"], meta["version"]
        provenance = dict(meta["provenance"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"trace file {path} has an unreadable head; a trace written by this package is needed") from None
    if found != (name, version):
        raise InputError(f"trace file {path} is {found[0]!r} version {found[1]!r}; {name!r} version {version} is needed")
    return provenance, arrays


def _read_member(archive: zipfile.ZipFile, name: str, path: Path, limit: int) -> np.ndarray:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise InputError(f"trace file {path} has no entry {name!r}; a trace written by this package is needed") from None
    where = f"trace file {path}: entry {name!r}"
    if info.file_size > limit:
        raise InputError(f"{where} claims {info.file_size} bytes; at most {limit} are read")
    with archive.open(info) as member:
        return read_array(member, limit, where)
