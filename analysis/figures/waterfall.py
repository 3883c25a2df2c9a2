"""Where the serving window's balance is lost: the steps of an explanation as a waterfall, and layer by layer."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from eplb_gap.analysis.explain import STEPS, Explanation
from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, drawn, figure
from eplb_gap.problem.atomic import write_atomically

COLOURS = {
    "integrality": "0.75",
    "hierarchy": LIGHT,
    "packing": "0.45",
    "counts": DARK,
    "assignment": MIDDLE,
    "history": "#e3b778",
    "sharing": "#6f8f5f",
}
"""Colour of every step, by its key."""


def total(result: Explanation) -> Figure:
    """Return the waterfall from a perfect balance to the planned map's excess; one slide."""
    steps = {key: 100 * float(value) for key, value in result.steps().items()}
    reached = 100 * float(result.excess())
    fig, axis = figure(7.6, 3.9)
    at = 0.0
    span = max([reached, 1e-6, *_running(list(steps.values()))])
    for row, (key, value) in enumerate(steps.items()):
        axis.barh(row, value, left=at, color=COLOURS[key], height=0.62)
        end = at + value
        axis.plot([end, end], [row - 0.31, row + 1.31], color="0.6", linewidth=0.7)
        axis.text(max(at, end) + 0.012 * span, row, f"{value:+.2f}", va="center", fontsize=9)
        at = end
    axis.barh(len(steps), reached, color="0.2", height=0.62)
    axis.text(reached + 0.012 * span, len(steps), f"{reached:.2f}", va="center", fontsize=9)
    axis.set_yticks(range(len(steps) + 1), [*(step.label for step in STEPS), "planned map, served"])
    axis.invert_yaxis()
    axis.set_xlim(min(0.0, *_running(list(steps.values()))), 1.13 * span)
    axis.set_xlabel("load of the fullest GPUs above the mean, % (all layers, weighted by their load)")
    axis.set_title(
        f"{result.map_name} planned on window {result.plan_window}, serving window {result.serve_window} "
        f"({result.deployment.policy} policy, {result.deployment.num_slots} slots, {result.deployment.num_gpus} GPUs)"
    )
    return fig


def write(result: Explanation, path: Path) -> None:
    """Write the waterfall as a file of the kind that its suffix says."""
    write_atomically(path, drawn(total(result), path.suffix, signed=True))


def layers(result: Explanation) -> Figure:
    """Return the same steps for every layer, stacked; negative steps hang below zero."""
    count = len(result.mean)
    fig, axis = figure(7.6, 3.4)
    above, below = [0.0] * count, [0.0] * count
    for step in STEPS:
        values = [100 * float(result.layer_steps(layer)[step.key]) for layer in range(count)]
        base = [below[layer] if value < 0 else above[layer] for layer, value in enumerate(values)]
        axis.bar(range(count), values, bottom=base, color=COLOURS[step.key], label=step.label, width=0.85)
        for layer, value in enumerate(values):
            stack = below if value < 0 else above
            stack[layer] += value
    axis.axhline(0, color="0.3", linewidth=0.7)
    axis.set_xlabel("layer (row of the loads)")
    axis.set_ylabel("excess over the layer's mean, %")
    axis.set_ylim(1.05 * min(0.0, *below), 1.05 * max(1e-6, *above))
    fig.legend(loc="outside upper center", ncols=3, fontsize=8)
    return fig


def _running(values: list[float]) -> list[float]:
    reached, sums = 0.0, []
    for value in values:
        reached += value
        sums.append(reached)
    return sums
