"""Time against planning gap of every balancer on the flagship, one panel per policy.

Message: the project's planner reaches smaller gaps in less time than the other balancers.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from eplb_gap.analysis.figures.style import DARK, MIDDLE, figure, save
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.head_to_head import SECONDS_SUITE, mean_gaps, seconds
from eplb_gap.heuristics.own import FAST
from eplb_gap.heuristics.programs.peers import PEERS

SUITES = ("heuristics", SECONDS_SUITE)
SHOWN = {
    "initial_program": "DeepSeek EPLB",
    "vllm-default": "vLLM",
    "sglang-deepseek": "SGLang",
    "sglang-vec": "SGLang vec",
    "swift-balance": "SwiftBalance",
    "tensorrt-llm": "TensorRT-LLM",
    "flashlb": "FlashLB",
}


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Scatter on logarithmic axes with every name beside its point and the front as a line."""
    fig, axes = figure(7.2, 3.6, ncols=2, sharey=True)
    for axis, policy in zip(axes, POLICIES, strict=True):
        timed = seconds(rows, policy)
        points = [
            (1000 * row["median_seconds"], 100 * fmean(mean_gaps(rows, "calibrated", policy, method)), method)
            for method, row in timed.items()
            if method in PEERS or method in FAST or method in SHOWN
        ]
        front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
        front.sort()
        axis.plot([p[0] for p in front], [p[1] for p in front], color="0.8", lw=1, zorder=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        for x, y, method in points:
            own = method in FAST
            axis.plot(
                x, y, marker="o" if own else "s", ms=5, color=DARK if own else MIDDLE, mfc=DARK if own else "none", ls="none"
            )
        axis.set_xlim(min(p[0] for p in points) / 2, max(p[0] for p in points) * 200)
        axis.set_ylim(min(p[1] for p in points) / 1.6, max(p[1] for p in points) * 2.5)
        _label(axis, points)
        axis.set_xlabel("median ms for 58 layers, one thread")
        axis.set_title(f"{policy}, calibrated synthetic loads", fontsize=9)
        axis.grid(color="0.94", which="major")
    axes[0].set_ylabel("mean gap to the certified bound, %")
    return save(fig, folder, "pareto", png=True)


def _label(axis: Any, points: list[tuple[float, float, str]]) -> None:
    """Write the planner's names beside its points, those of the others in a column on the right with lines to their points."""
    others = sorted((p for p in points if p[2] not in FAST), key=lambda p: (p[1], p[0]))
    column = max(p[0] for p in points) * 4
    low, high = (math.log(value) for value in (0.4 * others[0][1], 1.6 * others[-1][1]))
    heights = uncrossed([(math.log(x), math.log(y)) for x, y, _ in others], math.log(column), np.linspace(low, high, len(others)))
    for x, y, method in points:
        if method in FAST:
            offset = (5, -9) if method == "fast-lpt" else (7, 0)  # to its right there are others
            axis.annotate(method, (x, y), offset, textcoords="offset points", fontsize=7, va="center")
    for (x, y, method), height in zip(others, heights, strict=True):
        line = {"arrowstyle": "-", "color": "0.8", "linewidth": 0.5, "relpos": (0, 0.5), "shrinkB": 3}
        axis.annotate(SHOWN.get(method, method), (x, y), (column, math.exp(height)), fontsize=7, va="center", arrowprops=line)


def uncrossed(points: list[tuple[float, float]], column: float, heights: np.ndarray) -> list[float]:
    """Return a height for every point so that no two lines from points to a column cross; a swap of two that do shortens both."""
    found = list(map(float, heights))
    crossing = True
    while crossing:
        crossing = False
        for one, other in itertools.combinations(range(len(points)), 2):
            (x, y), (u, v) = points[one], points[other]
            start = max(x, u)
            before, after = (
                at + (end - at) * (start - left) / (column - left) for left, at, end in ((x, y, found[one]), (u, v, found[other]))
            )
            if (before - after) * (found[one] - found[other]) < 0:
                found[one], found[other] = found[other], found[one]
                crossing = True
    return found
