"""What planning on several past windows is worth on the next one (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from functools import cache
from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import POLICIES, trace
from eplb_gap.experiments.loads.traffic_mix import mixed_trace, stationary_trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import SERVED, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval, paired
from eplb_gap.experiments.studies import sample_average_gaps
from eplb_gap.experiments.studies.numbers import Number, interval_text, span
from eplb_gap.experiments.studies.study import Study
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
ALTERNATING_POINTS, DRIFTING_POINTS = 10.0, -1.5


@cache
def traffic(name: str, seed: int = 0) -> LoadTrace:
    """Return the windows of a kind of traffic; the recorded trace is one, the others are drawn with the seed."""
    if name == "recorded":
        return trace(name)
    if name == "calibrated":
        return calibrated_trace(seed)
    if name == "stationary":
        return stationary_trace(seed)
    return mixed_trace(seed, SIX) if name == "mix of six" else mixed_trace(seed, alternating=name == "alternating")


def instance(traffic_name: str, policy: str, seed: int = 0, **_: object) -> Instance:
    """Return the windows of a kind of traffic under a policy."""
    return traffic(traffic_name, seed).loads, POLICIES[policy]


def history_cell(traffic_name: str, policy: str, windows: int, seed: int = 0) -> Fields:
    """Plan on the last window, on the sum of several, on their sample average and on the chosen forecast; serve the next."""
    loads, deployment = instance(traffic_name, policy, seed)
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


def find(measured: Rows, traffic_name: str, policy: str, windows: int) -> Row:
    """Return the row of one cell."""
    return measured.one(suite=SUITE, trace=traffic_name, policy=policy, method=f"{windows} windows")


def table(measured: Rows) -> str:
    """Return serving balancedness and gains as Markdown."""
    body = []
    for name in TRAFFIC:
        for policy in POLICIES:
            for windows in MERGED:
                row = find(measured, name, policy, windows)
                means = [f"{fmean(row['served'][plan]):.4f}" if row["served"][plan] else "-" for plan in PLANS]
                gains = [interval_text(gain(row, "sample-average", base), 1, sign=True) for base in ("sum", "last")]
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


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of sample-average plans: against plans on the sum, and against proven optima."""
    body = []
    for name in TRAFFIC:
        least = ALTERNATING_POINTS if name in MIXES else DRIFTING_POINTS
        for policy in POLICIES:
            for windows in MERGED:
                mean, low, high = gain(find(measured, name, policy, windows), "sample-average", "sum")
                body.append(
                    [
                        f"sample-average against the sum, {name}, {policy}, m = {windows}",
                        f">= {least:+g} points",
                        f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
                        yes_or_no(mean >= least),
                    ]
                )
    return [*body, sample_average_gaps.level(measured)]


def _gains(name: str, windows: int, base: str) -> Number:
    """Least and largest gain of sample-average plans over both policies."""
    patterns = tuple((SUITE, f"{name} {policy}", f"{windows} windows") for policy in POLICIES)
    return Number(patterns, lambda rows: span((gain(row, "sample-average", base).mean for row in rows), 1, sign=True))


def _pairs(name: str, windows: int) -> Number:
    pattern = (SUITE, f"{name} hierarchical", f"{windows} windows")
    return Number((pattern,), lambda rows: str(len(rows[0]["served"]["last"])))


STUDY = Study(
    SUITE,
    job="serving",
    about="sample-average placement, sums, the last window and forecasts on six kinds of traffic",
    cells=cells,
    shapes=(finding({"served": SERVED, "forecasts": "list of text", "unbeaten": "integer"}),),
    instance=instance,
    table=table,
    levels=levels,
    numbers={
        "mix-last": _gains("mix", 8, "last"),
        "mix-sum": _gains("mix", 8, "sum"),
        "mix-pairs": _pairs("mix", 8),
        "stationary-last": _gains("stationary", 8, "last"),
        "drift-last": _gains("calibrated", 4, "last"),
        "drift-pairs": _pairs("calibrated", 4),
        "fewest-pairs": _pairs("recorded", 8),
        "alternating-short": _gains("alternating", 2, "sum"),
    },
)
