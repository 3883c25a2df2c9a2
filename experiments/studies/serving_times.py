"""Times of the serving methods at 58 x 256, warm, one thread (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.solvers.serving.split_lp import lp_split

SUITE = "serving_seconds"
CALLS = 15
LP_CALLS = 3
HISTORIES = (4, 8)
MOVED_SHARE = 0.1


def times_cell(policy: str) -> Row:
    """Measure everything in one process, rounds interleaved, after one call of each."""
    deployment, loads = POLICIES[policy], trace("calibrated").loads
    placement = heuristics.rebalance(loads[-2], deployment)
    budget = int(placement.phy2log.size * MOVED_SHARE)
    calls: dict[str, Callable[[], Any]] = {
        "fast": lambda: heuristics.rebalance(loads[-2], deployment),
        "token split": lambda: optimal_split(placement, loads[-1], deployment),
        "migration": lambda: replan(loads[-1], deployment, placement, total_moves=budget),
    }
    for windows in HISTORIES:
        history = loads[-windows:]
        calls[f"sample-average {windows}, start"] = lambda h=history: sample_average.plan(h, deployment, trials=-1)
        calls[f"sample-average {windows}"] = lambda h=history: sample_average.plan(h, deployment)
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


def seconds(measured: list[Row], policy: str, name: str) -> float:
    """Return the median of a method's times."""
    row = next(r for r in measured if r["suite"] == SUITE and r["instance"] == f"calibrated {policy}")
    return median(row["seconds"][name])


def table(measured: list[Row]) -> str:
    """Return medians and extremes as Markdown."""
    body = []
    for row in (r for r in measured if r["suite"] == SUITE):
        for name, values in row["seconds"].items():
            ms = [f"{1000 * value:.2f}" for value in (median(values), min(values), max(values))]
            body.append([f"{row['instance']}, {name}", *ms, f"{1e6 * median(values) / row['layers']:.1f}", str(len(values))])
    return (
        "## Times\n\nCalibrated trace (synthetic), flagship, 58 layers, one thread, warm, in one process, rounds interleaved; "
        f"migration may move {100 * MOVED_SHARE:.0f} % of the replicas.\n\n"
        + markdown(["policy, method", "median, ms", "least", "most", "us a layer", "calls"], body)
        + "\n"
    )
