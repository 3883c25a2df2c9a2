"""What redundant slots buy: the price of having fewer than 64, on the window planned on and in service."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.traces import TRACE_TITLES, TRACES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.redundancy import EXPERTS, MOST, SUITE, SWEEP, price, served_price

SUITES = (SUITE,)
LOOKS = {
    ("hierarchical", 32): (MIDDLE, "s", "-", 1.2),
    ("global", 64): (DARK, "D", "-", 0.6),
    ("global", 32): (DARK, "o", "--", 0.0),
    ("global", 16): (LIGHT, "^", "-", -0.6),
    ("global", 8): ("0.4", "v", ":", -1.2),
}
"""Colour, marker, line, and shift to the right in slots, so that bars do not hide each other."""
Ends = tuple[float, ...]
"""Middle, low and high end of a bar."""
LINEAR_TO, TICKS = 5, (-4, -2, 0, 2, 4, 10, 20, 40)
"""The scale is linear up to 5 %, logarithmic beyond."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw both prices over redundant slots, one column per trace; bars span the proven bounds, or the bootstrap interval."""
    fig, axes = figure(7.2, 4.2, nrows=2, ncols=2, sharex=True, sharey=True)
    for column, name in enumerate(TRACES):
        for look, slots in SWEEP.items():
            bounds = [price(rows, name, *look, redundant) for redundant in slots]
            planned: list[Ends] = [((low + high) / 2, low, high) for low, high in bounds]
            served: list[Ends] = [tuple(served_price(rows, name, *look, redundant)) for redundant in slots]
            for axis, ends in ((axes[0, column], planned), (axes[1, column], served)):
                _line(axis, look, list(slots), ends)
        axes[0, column].set_title(f"{name} trace\n({TRACE_TITLES[name]})", fontsize=8)
        axes[1, column].set_xlabel(f"redundant slots ({EXPERTS} experts)")
        axes[1, column].set_xticks(range(0, MOST + 1, 16))
    axes[0, 0].set_yscale("symlog", linthresh=LINEAR_TO)
    axes[0, 0].set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes[0, 0].set_ylim(-LINEAR_TO, 70)
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylabel(f"window planned on\n(symlog, linear to {LINEAR_TO:g})")
    axes[1, 0].set_ylabel("next window")
    fig.supylabel(f"makespan above that with {MOST} redundant slots, %", fontsize=9)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    return save(fig, folder, "redundancy")


def _line(axis: Axes, look: tuple[str, int], slots: list[int], ends: list[Ends]) -> None:
    colour, marker, line, shift = LOOKS[look]
    bars = [[middle - low for middle, low, _ in ends], [high - middle for middle, _, high in ends]]
    axis.errorbar(
        [slot + shift for slot in slots],
        [middle for middle, _, _ in ends],
        bars,
        color=colour,
        marker=marker,
        linestyle=line,
        markersize=4.5,
        capsize=2,
        linewidth=1.2,
        label=f"{look[1]} GPUs, {look[0]}",
    )
    axis.axhline(0, color="0.7", lw=0.6, zorder=0)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
