"""NumPy's files from untrusted sources, without pickle: what a header claims is compared with the bytes that are there."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format

from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.files import strict_json

MAX_AXES = 8
CHUNK_BYTES = 1 << 20
HEADERS = {(1, 0): (2, npy_format.read_array_header_1_0), (2, 0): (4, npy_format.read_array_header_2_0)}
"""By version the bytes of the header's length, and what reads it."""
MOST_HEADER_BYTES = 1 << 16
MOST_HEAD_BYTES = 1 << 20
"""Of a trace's format, version and provenance, decompressed."""


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
