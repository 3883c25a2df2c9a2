"""Share of 40 instances that every method closes, and that it has within a thousandth of its own bound, against time.

Message: the pattern model of the literature, solved as a textbook has it, does not replace engines made for the regimes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies.baseline_profile import METHODS, SECONDS, SUITE

SUITES = (SUITE,)
LOOKS = {"auto": (DARK, "-"), "price-and-branch": (MIDDLE, "--"), "milp": ("0.35", "-."), "cpsat": (LIGHT, ":")}
LABELS = {"auto": "eplb-gap engines", "price-and-branch": "price and branch", "milp": "MILP (HiGHS)", "cpsat": "CP-SAT"}
PANELS = ((0.0, "makespan and bound meet"), (1e-3, "gap of at most 0.1 %"))
SMALLEST_SECONDS = 1e-3


def _seconds_until(row: Row, gap: float) -> float:
    """Return after how many seconds a method's own gap was so small; infinite where it never was."""
    return min((elapsed for elapsed, reached in row["trajectory"] if reached <= gap), default=float("inf"))


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw one panel for each gap; claimed bounds count."""
    fig, axes = figure(7.2, 2.8, ncols=len(PANELS), sharey=True)
    for axis, (gap, title) in zip(axes, PANELS, strict=True):
        for method in METHODS:
            at = rows.where(suite=SUITE, method=method)
            times = np.sort([_seconds_until(row, gap) for row in at])
            ended = np.maximum(times[np.isfinite(times)], SMALLEST_SECONDS)
            share = np.arange(1, len(ended) + 1) / len(at)
            color, line = LOOKS[method]
            steps = [0, *share, share[-1] if len(ended) else 0]
            axis.step([SMALLEST_SECONDS, *ended, SECONDS], steps, where="post", color=color, ls=line, label=LABELS[method])
        axis.set_xscale("log")
        axis.set_ylim(0, 1)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("seconds (log axis), one thread")
        axis.grid(color="0.92")
    axes[0].set_ylabel("share of instances")
    axes[0].legend(fontsize=7.5, loc="upper left")
    return save(fig, folder, "baseline_profile", png=True)
