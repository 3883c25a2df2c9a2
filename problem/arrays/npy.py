"""NumPy's files from untrusted sources, without pickle: what a header claims is compared with the bytes that are there."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from eplb_gap.problem.errors import InputError, reason

MAX_AXES = 8
CHUNK_BYTES = 1 << 20
HEADERS = {(1, 0): (2, npy_format.read_array_header_1_0), (2, 0): (4, npy_format.read_array_header_2_0)}
"""By version the bytes of the header's length, and what reads it."""
MOST_HEADER_BYTES = 1 << 16


def read_array(member: IO[bytes], limit: int, where: str) -> np.ndarray:
    """Return the array of an open npy stream, of whatever plain type it has.

    Parameters
    ----------
    member : binary stream
        At the first byte; a file, or an entry of an npz file.
    limit : int
        Most bytes of data that are read.
    where : str
        File and entry, with which every message begins.

    Raises
    ------
    InputError
        If the stream has no npy header, holds pickled objects or more than ``limit`` bytes, or its shape and type claim
        other than the bytes it has.
    """
    shape, fortran, dtype = read_header(member, where)
    if dtype.hasobject:
        raise InputError(f"{where} holds pickled objects; plain integers are needed")
    data = bytearray()
    while chunk := member.read(CHUNK_BYTES):
        data += chunk
        if len(data) > limit:
            raise InputError(f"{where} holds more than {limit} bytes; no more are read")
    # The shape is a claim of the file: it is compared with the bytes that are there, so it can't make numpy allocate more.
    odd = len(shape) > MAX_AXES or min(shape, default=0) < 0 or dtype.itemsize == 0
    if odd or math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"{where} claims shape {shape} of {dtype}, which its {len(data)} bytes do not hold")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def read_header(member: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether Fortran's order, and type that the header of an open npy stream claims, which no byte need hold."""
    try:
        version = npy_format.read_magic(member)
        if version not in HEADERS:
            raise ValueError(f"npy version {version[0]}.{version[1]}")
        width, parse = HEADERS[version]
        told = member.read(width)
        length = int.from_bytes(told, "little")
        if length > MOST_HEADER_BYTES:  # numpy reads and decodes all of it before it looks at the length
            raise ValueError(f"a header of {length} bytes; at most {MOST_HEADER_BYTES} are read")
        return parse(io.BytesIO(told + member.read(length)))
    except (zipfile.BadZipFile, zlib.error):  # the stream is broken, not the array; its owner words that
        raise
    except Exception as error:  # numpy evaluates the header as a literal: which errors a crafted one raises is not documented
        raise InputError(f"{where} is no plain array ({reason(error)})") from None
