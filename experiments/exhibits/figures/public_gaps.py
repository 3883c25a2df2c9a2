"""Gap of DeepSeek's algorithm and of `fast` on layers of public models, by slots per GPU.

Message: on real counts DeepSeek's algorithm loses up to a fifth, the more the fewer slots a GPU has; `fast` loses next to nothing
at five and three.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import boxes, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.public_gaps import BASE, DEPLOYMENTS, SLOTS, SUITE, SWAPS, find, gaps, given
from eplb_gap.experiments.studies.public_levels import NOT_GIVEN

SUITES = (SUITE,)
LABELS = {BASE: "DeepSeek EPLB", SWAPS: "with two best swaps", "fast": "fast"}
SMALLEST = 0.1
"""Per cent; below it the axis is linear, so that zero has its place."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Box per method, model and number of slots per GPU over layers, whiskers to the extremes."""
    fig, axes = figure(7.2, 3.6, ncols=len(DEPLOYMENTS), sharey=True, sharex=True)
    lines = [(slots, method) for slots in SLOTS for method in LABELS]
    for axis, model in zip(axes, DEPLOYMENTS, strict=True):
        if given(rows):
            found = [[100 * gap for gap in gaps(find(rows, model, slots), method)] for slots, method in lines]
            boxes(axis, found, width=0.6, median=2)
            layers = f"{len(found[0])} layers"
        else:
            layers = NOT_GIVEN
        axis.set_title(f"{model}\n({layers})", fontsize=8)
        axis.set_yticks(range(1, len(lines) + 1), [f"{LABELS[method]}, {slots}" for slots, method in lines])
        for edge in range(1, len(SLOTS)):
            axis.axhline(edge * len(LABELS) + 0.5, color="0.6", linewidth=0.6)
        axis.set_xscale("symlog", linthresh=SMALLEST, linscale=0.4)
        axis.set_xticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
        axis.set_xlim(-0.01, 40)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("method, slots per GPU")
    fig.supxlabel(f"gap to the proven bound, %, of every layer (symlog axis: linear below {SMALLEST:g})", fontsize=9)
    return save(fig, folder, "public_gaps", png=True)
