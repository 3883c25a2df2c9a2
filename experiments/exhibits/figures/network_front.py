"""Node visits against balance: what the planner reaches under either policy, what others reach, and what no map goes below."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.visit_figures import fullest, per_token
from eplb_gap.experiments.measuring.visit_planners import BALANCE, PLANNER, PLANNERS, SHORT
from eplb_gap.experiments.studies import node_visits, visit_front
from eplb_gap.experiments.studies.visit_front import EXPERTS, NODES, SLOTS, Point, candidates, front, mean_load, mean_visits

SUITES = (node_visits.SUITE, visit_front.SUITE)
SHAPE = (NODES, SLOTS - EXPERTS)
MARKERS = ("X", "^", "v", "s", "P", "*", "h")


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw visits over GPU balancedness, on the tokens planned on and on those of other phases."""
    fig, (planned, served) = figure(7.2, 3.7, ncols=2, sharey=True)
    for axis, names in ((planned, (PLANNED,)), (served, other_phases())):
        _policies(axis, rows, names)
        _others(axis, rows, names)
        axis.set_xlabel("balancedness of the GPUs, as sent (1: perfect)")
        axis.grid(color="0.93")
        axis.set_axisbelow(True)
    low = fmean(node_visits.bounds(rows, SHAPE))
    planned.axhline(low, color="0.35", linewidth=1.0, linestyle=":", label="certified: no map visits fewer")
    planned.axvline(1.0, color="0.35", linewidth=1.0, linestyle="-.", label="no map is better balanced")
    planned.set_ylabel(f"nodes that a token visits, of {NODES}")
    planned.set_ylim(bottom=1.0)
    planned.set_title("tokens planned on", fontsize=9)
    served.set_title("tokens of other phases", fontsize=9)
    fig.legend(*planned.get_legend_handles_labels(), fontsize=7.5, loc="outside lower center", ncols=3)
    return save(fig, folder, "network_front", png=True)


def _policies(axis: Axes, rows: Rows, names: tuple[str, ...]) -> None:
    """Draw the planner's maps over its limits, and the hierarchical front: all of it as planned, its ends where they serve."""
    found = rows.one(suite=visit_front.SUITE, instance=visit_front.name_of("global"), method=visit_front.FRONT)
    limited = [_at(list(chosen), names) for chosen in zip(*found["points"], strict=True)]
    axis.plot(
        *zip(*limited, strict=True),
        color=DARK,
        marker="o",
        markersize=4,
        linewidth=1.3,
        label="global, fewest visits within a limit",
    )
    maps = candidates(rows, "hierarchical")
    if names == (PLANNED,):
        line = [(1 / load, visits) for load, visits in front(maps)]
        axis.step(
            *zip(*line, strict=True),
            where="post",
            color=MIDDLE,
            marker=".",
            markersize=3,
            linewidth=1.3,
            label="hierarchical, front over all partitions",
        )
    else:
        line = [_at(chosen, names) for chosen in visit_front.ends(maps)]
        axis.plot(*zip(*line, strict=True), color=MIDDLE, marker="D", markersize=4, linewidth=1.3)


def _at(chosen: list[Point], names: tuple[str, ...]) -> tuple[float, float]:
    return 1 / mean_load(chosen, names), mean_visits(chosen, names)


def _others(axis: Axes, rows: Rows, names: tuple[str, ...]) -> None:
    """Draw maps of other planners under the global policy."""
    for method, marker in zip((name for name in PLANNERS if name != PLANNER), MARKERS, strict=False):
        row = node_visits.find(rows, SHAPE, method)
        at = 1 / fullest(row, *names, field="gpu_load"), fmean(per_token(row, *names))
        face, size = ("none", 9) if method == BALANCE else (LIGHT, 6)
        look: dict[str, Any] = {"markerfacecolor": face, "markersize": size, "markeredgecolor": "0.2", "linestyle": "none"}
        axis.plot(*at, marker=marker, label=SHORT[method], **look)
