"""The five recommendations of the seed, each measured against its bases: planning gap, serving balancedness and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from statistics import fmean

import numpy as np

import heuristics
from experiments.rows import Row
from experiments.runner import Cell
from experiments.suites import FLAGSHIP, TRACES, WINDOWS, protocol_cell, trace
from experiments.tables import TRACE_TITLES, layer_gaps, markdown, protocol_rows
from heuristics.recommendations import EPSILON, PENALTY, RECOMMENDATIONS

SUITE = "recommendations"
RESAMPLES, BOOTSTRAP_SEED = 10_000, 0
LEVEL = 95.0
REASONS = {
    "two-by-two-swap": "LPT leaves the heaviest and the lightest pack closer together than the heaviest items of one and the lightest of "
    "the other are: nearly always no pair of extremes helps, and the other three pairs are no finer. The full search for the best "
    "partner (program 6) contains the four pairs and finds finer ones. A swap between these two packs cannot lower the maximum below "
    "that of the second heaviest pack either.",
    "two-by-two-swaps": "As with one step: where the first finds no pair, there is no second.",
    "adams-fix-up": "Proven: Adams' method minimises `max w/c` for the given number of slots, so no move can lower it; the maps are the same "
    "to the last bit and the test only costs time.",
    "hamilton-fix-up": "Hamilton's rounding leaves `max w/c` above Adams', so that a move often helps; one move per node does not catch "
    "up with Adams, the program to compare with.",
    "diversity-epsilon": "Counting repeats first puts a replica on a heavier GPU whenever the lightest holds one already; within a "
    f"tolerance of {EPSILON:g} mean GPU loads it costs less. Adams' replicas are large and come first, when GPUs still differ little, "
    "so plain LPT makes few repeats and they cost a wasted slot, not load: the planning gap does not see them.",
    "diversity-penalty": f"As the tolerance, with a price of {PENALTY:g} mean GPU loads per repeat.",
    "hybrid-on-copies": "Jefferson's method favours experts that have many copies already: `max w/c` of the others rises, and by Adams' "
    "optimality it cannot fall. What the largest replica is hardly binds at nine slots per GPU, where many small ones fill the gaps.",
    "hybrid-on-extras": "Adams' own counts but for the last replica of a node (a tenth of eight extras, at least one), which goes to an "
    "expert with one copy more often: `max w/c` cannot fall.",
    "stage-specific-swaps": "With two groups per node LPT pairs the heaviest with the lightest, which is optimal, and no swap of groups "
    "helps: one or two steps there are the same. The second step on GPUs works on the next heaviest GPU once the first is mended.",
}
"""Why, in words, by recommendation."""


def recommendation_cell(trace_name: str, window: int, method: str) -> Row:
    """Plan one window and score it, then time the program and its bases once each, warm, one after the other."""
    import torch

    torch.set_num_threads(1)
    fields = protocol_cell(trace_name, window, method)
    loads = trace(trace_name).loads[window]
    timed = [*RECOMMENDATIONS[method].bases, method]
    heuristics.rebalance(loads[:1], FLAGSHIP, timed[0])
    seconds = {}
    for name in timed:
        start = time.thread_time()
        heuristics.rebalance(loads, FLAGSHIP, name)
        seconds[name] = time.thread_time() - start
    return {**fields, "seconds": seconds}


def cells() -> list[Cell]:
    """Return the cells: every recommendation on every window of both traces; its bases are in the suite "protocol"."""
    return [
        Cell(
            SUITE,
            f"{name}-{window:02d}",
            method,
            recommendation_cell,
            {"trace_name": name, "window": window, "method": method},
        )
        for name in TRACES
        for window in range(WINDOWS)
        for method in RECOMMENDATIONS
    ]


def interval(differences: np.ndarray, of: Callable[..., np.ndarray] = np.mean) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean (or median) of paired differences.

    Parameters
    ----------
    differences : ndarray
        float64 [windows] or [windows, layers]. Windows are drawn with replacement and, independently, layers are: the layers of
        one window and the windows of one layer resemble each other, and pairs drawn one by one would look too certain.
    of : callable, default numpy.mean
        ``of(values, axis=...)``.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    table = differences.reshape(len(differences), -1)
    estimates = np.empty(RESAMPLES)
    for at in range(RESAMPLES):
        windows = generator.integers(table.shape[0], size=table.shape[0])
        layers = generator.integers(table.shape[1], size=table.shape[1])
        estimates[at] = of(table[windows[:, None], layers])
    low, high = np.percentile(estimates, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def verdict(low: float, high: float, less_is_better: bool) -> str:
    """Say what an interval of differences means: nothing, unless it excludes 0."""
    if low <= 0 <= high:
        return "does nothing"
    return "helps" if (high < 0) == less_is_better else "hurts"


def table(measured: list[Row]) -> str:
    """Return the recommendations against their bases as Markdown, one table per trace, and the reasons.

    Parameters
    ----------
    measured : list of dict
        Rows of the suites "recommendations" and "protocol" (bases and certified bounds).
    """
    parts = [
        "## The five recommendations, measured",
        "Every recommendation against the program it would change (first base) and what else it must be held against. Planning gap: "
        "mean over layers and windows of the gap to the certified hierarchical bound; serving: GPU-level balancedness on the next "
        "window, in points of a hundred. Differences are recommendation minus base, paired over windows (and layers), with "
        f"{LEVEL:g} % bootstrap intervals ({RESAMPLES} resamples of whole windows and, independently, whole layers, seed "
        f"{BOOTSTRAP_SEED}). Rule: *helps* or *hurts* only where the interval excludes 0, otherwise *does nothing*. Time: median over "
        "windows of the ratio of CPU seconds, both run one after the other in one process.",
        *(_table(measured, name) for name in TRACES),
        "### Why",
        "\n".join(f"* `{name}` ({RECOMMENDATIONS[name].number}): {text}" for name, text in REASONS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(measured: list[Row], trace_name: str) -> str:
    optimum = protocol_rows(measured, trace_name, "auto")
    lower = [[Fraction(value) for value in row["lower"]] for row in optimum]
    body = []
    for method, recommendation in RECOMMENDATIONS.items():
        ours = sorted(
            (r for r in measured if r["suite"] == SUITE and r["method"] == method and r["instance"].startswith(trace_name)),
            key=lambda r: r["instance"],
        )
        for base in recommendation.bases:
            theirs = protocol_rows(measured, trace_name, base)
            same = all(a["placement"] == b["placement"] for a, b in zip(ours, theirs, strict=True))
            gaps, base_gaps = (
                100 * np.array([layer_gaps(row, low) for row, low in zip(side, lower, strict=True)]) for side in (ours, theirs)
            )
            serving, base_serving = (
                100 * np.array([row["serving"]["gpu"] for row in side if row["serving"]]) for side in (ours, theirs)
            )
            ratios = [row["seconds"][method] / row["seconds"][base] for row in ours]
            planned, served = interval(gaps - base_gaps), interval(serving - base_serving)
            body.append(
                [
                    f"{recommendation.number} `{method}`",
                    f"`{base}`",
                    f"{base_gaps.mean():.3f}",
                    _difference(gaps - base_gaps, planned),
                    "does nothing (same maps)" if same else verdict(*planned, less_is_better=True),
                    _difference(serving - base_serving, served),
                    "does nothing (same maps)" if same else verdict(*served, less_is_better=False),
                    f"{statistics.median(ratios):.2f}",
                    f"{fmean(r['duplicates'] for r in ours):.1f} / {fmean(r['duplicates'] for r in theirs):.1f}",
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


def _difference(values: np.ndarray, limits: tuple[float, float]) -> str:
    return f"{values.mean():+.3f} [{limits[0]:+.3f}, {limits[1]:+.3f}]"
