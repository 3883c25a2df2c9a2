"""Files that are written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eplb_gap.problem.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a name to write to; what was written there takes the place of ``path`` when the block ends.

    A block that raises, or a process that is killed, leaves the file as it was. Missing folders are made.

    Parameters
    ----------
    path : path

    Yields
    ------
    Path
        In the folder of ``path``.

    Raises
    ------
    InputError
        If the file cannot be written there.
    """
    target = Path(path)
    if os.path.isdir(target):  # False, not an error, for a name that cannot be
        raise InputError(f"file {target} cannot be written (it is a folder)")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"file {target} cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):  # nothing was written where nothing can be
            partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file as a whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)
