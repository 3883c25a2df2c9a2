"""Pareto front of a calibration: training gap against time of every configuration."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from eplb_gap.analysis.calibration import Calibration, span
from eplb_gap.analysis.candidates import DEEPSEEK, DEFAULT
from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.heuristics.config import FastConfig

NAME = "pareto"
"""Name of the files, without suffix."""


def draw(result: Calibration, title: str, folder: Path) -> list[Path]:
    """Draw all legal configurations, the front as steps, and the names of those on it, the default and DeepSeek's program."""
    legal = [candidate for candidate in result.candidates if candidate.status == "legal"]
    # A gap of zero has no place on a logarithmic axis: it is drawn below the smallest other.
    floor = min((candidate.gap for candidate in legal if candidate.gap > 0), default=1e-6) / 2
    at = {candidate: (candidate.time, 100 * max(candidate.gap, floor)) for candidate in legal}
    fig, axis = figure(6.6, 4.2)
    for ours, marker, color, name in ((False, "o", LIGHT, "pipelines"), (True, "s", DARK, "the project's planner")):
        points = [at[c] for c in legal if isinstance(c.config, FastConfig) == ours]
        axis.scatter(
            *zip(*points, strict=True), s=24, marker=marker, color=color, edgecolor="white", linewidth=0.4, label=name, zorder=3
        )
    axis.step(*zip(*(at[c] for c in result.front), strict=True), where="post", color=DARK, lw=0.9, label="Pareto front", zorder=2)
    axis.scatter(*at[result.chosen], s=130, facecolor="none", edgecolor=MIDDLE, linewidth=1.6, label="chosen", zorder=4)
    if result.budget_ms is not None:
        axis.axvline(result.budget_ms, color=MIDDLE, linewidth=0.8, linestyle=":", label="time budget")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(x=0.1, y=0.12)
    middle = (min(x for x, _ in at.values()) * max(x for x, _ in at.values())) ** 0.5
    for candidate in legal:
        if candidate in result.front or candidate.name in {DEFAULT, DEEPSEEK}:
            _label(axis, candidate.name, at[candidate], left=at[candidate][0] > middle)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    low, high = axis.get_ylim()
    if high < 10 * low:  # at most one power of ten is in sight: the ticks between get numbers
        axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel("CPU time per window, ms (mean over the training windows)")
    axis.set_ylabel("mean gap to the certified bound, %")
    axis.set_title(f"{title}, training on windows {span(result.training)}", fontsize=9)
    axis.grid(color="0.92", which="major")
    axis.set_axisbelow(True)
    fig.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=5)
    return save(fig, folder, NAME, png=True, signed=True)


def _label(axis: Axes, name: str, point: tuple[float, float], left: bool) -> None:
    """Write a name to the right of its point or, where the axes end, to the left and higher, with a line to the point."""
    text = f"{name} (default)" if name == DEFAULT else name
    line = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.6, "relpos": (1, 0.5)} if left else None
    offset, side = ((-10, 24), "right") if left else ((6, 4), "left")
    axis.annotate(text, point, offset, textcoords="offset points", ha=side, fontsize=7.5, arrowprops=line)
