"""Times of the planners of the head to head, all in one invocation, and the levels that they are held to."""

from __future__ import annotations

import time
from statistics import fmean, median

import numpy as np

from eplb_gap.analysis.text import yes_or_no
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.measuring.row_schema import TIMES
from eplb_gap.experiments.measuring.rows import Fields, Row, Rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.studies.head_to_head import BASE, ROUNDS, SECONDS_SUITE, applicable, mean_gaps, seconds
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.programs.peers import PEERS

CALLS = 3
"""Calls of a method in a turn; the third, with warm caches, is timed."""


def timings() -> list[Timing]:
    """Return one invocation per policy: all methods on window 0 of the calibrated trace."""
    loads = trace("calibrated").window(0)
    return [
        Timing(SECONDS_SUITE, policy, applicable(policy), loads, deployment, ROUNDS, CALLS, _argsort_seconds)
        for policy, deployment in POLICIES.items()
    ]


def _argsort_seconds(loads: np.ndarray) -> Fields:
    """Return the time of a sort of the loads, which tells machines apart."""
    array, found = loads.astype(np.float32), []
    for _ in range(50):
        start = time.perf_counter()
        np.argsort(array)
        found.append(time.perf_counter() - start)
    return {"argsort_seconds": median(found)}


def _rival(measured: Rows) -> str:
    """Return the fastest balancer of others under the hierarchical policy."""
    timed = seconds(measured, "hierarchical")
    return min((method for method in timed if method in PEERS), key=lambda method: float(timed[method]["median_seconds"]))


def above_levels(measured: Rows) -> str:
    """Return what stands above the levels of the heuristics."""
    rival = _rival(measured)
    return (
        "## Levels of the heuristics\n\nCalibrated trace; the fastest opponent under the hierarchical policy is "
        f"`{rival}` ({1000 * seconds(measured, 'hierarchical')[rival]['median_seconds']:.2f} ms).\n\n"
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the planner's time and gap."""
    hierarchical, flat = (seconds(measured, policy) for policy in ("hierarchical", "global"))
    rival, body = _rival(measured), []
    for method, most_gap, base, share in (
        ("fast-lpt", None, BASE, 1 / 500),
        ("fast-lpt", None, rival, 0.45),
        ("fast", 5e-4, rival, 0.7),
        ("fast-split", 5e-5, rival, 3.0),
    ):
        body.append(_level(measured, "hierarchical", hierarchical, method, most_gap, base, share))
    for method, most_gap, share in (("fast", 5e-4, 0.45), ("fast-split", 1e-4, 2.0)):
        body.append(_level(measured, "global", flat, method, most_gap, "gepa", share))
    return body


def _level(
    measured: Rows, policy: str, timed: dict[str, Row], method: str, most_gap: float | None, base: str, share: float
) -> list[str]:
    gap = fmean(mean_gaps(measured, "calibrated", policy, method))
    # Without a gap asked for, DeepSeek's is.
    limit = fmean(mean_gaps(measured, "calibrated", policy, BASE)) if most_gap is None else most_gap
    ratio = timed[method]["median_seconds"] / timed[base]["median_seconds"]
    return [
        f"{policy}, `{method}`",
        f"mean gap <= {100 * limit:.4f} %, time <= {share:.4g} x `{base}`",
        f"{100 * gap:.4f} %, {1000 * timed[method]['median_seconds']:.2f} ms, {ratio:.4g} x",
        yes_or_no(gap <= limit and ratio <= share),
    ]


def _milliseconds(policy: str, method: str) -> Number:
    return Number(((SECONDS_SUITE, policy, method),), lambda rows: f"{1000 * rows[0]['median_seconds']:.1f}")


STUDY = Study(
    SECONDS_SUITE,
    job="heuristics",
    about="their times, all methods in one invocation",
    timings=timings,
    shapes=(TIMES,),
    levels=levels,
    numbers={
        "ms-split-hierarchical": _milliseconds("hierarchical", "fast-split"),
        "ms-split-global": _milliseconds("global", "fast-split"),
        "ms-base-hierarchical": _milliseconds("hierarchical", BASE),
    },
)
