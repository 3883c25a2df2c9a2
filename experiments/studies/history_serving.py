"""What planning on several past windows is worth on the next one (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from functools import cache
from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.loads.traffic_mix import mixed_trace, stationary_trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.statistics import Interval, paired
from eplb_gap.heuristics.serving.forecast import choose
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.validation import verify

SUITE = "history"
MERGED = (2, 4, 8)
"""Past windows that are planned on."""
TRAFFIC = {
    "recorded": "recorded from a small model trained for this purpose; shifting",
    "calibrated": "synthetic, calibrated, seed 0; drifting",
    "mix": "recorded model, every window one of three domains at random, seed 0",
    "alternating": "recorded model, three domains in turn, seed 0",
    "mix of six": "recorded model, every window one of six domains at random, seed 0",
    "stationary": "recorded model, steps of all domains shuffled, seed 0",
}
MIXES = ("mix", "alternating", "mix of six")
SIX = ("c_headers", "dictionary", "english", "french", "german", "python")
PLANS = ("last", "sum", "sample-average", "forecast")
FEWEST_TO_FORECAST = 4


@cache
def traffic(name: str) -> LoadTrace:
    """Return the windows of a kind of traffic."""
    if name in ("recorded", "calibrated"):
        return trace(name)
    if name == "stationary":
        return stationary_trace(0)
    return mixed_trace(0, SIX) if name == "mix of six" else mixed_trace(0, alternating=name == "alternating")


def history_cell(traffic_name: str, policy: str, windows: int) -> Row:
    """Plan on the last window, on the sum of several, on their sample average and on the chosen forecast; serve the next."""
    deployment, loads = POLICIES[policy], traffic(traffic_name).loads
    served: dict[str, list[float]] = {name: [] for name in PLANS}
    chosen, unbeaten = [], 0
    for serve in range(windows, len(loads)):
        history = loads[serve - windows : serve]
        plans = {
            "last": heuristics.rebalance(history[-1], deployment),
            "sum": heuristics.rebalance(history, deployment),
            "sample-average": heuristics.rebalance(history, deployment, "sample-average"),
        }
        if windows >= FEWEST_TO_FORECAST:
            forecast = choose(history, deployment)
            chosen.append(forecast.name)
            unbeaten += not forecast.beats_last_window
            plans["forecast"] = heuristics.rebalance(forecast.loads, deployment)
        for name, placement in plans.items():
            verify(placement, loads[serve], deployment)
            served[name].append(balancedness_gpu(placement, loads[serve], deployment.num_gpus))
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": windows},
        "status": "legal",
        "served": served,
        "forecasts": chosen,
        "unbeaten": unbeaten,
    }


def cells() -> list[Cell]:
    """Return the cells: every traffic, both policies, several lengths of history."""
    return [
        Cell(
            SUITE,
            f"{name} {policy}",
            f"{windows} windows",
            history_cell,
            {"traffic_name": name, "policy": policy, "windows": windows},
        )
        for name in TRAFFIC
        for policy in POLICIES
        for windows in MERGED
    ]


def gain(row: Row, method: str, base: str) -> Interval:
    """Return the mean gain in points of balancedness over another plan and its 95 % bootstrap interval over window pairs.

    Pairs share windows of history, so the interval is narrower than that of independent pairs would be.
    """
    return paired(row["served"][method], row["served"][base]).difference.scaled(100)


def find(measured: list[Row], traffic_name: str, policy: str, windows: int) -> Row:
    """Return the row of one cell."""
    key = SUITE, f"{traffic_name} {policy}", f"{windows} windows"
    return next(row for row in measured if (row["suite"], row["instance"], row["method"]) == key)


ADVICE = (
    ("drifting", "calibrated", 4, "plan on the last window"),
    ("alternating", "mix", 8, 'plan with `method="sample-average"` on at least as many windows as there are kinds of traffic'),
    ("stationary", "stationary", 8, "plan on a history: `sample-average`, or the sum"),
)
"""Kind of traffic, the traffic it was measured on, windows of history, what to do."""


def advice(measured: list[Row]) -> str:
    """Return what to do on each kind of traffic, with its measured gain, as Markdown list items."""
    lines = []
    for kind, name, windows, what in ADVICE:
        gains = []
        for policy in POLICIES:
            row = find(measured, name, policy, windows)
            against = [
                f"{gain(row, 'sample-average', base)[0]:+.1f} against the {where}"
                for base, where in (("last", "last window"), ("sum", f"sum of {windows}"))
            ]
            gains.append(f"{policy} {', '.join(against)}")
        lines.append(f"* *{kind}* ({TRAFFIC[name]}): {what}; `sample-average` there, points: {'; '.join(gains)}.")
    return "\n".join(lines)


def table(measured: list[Row]) -> str:
    """Return serving balancedness and gains as Markdown."""
    body = []
    for name in TRAFFIC:
        for policy in POLICIES:
            for windows in MERGED:
                row = find(measured, name, policy, windows)
                means = [f"{fmean(row['served'][plan]):.4f}" if row["served"][plan] else "-" for plan in PLANS]
                gains = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*gain(row, "sample-average", base)) for base in ("sum", "last")]
                unbeaten = f"{row['unbeaten']} of {len(row['forecasts'])}" if row["forecasts"] else "-"
                body.append([f"{name}, {policy}, {windows}", str(len(row["served"]["last"])), *means, *gains, unbeaten])
    kinds = "; ".join(f"{name}: {title}" for name, title in TRAFFIC.items())
    return (
        "## Planning on a history\n\nGPU balancedness on the window after the history (flagship), mean over the pairs: "
        "planned with `fast` on the last window, on the sum, on the forecast that did best so far, and with `sample-average`. "
        "Gains of `sample-average` in points, with 95 % bootstrap intervals over the pairs, which overlap. The last column says "
        f"how often no forecast had beaten the last window. Traffic: {kinds}.\n\n"
        + markdown(
            [
                "traffic, policy, windows",
                "pairs",
                *PLANS,
                "against the sum",
                "against the last window",
                "last window unbeaten",
            ],
            body,
        )
        + "\n"
    )
