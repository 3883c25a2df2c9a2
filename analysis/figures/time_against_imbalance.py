"""Time against imbalance as a profile's hinge has it: the knee, the dead zone below it, and maps, timed or predicted."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.words import cited, unit_of
from eplb_gap.problem.errors import InputError

WRAP = 118
"""Letters of a line of the citation."""
NEAR = 0.02
"""Points nearer than this part of the axis have one number together."""


@dataclass(frozen=True)
class Point:
    """A map in the figure.

    Parameters
    ----------
    imbalance : float
        Mean over layers of the fullest GPU over the mean, at least 1.
    label : str, default ""
        What to call it.
    time : float, optional
        Measured, in the seconds of the profile; without one the point is predicted and lies on the hinge.
    """

    imbalance: float
    label: str = ""
    time: float | None = None


def curve(profile: Profile, points: Sequence[Point] = ()) -> Figure:
    """Return the figure: the hinge with the points on it, predicted ones as circles, timed ones as squares where they were timed.

    Parameters
    ----------
    profile : Profile
        With a hinge. Without its seconds the time is in percent of that at perfect balance.
    points : sequence of Point

    Raises
    ------
    InputError
        If the profile has no hinge, or a point was timed and the profile has no seconds.
    """
    hinge = profile.hinge
    if hinge is None:
        raise InputError(f"profile {profile.name} has no hinge to draw")
    if hinge.seconds is None and any(point.time is not None for point in points):
        raise InputError(f"profile {profile.name} has no seconds to draw timed maps against")
    scale, name = (0.01, "% of the time at perfect balance") if hinge.seconds is None else unit_of(hinge.seconds)
    unit = (1.0 if hinge.seconds is None else hinge.seconds) / scale
    most = max([hinge.knee, *(point.imbalance for point in points)])
    end = most + max(0.25 * (most - 1.0), 0.5 * (hinge.knee - 1.0), 0.02)
    fig, axis = figure(7.0, 3.9)
    axis.axvspan(1.0, hinge.knee, color=LIGHT, alpha=0.35, lw=0, label="dead zone: a better balance is worth nothing")
    if hinge.knee_interval is not None:
        low, high = hinge.knee_interval
        axis.axvspan(
            1.0 if low is None else low,
            end if high is None else high,
            ymax=0.04,
            color=DARK,
            alpha=0.35,
            lw=0,
            label="95 % interval of the knee",
        )
    axis.plot([1.0, hinge.knee, end], [unit * hinge.relative(r) for r in (1.0, hinge.knee, end)], color=DARK, lw=1.6, zorder=3)
    axis.axvline(hinge.knee, color=DARK, lw=0.8, ls=":", zorder=2)
    placed = [(point, unit * hinge.relative(point.imbalance) if point.time is None else point.time / scale) for point in points]
    for kind, marker, timed in (("timed", "s", True), ("predicted", "o", False)):
        shown = [(point.imbalance, y) for point, y in placed if (point.time is not None) is timed]
        if shown:
            axis.plot(*zip(*shown, strict=True), ls="", marker=marker, ms=5, color=MIDDLE, zorder=4, label=kind, clip_on=False)
    axis.set_xlim(1.0 - NEAR * (end - 1.0), end)
    axis.margins(y=0.12)
    _label(axis, placed, end - 1.0)
    axis.set_xlabel(f"imbalance: mean over layers of the fullest GPU over the mean; knee {hinge.knee:g}")
    axis.set_ylabel(name if hinge.seconds is None else f"time, {name}")
    axis.set_title("\n".join(textwrap.wrap(_plain(cited(profile)), WRAP)), fontsize=7, loc="left")
    fig.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    return fig


def _label(axis: Axes, points: Sequence[tuple[Point, float]], width: float) -> None:
    """Number the named points, those that lie on each other together, and say the names where the hinge leaves room."""
    named = sorted((one for one in points if one[0].label), key=lambda one: one[0].imbalance)
    at: list[tuple[float, float, list[str]]] = []
    for number, (point, y) in enumerate(named, start=1):
        if at and point.imbalance - at[-1][0] < NEAR * width:
            at[-1][2].append(str(number))
        else:
            at.append((point.imbalance, y, [str(number)]))
    for x, y, numbers in at:
        text = numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        axis.annotate(text, (x, y), (-2, 7), textcoords="offset points", fontsize=8, ha="center", zorder=5)
    if not named:
        return
    lines = [f"{number}  {point.label}" for number, (point, _) in enumerate(named, start=1)]
    axis.text(
        0.03, 0.97, "\n".join(lines), transform=axis.transAxes, fontsize=8, va="top", linespacing=1.4, zorder=5,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none"},
    )  # fmt: skip


def _plain(text: str) -> str:
    """Return a text of a file as it is to stand in the figure, none of it a formula."""
    return text.replace("$", r"\$")
