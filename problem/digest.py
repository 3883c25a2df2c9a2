"""Digests of arrays that do not depend on the machine."""

from __future__ import annotations

import hashlib

import numpy as np


def array_sha256(values: np.ndarray) -> str:
    """Return the sha256 of integers as little-endian int64 in C order, in hexadecimal digits; the shape is not part of it."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").tobytes()).hexdigest()
