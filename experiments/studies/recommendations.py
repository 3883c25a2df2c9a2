"""The five recommendations of the seed, each measured against its bases: planning gap, serving balancedness and time."""

from __future__ import annotations

import time
from statistics import fmean, median
from typing import NamedTuple

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import FLAGSHIP, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import BALANCE, PLANNED, Shape, solver
from eplb_gap.experiments.measuring.rows import Fields, Rows, layer_gaps
from eplb_gap.experiments.measuring.statistics import LEVEL, RESAMPLES, SEED, two_way_interval
from eplb_gap.experiments.studies import protocol
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.protocol import protocol_cell, window_solver_cell
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS

SUITE = "recommendations"
BOUND = "auto"
BASES = tuple(dict.fromkeys(base for recommendation in RECOMMENDATIONS.values() for base in recommendation.bases))
REASONS = {
    "two-by-two-swap": "After LPT the heaviest and the lightest GPU differ by much less than the heaviest items of the one "
    "and the lightest of the other do. Such a pair overshoots, so the one pair of the base is nearly always declined, and "
    "so are all four. What helps is a pair of about half the difference: the full search (program 6) contains the four "
    "pairs and finds it.",
    "two-by-two-swaps": "As with one step: where the first finds no pair there is no second.",
    "adams-fix-up": "Proven: Adams' method minimises `max w/c` for the given number of slots, so that no move can lower it. "
    "The maps are the same to the last bit. (The seed moves a replica from the largest `w/c` to the smallest, which raises "
    "the maximum.)",
    "hamilton-fix-up": "Hamilton's quotas are of the extra replicas, which starves hot experts: where loads are skewed, `max "
    "w/c` is above Adams' and a move lowers it. It cannot pass Adams (second base), whose maximum is the least possible; on "
    "the milder recorded loads both agree on it already.",
    "diversity-epsilon": "On the planning window a GPU's load is the same whether it holds two replicas of one expert or of "
    "two: the gap does not see duplicates, and the tie-breaker costs nothing there. On the next window a duplicate doubles "
    "the error of one expert's forecast on one GPU: serving follows the number of duplicates, the hard rule (first base, "
    "none) before the tie-breaker before plain LPT (second base). The 58 calibrated layers show it, the eight recorded ones "
    "do not.",
    "diversity-penalty": "As the tolerance; with at most one repeat in question, price and tolerance of one size decide alike.",
    "hybrid-on-copies": "Jefferson's method gives hot experts more and the others fewer copies than Adams': `max w/c` "
    "cannot fall. It hardly matters at nine slots per GPU, where the largest replica is far below a GPU's load and LPT "
    "levels what is left.",
    "hybrid-on-extras": "Adams' counts but for the last replica of a node (a tenth of its eight extras, at least one), "
    "which goes to an expert with a single copy more often: `max w/c` cannot fall, and as above it is not what binds.",
    "stage-specific-swaps": "The second step on the GPUs mends the next heaviest GPU, which is why it helps against one "
    "step. With two groups per node LPT pairs the heaviest with the lightest, which is optimal: no group swap helps, and "
    "saving a step there changes nothing (second base).",
}
"""Why, in words, by recommendation."""


def recommendation_cell(trace_name: str, window: int, method: str) -> Fields:
    """Plan one window and score it; for a recommendation, time it and its bases once each, warm, one after the other."""
    import torch

    torch.set_num_threads(1)
    fields = protocol_cell(trace_name, window, method)
    if method not in RECOMMENDATIONS:
        return fields
    loads = trace(trace_name).loads[window]
    seconds = {}
    for name in (*RECOMMENDATIONS[method].bases, method):
        heuristics.rebalance(loads[:1], FLAGSHIP, name)
        start = time.thread_time()
        heuristics.rebalance(loads, FLAGSHIP, name)
        seconds[name] = time.thread_time() - start
    return {**fields, "seconds": seconds}


def cells() -> list[Cell]:
    """Return the cells: recommendations, bases and certified bounds on every window of both traces."""
    found = []
    for name in TRACES:
        for window in range(WINDOWS):
            at = {"trace_name": name, "window": window}
            instance = f"{name}-{window:02d}"
            found += [
                Cell(SUITE, instance, method, recommendation_cell, {**at, "method": method})
                for method in (*RECOMMENDATIONS, *BASES)
            ]
            found.append(Cell(SUITE, instance, BOUND, window_solver_cell, at))
    return found


def verdict(differences: np.ndarray, less_is_better: bool) -> str:
    """Say what paired differences mean: nothing, unless their interval excludes 0."""
    _, low, high = two_way_interval(differences)
    if low <= 0 <= high:
        return "does nothing" if differences.any() else "does nothing (all equal)"
    return "helps" if (high < 0) == less_is_better else "hurts"


