"""Arrays of three axes without a name: counts and choices of experts look alike, and are told apart by the user alone."""

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np

from eplb_gap.problem.arrays.npy import read_header
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.torch_arrays import tensor_array
from eplb_gap.problem.formats.loads.load_format import ZIP, FileStart
from eplb_gap.problem.formats.routing.rows import MAX_EXPERTS, PADDING

LEAST_ROWS = 100
"""Fewer rows can be different numbers each by chance."""
MOST_CHOICES = 32
START_BYTES = 1 << 16


def refuse_routing(start: FileStart) -> bool:
    """Refuse an array that can be routing as well as counts, unless its format is told; return False of all others.

    It can be routing where the first rows of its last axis are different numbers each, as choices of experts are.

    Parameters
    ----------
    start : FileStart
        Of an NPY file, an NPZ file of one array, or a torch file of a tensor.

    Raises
    ------
    InputError
        Naming both formats.
    """
    try:
        shape, rows = _torch_rows(start) if start.is_torch else _npy_rows(start)
    except (InputError, zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, NotImplementedError, EOFError):
        return False  # the reader says what is wrong
    if len(rows) >= LEAST_ROWS and _all_different(rows):
        raise InputError(
            f"file {start.path} holds integers of shape {shape}, no row of which has a number twice: counts [windows, layers, "
            "experts], or choices of experts [tokens, layers, top-k]; the format says which: npy, npz or vllm-ascend, or "
            "routed-experts (--format)"
        )
    return False


def _torch_rows(start: FileStart) -> tuple[tuple[int, ...], np.ndarray]:
    array = tensor_array(start.torch, "", 3)
    rows = array[: 1 + START_BYTES // array[0].nbytes].reshape(-1, array.shape[2])
    return array.shape, rows if _can_be_choices(array.shape, array.dtype) else rows[:0]


def _npy_rows(start: FileStart) -> tuple[tuple[int, ...], np.ndarray]:
    content = start.content
    if content.startswith(ZIP):
        with zipfile.ZipFile(start.path) as archive, archive.open(start.entries[0]) as member:
            content = member.read(START_BYTES)
    stream = io.BytesIO(content)
    shape, fortran, dtype = read_header(stream, "")
    if fortran or not _can_be_choices(shape, dtype):
        return shape, np.empty((0, 1))
    held = stream.read()
    rows = min(len(held) // (dtype.itemsize * shape[2]), shape[0] * shape[1])
    return shape, np.frombuffer(held, dtype, rows * shape[2]).reshape(rows, shape[2])


def _can_be_choices(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    return len(shape) == 3 and 1 < shape[2] <= MOST_CHOICES and dtype.kind in "iu"


def _all_different(rows: np.ndarray) -> bool:
    """Return whether rows can be choices: experts' numbers, none twice, but in rows of padding or of a layer without experts."""
    rows = np.sort(rows, axis=1)
    if rows[:, 0].min() < PADDING or rows[:, -1].max() >= MAX_EXPERTS:
        return False
    blank = (rows == rows[:, :1]).all(axis=1) & (rows[:, 0] <= 0)
    return not blank.all() and not ((rows[:, 1:] == rows[:, :-1]).any(axis=1) & ~blank).any()
