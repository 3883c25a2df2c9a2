"""Loads of routed experts that servers return with requests."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.problem.formats.loads.load_format import LoadFormat
from eplb_gap.problem.formats.loads.recording import Progress, Recording
from eplb_gap.problem.formats.loads.routing.counting import count
from eplb_gap.problem.formats.routing import routed_experts


def read(path: Path, _progress: Progress | None) -> Recording:
    """Read routed experts as loads of steps of :data:`.counting.STEP_TOKENS` tokens; which files, and errors, as their reader."""
    with routed_experts.opened(path) as routed:
        return count(routed)


FORMAT = LoadFormat(
    routed_experts.FORMAT.name, routed_experts.FORMAT.description, read, recognise=routed_experts.FORMAT.recognise
)
