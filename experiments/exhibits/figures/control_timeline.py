"""Served balancedness over the recorded steps, controller by controller, and what each moved.

Message: small and often beats large and rare, at a part of the moves, and wherever the traffic changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.series import SERIES, series
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.controllers import ADAPTIVE, FORESEEING, FULL, NONE, RARE, SAVED, STRETCH, SUITE, find

SUITES = (SUITE,)
NAME = "steps"
POINT = 40
"""Steps of a point of a line."""
LINES = {
    NONE: ("0.65", "-", "no EPLB"),
    RARE: (LIGHT, "-", "every 100 steps, anything moves"),
    SAVED: (MIDDLE, "-", "every 10 steps, 1.8 % move on average"),
    FULL: ("#6f8f5f", "-", "every 10 steps, anything moves"),
    ADAPTIVE: (DARK, "-", "every 10 steps, adaptive"),
    FORESEEING: (DARK, ":", "every 10 steps, knowing them"),
}
"""Colour, line and name of what is drawn."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw a column per policy: balancedness above, moves so far beneath, changes of the traffic as lines."""
    fig, axes = figure(7.4, 4.6, nrows=2, ncols=2, sharex=True, sharey="row", height_ratios=(2.2, 1))
    changes = np.cumsum([phase["steps"] for phase in series(NAME).provenance["phases"]])
    names = [phase["name"] for phase in series(NAME).provenance["phases"]]
    for (top, bottom), policy in zip(axes.T, POLICIES, strict=True):
        for method, (colour, style, label) in LINES.items():
            row = find(rows, NAME, policy, method)
            mean, served = (_points(row[key]) for key in ("stretch_mean", "stretch_served"))
            at = POINT * (np.arange(len(mean)) + 0.5)
            top.plot(at, mean / served, color=colour, linestyle=style, linewidth=1.3, label=label)
            moved = np.cumsum(row["moves"]) / row["layers"]
            if moved[-1] and method != FORESEEING:
                bottom.plot(STRETCH * np.arange(1, len(moved) + 1), moved, color=colour, linestyle=style, linewidth=1.3)
        for axis in (top, bottom):
            axis.axvspan(0, SERIES[NAME].first, color="0.94", linewidth=0)
            for step in changes[:-1]:
                axis.axvline(step, color="0.55", linewidth=0.7, linestyle=(0, (2, 2)))
            axis.grid(axis="y", color="0.92")
            axis.set_axisbelow(True)
        for start, end, name in zip((0, *changes), changes, names, strict=False):
            top.text(
                (start + end) / 2, 1.0, name.replace(" ", "\n"), transform=top.get_xaxis_transform(), ha="center", fontsize=6.5
            )
        top.set_title(policy, pad=20)
        bottom.set_yscale("log")
        bottom.set_xlabel("step (grey: not judged)")
        bottom.set_xlim(0, int(changes[-1]))
    axes[0][0].set_ylabel(f"served balancedness,\n{POINT} steps together")
    axes[1][0].set_ylabel("replicas moved\nso far, per layer")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return save(fig, folder, "control_timeline", png=True)


def _points(values: list[float]) -> np.ndarray:
    return np.add.reduceat(np.array(values), np.arange(0, len(values), POINT // STRETCH))
