"""Where serving balance is lost: mean steps of the explanation over all pairs of windows, both traces, both policies.

Message: hardly anything to packing; most to an assignment that is out of date and, on calibrated loads, to the hierarchy.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from statistics import fmean

from eplb_gap.analysis.explain import STEPS
from eplb_gap.analysis.figures.style import figure, save
from eplb_gap.analysis.figures.waterfall import COLOURS
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, TRACES, WINDOWS
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.decomposition import SUITE, steps

SUITES = (SUITE,)
METHOD = "fast"


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw one waterfall per trace and policy: every step starts where the one above ends, the last bar is the whole excess."""
    fig, axes = figure(7.2, 4.4, nrows=len(TRACES), ncols=len(POLICIES), sharex=True, sharey=True)
    for line, name in zip(axes, TRACES, strict=True):
        for axis, policy in zip(line, POLICIES, strict=True):
            values = {key: fmean(found) for key, found in steps(rows, name, policy, METHOD).items()}
            ends = list(accumulate(values.values()))
            for row, ((key, value), end) in enumerate(zip(values.items(), ends, strict=True)):
                axis.barh(row, value, left=end - value, color=COLOURS[key], edgecolor="0.2", linewidth=0.5, height=0.64)
                axis.plot([end, end], [row - 0.32, row + 1.32], color="0.4", linewidth=0.7)
                axis.text(max(end, end - value) + 0.6, row, f"{value:+z.1f}".replace("-", "\u2212"), va="center", fontsize=7.5)
            axis.barh(len(values), ends[-1], color="0.2", height=0.64)
            axis.text(ends[-1] + 0.6, len(values), f"{ends[-1]:.1f}", va="center", fontsize=7.5)
            axis.set_title(f"{name}, {policy}", fontsize=8.5)
            axis.margins(x=0.14)
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(STEPS) + 1), [*(step.label for step in STEPS), f"map of {METHOD}, served"], fontsize=8)
    axes[0, 0].invert_yaxis()
    fig.supxlabel(f"makespan above the mean load on the serving window, % (mean of {WINDOWS - 1} pairs of windows)", fontsize=9)
    fig.suptitle("; ".join(f"{name}: {title}" for name, title in TRACE_TITLES.items()), fontsize=7.5)
    return save(fig, folder, "decomposition", png=True)
