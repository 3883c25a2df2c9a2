"""Served balance over time, controller by controller, with the changes of the traffic and the moves beneath."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from eplb_gap.analysis.figures.style import figure
from eplb_gap.analysis.replay.replay import Replay, Replayed
from eplb_gap.analysis.replay.report import unit
from eplb_gap.analysis.replay.traffic import Traffic, drift, stretches, traffic
from eplb_gap.problem.loads import LoadTrace

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
"""Told apart by the colour-blind as well (Okabe and Ito), but for the yellow, which white paper swallows, and with a grey."""
POINTS = 120
"""At most so many points has a line: each is the mean of 1, 2, 5, 10, 20, ... steps, as many as that takes."""
WIDTHS = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
MOST = len(COLOURS)
"""Controllers that lines can tell apart."""
LONGEST = 56
"""Letters of a controller's name that the legend has room for."""
LETTERS = 95
"""Letters of the small names of phases that fit side by side over the panels."""


def timeline(result: Replay, trace: LoadTrace) -> Figure:
    """Return balancedness over the steps, drift of the loads from stretch to stretch, and moves of every controller.

    Parameters
    ----------
    result : Replay
        The best ``MOST`` controllers are drawn if there are more. With a limit, the band is what no controller can exceed (its
        upper edge) and what maps made for the steps that they serve reach (its lower one), both means over the judged steps.
    trace : LoadTrace
        Its steps.
    """
    ranked = sorted(range(len(result.runs)), key=lambda number: -result.runs[number].balancedness)[:MOST]
    # Colours in the order of the controllers, so that a better one added last does not change those of the others.
    best = [(result.runs[number], COLOURS[sorted(ranked).index(number)]) for number in ranked]
    width = next(width for width in WIDTHS if width * POINTS >= result.steps)
    fig, (top, middle, bottom) = figure(8.2, 6.4, nrows=3, sharex=True, height_ratios=(4, 1, 1.6))
    _draw_balance(top, result, best, width)
    _draw_moves(bottom, result, best, width)
    found = traffic(trace, width)
    _draw_drift(middle, result, trace, width, found)
    for axis in (top, middle, bottom):
        axis.axvspan(0, result.first, color="0.94", lw=0)
        axis.grid(axis="y", color="0.9")
        axis.set_axisbelow(True)
        axis.set_xlim(0, result.steps)
    _mark(found, result.steps, top, (top, middle, bottom))
    bottom.set_xlabel(unit(result) if result.window_steps == 1 else f"window of {result.window_steps} steps")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    # The value first: what follows may begin with anything, also with what matplotlib takes for a hidden name.
    names = [f"{run.balancedness:.3f}  {_plain(_short(run.controller.label))}" for run, _ in best]
    if result.limit is not None:
        most = result.limit.balancedness[1]
        names.append(f"{most:.3f}  certified limit of the mean")
    left_out = len(result.runs) - len(best)
    fig.legend(
        top.lines[: len(names)],
        names,
        title=f"mean over the judged {unit(result)}s; the best {MOST} of {len(result.runs)} controllers" if left_out else None,
        fontsize=8,
        title_fontsize=8,
        loc="outside lower center",
        ncols=1 if len(names) < 3 else 2,
    )
    return fig


def _draw_balance(axis: Axes, result: Replay, best: list[tuple[Replayed, str]], width: int) -> None:
    for place, (run, colour) in enumerate(best):
        starts, values = stretches(run.by_step, width)
        middles = (starts + np.append(starts[1:], result.steps)) / 2
        style, dot = "--" if run.foresees else "-", "o" if len(values) == 1 else None
        axis.plot(middles, values, color=colour, ls=style, marker=dot, lw=1.3, zorder=4 - place / MOST)
    if result.limit is not None:
        least, most = result.limit.balancedness
        judged = [result.first, result.steps]
        axis.plot(judged, [most, most], color="0.3", lw=0.9, ls=(0, (1, 1)), zorder=1.6)
        axis.fill_between(judged, least, most, color="0.85", lw=0, zorder=1.5)
    if result.first:
        axis.text(0.004, 0.02, "not judged", transform=axis.transAxes, fontsize=7.5, color="0.35")
    axis.set_ylabel("served balancedness" + (f",\nmean of {width} {unit(result)}s" if width > 1 else ""))


def _draw_drift(axis: Axes, result: Replay, trace: LoadTrace, width: int, found: Traffic) -> None:
    axis.plot(*drift(trace, width), color="0.3", lw=1)
    axis.set_ylabel("drift of\nthe loads")
    axis.set_ylim(bottom=0)
    between = f"between {width} {unit(result)}s and the next" if width > 1 else f"from one {unit(result)} to the next"
    explained = f"total variation {between}; vertical lines: {found.how}"
    axis.set_title(explained, fontsize=7.5, color="0.35", loc="left", pad=3)


def _draw_moves(axis: Axes, result: Replay, best: list[tuple[Replayed, str]], width: int) -> None:
    for place, (run, colour) in enumerate(best):
        at, moved = _moves(run, width, result.steps)
        if not at.size:
            continue
        axis.set_yscale("log")
        # Side by side within a stretch, and the rare before the frequent, so that none hides another.
        beside, order = (place + 0.5) / len(best) * width, 3 + 1 / (1 + len(run.changes))
        axis.plot(at + beside, moved, color=colour, ls="", marker="o", ms=2.6, markeredgewidth=0, zorder=order)
    if axis.lines:
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_ylim(0, 1)
    axis.set_ylabel("moves per layer\n" + (f"in {width} {unit(result)}s" if width > 1 else f"and {unit(result)}"))


def _moves(run: Replayed, width: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the stretches in which maps with moves began to serve, and their moves per layer."""
    sums = np.zeros(-(-steps // width))
    for change in run.changes:
        if change.serves < steps:
            sums[change.serves // width] += change.moves / run.layers
    at = np.flatnonzero(sums)
    return at * width, sums[at]


def _mark(found: Traffic, steps: int, top: Axes, axes: tuple[Axes, ...]) -> None:
    ends = [*(at for at, _ in found.changes), steps][1:]
    for (at, name), end in zip(found.changes, ends, strict=True):
        if at:
            for axis in axes:
                axis.axvline(at, color="0.45", lw=0.8, ls=":", zorder=1.8)
        letters = int((end - at) / steps * LETTERS)
        if name and letters > 3:
            text = name if len(name) <= letters else f"{name[: letters - 1]}…"
            top.text(at, 1.015, " " + _plain(text), transform=top.get_xaxis_transform(), fontsize=7.5, color="0.35")


def _short(name: str) -> str:
    """Return a name cut in its middle where the legend has no room for all of it."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def _plain(text: str) -> str:
    """Return words as matplotlib is to draw them: none of them a formula."""
    return text.replace("$", r"\$")
