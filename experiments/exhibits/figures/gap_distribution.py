"""Gap of every program to the certified hierarchical optimum, all layers and windows of both traces.

Message: most programs are within a few percent of optimal; unchecked swaps (programs 2 and 4) are the worst.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import SHORT_NAMES, boxes, figure, save
from eplb_gap.experiments.loads.traces import TRACE_TITLES, TRACES
from eplb_gap.experiments.measuring.rows import Rows, layer_gaps
from eplb_gap.experiments.studies.protocol import on_windows
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

SUITES = ("protocol",)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Box per program and trace, whiskers over all layers and windows."""
    fig, axes = figure(7.2, 3.6, ncols=2, sharey=True)
    for axis, name in zip(axes, TRACES, strict=True):
        lower = [row.lower for row in on_windows(rows, name, "auto")]
        gaps = [
            [100 * gap for row, low in zip(on_windows(rows, name, method), lower, strict=True) for gap in layer_gaps(row, low)]
            for method in SEED_PROGRAMS
        ]
        boxes(axis, gaps, width=0.6, median=2)
        axis.set_yticks(range(1, len(gaps) + 1), [SHORT_NAMES[m] for m in SEED_PROGRAMS])
        axis.set_xscale("symlog", linthresh=0.1, linscale=0.4)
        axis.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axis.set_xlim(left=0)
        axis.set_xlabel("gap to certified hierarchical bound, %\n(symlog axis: linear below .1)")
        axis.set_title(f"{name} trace\n({TRACE_TITLES[name]})", fontsize=8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0].invert_yaxis()
    return save(fig, folder, "gap_distribution", png=True)
