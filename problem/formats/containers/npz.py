"""Entries of untrusted npz files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.containers.limits import MAX_ELEMENTS
from eplb_gap.problem.npy import read_array

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
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        held = ", ".join(sorted(archive.namelist())[:8])
        raise InputError(f"file {path} has no key {name!r} but {held or 'no key at all'}") from None
    where = f"file {path}: key {name!r}"
    if info.file_size > MAX_ENTRY_BYTES:
        raise InputError(f"{where} claims {info.file_size} bytes; at most {MAX_ENTRY_BYTES} are read")
    with archive.open(info) as member:
        return read_array(member, MAX_ENTRY_BYTES, where)
