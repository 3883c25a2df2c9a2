"""Served balancedness against replicas moved per step and layer: fixed controllers, adaptive ones, and one that knows the future.

Message: how often and how little one moves matters more than the planner; the adaptive controllers are near the front.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.series import RECORDED
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.controllers import (
    ADAPTIVE,
    ADAPTIVE_SMALL,
    AVERAGE_WINDOWS,
    FORESEEING,
    FULL_WINDOWS,
    RARE,
    SAVED_WINDOWS,
    SMALL_WINDOWS,
    SUITE,
    find,
    moves_per_step,
)

SUITES = (SUITE,)
KINDS = {
    "full re-plan every 100 steps": ((RARE,), LIGHT, "D"),
    "every 10 steps, at most 2 % move": (tuple(SMALL_WINDOWS), MIDDLE, "o"),
    "every 10 steps, 1.8 % move on average": (tuple(SAVED_WINDOWS), "#e3b778", "v"),
    "every 10 steps, anything moves": (tuple(FULL_WINDOWS), "#6f8f5f", "s"),
    "the same, sample-average": (tuple(AVERAGE_WINDOWS), "#8d6a9f", "^"),
    "adaptive, limited or not": ((ADAPTIVE_SMALL, ADAPTIVE), DARK, "*"),
}
"""Methods, colour and marker of what is drawn; windows from 10 to 160 steps."""
TITLES = {"steps": "tuned on", "rhythm": "held out"}


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw a panel per recording and policy."""
    fig, axes = figure(7.2, 2.9, ncols=4, sharex=True)
    panels = [(name, policy) for policy in POLICIES for name in RECORDED]
    for axis, (name, policy) in zip(axes, panels, strict=True):
        for label, (methods, colour, marker) in KINDS.items():
            found = [find(rows, name, policy, method) for method in methods]
            axis.plot(
                [moves_per_step(row) for row in found],
                [row["balancedness"] for row in found],
                color=colour,
                marker=marker,
                markersize=9 if marker == "*" else 4,
                linestyle="none",
                label=label,
                zorder=4 if marker == "*" else 3,
            )
        seen = find(rows, name, policy, FORESEEING)["balancedness"]
        axis.axhline(seen, color="0.4", linewidth=1, linestyle=":", label="knowing the steps to come")
        axis.set_xscale("log")
        axis.set_xlabel("replicas moved per\nstep and layer", fontsize=8)
        axis.set_title(f"{policy},\n{name} ({TITLES[name]})", fontsize=8)
        axis.tick_params(labelsize=7.5)
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
    axes[0].set_ylabel("served balancedness")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7.5)
    return save(fig, folder, "control_front")
