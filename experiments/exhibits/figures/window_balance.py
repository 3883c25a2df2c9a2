"""GPU-level balancedness of DeepSeek's algorithm per window pair: planned, served, and the certified limit.

Message: maps are near the limit on the window that they are planned on and lose on the next.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.traces import TRACE_TITLES, TRACES
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.protocol import ALL_PAIRS, certified_balancedness, on_windows

SUITES = ("protocol",)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Lines over the serving windows of both traces."""
    fig, axes = figure(7.2, 3.0, ncols=2, sharey=True)
    for axis, name in zip(axes, TRACES, strict=True):
        program, optimum = on_windows(rows, name, "initial_program"), on_windows(rows, name, "auto")
        windows = range(1, ALL_PAIRS + 1)
        axis.plot(
            windows,
            [certified_balancedness(optimum[w], name, w) for w in windows],
            color=LIGHT,
            linewidth=4,
            label="limit of any hierarchical map",
        )
        axis.plot(
            windows,
            [program[w]["planning"]["gpu"] for w in windows],
            color=DARK,
            marker="o",
            markersize=4,
            label="planned on this window",
        )
        axis.plot(
            windows,
            [program[w - 1]["serving"]["gpu"] for w in windows],
            color=MIDDLE,
            marker="s",
            markersize=4,
            linestyle="--",
            label="planned on the window before",
        )
        axis.set_xticks(list(windows))
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("serving window (100 steps each)")
        axis.set_title(f"{name} trace\n({TRACE_TITLES[name]})", fontsize=8)
        axis.grid(axis="y", color="0.9")
    axes[0].set_ylabel("balancedness of the GPUs")
    axes[0].legend(loc="lower left", title="DeepSeek EPLB", alignment="left", fontsize=8)
    return save(fig, folder, "window_balance", png=True)
