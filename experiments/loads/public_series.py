"""Windows of public models' loads as traces for replays, from files that a user has; the project ships none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.experiments.loads.public_counts import COUNTS, SOURCES, VARIABLE, counts_by_domain
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers import npz
from eplb_gap.problem.loads import LoadTrace, as_loads

DECODE_SERIES = "gptoss20b/gptoss20b_decode_timeseries.npz"
DECODE_LAYERS, DECODE_EXPERTS, DECODE_TOP, DECODE_STEPS = 24, 32, 4, 8
SERIES = {"GPT-OSS-20B": DECODE_SERIES, "OLMoE-1B-7B": COUNTS, "Mixtral-8x7B": COUNTS}
"""The file of each model's windows in the folder."""


def missing(model: str, folder: str | None) -> str | None:
    """Return why there are no windows of a model, for a row or a printed line, or None where its file is there.

    Parameters
    ----------
    model : str
        Key of :data:`SERIES`.
    folder : str, optional
        What the environment variable names.
    """
    if folder is None:
        return f"{VARIABLE} names no folder"
    path = Path(folder) / SERIES[model]
    return None if path.exists() else f"{path} does not exist"


def public_series(model: str, folder: Path) -> LoadTrace:
    """Return windows of a public model's loads.

    Parameters
    ----------
    model : str
        Key of :data:`SERIES`. Those of GPT-OSS are a time series: each sums 8 steps of requests that decode together. Those of
        the other two are five domains, one window each, in no order of time: what a map that was planned on one domain serves
        of another can be asked of them, nothing about how fast loads change.
    folder : Path

    Returns
    -------
    LoadTrace
        Its provenance says source, the sha256 of the int64 array and whether the windows are a time series.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds no such counts.
    """
    if model not in SERIES:
        raise InputError(f"model is {model!r}; {', '.join(SERIES)} are known")
    decoded = model == "GPT-OSS-20B"
    loads = _decoded(folder / DECODE_SERIES) if decoded else _domains(model, folder)
    told = {"window_steps": DECODE_STEPS} if decoded else {}
    return LoadTrace(
        loads,
        {
            "kind": "recorded from a public model",
            "model": model,
            "source": f"{SOURCES[model].rsplit(', ', 1)[0]}, {SERIES[model]}",
            "sha256": array_sha256(loads),
            "windows": "consecutive decoding steps" if decoded else "a domain of text each, in no order of time",
            "time_series": decoded,
            **told,
        },
    )


def _domains(model: str, folder: Path) -> np.ndarray:
    loads = counts_by_domain(model, folder)
    totals = loads.sum(axis=2)
    _refuse_totals(f"{folder / COUNTS}, {model}", totals, totals[:, :1], "layer 0 of the window, which sees the same tokens, to")
    return loads


def _decoded(path: Path) -> np.ndarray:
    """Return windows of eight decoding steps, int64 [windows, 24, 32]."""
    with npz.open_archive(path) as archive:
        counts, requests = (npz.read_entry(archive, key, path) for key in ("counts", "requests"))
    for key, array in (("counts", counts), ("requests", requests)):
        if array.dtype.kind not in "iu":
            raise InputError(f"file {path}: key {key!r} has dtype {array.dtype}; integers are needed")
    if requests.shape != () or requests < 1:
        raise InputError(f"file {path}: key 'requests' is {requests!s:.40}; one positive number is needed")
    loads = as_loads(counts, f"{path}, counts", 3)
    if loads.shape[1:] != (DECODE_LAYERS, DECODE_EXPERTS):
        raise InputError(f"{path}, counts has shape {loads.shape}; [windows, {DECODE_LAYERS}, {DECODE_EXPERTS}] is needed")
    expected = int(requests) * DECODE_STEPS * DECODE_TOP
    said = f"{int(requests)} requests that decode {DECODE_STEPS} steps with {DECODE_TOP} experts a token to"
    _refuse_totals(f"{path}, counts", loads.sum(axis=2), np.array([[expected]]), said)
    return loads


def _refuse_totals(where: str, totals: np.ndarray, expected: np.ndarray, said: str) -> None:
    wrong = totals != expected
    if wrong.any():
        window, layer = (int(i) for i in np.argwhere(wrong)[0])
        due = int(np.broadcast_to(expected, totals.shape)[window, layer])
        raise InputError(f"{where}: window {window}, layer {layer} sums to {totals[window, layer]}, {said} {due}")
