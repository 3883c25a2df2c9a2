"""Loads of the formats that hold the routing of tokens with their steps: what it sums to."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.problem.formats.loads.load_format import FileStart, LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.routing.counting import STEP_TOKENS
from eplb_gap.problem.formats.routing import parquet_rows, tensorrt_llm_raw, trace_file
from eplb_gap.problem.formats.routing.reading import read_routing, recognised

WITH_STEPS = (trace_file.FORMAT, tensorrt_llm_raw.FORMAT, parquet_rows.FORMAT)
"""Formats of routing whose files are read as loads here: others have counts beside them, or a reader of their own."""


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read routing as loads of its forward passes, or of steps of :data:`.counting.STEP_TOKENS` tokens where it tells none."""
    routing = read_routing(path)
    notices = list(routing.provenance.get("notices", ()))
    tokens = len(routing.experts)
    if routing.step is not None:
        loads = routing.load_trace().loads
    elif tokens < STEP_TOKENS:
        loads = routing.load_trace(tokens).loads
    else:
        whole = tokens - tokens % STEP_TOKENS
        loads = routing.part(0, whole).load_trace(STEP_TOKENS).loads
        notices.append(f"a step is {STEP_TOKENS} tokens in the order of the file")
        if whole < tokens:
            notices.append(f"the last {tokens - whole} tokens, which fill no step, left out")
    told = dict(routing.provenance)
    ids, model_layers = told.pop("layer_ids", None), told.pop("num_model_layers", None)
    for key in ("window_steps", "format", "file"):  # of the loads these are others
        told.pop(key, None)
    notes = {**told, "top_k": routing.topk, **({"notices": notices} if notices else {})}
    return Recording(loads, ids or range(routing.num_layers), model_layers, notes=notes)


def _is_ours(start: FileStart) -> bool:
    return recognised(start) in WITH_STEPS


FORMAT = LoadFormat(
    "routing",
    "routing of tokens: " + "; ".join(format.description for format in WITH_STEPS),
    read,
    recognise=_is_ours,
)
