"""Plain arrays: NPY, NPZ with the key ``loads`` or one array without a name, and the package's own trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from eplb_gap.problem.errors import InputError, listed, shown
from eplb_gap.problem.formats.containers.npy_bytes import read_npy
from eplb_gap.problem.formats.containers.npz import MAX_ENTRY_BYTES, open_archive, read_entry
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording, check_layers, check_notices, is_count
from eplb_gap.problem.formats.loads.routing.ambiguity import refuse_routing
from eplb_gap.problem.loads import LoadTrace

KEY = "loads"
UNNAMED = "arr_0"
"""Key of an array that ``np.savez(file, array)`` wrote; it is read where there is no other."""


def read_npy_loads(path: Path, _progress: Progress | None) -> Recording:
    """Read ``[windows, layers, experts]``, or ``[layers, experts]`` as one window."""
    return _recording(read_npy(path, MAX_ENTRY_BYTES), f"file {path}")


def read_npz_loads(path: Path, _progress: Progress | None) -> Recording:
    """Read the key ``loads``, or the only array, without a name; shaped as of :func:`read_npy_loads`. Other keys are ignored."""
    with open_archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        key = UNNAMED if names == [UNNAMED] else KEY
        found = _recording(read_entry(archive, key, path), f"file {path}: key {key!r}")
    ignored = [name for name in names if name != key]
    if not ignored:
        return found
    return replace(found, notes={"notices": [f"key read: {key}; ignored: {listed(ignored)}"]})


def read_trace(path: Path) -> LoadTrace:
    """Read what :meth:`LoadTrace.save` wrote, and check what the provenance says of layers and windows.

    Raises
    ------
    InputError
        As of :meth:`LoadTrace.load`, or if the provenance contradicts the loads.
    """
    trace = LoadTrace.load(path)
    steps = trace.provenance.get("window_steps", 1)
    if not is_count(steps) or steps < 1:
        raise InputError(f"trace file {path}: window_steps is {shown(steps)}; a positive integer is needed")
    check_layers(trace.provenance, trace.loads.shape[1], f"trace file {path}")
    check_notices(trace.provenance.get("notices", []), f"trace file {path}")
    for key in ("dropped_layers", "dropped_steps", "left_out_steps"):
        told = trace.provenance.get(key, 0)
        if not is_count(told) and not isinstance(told, list):
            raise InputError(f"trace file {path}: {key} is {shown(told)}; a number or a list is needed")
    return trace


def _recording(array: np.ndarray, where: str) -> Recording:
    if array.ndim not in (2, 3):
        raise InputError(f"{where} has shape {array.shape}; [windows, layers, experts] or [layers, experts] is needed")
    steps = array if array.ndim == 3 else array[None]
    return Recording(steps, range(steps.shape[1]))


TRACE = LoadFormat(
    "eplb-gap",
    "trace of this package (.npz)",
    lambda path, _progress: read_trace(path),
    recognise=lambda start: "head.npy" in start.entries and "experts.npy" not in start.entries,
)
NPY = LoadFormat(
    "npy",
    "NumPy array [windows, layers, experts] or [layers, experts]",
    read_npy_loads,
    recognise=lambda start: start.content.startswith(b"\x93NUMPY") and not refuse_routing(start),
    general=True,
)
NPZ = LoadFormat(
    "npz",
    "NumPy archive with such an array under the key loads, or alone without a name",
    read_npz_loads,
    recognise=lambda start: f"{KEY}.npy" in start.entries or (start.entries == [f"{UNNAMED}.npy"] and not refuse_routing(start)),
    general=True,
)
