"""How far from optimal each family of balancers is, regime by regime."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import boxes, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.regimes import BASE, REGIMES, SOLVER, SUITE, gaps
from eplb_gap.heuristics.own import FAST

SUITES = (SUITE,)
OWN = ("fast", "fast-split")
LABELS = ("DeepSeek EPLB", "best of the other\npublished programs,\nper layer", "fast", "fast-split")
SMALLEST = 1e-3
"""Per cent; below it the axis is linear, so that zero has its place."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Box per balancer and regime over layers, whiskers to the extremes; the share at gap zero beside it."""
    fig, axes = figure(7.6, 2.6, ncols=len(REGIMES), sharey=True, sharex=True)
    found = gaps(rows)
    for axis, name in zip(axes, REGIMES, strict=True):
        samples = [[100 * gap for gap in of] for of in boxes_of(found[name])]
        boxes(axis, samples, width=0.45, median=2.5)
        for place, of in enumerate(samples, start=1):
            if of:
                share = sum(gap == 0 for gap in of) / len(of)
                axis.text(0.98, place - 0.3, f"{share:.0%} at 0", transform=axis.get_yaxis_transform(), ha="right", fontsize=6.5)
        axis.set_yticks(range(1, len(LABELS) + 1), LABELS)
        axis.set_xscale("symlog", linthresh=SMALLEST, linscale=0.5)
        axis.set_xticks([0, 0.01, 1, 100], ["0", ".01", "1", "100"])
        axis.set_xlim(-0.0005, 300)
        axis.set_title(name, fontsize=8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0].invert_yaxis()
    fig.supxlabel(f"gap to the solver's bound, %, of every layer (symlog axis: linear below {SMALLEST:g})", fontsize=9)
    return save(fig, folder, "regime_gaps", png=True)


def boxes_of(found: dict[str, dict[str, list[float]]]) -> list[list[float]]:
    """Return the gaps of all layers of one regime, for each of ``LABELS``."""
    others = [of for method, of in found.items() if method not in {BASE, SOLVER, *FAST}]
    best = []
    for instance in found.get(BASE, {}):
        best += [min(layer) for layer in zip(*(of[instance] for of in others if instance in of), strict=True)]
    return [_layers(found, BASE), best, *(_layers(found, method) for method in OWN)]


def _layers(found: dict[str, dict[str, list[float]]], method: str) -> list[float]:
    return [gap for of in found.get(method, {}).values() for gap in of]
