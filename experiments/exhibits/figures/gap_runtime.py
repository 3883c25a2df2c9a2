"""Mean gap against runtime of the ten programs.

Message: the fast programs pay with their gap, and the others cost about as much time as DeepSeek's.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from eplb_gap.analysis.figures.style import DARK, SHORT_NAMES, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.gaps import FLAGSHIP_CASE, gaps
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

SUITES = ("gap", "runtime")


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Scatter with the program's name beside every point."""
    fig, axis = figure(6.4, 3.8)
    points = []
    for method in SEED_PROGRAMS:
        seconds = rows.one(suite="runtime", method=method)["median_seconds"]
        points.append((1000 * seconds, 100 * fmean(gaps(rows, FLAGSHIP_CASE, method)), SHORT_NAMES[method]))
    axis.scatter([p[0] for p in points], [p[1] for p in points], color=DARK, s=22, zorder=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(min(p[0] for p in points) / 1.6, max(p[0] for p in points) * 9)
    low, high = min(p[1] for p in points) / 1.4, max(p[1] for p in points) * 1.6
    axis.set_ylim(low, high)
    _label(axis, sorted(points, key=lambda p: (round(p[1], 2), -p[0])), low, high)
    axis.set_xlabel("median time for 58 layers, ms (one thread, one invocation)")
    axis.set_ylabel("mean gap to the certified bound, %")
    axis.set_title("Flagship hierarchical, calibrated synthetic loads", fontsize=9)
    axis.grid(color="0.92", which="major")
    return save(fig, folder, "gap_runtime")


def _label(axis: Axes, points: list[tuple[float, float, str]], low: float, high: float) -> None:
    """Write the names to the right of the points, pushed upwards where they would overlap."""
    least = (high / low) ** 0.055
    floor = {True: 0.0, False: 0.0}
    for x, y, name in points:
        slow = x > 100
        at = max(y, floor[slow] * least)
        floor[slow] = at
        right = (max(p[0] for p in points) if slow else x) * 1.25
        axis.annotate(
            name,
            (x, y),
            (right, at),
            fontsize=7.5,
            va="center",
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": "0.7", "linewidth": 0.6},
        )
