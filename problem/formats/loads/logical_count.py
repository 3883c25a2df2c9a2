"""Counts as JSON under the key ``logical_count``: ``[layers, experts]``, or ``[windows, layers, experts]``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, listed, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.json_rows import count_table
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording, left_out_note

KEY = "logical_count"


def read(path: Path, _progress: Progress | None, left_out: Collection[int] = ()) -> Recording:
    """Read one window or several; of layers that are left out the numbers are not looked at.

    Raises
    ------
    InputError
        If lists are not as deep, ragged, or hold anything but counts.
    """
    document = text_files.parse_json(path)
    where = f"file {path}: {KEY}"
    if not isinstance(document, dict) or KEY not in document:
        raise InputError(f"file {path} has {_keys(document)}; the key {KEY!r} is needed")
    value = document[KEY]
    windows = value if _depth(value) == 3 else [value]
    steps: list[np.ndarray] = []
    for index, window in enumerate(windows):
        inside = f"{where}[{index}]" if windows is value else where
        steps.append(count_table(window, inside, left_out))
        if steps[-1].shape != steps[0].shape:
            raise InputError(f"{inside} has {steps[-1].shape} layers and experts; {steps[0].shape}, as the first, is needed")
        check_elements((len(windows), *steps[0].shape), where)
    layers = range(len(windows[0]))
    notes: dict[str, Any] = left_out_note(layers, left_out) if left_out else {}
    ignored = [key for key in document if key != KEY]
    if ignored:
        notes["notices"] = [f"key read: {KEY}; ignored: {listed(ignored)}"]
    return Recording(np.stack(steps), [layer for layer in layers if layer not in left_out], notes=notes)


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value and depth < 3:
        value, depth = value[0], depth + 1
    return depth


def _keys(document: Any) -> str:
    return f"the keys {shown(list(document))}" if isinstance(document, dict) else f"a {type(document).__name__}"


FORMAT = LoadFormat(
    "logical-count",
    "JSON with the key logical_count: [layers, experts] or [windows, layers, experts]",
    read,
    keys=(KEY,),
    read_without=read,
)
