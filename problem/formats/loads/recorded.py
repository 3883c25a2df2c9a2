"""Recorded loads of serving systems: which formats there are, and reading one as a trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads import (
    adrs,
    arrays,
    megatron,
    omni_activations,
    omni_csv,
    sglang_recorder,
    tables,
    tensorrt_llm_statistics,
    vllm_ascend_loads,
    vllm_snapshots,
)
from eplb_gap.problem.formats.loads.cached import cached
from eplb_gap.problem.formats.loads.recognition import recognised
from eplb_gap.problem.formats.loads.recording import Progress, Recording, finished, grouped
from eplb_gap.problem.loads import LoadTrace


class _Format(NamedTuple):
    description: str
    read: Callable[[Path, Progress | None], Recording]
    folder: bool = False


TRACE = "eplb-gap"
_FORMATS = {
    "sglang-recorder": _Format(
        "SGLang expert distribution recorder: .pt of stat or stat_approx, or folder of per_pass or per_token",
        sglang_recorder.read,
        folder=True,
    ),
    "tensorrt-llm": _Format(
        "TensorRT-LLM expert statistics: folder of meta_info.json and rank*.safetensors",
        tensorrt_llm_statistics.read,
        folder=True,
    ),
    "vllm-snapshots": _Format("vLLM expert load dump: JSON with the key snapshots", vllm_snapshots.read),
    "vllm-ascend": _Format("vLLM-Ascend loads: .pt of one tensor [layers, experts]", vllm_ascend_loads.read),
    "adrs": _Format("expert-load.json of the published searches: JSON with the key load_history", adrs.read),
    "csv": _Format("CSV with the columns window,layer,expert,tokens, a row for each", tables.read_csv),
    "parquet": _Format("Parquet with the columns window, layer, expert, tokens, a row for each", tables.read_parquet),
    "npy": _Format("NumPy array [windows, layers, experts] or [layers, experts]", arrays.read_npy_loads),
    "npz": _Format("NumPy archive with such an array under the key loads", arrays.read_npz_loads),
    "omni-csv": _Format(
        "omni topk_ids_count_*.csv, or folder of such files by steps: units of 128 tokens", omni_csv.read, folder=True
    ),
    "omni-activations": _Format("omni folder of activation_counts_recordstep_N_rank_R.txt", omni_activations.read, folder=True),
    "megatron": _Format("Megatron-Core folder of mcore_ep_loads_rank*_*.npz", megatron.read, folder=True),
}
LOAD_FORMATS: dict[str, str] = {TRACE: "trace of this package (.npz)"} | {
    name: entry.description for name, entry in _FORMATS.items()
}
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
    name = format or recognised(path)
    if name is None:
        raise InputError(f"{path} holds no recorded loads of a known format; these are {', '.join(LOAD_FORMATS)}")
    return grouped(_every_step(path, name, progress), window)


def _check_exists(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"file {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r:.200} cannot be read ({error})") from None


def _every_step(path: Path, name: str, progress: Progress | None) -> LoadTrace:
    if path.is_dir() and (name == TRACE or not _FORMATS[name].folder):
        raise InputError(f"{path} is a folder; format {name!r} needs a file")
    if name == TRACE:
        return arrays.read_trace(path)

    def trace() -> LoadTrace:
        return finished(_FORMATS[name].read(path, progress), name, path)

    return cached(path, adrs.MAX_FILE_BYTES, trace) if name == "adrs" else trace()