def table(measured: Rows) -> str:
    """Return the recommendations against their bases as Markdown, one table per trace, and the reasons."""
    parts = [
        "## The five recommendations, measured",
        "Every recommendation against the program it would change (first base) and against what else does its work. Planning "
        "gap: to the certified hierarchical bound, mean over layers and windows. Serving: GPU-level balancedness on the next "
        "window, in points of a hundred. Differences are recommendation minus base, paired over windows (and layers), with "
        f"{100 * LEVEL:g} % bootstrap intervals ({RESAMPLES} resamples of whole windows and, independently, of whole layers, "
        f"seed {SEED}). Rule: *helps* or *hurts* only where the interval excludes 0, *does nothing* otherwise. Time: median "
        "over windows of the ratio of CPU seconds, recommendation and base run one after the other in one process; the two "
        "diversity rules loop over Python's numbers and their bases over tensors, as published, so that those ratios say "
        "something of the programs and nothing of the rules.",
        *(_table(measured, name) for name in TRACES),
        "### Why",
        "\n".join(f"* `{name}` ({RECOMMENDATIONS[name].number}): {text}" for name, text in REASONS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(measured: Rows, trace_name: str, method: str) -> Rows:
    """Return the rows of one method on all windows of a trace, oldest first."""
    found = measured.where(suite=SUITE, trace=trace_name, method=method)
    return Rows(sorted(found, key=lambda row: row["instance"]))


class Comparison(NamedTuple):
    """A recommendation against a base: paired differences in %, and what the base leaves."""

    method: str
    base: str
    planned: np.ndarray
    """float64 [windows, layers], gap of the recommendation minus gap of the base."""
    served: np.ndarray
    """float64 [pairs], balancedness on the next window likewise."""
    base_gap: float


def comparisons(measured: Rows, trace_name: str) -> list[Comparison]:
    """Return every recommendation against its bases, the program that it would change first."""
    lower = [row.lower for row in _rows(measured, trace_name, BOUND)]
    rows = {method: _rows(measured, trace_name, method) for method in (*RECOMMENDATIONS, *BASES)}
    gaps = {m: 100 * np.array([layer_gaps(r, low) for r, low in zip(rows[m], lower, strict=True)]) for m in rows}
    serving = {m: 100 * np.array([row["serving"]["gpu"] for row in rows[m] if row["serving"]]) for m in rows}
    return [
        Comparison(method, base, gaps[method] - gaps[base], serving[method] - serving[base], float(gaps[base].mean()))
        for method, recommendation in RECOMMENDATIONS.items()
        for base in recommendation.bases
    ]


def _table(measured: Rows, trace_name: str) -> str:
    body = []
    for found in comparisons(measured, trace_name):
        own, base = (_rows(measured, trace_name, method) for method in (found.method, found.base))
        body.append(
            [
                f"{RECOMMENDATIONS[found.method].number} `{found.method}`",
                f"`{found.base}`",
                f"{found.base_gap:.3f}",
                _difference(found.planned),
                verdict(found.planned, less_is_better=True),
                _difference(found.served),
                verdict(found.served, less_is_better=False),
                f"{median(row['seconds'][found.method] / row['seconds'][found.base] for row in own):.2f}",
                f"{fmean(r['duplicates'] for r in own):.1f} / {fmean(r['duplicates'] for r in base):.1f}",
            ]
        )
    header = [
        "recommendation",
        "base",
        "base's planning gap, %",
        "planning gap, difference in % points",
        "planning verdict",
        "serving balancedness, difference in points",
        "serving verdict",
        "time / base's",
        "duplicates per window, own / base's",
    ]
    return f"### {trace_name.capitalize()} trace ({TRACE_TITLES[trace_name]})\n\n" + markdown(header, body)


def _difference(differences: np.ndarray) -> str:
    mean, low, high = two_way_interval(differences)
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def _count(side: str, said: str | None) -> Number:
    """Of the recommendations against the programs they would change, on both traces: how many get a verdict, or all."""

    def compute(measured: Rows) -> str:
        first = [
            found
            for name in TRACES
            for found in comparisons(measured, name)
            if found.base == RECOMMENDATIONS[found.method].bases[0]
        ]
        verdicts = [verdict(getattr(found, side), side == "planned") for found in first]
        return str(len(verdicts) if said is None else verdicts.count(said))

    return Number(((SUITE, "*", "*"),), compute)


STUDY = Study(
    SUITE,
    job="heuristics",
    about="the five recommendations of the published search against their bases",
    cells=cells,
    shapes=(solver(), Shape("heuristic", PLANNED | BALANCE, {"seconds": "object of number"})),
    instance=protocol.instance,
    table=table,
    numbers={
        "recommended": _count("planned", None),
        "recommended-helps-planning": _count("planned", "helps"),
        "recommended-hurts-planning": _count("planned", "hurts"),
        "recommended-helps-serving": _count("served", "helps"),
        "recommended-hurts-serving": _count("served", "hurts"),
    },
)
