"""An explanation as one self-contained page: figures inline, no script, nothing loaded from a network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from fractions import Fraction

from eplb_gap.analysis.explain import STEPS, Explanation
from eplb_gap.analysis.figures import waterfall
from eplb_gap.analysis.html_page import document, inline, svg, table
from eplb_gap.analysis.verdict import points, verdict


def render(result: Explanation, source: str, layer_ids: list[int], sections: Sequence[str] = ()) -> str:
    """Return the page as HTML text.

    Parameters
    ----------
    result : Explanation
    source : str
        What the loads are called: a file name, say.
    layer_ids : list of int
        Which layer of the model every row of the loads is.
    sections : sequence of str
        More of the same map, as HTML.
    """
    shape = result.deployment
    said = verdict(result)
    title = f"Expert placement: where the balance of {source} is lost"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=note>{html.escape(_setting(result))}</p>",
        "<div class=verdict>" + "".join(f"<p>{inline(line)}</p>" for line in said.sentences) + "</div>",
        "<h2>Steps from a perfect balance to the map that served</h2>",
        f"<div class=figure>{svg(waterfall.total(result), 'total')}</div>",
        _steps_table(result),
        "<h2>What was measured as an alternative</h2>",
        "<ul>" + "".join(f"<li>{inline(line)}</li>" for line in said.items) + "</ul>",
        *sections,
        "<h2>Layer by layer</h2>",
        f"<div class=figure>{svg(waterfall.layers(result), 'layers')}</div>",
        _layers_table(result, layer_ids),
        f"<p class=note>{html.escape(_method(shape.policy))}</p>",
    ]
    return document(title, body)


def _setting(result: Explanation) -> str:
    shape = result.deployment
    return (
        f"{shape.num_experts} experts, {shape.num_slots} slots, {shape.num_gpus} GPUs, {shape.num_nodes} nodes, "
        f"{shape.num_groups} groups, {shape.policy} policy, {len(result.mean)} layers; map: {result.map_name}, planned on window "
        f"{result.plan_window}, serving window {result.serve_window}; replanned with {result.method}."
    )


def _method(policy: str) -> str:
    chain = "mean, global optimum, " + ("hierarchical optimum, " if policy == "hierarchical" else "")
    return (
        f"All makespans are on the serving window: {chain}the method replanned on the serving window, the planned replica counts "
        "with the best assignment for the serving window, the map planned on all windows of the history and the planned map, "
        "both with the best division of tokens over replicas, the planned map. The order is from what no map can help over what "
        "a plan can to what a dispatcher can. Optima are intervals; the upper value is used in the steps. Sums are exact in "
        "fractions; shown are two digits. Layers weigh by their mean load."
    )


def _steps_table(result: Explanation) -> str:
    rows = []
    steps = result.steps()
    for level, step in zip(result.levels[1:], STEPS, strict=True):
        low, high = result.total(level.lower), result.total(level.upper)
        known = points(high) if points(low) == points(high) else f"{points(low)} to {points(high)}"
        rows.append([step.label, f"{100 * float(steps[step.key]):+.2f}", known])
    return table(["step", "points", "excess reached, %"], rows)


def _layers_table(result: Explanation, layer_ids: list[int]) -> str:
    rows = []
    for row, layer in enumerate(layer_ids):
        steps = result.layer_steps(row)
        total = sum(steps.values(), Fraction(0))
        rows.append([str(layer), *(f"{100 * float(value):+.2f}" for value in steps.values()), points(total)])
    return table(["layer", *(step.label for step in STEPS), "sum"], rows)
