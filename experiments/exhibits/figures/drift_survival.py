"""What survives of a planning gain, against the step size of the drift.

Message: better packing pays as long as loads stand still; at the steps of the fitted trace next to nothing of it is left.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import DARK, MIDDLE, figure, save
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.drift_survival import FITTED, SEEDS, STEPS, SUITE, gains, survival

SUITES = (SUITE,)
LOOKS = {"hierarchical": ("o", DARK), "global": ("s", MIDDLE)}


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Gain on the next window in points, and as a part of the gain where planned, with intervals over traces."""
    fig, (left, right) = figure(7.2, 2.6, ncols=2)
    places = range(len(STEPS))
    for policy in POLICIES:
        marker, color = LOOKS[policy]
        for axis, found in (
            (left, [gains(rows, step, policy, "serving") for step in STEPS]),
            (right, [survival(rows, step, policy) for step in STEPS]),
        ):
            bars = [[one.mean - one.low for one in found], [one.high - one.mean for one in found]]
            axis.errorbar(places, [one.mean for one in found], bars, marker=marker, color=color, ms=4.5, capsize=2, label=policy)
    first = next(place for place, step in enumerate(STEPS) if step >= FITTED[0] - 0.02)
    for axis in (left, right):
        axis.axhline(0, color="0.6", lw=0.6)
        axis.axvspan(first, len(STEPS) - 0.7, color="0.93", zorder=0)
        axis.set_xticks(list(places), [f"{step:g}" for step in STEPS])
        axis.set_xlabel("standard deviation of a step of the log loads")
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
    left.set_ylabel("gain on the next window, points")
    right.set_ylabel("of the planning gain, %")
    right.annotate("steps of the fitted trace", (first + 0.05, 0.04), xycoords=("data", "axes fraction"), fontsize=7.5)
    left.legend(fontsize=8)
    left.set_title(f"synthetic, {len(SEEDS)} traces, 95 % intervals over traces", fontsize=8)
    return save(fig, folder, "drift_survival", png=True)
