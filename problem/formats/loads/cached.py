"""A copy of a large recording as a trace beside it: reading it again takes a second instead of many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads.arrays import read_trace
from eplb_gap.problem.loads import LoadTrace

SUFFIX = ".eplb-gap.npz"
MIN_BYTES = 1 << 24
"""Smaller files are read anew each time."""
SOURCE = "source_sha256"


def cached(path: Path, limit: int, read: Callable[[], LoadTrace]) -> LoadTrace:
    """Return what ``read`` returns of a file, or the copy of it that was written before.

    The copy counts only while the file has the SHA-256 it was made of. Where the folder cannot be written to there is none.
    """
    if files.size(path, limit) < MIN_BYTES:
        return read()
    copy = path.with_name(path.name + SUFFIX)
    digest = _digest(path)
    if copy.exists():
        try:
            trace = read_trace(copy)
        except InputError:
            trace = None
        if trace is not None and trace.provenance.get(SOURCE) == digest:
            return LoadTrace(trace.loads, {**trace.provenance, "cache": f"read from {copy.name}"})
    trace = read()
    trace = LoadTrace(trace.loads, {**trace.provenance, SOURCE: digest})
    try:
        trace.save(copy)
        told = f"written to {copy.name}"
    except (OSError, InputError) as error:
        told = f"none ({error})"
    return LoadTrace(trace.loads, {**trace.provenance, "cache": told})


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None
