"""Served balance against moves of the controllers that a calibration reports, on the held-out steps."""

from __future__ import annotations

from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, drawn, figure
from eplb_gap.analysis.online.calibrate import OnlineCalibration
from eplb_gap.analysis.online.report import lines, roles
from eplb_gap.analysis.online.trial import moves
from eplb_gap.problem.atomic import write_atomically

LINEAR = 0.1
"""Moves per step and layer up to which the axis is linear: none at all has a place on it."""
APART = 7.5
"""Points of type by which a number is kept away from points and other numbers."""
AROUND = ((1, 0.4), (-1, 0.4), (1, 0.9), (1, -0.9), (-1, 0.9), (-1, -0.9))
"""Where a number may be: off the lines of the intervals."""
MARKS = {"chosen": ("o", MIDDLE), "no EPLB": ("s", "0.45"), "planned once": ("D", "0.45")}


def draw(result: OnlineCalibration) -> Figure:
    """Return served balance with its 95 % interval against moves, or bytes where costs are known; numbers name controllers."""
    judged = lines(result)
    per_move = 1.0 if result.price is None else result.layers * result.price.costs.expert_bytes / 1e6
    fig, axis = figure(6.8, 4.0 + 0.17 * len(judged))
    at = [(moves(one.run) * per_move, one.balancedness.value) for _, one in judged]
    handles: list[Artist] = []
    for number, ((controller, one), (x, y)) in enumerate(zip(judged, at, strict=True), 1):
        said = roles(result, controller)
        marker, colour = next((MARKS[role] for role in ("chosen", *MARKS) if role in said), ("o", LIGHT))
        if controller == result.held_out.default:
            marker, colour = "^", DARK
        name = f"{number}  {controller.label}: {y:.3f}" + (f" ({', '.join(said)})" if said else "")
        low, high = y - one.balancedness.low, one.balancedness.high - y
        axis.errorbar(x, y, yerr=[[max(0.0, low)], [max(0.0, high)]], color=colour, lw=0.8, capsize=2, zorder=2)
        size = 90 if "chosen" in said else 36
        handles.append(
            axis.scatter(x, y, s=size, marker=marker, color=colour, edgecolor="white", linewidth=0.5, zorder=3, label=name)
        )
    front = [point for number, point in enumerate(at) if all(point[1] > y for _, y in at[:number])]
    handles += axis.step(
        *zip(*front, strict=True),
        where="post",
        color="0.5",
        lw=0.9,
        ls=":",
        zorder=1,
        label="front of these on the held-out steps",
    )
    axis.set_xscale("symlog", linthresh=LINEAR * per_move, linscale=0.5)
    axis.set_xlim(left=-LINEAR * per_move / 3, right=1.6 * max(LINEAR * per_move, *(x for x, _ in at)))
    axis.xaxis.set_major_formatter("{x:g}")
    what = "replicas moved per step and layer" if result.price is None else "MB moved per step, all layers and GPUs"
    axis.set_xlabel(f"{what} (symlog axis: linear below {LINEAR * per_move:g})")
    net = ", net of costs" if result.price is not None else ""
    axis.set_ylabel(f"served balancedness{net}, 95 % interval")
    shape = result.deployment
    axis.set_title(
        f"{shape.num_experts} experts / {shape.num_slots} slots / {shape.num_gpus} GPUs, {shape.policy} policy\n"
        f"chosen before step {result.border}, served on steps {result.border} to {result.steps - 1}"
    )
    axis.grid(color="0.92")
    axis.set_axisbelow(True)
    fig.legend(handles=handles, fontsize=8, loc="outside lower left")
    fig.canvas.draw()  # places of points in the figure are known only now
    _number(axis, at)
    return fig


def write(result: OnlineCalibration, path: Path) -> None:
    """Write the figure as a file of the kind that its suffix says."""
    write_atomically(path, drawn(draw(result), path.suffix, signed=True))


def _number(axis: Axes, at: list[tuple[float, float]]) -> None:
    """Write the number of every point beside it, where neither a point nor another number is in the way."""
    scale = 72 / axis.figure.dpi
    points = [tuple(float(value) * scale for value in axis.transData.transform(point)) for point in at]
    taken = list(points)
    for number, (point, (x, y)) in enumerate(zip(at, points, strict=True), 1):
        places = [(radius * right, radius * up) for radius in (8.0, 16.0, 24.0) for right, up in AROUND]
        free = (
            place for place in places if all(abs(x + place[0] - a) >= APART or abs(y + place[1] - b) >= APART for a, b in taken)
        )
        right, up = next(free, places[0])
        taken.append((x + right, y + up))
        axis.annotate(
            str(number), point, (right, up), textcoords="offset points", ha="center", va="center", fontsize=8, color="0.2"
        )
