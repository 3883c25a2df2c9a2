"""``expert-load.json`` of the published searches: ``{"load_history": [{"logical_expert_load": [[int, ...], ...]}, ...]}``.

The file has hundreds of megabytes, so it is streamed, a record (step) at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError, reason, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.json_rows import count_table
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording, left_out_note

HISTORY, LOADS = "load_history", "logical_expert_load"
MAX_FILE_BYTES = 1 << 33
MAX_RECORD_BYTES = 1 << 23
"""Text of one record; that of 100 layers of 1000 experts, indented, has two megabytes."""
CHUNK_BYTES = 1 << 18
MAX_DEPTH = 500
"""Lists and objects inside each other; the parser keeps the path to each, whose length is that of the depth."""
MARKS = re.compile(rb'[\\"\[\]{}]')


def read(path: Path, progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read all records as steps; of layers that are left out the numbers are not looked at.

    Raises
    ------
    InputError
        If the file is no JSON or cut off, has no records, or a record is ragged, of another shape or no counts.
    """
    steps: list[np.ndarray] = []
    layers: list[int] = []
    for record in _records(path, progress):
        where = f"file {path}: {HISTORY}[{len(steps)}]"
        if not isinstance(record, dict) or LOADS not in record:
            raise InputError(f"{where} has no key {LOADS!r} but {shown(record)}")
        step = count_table(record[LOADS], f"{where}[{LOADS!r}]", left_out)
        layers = layers or list(range(len(record[LOADS])))
        if steps and step.shape != steps[0].shape:
            raise InputError(f"{where} has {step.shape} layers and experts; {steps[0].shape}, as the first, is needed")
        check_elements((len(steps) + 1, *step.shape), where)
        steps.append(step)
    if not steps:
        raise InputError(f"file {path} has no records under the key {HISTORY!r}")
    notes = left_out_note(layers, left_out) if left_out else {}
    return Recording(np.stack(steps), [layer for layer in layers if layer not in left_out], notes=notes)


def _records(path: Path, progress: Progress | None) -> Iterator[Any]:
    """Yield the records while the file is read; one record at most is held, of limited length."""
    import ijson

    size, done, since_record = files.size(path, MAX_FILE_BYTES), 0, 0
    nesting = _Nesting(f"file {path}")
    found = ijson.sendable_list()
    parser = ijson.items_coro(found, f"{HISTORY}.item", use_float=True)
    try:
        with text_files.opened(path, MAX_FILE_BYTES) as (_, file):
            while chunk := file.read(CHUNK_BYTES):
                nesting.feed(chunk)
                parser.send(chunk)
                done, since_record = done + len(chunk), since_record + len(chunk)
                if found:
                    since_record = 0
                elif since_record > MAX_RECORD_BYTES:
                    raise InputError(f"file {path}: {since_record} bytes before byte {done} hold no whole record of {HISTORY!r}")
                yield from found
                found.clear()
                if progress is not None:
                    progress(file.position(), size)
            parser.close()
    except (ijson.JSONError, StopIteration, RecursionError) as error:
        raise InputError(f"file {path} is no JSON, or cut off ({reason(error)})") from None


class _Nesting:
    """Refuses deep nesting before the parser sees it; brackets in strings do not count."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.depth = self.position = 0
        self.escaped = -1  # where in the file the character is that a backslash stands before
        self.in_string = False

    def feed(self, chunk: bytes) -> None:
        for found in MARKS.finditer(chunk):
            mark, place = found[0], self.position + found.start()
            if place == self.escaped:
                continue
            if mark == b'"':
                self.in_string = not self.in_string
            elif self.in_string:
                self.escaped = place + 1 if mark == b"\\" else self.escaped
            elif mark in b"[{":
                self.depth += 1
            elif mark in b"]}":
                self.depth -= 1
            if self.depth > MAX_DEPTH:
                raise InputError(f"{self.where} is nested more than {MAX_DEPTH} deep")
        self.position += len(chunk)


FORMAT = LoadFormat(
    "adrs",
    "expert-load.json of the published searches: JSON with the key load_history",
    read,
    keys=(HISTORY,),
    read_without=read,
    cached_bytes=MAX_FILE_BYTES,
)
