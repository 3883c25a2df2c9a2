"""npy files: one array, read with every claim checked, written the same each time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from eplb_gap.problem import files
from eplb_gap.problem.arrays.npy import read_array
from eplb_gap.problem.errors import InputError


def read_npy(path: Path, limit: int) -> np.ndarray:
    """Return the array of an npy file of at most ``limit`` bytes; errors as of :func:`eplb_gap.problem.arrays.npy.read_array`."""
    files.size(path, limit)
    try:
        with path.open("rb") as file:
            return read_array(file, limit, f"file {path}")
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None


def render_npy(array: np.ndarray) -> bytes:
    """Return an array of plain numbers as an npy file."""
    buffer = io.BytesIO()
    npy_format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
