"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eplb_gap.problem.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a name to write to; what was written there takes the place of ``path`` when the block ends.

    A block that raises, or a process that is killed, leaves the file as it was. Missing folders are made, a link is followed, and
    what is there but no regular file, a device or a pipe, is left alone.

    Parameters
    ----------
    path : path

    Yields
    ------
    Path
        In the folder of the file.

    Raises
    ------
    InputError
        If the file cannot be written there.
    """
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not os.path.isfile(target):
        raise InputError(f"file {target} cannot be written (it is there and no regular file)")
    # Short whatever the target's own name is, and another one for every process.
    partial = target.with_name(f".{zlib.crc32(os.fsencode(target.name)):08x}-{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"file {target} cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # nothing was written where nothing can be
            partial.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try whether :func:`replacing` will be able to write a file, before the work whose result it is to hold; leave nothing.

    Raises
    ------
    InputError
        As of :func:`replacing`.
    """
    target = Path(os.path.realpath(path))
    if not os.path.lexists(target):
        missing = [folder for folder in target.parents if not os.path.exists(folder)]
        try:
            with replacing(target) as partial:
                partial.touch()
            target.unlink()
        finally:
            for folder in missing:
                with suppress(OSError):  # another process may use it by now
                    folder.rmdir()
        return
    if not os.path.isfile(target) or not os.access(target, os.W_OK):
        raise InputError(f"file {target} cannot be written (it is there and no regular file that may be written)")
    probe = target.with_name(f".{os.getpid()}.probe")
    with replacing(probe) as partial:
        partial.touch()
    probe.unlink()


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)
