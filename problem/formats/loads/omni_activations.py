"""omni's activation dumps ``activation_counts_recordstep_N_rank_R.txt``: a line per layer, tab-separated counts per position."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers import text_files
from eplb_gap.problem.formats.containers.limits import MAX_LAYERS, check_elements
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.omni_csv import POSITIONS
from eplb_gap.problem.formats.loads.rank_files import check_ranks, folder_of, matching
from eplb_gap.problem.formats.loads.recording import Progress, Recording

NAME = re.compile(r"activation_counts_recordstep_(?P<step>\d{1,15})_rank_(?P<rank>\d{1,6})\.txt" + text_files.SUFFIXES)
MAX_FILE_BYTES = 1 << 26
COUNT = re.compile(r"-?\d{1,18}")


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read all record steps; ``path`` is the folder or a file in it.

    A step has one file, of rank 0, with all positions, or a file of every rank with the positions of that rank.

    Raises
    ------
    InputError
        If a rank or count is missing, steps differ in shape, or the files of ranks are the same, as if each held all positions.
    """
    folder = folder_of(path)
    steps: dict[int, list[tuple[int, Path]]] = {}
    for match, file in matching(folder, NAME):
        steps.setdefault(int(match["step"]), []).append((int(match["rank"]), file))
    if not steps:
        raise InputError(f"folder {folder} has no file activation_counts_recordstep_N_rank_R.txt")
    rows: list[np.ndarray] = []
    for step in sorted(steps):
        where = f"folder {folder}: record step {step}"
        rows.append(_step(sorted(steps[step]), where))
        if rows[-1].shape != rows[0].shape:
            raise InputError(f"{where} has {rows[-1].shape} layers and positions; {rows[0].shape}, as the first step, is needed")
        check_elements((len(steps), *rows[0].shape), where)
    notes = {"recorded_steps": [min(steps), max(steps)], "experts": POSITIONS, "ranks": len(steps[min(steps)])}
    return Recording(np.stack(rows), range(rows[0].shape[0]), notes=notes)


def _step(ranks: list[tuple[int, Path]], where: str) -> np.ndarray:
    check_ranks([rank for rank, _ in ranks], where)
    parts = [_read_file(file) for _, file in ranks]
    for part, (rank, _) in zip(parts, ranks, strict=True):
        if part.shape != parts[0].shape:
            raise InputError(
                f"{where}: rank {rank} has {part.shape} layers and positions; {parts[0].shape}, as rank 0, is needed"
            )
    if len(parts) > 1 and parts[0].any() and all(np.array_equal(part, parts[0]) for part in parts):
        raise InputError(
            f"{where}: the files of all ranks are the same; if each holds all positions, that of rank 0 alone is needed"
        )
    check_elements((1, parts[0].shape[0], parts[0].shape[1] * len(parts)), where)
    return np.concatenate(parts, axis=1)


def _read_file(path: Path) -> np.ndarray:
    lines = text_files.read_text(path, MAX_FILE_BYTES).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not 1 <= len(lines) <= MAX_LAYERS:
        raise InputError(f"file {path} has {len(lines)} lines; one per layer is needed")
    rows: list[np.ndarray] = []
    for layer, line in enumerate(lines):
        where = f"file {path}: line {layer + 1}"
        counts = line.rstrip("\r").removesuffix("\t").split("\t")
        wrong = next((entry for entry in counts if COUNT.fullmatch(entry) is None), None)
        if wrong is not None:
            raise InputError(f"{where} holds {shown(wrong)}; tab-separated counts are needed")
        if rows and len(counts) != rows[0].size:
            raise InputError(f"{where} has {len(counts)} counts; the first line has {rows[0].size}")
        rows.append(np.array([int(entry) for entry in counts], dtype=np.int64))
    return np.stack(rows)


FORMAT = LoadFormat(
    "omni-activations",
    "omni folder of activation_counts_recordstep_N_rank_R.txt",
    read,
    folder=True,
    names=NAME,
    recordings=lambda path: [folder_of(path)],
)
