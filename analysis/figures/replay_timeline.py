"""Served balance over time, controller by controller, with the changes of the traffic behind and the moves beneath."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure
from eplb_gap.analysis.replay.replay import Replay, Replayed
from eplb_gap.problem.loads import LoadTrace

COLOURS = (MIDDLE, DARK, "#6f8f5f", LIGHT, "#e3b778", "0.35", "#8d6a9f", "0.7")
POINTS = 120
"""Points of a line: each is the mean of as many steps as that takes."""
MOST = len(COLOURS)
"""Controllers that lines can tell apart."""


def timeline(result: Replay, trace: LoadTrace) -> Figure:
    """Return balancedness over the steps, drift of the loads from stretch to stretch, and moves of every controller.

    Parameters
    ----------
    result : Replay
        The best ``MOST`` controllers are drawn if there are more.
    trace : LoadTrace
        Its steps.
    """
    runs = sorted(result.runs, key=lambda run: -run.balancedness)[:MOST]
    width = max(1, result.steps // POINTS)
    fig, (top, middle, bottom) = figure(8.2, 6.0, nrows=3, sharex=True, height_ratios=(4, 1, 1.4))
    for colour, run in zip(COLOURS, runs, strict=False):
        steps, values = _smoothed(run.by_step, width)
        style = "--" if run.foresees else "-"
        top.plot(steps, values, color=colour, ls=style, lw=1.3, label=f"{run.controller.label}: {run.balancedness:.3f}")
        at, moved = _cumulated(run)
        bottom.step(at, moved, color=colour, ls=style, lw=1.3, where="post")
    for axis in (top, middle, bottom):
        axis.axvspan(0, result.first, color="0.93", lw=0)
        axis.grid(axis="y", color="0.92")
        axis.set_axisbelow(True)
    if result.first:
        top.text(result.first / 2, 0.02, "warm-up", transform=top.get_xaxis_transform(), ha="center", fontsize=8, color="0.4")
    top.set_ylabel(f"served balancedness,\nmean of {width} steps" if width > 1 else "served balancedness")
    middle.plot(*_drift(trace, width), color="0.4", lw=1)
    middle.set_ylabel("drift of\nthe loads")
    middle.set_ylim(bottom=0)
    bottom.set_ylabel("moves so far,\nper layer")
    bottom.set_yscale("log")
    bottom.set_ylim(bottom=1)
    bottom.set_xlabel("step")
    bottom.set_xlim(0, result.steps)
    fig.legend(*top.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=1 if len(runs) < 4 else 2)
    return fig


def write(result: Replay, trace: LoadTrace, path: Path) -> None:
    """Write the figure as a file of the kind that its suffix says."""
    fig = timeline(result, trace)
    fig.savefig(path)
    plt.close(fig)


def _smoothed(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles and means of consecutive stretches; the last is shorter where they do not divide the steps."""
    starts = np.arange(0, len(values), width)
    lengths = np.diff(np.append(starts, len(values)))
    return starts + lengths / 2, np.add.reduceat(values, starts) / lengths


def _drift(trace: LoadTrace, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where stretches of the steps meet, and how far the loads of both are apart (total variation, mean over layers)."""
    starts = np.arange(0, len(trace.loads) - len(trace.loads) % width, width)
    stretches = LoadTrace(np.add.reduceat(trace.loads, starts, axis=0)[: len(starts)])
    return starts[1:], stretches.drift()


def _cumulated(run: Replayed) -> tuple[list[int], list[float]]:
    at, moved = [0], [0.0]
    for change in run.changes:
        at.append(change.serves)
        moved.append(moved[-1] + change.moves / run.layers)
    return [*at, run.last], [*moved, moved[-1]]
