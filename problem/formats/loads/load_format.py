"""What a format of recorded loads says of itself, and what a file shows the formats that are asked whether it is theirs."""

from __future__ import annotations

import codecs
import re
import zipfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eplb_gap.problem.errors import InputError, reason
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.torch_arrays import load_torch
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.loads import LoadTrace

ZIP = b"PK\x03\x04"
BINARY = (ZIP, b"\x93NUMPY", b"PAR1")


class FileStart:
    """A file of which the start was read; what more it takes to tell its format is read when a format first asks for it.

    Parameters
    ----------
    path : Path
    content : bytes
        Its first bytes, unpacked where it is packed text.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content
        self.text = content.removeprefix(codecs.BOM_UTF8).lstrip()

    @cached_property
    def is_torch(self) -> bool:
        """Whether it is a zip file as ``torch.save`` writes it."""
        return any(name.endswith("data.pkl") for name in self._members)

    @cached_property
    def torch(self) -> Any:
        """What a torch file holds."""
        return load_torch(self.path)

    @cached_property
    def entries(self) -> list[str]:
        """Names in a zip file, such as ``loads.npy``; none of other files and of torch files."""
        return [] if self.is_torch else self._members

    @cached_property
    def keys(self) -> list[str]:
        """Outermost keys that the start of a JSON object has, in its order; none of other files."""
        return self._keys(1) if self.text.startswith(b"{") else []

    @cached_property
    def is_json(self) -> bool:
        """Whether it begins as a JSON object or list does, as a section of other text in brackets does not."""
        return self.text.startswith((b"{", b"[")) and len(self._events) > 1

    @cached_property
    def record_keys(self) -> list[str]:
        """Keys that the first object in a JSON list has; none of other files."""
        return self._keys(2) if self.text.startswith(b"[") else []

    def _keys(self, wanted: int) -> list[str]:
        """Return the keys at a depth, of the first object there if it is in a list."""
        depth, found = 0, []
        for event, value in self._events:
            if event in ("start_map", "start_array"):
                depth += 1
            elif event in ("end_map", "end_array"):
                depth -= 1
                if event == "end_map" and depth == wanted - 1:
                    break
            elif event == "map_key" and depth == wanted:
                found.append(value)
        return found

    @cached_property
    def _events(self) -> list[tuple[str, Any]]:
        """What a JSON parser finds in the start."""
        import ijson

        events = ijson.sendable_list()
        parser = ijson.basic_parse_coro(events, use_float=True)
        with suppress(ijson.JSONError, StopIteration):  # what was found before counts; the reader says what is wrong
            parser.send(self.text)
        return list(events)

    @cached_property
    def header(self) -> list[str]:
        """Names that a comma-separated first line has; none of JSON objects and binary files."""
        if self.content.startswith(BINARY) or self.text.startswith(b"{"):
            return []
        return text_files.header(self.content)

    @cached_property
    def _members(self) -> list[str]:
        if not self.content.startswith(ZIP):
            return []
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(f"file {self.path} is a broken zip file ({reason(error)})") from None


@dataclass(frozen=True)
class LoadFormat:
    """A format of recorded loads, declared at the end of its module and listed in :mod:`.recorded`.

    Parameters
    ----------
    name : str
        What users call it.
    description : str
        What it is, in one line.
    read : callable
        ``read(path, progress)``: the recording, or a trace that is whole already.
    folder : bool, default False
        Whether a recording may be a folder of files.
    names : pattern, optional
        Names that files of a recording have; a file or folder is recognised by them before anything is read.
    companions : tuple of str
        Names of further files that stand for a recording, but do not tell a folder.
    keys : tuple of str
        JSON objects with such an outermost key are of this format; the first key that any format names decides.
    recognise : callable, optional
        ``recognise(start)``: whether a file is of this format.
    general : bool, default False
        Whether ``recognise`` takes whatever has its container: all other formats are asked first.
    recordings : callable, optional
        ``recordings(path)``: the recordings that a file or folder stands for, each as a path that ``read`` takes; by default the
        path itself.
    read_without : callable, optional
        ``read_without(path, progress, layers)``: what ``read`` returns without some layers, where layers can differ in their
        number of experts, which ``read`` refuses; the notes have :func:`left_out_note`. Elsewhere they are taken out of what was
        read.
    cached_bytes : int, optional
        Reading is slow: of a large file, of at most so many bytes, a copy as a trace is kept beside it.
    """

    name: str
    description: str
    read: Callable[[Path, Progress | None], Recording | LoadTrace]
    folder: bool = False
    names: re.Pattern[str] | None = None
    companions: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    recognise: Callable[[FileStart], bool] | None = None
    general: bool = False
    recordings: Callable[[Path], list[Path]] | None = None
    read_without: Callable[[Path, Progress | None, Collection[int]], Recording] | None = None
    cached_bytes: int | None = None
