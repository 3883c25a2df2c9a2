"""Recorded loads of serving systems: which formats there are, and reading one as a trace."""

from __future__ import annotations

import os
from pathlib import Path

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads import (
    adrs,
    arrays,
    megatron,
    omni_activations,
    omni_csv,
    recorded_calls,
    sglang_recorder,
    tables,
    tensorrt_llm_statistics,
    vllm_ascend_loads,
    vllm_snapshots,
)
from eplb_gap.problem.formats.loads.cached import cached
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recognition import recognised
from eplb_gap.problem.formats.loads.recording import Progress, finished, grouped
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
        tables.CSV,
        tables.PARQUET,
        arrays.NPY,
        arrays.NPZ,
        omni_csv.FORMAT,
        omni_activations.FORMAT,
        megatron.FORMAT,
        recorded_calls.FORMAT,
    )
}
"""The records of all formats by name, in the order in which they are named and asked whether a file is theirs."""
LOAD_FORMATS: dict[str, str] = {name: format.description for name, format in FORMATS.items()}
"""Format -> what it is, in one line."""


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    window: int | None = None,
    progress: Progress | None = None,
) -> LoadTrace:
    """Read recorded expert loads.

    Parameters
    ----------
    path : path
        A file; a folder for formats with a file per rank, for which a file of the set stands too.
    format : str, optional
        One of :data:`LOAD_FORMATS`; recognised by default.
    window : int, optional
        Sum so many consecutive steps into a window; the oldest steps that fill none are left out. By default every recorded
        step or window is one.
    progress : callable, optional
        ``progress(bytes read, bytes of the file)``, called while a large file is read.

    Returns
    -------
    LoadTrace
        Loads of the layers and steps that have any. The provenance has ``format``, ``file``, ``layer_ids`` (of each row in
        the model), ``num_model_layers`` (or None), ``dropped_layers``, ``dropped_steps``, ``left_out_steps``,
        ``window_steps`` and what else a user of the format must know. A trace of this package keeps the provenance it has.

    Raises
    ------
    InputError
        Naming the file, the key, step or layer, what was found and what is needed; if the format is not recognised, or there
        are fewer steps than a window has.

    Examples
    --------
    >>> import tempfile
    >>> from eplb_gap import LoadTrace, read_loads
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LoadTrace([[[6, 2]], [[2, 6]], [[4, 4]], [[1, 7]]]).save(f"{folder}/steps.npz")
    ...     read_loads(f"{folder}/steps.npz", window=2).loads.tolist()
    [[[8, 8]], [[5, 11]]]
    """
    path = Path(path)
    if format is not None and format not in LOAD_FORMATS:
        raise InputError(f"format is {format!r}; the load formats are {', '.join(LOAD_FORMATS)}")
    _check_exists(path)
    name = format or recognised(path, FORMATS.values())
    if name is None:
        raise InputError(f"{path} holds no recorded loads of a known format; these are {', '.join(LOAD_FORMATS)}")
    return grouped(_every_step(path, FORMATS[name], progress), window)


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r:.200} cannot be read ({error})") from None


def _every_step(path: Path, format: LoadFormat, progress: Progress | None) -> LoadTrace:
    if path.is_dir() and not format.folder:
        raise InputError(f"{path} is a folder; format {format.name!r} needs a file")

    def trace() -> LoadTrace:
        found = format.read(path, progress)
        return found if isinstance(found, LoadTrace) else finished(found, format.name, path)

    return trace() if format.cached_bytes is None else cached(path, format.cached_bytes, trace)
