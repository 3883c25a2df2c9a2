"""Entries of untrusted npz files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.arrays.npy import read_array, read_header
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.containers.limits import MAX_ELEMENTS

MAX_ENTRY_BYTES = 8 * MAX_ELEMENTS


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file; whatever is wrong with it, also while entries are read, is an InputError."""
    files.size(path, files.MAX_ARRAY_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"file {path} is truncated or no npz file ({reason(error)})") from None


def read_entry(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """Return one array.

    Raises
    ------
    InputError
        If there is no such entry, it is too large, or no plain array.
    """
    with archive.open(_entry(archive, name, path)) as member:
        return read_array(member, MAX_ENTRY_BYTES, f"file {path}: key {name!r:.80}")


def read_shape(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...]:
    """Return the shape that an entry claims, which fits the bytes that it claims; errors as of :func:`read_entry`."""
    where, info = f"file {path}: key {name!r:.80}", _entry(archive, name, path)
    with archive.open(info) as member:
        shape, _, dtype = read_header(member, where)
        odd = min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize + member.tell() != info.file_size
    if odd:
        raise InputError(f"{where} claims shape {shape} of {dtype}, which its {info.file_size} bytes do not hold")
    return shape


def _entry(archive: zipfile.ZipFile, name: str, path: Path) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(sorted(archive.namelist())[:8])
        raise InputError(f"file {path} has no key {name!r} but {held or 'no key at all'}") from None
    if info.file_size > MAX_ENTRY_BYTES:
        raise InputError(f"file {path}: key {name!r:.80} claims {info.file_size} bytes; at most {MAX_ENTRY_BYTES} are read")
    return info
