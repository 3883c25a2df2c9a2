"""The package's own routing trace."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.problem import files
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.loads.recording import check_layers, check_notices
from eplb_gap.problem.formats.routing.routing_format import RoutingFormat
from eplb_gap.problem.routing.trace import RoutingTrace


def read(path: Path, experts: int | None) -> RoutingTrace:
    """Return the trace as :meth:`RoutingTrace.save` wrote it, with its provenance.

    Raises
    ------
    InputError
        As of :meth:`RoutingTrace.load`, or if the provenance contradicts the routing, or it is of another number of experts.
    """
    files.size(path, files.MAX_ARRAY_BYTES)
    trace = RoutingTrace.load(path)
    check_layers(trace.provenance, trace.num_layers, f"trace file {path}")
    check_notices(trace.provenance.get("notices", []), f"trace file {path}")
    if experts not in (None, trace.num_experts):
        raise InputError(f"experts is {experts}; file {path} has {trace.num_experts}")
    return trace


FORMAT = RoutingFormat(
    "eplb-gap-routing",
    "routing trace of this package (.npz)",
    read,
    recognise=lambda start: {"head.npy", "experts.npy"} <= set(start.entries),
)
