"""Text files as they are or packed with gzip or zstd: one way to read them, bounded in what they unpack to."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, reason

SUFFIXES = r"(?:\.gz|\.zst)?"
"""What a pattern of file names ends with, where the files are text."""
FREE_BYTES = 1 << 24
MAX_RATIO = 250
"""Text of counts packs to a tenth or so: what unpacks to more than so many times its size, beyond FREE_BYTES, is none."""
MAX_HEADER_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20


class TextFile(io.RawIOBase):
    """A readable stream of what a file holds, unpacked if it is packed, of at most so many bytes.

    Parameters
    ----------
    path : Path
    raw : binary stream
        The file as it lies on the disk.
    limit : int
        Most bytes that are read.
    size : int
        Bytes on the disk.

    Attributes
    ----------
    packed : str or None
        What it is packed with.
    """

    def __init__(self, path: Path, raw: IO[bytes], limit: int, size: int) -> None:
        self._path, self._raw, self._done = path, raw, 0
        start = raw.read(4)
        raw.seek(0)
        kind = next((kind for magic, kind in PACKED.items() if start.startswith(magic)), None)
        self.packed = None if kind is None else kind[0]
        self._limit = limit
        self._most = min(limit, FREE_BYTES + MAX_RATIO * size) if self.packed else limit
        self._stream = raw if kind is None else kind[1](raw)

    def readable(self) -> bool:
        return True

    def position(self) -> int:
        """Return how many bytes of the file on the disk were read."""
        return self._raw.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._done += len(data)
        if self._done > self._most:
            most = f"at most {self._limit} are read"
            if self._most < self._limit:
                most = f"at most {MAX_RATIO} times its size is read"
            raise InputError(f"file {self._path} {'unpacks to' if self.packed else 'has'} more than {self._most} bytes; {most}")
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def opened(path: Path, limit: int) -> Iterator[tuple[IO[bytes], TextFile]]:
    """Open a file of at most ``limit`` bytes, unpacked; yield it buffered, and as it is.

    Raises
    ------
    InputError
        If it cannot be read, is larger, packed in a broken way, or unpacks to more; also while it is read.
    """
    size = files.size(path, limit)
    packed = None
    try:
        with path.open("rb") as raw:
            plain = TextFile(path, raw, limit, size)
            packed = plain.packed
            with io.BufferedReader(plain, _CHUNK_BYTES) as buffered:
                yield buffered, plain
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"file {path} is truncated or no {packed} file ({reason(error)})") from None
    except OSError as error:
        raise InputError(f"file {path} cannot be read ({error.strerror})") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # of a library that is imported where it is needed
            raise
        raise InputError(f"file {path} is truncated or no zstd file ({reason(error)})") from None


def read_start(path: Path, limit: int, count: int) -> bytes:
    """Return the first ``count`` bytes of a file of at most ``limit`` bytes, unpacked."""
    with opened(path, limit) as (file, _):
        return file.read(count)


def read_text(path: Path, limit: int) -> str:
    """Return the content of a UTF-8 file of at most ``limit`` bytes, unpacked."""
    with opened(path, limit) as (file, _):
        content = file.read(limit + 1)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"file {path} is no UTF-8 text ({error.reason} at byte {error.start})") from None


def parse_json(path: Path, limit: int = files.MAX_JSON_BYTES) -> Any:
    """Return a JSON document, as :func:`eplb_gap.problem.files.parse_json` does, unpacked."""
    text = read_text(path, limit)
    try:
        return files.strict_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"file {path} is no JSON ({error})") from None


def header(start: bytes, delimiter: str = ",") -> list[str]:
    """Return the names in the first line of a table's first bytes."""
    line = start[:MAX_HEADER_BYTES].partition(b"\n")[0].decode("utf-8-sig", "replace").rstrip("\r")
    with suppress(csv.Error):
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    return line.split(delimiter)


def _zstd(raw: IO[bytes]) -> IO[bytes]:
    try:
        from compression.zstd import ZstdFile  # from Python 3.14 on
    except ImportError:
        try:
            from backports.zstd import ZstdFile
        except ImportError:
            raise InputError(
                f"file {raw.name} is packed with zstd, which the package backports.zstd unpacks; it is not installed"
            ) from None
    stream: IO[bytes] = ZstdFile(raw)
    return stream


def _gzip(raw: IO[bytes]) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]


PACKED: dict[bytes, tuple[str, Callable[[IO[bytes]], IO[bytes]]]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstd),
}
"""First bytes of a packed file -> what packed it, and what unpacks it."""
