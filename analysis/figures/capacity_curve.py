"""Balancedness against slots: what is reached, what is proven to be the limit, and what is left of it in service."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.capacity import Capacity, Step
from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save

NAME = "capacity"
"""Name of the files, without suffix."""


def draw(result: Capacity, title: str, folder: Path) -> list[Path]:
    """Draw planning with its proven limit, serving, the target, and the fewest slots of either."""
    fig, axis = figure(5.4, 3.6)
    slots = [step.slots for step in result.steps]
    axis.plot(slots, [step.limit for step in result.steps], color=LIGHT, lw=4, label="proven limit of any map", zorder=2)
    axis.plot(slots, [step.reached for step in result.steps], color=DARK, marker="o", ms=4, label="planning window", zorder=3)
    served = [(step.slots, step.serving) for step in result.steps if step.serving is not None]
    if served:
        axis.plot(
            *zip(*served, strict=True), color=MIDDLE, ls="--", marker="s", ms=4, label="served on the next window", zorder=3
        )
    axis.axhline(result.target, color="0.3", lw=0.8, ls=":", label=f"target {result.target:g}")
    for step, value in _answers(result):
        axis.annotate(f"{step.slots}", (step.slots, value), (0, 9), textcoords="offset points", ha="center", fontsize=8)
        axis.scatter(step.slots, value, s=110, facecolor="none", edgecolor=MIDDLE, linewidth=1.4, zorder=4)
    axis.set_xticks(slots, [str(count) for count in slots], rotation=45 if len(slots) > 8 else 0)
    axis.margins(y=0.15)
    axis.set_xlabel(f"slots of a layer ({result.num_experts} experts, {result.num_gpus} GPUs)")
    axis.set_ylabel("balancedness of the GPUs")
    axis.set_title(title)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    fig.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    return save(fig, folder, NAME, png=True, signed=True)


def _answers(result: Capacity) -> list[tuple[Step, float]]:
    """Return the fewest slots that reach the target on the planning window and in service, each with its balancedness."""
    found = [] if result.planning is None else [(result.planning, result.planning.reached)]
    if result.serving is not None and result.serving.serving is not None:
        found.append((result.serving, result.serving.serving))
    return found
