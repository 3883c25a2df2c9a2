"""Arrays of three axes without a name: counts and choices of experts look alike, and are told apart by the user alone."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads.load_format import ZIP, FileStart
from eplb_gap.problem.formats.loads.routing.counting import MAX_EXPERTS, PADDING
from eplb_gap.problem.npy import read_header

LEAST_ROWS = 100
"""Fewer rows can be different numbers each by chance."""
MOST_CHOICES = 32
START_BYTES = 1 << 16


def refuse_routing(start: FileStart) -> bool:
    """Refuse an array that can be routing as well as counts, unless its format is told; return False of all others.

    It can be routing where the first rows of its last axis are different numbers each, as choices of experts are.

    Raises
    ------
    InputError
        Naming both formats.
    """
    content = start.content
    try:
        if content.startswith(ZIP):
            with zipfile.ZipFile(start.path) as archive, archive.open(start.entries[0]) as member:
                content = member.read(START_BYTES)
        stream = io.BytesIO(content)
        shape, fortran, dtype = read_header(stream, f"file {start.path}")
    except (InputError, zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, NotImplementedError, EOFError):
        return False  # the reader says what is wrong
    if len(shape) != 3 or not 1 < shape[2] <= MOST_CHOICES or fortran or dtype.kind not in "iu":
        return False
    held = stream.read()
    rows = min(len(held) // (dtype.itemsize * shape[2]), shape[0] * shape[1])
    if rows < LEAST_ROWS:
        return False
    first = np.sort(np.frombuffer(held, dtype, rows * shape[2]).reshape(rows, shape[2]), axis=1)
    if first[:, 0].min() < PADDING or first[:, -1].max() >= MAX_EXPERTS:
        return False
    blank = (first == first[:, :1]).all(axis=1) & (first[:, 0] <= 0)  # padding, or a layer without experts
    if blank.all() or ((first[:, 1:] == first[:, :-1]).any(axis=1) & ~blank).any():
        return False
    raise InputError(
        f"file {start.path} holds integers of shape {shape}, no row of which has a number twice: counts [windows, layers, "
        "experts], or choices of experts [tokens, layers, top-k]; the format says which: npy or npz, or routed-experts (--format)"
    )
