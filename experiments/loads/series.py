"""Loads with time in them, step by step: the recordings that controllers are replayed on, and synthetic controls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from eplb_gap.experiments.loads import control_traces
from eplb_gap.experiments.measuring import rows
from eplb_gap.problem.loads import LoadTrace

TRACES = rows.RESULTS / "traces"


@dataclass(frozen=True)
class Series:
    """Steps to replay.

    Parameters
    ----------
    title : str
        What tables call it, and whether anything was tuned on it.
    first : int
        First step that is judged.
    seeds : tuple of int
        Of a synthetic one; a recording has one, 0.
    """

    title: str
    first: int
    seeds: tuple[int, ...] = (0,)


SYNTHETIC_SEEDS = (300, 301, 302)
"""None of them was looked at while a controller was tuned."""
RECORDED = {
    "steps": Series("recorded from a small model trained for this purpose; controllers were tuned on it", 400),
    "rhythm": Series("recorded from another model under another rhythm of traffic, held out", 400),
}
SYNTHETIC = {
    "stationary": Series("synthetic: every step drawn from the same shares", 200, SYNTHETIC_SEEDS),
    "drifting": Series("synthetic: logarithms of the shares follow an AR(1) process", 200, SYNTHETIC_SEEDS),
    "regimes": Series("synthetic: new shares at Poisson times", 200, SYNTHETIC_SEEDS),
    "recurring": Series("synthetic: two kinds of traffic alternate within every interval", 200, SYNTHETIC_SEEDS),
}
SERIES = RECORDED | SYNTHETIC
"""By the name that rows give them."""


@cache
def series(name: str, seed: int = 0) -> LoadTrace:
    """Return the steps of a series, int64 [steps, layers, experts]; of a recording whatever the seed."""
    if name in RECORDED:
        return LoadTrace.load(TRACES / f"recorded-{name}.npz")
    return control_traces.CONTROLS[name](seed)
