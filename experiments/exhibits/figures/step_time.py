"""Time against imbalance: the maps that were timed, the hinge through them, and the part where a better balance buys nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.timed_maps import NAME, SUITE, find, hinge

SUITES = (SUITE,)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw the maps and the hinge, and below by how much the hinge through the six others misses each map."""
    row = find(rows)
    fit, imbalance, seconds = hinge(row), row["imbalance"], row["measured"]
    fig, (top, bottom) = figure(5.2, 4.2, nrows=2, sharex=True, height_ratios=(3, 1.2))
    low, high = row["knee_interval"]
    end = max(imbalance) + 0.03
    top.axvspan(1.0, fit.knee, color="0.94", zorder=0)
    bottom.axvspan(1.0, fit.knee, color="0.94", zorder=0)
    line = np.array([1.0, fit.knee, end])
    top.plot(line, [fit.at(float(r)) for r in line], color=DARK, linewidth=1.4, zorder=1, label="hinge through all seven")
    top.errorbar(
        [fit.knee],
        [fit.seconds],
        xerr=[[fit.knee - low], [high - fit.knee]],
        color=DARK,
        marker="|",
        markersize=9,
        capsize=3,
        linewidth=1.2,
        label=f"knee {fit.knee:.3f}, 95 % {low:.3f} to {high:.3f}",
    )
    top.plot(imbalance, seconds, "o", color=MIDDLE, markersize=5, zorder=3, label="timed maps")
    top.annotate(
        "dead zone:\na better\nbalance buys\nnothing",
        (1.004, fit.seconds + 0.62 * np.ptp(seconds)),
        fontsize=7.5,
        color="0.35",
        va="top",
    )
    top.annotate(
        f"{fit.at(fit.knee + 0.01) - fit.at(fit.knee):.2f} s for every\n0.01 of imbalance",
        (1.40, fit.at(1.40)),
        (1.42, fit.at(1.40) - 3.2),
        fontsize=8,
        color=DARK,
        va="top",
    )
    top.set_ylabel("time of all requests, s")
    top.set_title(f"{NAME}, published timings", fontsize=9)
    top.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, 1.0))
    bottom.axhline(0, color="0.7", lw=0.6, zorder=0)
    bottom.plot(imbalance, [100 * error for error in row["left_out_line"]], "s", color=LIGHT, markersize=4, label="straight line")
    bottom.plot(imbalance, [100 * error for error in row["left_out"]], "o", color=MIDDLE, markersize=4, label="hinge")
    bottom.set_ylabel("left-out\nerror, %")
    bottom.set_xlabel("imbalance: fullest GPU over the mean, mean over layers")
    bottom.legend(fontsize=7.5, ncols=2, loc="upper center")
    bottom.set_xlim(0.995, end)
    return save(fig, folder, "step_time", png=True)
