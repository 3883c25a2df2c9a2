"""vLLM-Ascend's example script: the saved tensor ``[layers, experts]`` of loads."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.torch_arrays import load_torch, tensor_array
from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.routing.ambiguity import refuse_routing


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read one tensor, ``[layers, experts]`` or ``[steps, layers, experts]``."""
    content = load_torch(path)
    ndim = getattr(content, "ndim", 2)
    if ndim not in (2, 3):
        raise InputError(f"file {path} holds a tensor of {ndim} axes; [layers, experts] is needed")
    array = tensor_array(content, f"file {path}", ndim)
    steps = array if ndim == 3 else array[None]
    return Recording(steps, range(steps.shape[1]))


FORMAT = LoadFormat(
    "vllm-ascend",
    "vLLM-Ascend loads: .pt of one tensor [layers, experts]",
    read,
    recognise=lambda start: start.is_torch and not isinstance(start.torch, dict) and not refuse_routing(start),
    general=True,
)
