"""Recorded loads of serving systems: which formats there are, and reading one as a trace."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.loads import (
    adrs,
    arrays,
    logical_count,
    megatron,
    omni_activations,
    omni_csv,
    recorded_calls,
    sglang_recorder,
    tensorrt_llm_statistics,
    vllm_ascend_loads,
    vllm_snapshots,
)
from eplb_gap.problem.formats.loads.cached import cached
from eplb_gap.problem.formats.loads.joined import Paths, as_paths, in_order, joined, named, recordings, unread_notice
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recognition import recognised, unrecognised
from eplb_gap.problem.formats.loads.recording import (
    LEFT_OUT,
    MAX_NOTICES,
    Progress,
    Recording,
    finished,
    grouped,
    of_trace,
    with_experts,
    without_layers,
)
from eplb_gap.problem.formats.loads.routing import routed_experts, traces
from eplb_gap.problem.formats.loads.tables import csv_table, json_table, parquet_table
from eplb_gap.problem.loads import LoadTrace

FORMATS: dict[str, LoadFormat] = {
    format.name: format
    for format in (
        arrays.TRACE,
        sglang_recorder.FORMAT,
        tensorrt_llm_statistics.FORMAT,
        vllm_snapshots.FORMAT,
        vllm_ascend_loads.FORMAT,
        adrs.FORMAT,
        logical_count.FORMAT,
        csv_table.CSV,
        parquet_table.PARQUET,
        json_table.JSON,
        arrays.NPY,
        arrays.NPZ,
        omni_csv.FORMAT,
        omni_activations.FORMAT,
        megatron.FORMAT,
        recorded_calls.FORMAT,
        routed_experts.FORMAT,
        traces.FORMAT,
    )
}
"""The records of all formats by name, in the order in which they are named and asked whether a file is theirs."""
LOAD_FORMATS: dict[str, str] = {name: format.description for name, format in FORMATS.items()}
"""Format -> what it is, in one line."""


def read(
    path: Paths,
    format: str | None = None,
    window: int | None = None,
    progress: Progress | None = None,
    *,
    experts: int | None = None,
    leave_out_layers: Iterable[int] = (),
) -> LoadTrace:
    """Read recorded expert loads.

    Parameters
    ----------
    path : path or iterable of path
        A file; a folder for formats with a file per rank, for which a file of the set stands too. Several recordings of one
        format are joined in the order of the times or numbers in their names (2.5 before 10.5), else of the steps that they hold,
        else as given.
    format : str, optional
        One of :data:`LOAD_FORMATS`; recognised by default. Text may be packed with gzip or zstd.
    window : int, optional
        Sum so many consecutive steps into a window; the oldest steps that fill none are left out. By default every recorded
        step or window is one.
    progress : callable, optional
        ``progress(bytes read, bytes of the file)``, called while a large file is read.
    experts : int, optional
        Logical experts of a layer, where the recording does not name the last ones because they never had load.
    leave_out_layers : iterable of int, optional
        Layers of the model that are not read: multi-token prediction with another number of experts, say.

    Returns
    -------
    LoadTrace
        Loads of the layers and steps that have any. The provenance has ``format``, ``file``, ``layer_ids`` (of each row in
        the model), ``num_model_layers`` (or None), ``dropped_layers``, ``dropped_steps``, ``left_out_steps``,
        ``window_steps`` and what else a user of the format must know; of several recordings ``joined`` and ``joined_by``, where
        asked for ``left_out_layers`` and ``added_experts``; ``notices``, lines that a user is to see, where there are any. A
        trace of this package keeps the provenance it has.

    Raises
    ------
    InputError
        Naming the file, the key, step or layer, what was found and what is needed; if the format is not recognised, there are
        fewer steps than a window has, or recordings that differ in layers or experts, or share steps, are to be joined.

    Examples
    --------
    >>> import tempfile
    >>> from eplb_gap import LoadTrace, read_loads
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LoadTrace([[[6, 2]], [[2, 6]], [[4, 4]], [[1, 7]]]).save(f"{folder}/steps.npz")
    ...     read_loads(f"{folder}/steps.npz", window=2).loads.tolist()
    [[[8, 8]], [[5, 11]]]
    """
    if format is not None and format not in LOAD_FORMATS:
        raise InputError(f"format is {format!r}; the load formats are {', '.join(LOAD_FORMATS)}")
    given, left_out = as_paths(path), _layers(leave_out_layers)
    if experts is not None and (not isinstance(experts, int | np.integer) or isinstance(experts, bool) or experts < 1):
        raise InputError(f"experts is {shown(experts)}; a positive number of experts is needed")
    chosen = FORMATS[format or _one_format(given)]
    for one in given:
        _check_exists(one)
        if one.is_dir() and not chosen.folder:
            raise InputError(f"{one} is a folder; format {chosen.name!r} needs a file")
    name, paths = named(given), recordings(given, chosen)
    if len(paths) == 1 and experts is None and not left_out:
        trace = _trace(paths[0], chosen, progress, name)
    else:
        trace = _changed(paths, chosen, progress, name, experts, left_out)
    if (said := unread_notice(given, paths, chosen)) is not None:
        notices = [said, *trace.provenance.get("notices", ())][:MAX_NOTICES]
        trace = replace(trace, provenance={**trace.provenance, "notices": notices})
    return grouped(trace, window)


def _one_format(paths: list[Path]) -> str:
    """Return the name of the format that all files and folders have."""
    found: dict[str, Path] = {}
    for path in paths:
        _check_exists(path)
        name = recognised(path, FORMATS.values())
        if name is None:
            raise InputError(unrecognised(path, FORMATS.values()))
        found.setdefault(name, path)
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise InputError(f"{first} is {one} and {second} is {other}; recordings of one format can be joined")
    return next(iter(found))


def _layers(value: Iterable[int]) -> frozenset[int]:
    try:
        layers = frozenset(operator.index(layer) for layer in value)
    except TypeError:
        layers = frozenset({-1})
    if any(layer < 0 for layer in layers):
        raise InputError(f"leave_out_layers is {shown(value)}; layers of the model, numbers from 0 on, are needed")
    return layers


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r:.200} cannot be read ({error})") from None


def _trace(path: Path, format: LoadFormat, progress: Progress | None, name: str) -> LoadTrace:
    """Return one recording as it is."""

    def trace() -> LoadTrace:
        found = format.read(path, progress)
        return found if isinstance(found, LoadTrace) else finished(found, format.name, name, f"file {path}")

    return trace() if format.cached_bytes is None else cached(path, format.cached_bytes, trace)


def _changed(
    paths: list[Path], format: LoadFormat, progress: Progress | None, name: str, experts: int | None, left_out: frozenset[int]
) -> LoadTrace:
    """Return recordings as one trace: of so many experts, without some layers, one after the other."""
    ordered = in_order(paths, format) if len(paths) > 1 else None
    parts: list[tuple[Path, Recording]] = []
    for path in paths if ordered is None else ordered[0]:
        part = _part(path, format, progress, left_out)
        parts.append((path, part if experts is None else with_experts(part, experts, f"file {path}")))
    whole = parts[0][1] if len(parts) == 1 else joined(parts, None if ordered is None else ordered[1])
    there = {layer for _, part in parts for layer in part.notes.get(LEFT_OUT, ())}
    if not left_out <= there:
        raise InputError(f"leave_out_layers names layer {min(left_out - there)}; {name} has no such layer")
    if left_out:
        whole = replace(whole, notes={**whole.notes, LEFT_OUT: sorted(there)})
    return finished(whole, format.name, name, f"file {paths[0]}" if len(paths) == 1 else name)


def _part(path: Path, format: LoadFormat, progress: Progress | None, left_out: frozenset[int]) -> Recording:
    """Return one recording without some layers, which its reader does not look at or which are taken out."""
    if left_out and format.read_without is not None:
        return format.read_without(path, progress, left_out)
    found = format.read(path, progress) if format.cached_bytes is None else _trace(path, format, progress, path.name)
    whole = of_trace(found) if isinstance(found, LoadTrace) else found
    return without_layers(whole, left_out) if left_out else whole


def holds_loads(path: Path) -> bool:
    """Return whether a file or folder is there that may be a recording: of a known format, or broken."""
    try:
        return os.path.exists(path) and recognised(path, FORMATS.values()) is not None
    except (InputError, OSError, ValueError):
        return True
