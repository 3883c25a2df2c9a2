"""The sample of the small model's routing, cut into what maps are planned on and the phases of the traffic that they serve."""

from __future__ import annotations

from functools import cache
from itertools import accumulate

import numpy as np

from eplb_gap.experiments.measuring import rows
from eplb_gap.problem.routing.trace import RoutingTrace

SAMPLE = rows.RESULTS / "traces" / "recorded-routing.npz"
PLANNED = "planned"
PLANNED_STEPS = 10
"""Sampled steps from the first on: the warm-up and the beginning of the stable phase."""


@cache
def sample() -> RoutingTrace:
    """Return the sample that the project ships."""
    return RoutingTrace.load(SAMPLE)


@cache
def parts() -> dict[str, RoutingTrace]:
    """Return the tokens to plan on and, behind them, those of every phase, the rest of the one that planning ended in too."""
    routing = sample()
    assert routing.step is not None
    sampled = np.unique(routing.step)
    first = int(np.searchsorted(routing.step, sampled[PLANNED_STEPS]))
    found = {PLANNED: routing.part(0, first)}
    phases = routing.provenance["phases"]
    for phase, end in zip(phases, accumulate(phase["steps"] for phase in phases), strict=True):
        until = int(np.searchsorted(routing.step, end))
        if until > first:
            found[phase["name"]] = routing.part(first, until)
            first = until
    return found


def same_phase() -> str:
    """Return the phase that planning ended in: its later steps are traffic of the kind that was planned on."""
    return next(name for name in parts() if name != PLANNED)


def other_phases() -> tuple[str, ...]:
    """Return the phases that no planned token is of."""
    return tuple(name for name in parts() if name not in {PLANNED, same_phase()})
