"""omni's ``topk_ids_count_*.csv``: a row per MoE layer, a column per expert position, counts in units of 128 tokens."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.limits import MAX_LAYERS, check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.rank_files import matching
from eplb_gap.problem.formats.loads.recording import Progress, Recording

NAME = re.compile(r"topk_ids_count_.*\.csv" + text_files.SUFFIXES)
STEPS = re.compile(
    r"topk_ids_count_.*_(?P<mode>[A-Za-z]+)_step(?P<first>\d{1,15})to(?P<last>\d{1,15})\.csv" + text_files.SUFFIXES
)
MAX_FILE_BYTES = 1 << 26
MAX_COLUMNS = 1 << 16
COUNT = re.compile(r"\d{1,18}")
UNITS = "ceil(tokens / 128): units of 128 tokens, rounded up"
POSITIONS = (
    "positions of the placement while recording, taken for logical experts: true for the sequential one without redundancy"
)


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read a file as one window, or the files of a folder as windows in the order of their steps.

    Raises
    ------
    InputError
        If header, layer names or counts are not as described, or files of a folder differ in shape or mode or share steps.
    """
    if not path.is_dir():
        loads, match = _read_file(path), STEPS.fullmatch(path.name)
        told = {} if match is None else {"mode": match["mode"], "recorded_steps": [int(match["first"]), int(match["last"])]}
        return Recording(loads[None], range(loads.shape[0]), notes={"counts": UNITS, "experts": POSITIONS, **told})
    ordered, mode = _ordered(path)
    windows = [_read_file(file) for _, _, file in ordered]
    for window, (_, _, file) in zip(windows, ordered, strict=True):
        if window.shape != windows[0].shape:
            raise InputError(
                f"file {file} has {window.shape} layers and experts; {windows[0].shape}, as the first file, is needed"
            )
    check_elements((len(windows), *windows[0].shape), f"folder {path}")
    notes = {"counts": UNITS, "experts": POSITIONS, "mode": mode, "recorded_steps": [ordered[0][0], ordered[-1][1]]}
    return Recording(np.stack(windows), range(windows[0].shape[0]), notes=notes)


def _ordered(folder: Path) -> tuple[list[tuple[int, int, Path]], str]:
    """Return first step, last step and path of the files of a folder, oldest first, and their mode."""
    found, modes = [], set()
    for _, file in matching(folder, NAME):
        match = STEPS.fullmatch(file.name)
        if match is None:
            raise InputError(f"file {file} has no steps in its name (..._MODE_stepAtoB.csv), which order the files of a folder")
        found.append((int(match["first"]), int(match["last"]), file))
        modes.add(match["mode"])
    if len(modes) != 1:
        raise InputError(f"folder {folder} has files of {len(modes)} modes {shown(sorted(modes))}; those of one mode are needed")
    found.sort()
    for (_, last, _), (first, _, file) in pairwise(found):
        if first <= last:
            raise InputError(f"file {file} begins at step {first}; the one before it ends at step {last}")
    return found, modes.pop()


def _read_file(path: Path) -> np.ndarray:
    lines = text_files.read_text(path, MAX_FILE_BYTES).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    header = lines[0].rstrip("\r").split(",") if lines else []
    columns = len(header) - 1
    if not 1 <= columns <= MAX_COLUMNS or header != ["", *(f"ep_{column}" for column in range(columns))]:
        raise InputError(f"file {path} begins with {shown(','.join(header))}; the header ,ep_0,ep_1,... is needed")
    rows = len(lines) - 1
    if not 1 <= rows <= MAX_LAYERS:
        raise InputError(f"file {path} has {rows} rows; one per layer is needed")
    check_elements((rows, columns), f"file {path}")
    loads = np.empty((rows, columns), dtype=np.int64)
    for layer, line in enumerate(lines[1:]):
        name, *counts = line.rstrip("\r").split(",")
        where = f"file {path}: line {layer + 2}"
        if name != f"layer_{layer}":
            raise InputError(f"{where} begins with {shown(name)}; 'layer_{layer}' is needed")
        if len(counts) != columns:
            raise InputError(f"{where} has {len(counts)} counts; the header has {columns}")
        wrong = next((entry for entry in counts if COUNT.fullmatch(entry) is None), None)
        if wrong is not None:
            raise InputError(f"{where} holds {shown(wrong)}; counts from 0 on are needed")
        loads[layer] = [int(entry) for entry in counts]
    return loads


FORMAT = LoadFormat(
    "omni-csv",
    "omni topk_ids_count_*.csv, or folder of such files by steps: units of 128 tokens",
    read,
    folder=True,
    names=NAME,
    recognise=lambda start: start.header[:2] == ["", "ep_0"],
)
