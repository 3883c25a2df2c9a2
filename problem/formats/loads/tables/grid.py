"""From the columns of a table to loads: every window, layer and expert has its row once."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.json_rows import odd_layer
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.recording import Recording, left_out_note

MAX_TABLE = 1 << 22
AXES = ("window", "layer", "expert")


def recording(columns: dict[str, np.ndarray], path: Path, left_out: Collection[int], told: dict[str, Any]) -> Recording:
    """Return the recording of a table.

    Parameters
    ----------
    columns : dict of str to ndarray of int64 [rows]
        ``layer``, ``expert``, ``tokens``, and ``window`` where the table has several.
    path : Path
    left_out : collection of int
        Layers whose rows are not looked at.
    told : dict
        Notes that the recording has from its columns.

    Raises
    ------
    InputError
        If a number is negative, or a window, layer and expert is missing or given twice.
    """
    if not columns["tokens"].size:
        raise InputError(f"file {path} has no rows; one per window, layer and expert is needed")
    has_windows = "window" in columns
    columns = columns if has_windows else {**columns, "window": np.zeros_like(columns["tokens"])}
    for name in AXES:
        if columns[name].min() < 0:
            raise InputError(f"file {path}: column {name!r} has {columns[name].min()}; numbers from 0 on are needed")
    notes = dict(told)
    unknown: set[int] = set()
    if left_out:
        there = set(np.unique(columns["layer"]).tolist())
        notes |= left_out_note(there, left_out)
        unknown = set(left_out) - there
        kept = ~np.isin(columns["layer"], list(left_out))
        columns = {name: column[kept] for name, column in columns.items()}
    axes = [_labels(columns[name]) for name in AXES]
    shape = tuple(labels.size for labels, _ in axes)
    experts = axes[2][0]
    if experts[-1] != shape[2] - 1:
        raise InputError(f"file {path}: column 'expert' has {shape[2]} experts up to {experts[-1]}; all from 0 on are needed")
    check_elements(shape, f"file {path}")
    cells = np.ravel_multi_index(tuple(places for _, places in axes), shape)
    in_order = np.sort(cells)
    twice = np.flatnonzero(in_order[1:] == in_order[:-1])
    if twice.size:
        ignored = told.get("ignored_columns")
        hint = f"; what tells them apart can only be a column that is not read: {ignored}" if ignored else ""
        raise InputError(f"file {path}: {_cell(int(in_order[twice[0]]), axes, shape)} is given twice{hint}")
    if cells.size < math.prod(shape):
        _refuse_odd_layers(axes, path, unknown)
        absent = np.flatnonzero(in_order != np.arange(cells.size))
        cell = int(absent[0]) if absent.size else cells.size
        raise InputError(
            f"file {path}: {_cell(cell, axes, shape)} is missing; each of {shape} windows, layers, experts needs a row"
        )
    loads = np.empty_like(columns["tokens"])
    loads[cells] = columns["tokens"]
    if has_windows:
        notes["windows"] = [int(axes[0][0][0]), int(axes[0][0][-1])]
    return Recording(loads.reshape(shape), axes[1][0].tolist(), notes=notes)


def _refuse_odd_layers(axes: list[tuple[np.ndarray, np.ndarray]], path: Path, unknown: Collection[int]) -> None:
    """Refuse layers that have another number of experts than most, by their name rather than by a row that is missing."""
    ids, layers = axes[1]
    if ids.size > MAX_TABLE:
        return
    experts = np.zeros(ids.size, dtype=np.int64)
    np.maximum.at(experts, layers, axes[2][1] + 1)
    said = odd_layer(dict(zip(ids.tolist(), experts.tolist(), strict=True)), unknown)
    if said is not None:
        raise InputError(f"file {path}: {said}")


def _labels(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different numbers of a column, ascending, and the place of each entry among them."""
    largest = int(column.max())
    if largest >= MAX_TABLE:
        return np.unique(column, return_inverse=True)
    there = np.zeros(largest + 1, dtype=bool)  # many times faster than sorting
    there[column] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[column]


def _cell(cell: int, axes: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> str:
    window, rest = divmod(cell, shape[1] * shape[2])
    layer, expert = divmod(rest, shape[2])
    return f"window {axes[0][0][window]}, layer {axes[1][0][layer]}, expert {axes[2][0][expert]}"
