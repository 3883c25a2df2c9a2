"""Times of the serving methods at 58 x 256, warm, one thread (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, SERVED, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.solvers.serving.split_lp import lp_split

SUITE = "serving_seconds"
CALLS = 15
LP_CALLS = 3
HISTORIES = (4, 8)
MOVED_SHARE = 0.1
START_MS, ALL_MS = 15.0, 100.0


def instance(policy: str) -> Instance:
    """Return the windows of the calibrated trace under a policy."""
    return trace("calibrated").loads, POLICIES[policy]


def times_cell(policy: str) -> Fields:
    """Measure everything in one process, rounds interleaved, after one call of each."""
    loads, deployment = instance(policy)
    placement = heuristics.rebalance(loads[-2], deployment)
    budget = int(placement.phy2log.size * MOVED_SHARE)
    calls: dict[str, Callable[[], Any]] = {
        "fast": lambda: heuristics.rebalance(loads[-2], deployment),
        "token split": lambda: optimal_split(placement, loads[-1], deployment),
        "migration": lambda: replan(loads[-1], deployment, placement, total_moves=budget),
    }
    for windows in HISTORIES:
        planned = partial(sample_average.plan, loads[-windows:], deployment)
        calls[f"sample-average {windows}, start"] = partial(planned, trials=-1)
        calls[f"sample-average {windows}"] = planned
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(CALLS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:
                found[name].append(time.perf_counter() - start)
    lp = []
    for _ in range(LP_CALLS):
        start = time.perf_counter()
        lp_split(placement, loads[-1], deployment)
        lp.append(time.perf_counter() - start)
    return {
        "kind": "timing",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"threads": 1, "calls": CALLS},
        "status": "legal",
        "layers": len(loads[0]),
        "seconds": {**found, "linear programme": lp},
    }


def cells() -> list[Cell]:
    """Return one cell per policy."""
    return [Cell(SUITE, f"calibrated {policy}", "all", times_cell, {"policy": policy}) for policy in POLICIES]


def seconds(measured: Rows, policy: str, name: str) -> float:
    """Return the median of a method's times."""
    row = measured.one(suite=SUITE, policy=policy)
    values: list[float] = row["seconds"][name]
    return median(values)


def table(measured: Rows) -> str:
    """Return medians and extremes as Markdown."""
    body = []
    for row in measured.where(suite=SUITE):
        for name, values in row["seconds"].items():
            ms = [f"{1000 * value:.2f}" for value in (median(values), min(values), max(values))]
            body.append([f"{row['instance']}, {name}", *ms, f"{1e6 * median(values) / row['layers']:.1f}", str(len(values))])
    return (
        "## Times\n\nCalibrated trace (synthetic), flagship, 58 layers, one thread, warm, in one process, rounds interleaved; "
        f"migration may move {100 * MOVED_SHARE:.0f} % of the replicas.\n\n"
        + markdown(["policy, method", "median, ms", "least", "most", "us a layer", "calls"], body)
        + "\n"
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the times of sample-average plans."""
    body = []
    for windows in HISTORIES:
        for policy in POLICIES:
            name = f"sample-average {windows}"
            start, whole = (1000 * seconds(measured, policy, f"{name}{part}") for part in (", start", ""))
            body.append(
                [
                    f"sample-average, m = {windows}, {policy}",
                    f"<= {START_MS:g} ms start, <= {ALL_MS:g} ms in all",
                    f"{start:.1f} ms, {whole:.1f} ms",
                    yes_or_no(start <= START_MS and whole <= ALL_MS),
                ]
            )
    return body


STUDY = Study(
    SUITE,
    job="serving",
    about="times of the methods above, in one process",
    cells=cells,
    shapes=(Shape("timing", CELL | {"layers": "integer", "seconds": SERVED}),),
    instance=instance,
    table=table,
    levels=levels,
    timed=True,
    appendix=True,
)
