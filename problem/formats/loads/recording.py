"""What every reader of recorded loads yields, and the one way from there to a trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, next_multiples, shown, such_as
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.one_rank import one_rank_notice
from eplb_gap.problem.loads import LoadTrace, as_loads

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes of the file."""

MAX_COUNT = np.iinfo(np.int64).max
LEFT_OUT = "left_out_layers"
"""Note of the layers that a recording has and that were not read."""


MAX_NOTICES, MAX_NOTICE = 100, 1000
"""Lines that a user is to see of a recording, and characters of each: the note ``notices``."""


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
        What a user of these loads must know; JSON-serialisable, for the provenance. Lines under ``notices`` are printed.
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


def of_trace(trace: LoadTrace) -> Recording:
    """Return what a trace holds as a recording, which can be joined and changed; its notes are the rest of the provenance."""
    told = dict(trace.provenance)
    ids, model_layers = (told.pop(key, None) for key in ("layer_ids", "num_model_layers"))
    told.pop("window_steps", None)
    return Recording(trace.loads, ids or range(trace.loads.shape[1]), model_layers, trace.window_steps, told)


def left_out_note(found: Collection[int], layers: Collection[int]) -> dict[str, Any]:
    """Return the note of those layers of a recording that were not to be read.

    Raises
    ------
    InputError
        If no other is left.
    """
    if set(found) <= set(layers):
        raise InputError(f"leave_out_layers names all {len(set(found))} layers of the recording; at least one of them is needed")
    return {LEFT_OUT: sorted(set(found) & set(layers))}


def without_layers(recording: Recording, layers: Collection[int]) -> Recording:
    """Return a recording without some layers, which it need not have; the notes say which it had."""
    ids, notes = list(recording.layer_ids), recording.notes
    kept = [row for row, layer in enumerate(ids) if layer not in layers]
    before = [layer for key in ("dropped_layers", LEFT_OUT) if isinstance(told := notes.get(key), list) for layer in told]
    told_out = left_out_note([*ids, *before], layers)
    if not kept:
        raise InputError(f"leave_out_layers names all layers with load, {ids}; at least one of them is needed")
    notes = {**notes, **told_out}
    return replace(recording, steps=recording.steps[:, kept], layer_ids=[ids[row] for row in kept], notes=notes)


def with_experts(recording: Recording, experts: int, where: str) -> Recording:
    """Return a recording of so many experts: those that it does not name had no load.

    Raises
    ------
    InputError
        If it names more.
    """
    found = recording.steps.shape[2]
    if experts < found:
        raise InputError(f"experts is {experts}; {where} has {found}")
    if experts == found:
        return recording
    check_elements((*recording.steps.shape[:2], experts), where)
    padded = np.pad(recording.steps, ((0, 0), (0, 0), (0, experts - found)))
    return replace(recording, steps=padded, notes={**recording.notes, "added_experts": list(range(found, experts))})


def finished(recording: Recording, format: str, name: str, where: str) -> LoadTrace:
    """Return the trace of a recording, every row a window: layers and steps without any load are left out, and reported.

    Parameters
    ----------
    recording : Recording
    format : str
        Name of its format.
    name : str
        What it is called: the name of its file.
    where : str
        With which messages begin: its path.

    Raises
    ------
    InputError
        If the counts are no loads, there are too many, or none is positive.
    """
    where = f"{where}: loads"
    check_elements(np.shape(recording.steps), where)
    loads = as_loads(recording.steps, where, 3)
    layers, steps = loads.any(axis=(0, 2)), loads.any(axis=(1, 2))
    if not steps.any():
        raise InputError(f"{where} are all zero; at least one step with load is needed")
    if not (layers.all() and steps.all()):
        loads = loads[np.ix_(steps, layers)]
    ids, notes = np.asarray(recording.layer_ids), dict(recording.notes)
    before = notes.pop("dropped_layers", []), notes.pop("dropped_steps", 0)  # a trace that is joined or changed has these
    provenance = {
        "format": format,
        "file": name,
        "layer_ids": ids[layers].tolist(),
        "num_model_layers": recording.num_model_layers,
        "dropped_layers": [*(before[0] if isinstance(before[0], list) else []), *ids[~layers].tolist()],
        "dropped_steps": (before[1] if isinstance(before[1], int) else 0) + int((~steps).sum()) * recording.row_steps,
        "left_out_steps": 0,
        "window_steps": recording.row_steps,
        **notes,
    }
    if (said := one_rank_notice(loads)) is not None:
        provenance["notices"] = [*(text for text in notes.get("notices", ()) if text != said), said][-MAX_NOTICES:]
    return LoadTrace(loads, provenance)


def check_notices(value: Any, where: str) -> None:
    """Refuse notices of a file, which commands print, unless they are a few short printable lines.

    Raises
    ------
    InputError
        Naming the file.
    """
    few = isinstance(value, list) and len(value) <= MAX_NOTICES
    if not few or not all(isinstance(text, str) and len(text) <= MAX_NOTICE and text.isprintable() for text in value):
        raise InputError(f"{where}: notices is {shown(value)}; at most {MAX_NOTICES} lines of text are needed")


def check_layers(provenance: Mapping[str, Any], layers: int, where: str) -> None:
    """Refuse what the provenance of a trace says of its layers where it contradicts the trace.

    Raises
    ------
    InputError
        Naming the file.
    """
    ids = provenance.get("layer_ids")
    if ids is not None and not (isinstance(ids, list) and len(ids) == layers and all(map(is_count, ids))):
        raise InputError(f"{where}: layer_ids is {shown(ids)}; an index for each of the {layers} layers is needed")
    model_layers = provenance.get("num_model_layers")
    if model_layers is not None and (not is_count(model_layers) or model_layers <= max(ids or [layers - 1])):
        raise InputError(f"{where}: num_model_layers is {shown(model_layers)}; more than the last layer is needed")


def is_count(value: object) -> bool:
    """Return whether a value of a file is a number of things."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


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
        near = such_as(("", [count for count in next_multiples(window, row_steps, row_steps) if count <= steps]))
        raise InputError(f"window is {window} steps; a multiple of {row_steps} is needed, the steps of a recorded window{near}")
    rows = window // row_steps
    left_out = trace.loads.shape[0] % rows
    told = {**trace.provenance, "left_out_steps": left_out * row_steps}
    return LoadTrace(trace.loads[left_out:], told).windowed(rows)
