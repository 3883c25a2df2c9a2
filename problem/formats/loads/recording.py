"""What every reader of recorded loads yields, and the one way from there to a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.loads import LoadTrace, as_loads

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes of the file."""

MAX_COUNT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Recording:
    """Loads as a file holds them.

    Parameters
    ----------
    steps : ndarray of int [steps, layers, experts]
        Tokens routed to each logical expert, oldest step first. Layers and steps without load are still in it.
    layer_ids : sequence of int
        Index of each layer in the model; the number of the row where the file lists MoE layers without their indices.
    num_model_layers : int, optional
        Layers of the model, dense ones included, where the file tells.
    row_steps : int, default 1
        Steps that one row of ``steps`` sums.
    notes : dict, optional
        What a user of these loads must know; JSON-serialisable, for the provenance.
    """

    steps: np.ndarray
    layer_ids: Sequence[int]
    num_model_layers: int | None = None
    row_steps: int = 1
    notes: dict[str, Any] = field(default_factory=dict)


def add_counts(total: np.ndarray, part: Any, where: str) -> None:
    """Add the counts of one rank to ``total`` in place.

    Raises
    ------
    InputError
        If they have another shape or are no counts, or the sum exceeds int64.
    """
    counts = as_loads(part, where, total.ndim)
    if counts.shape != total.shape:
        raise InputError(f"{where} has shape {counts.shape}; {total.shape}, that of the others, is needed")
    if (counts > MAX_COUNT - total).any():
        raise InputError(f"{where}, added to the others, exceeds int64")
    total += counts


def finished(recording: Recording, format: str, path: Path) -> LoadTrace:
    """Return the trace of a recording, every row a window: layers and steps without any load are left out, and reported.

    Raises
    ------
    InputError
        If the counts are no loads, there are too many, or none is positive.
    """
    where = f"file {path}: loads"
    check_elements(np.shape(recording.steps), where)
    loads = as_loads(recording.steps, where, 3)
    layers, steps = loads.any(axis=(0, 2)), loads.any(axis=(1, 2))
    if not steps.any():
        raise InputError(f"{where} are all zero; at least one step with load is needed")
    if not (layers.all() and steps.all()):
        loads = loads[np.ix_(steps, layers)]
    ids = np.asarray(recording.layer_ids)
    provenance = {
        "format": format,
        "file": path.name or path.absolute().name,
        "layer_ids": ids[layers].tolist(),
        "num_model_layers": recording.num_model_layers,
        "dropped_layers": ids[~layers].tolist(),
        "dropped_steps": int((~steps).sum()) * recording.row_steps,
        "left_out_steps": 0,
        "window_steps": recording.row_steps,
        **recording.notes,
    }
    return LoadTrace(loads, provenance)


def grouped(trace: LoadTrace, window: int | None) -> LoadTrace:
    """Return the trace in windows of ``window`` steps; the oldest steps that fill none are left out, and reported.

    Raises
    ------
    InputError
        If there are fewer steps, or a window of the trace has more steps or would have to be split.
    """
    if window is None:
        return trace
    row_steps = trace.window_steps
    steps = trace.loads.shape[0] * row_steps
    if not isinstance(window, int) or isinstance(window, bool) or not 1 <= window <= steps:
        raise InputError(f"window is {window!r}; 1 to {steps} steps, as many as there are, is needed")
    if window % row_steps:
        raise InputError(f"window is {window} steps; a multiple of {row_steps} is needed, the steps of a recorded window")
    rows = window // row_steps
    left_out = trace.loads.shape[0] % rows
    told = {**trace.provenance, "left_out_steps": left_out * row_steps}
    return LoadTrace(trace.loads[left_out:], told).windowed(rows)
