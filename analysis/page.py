"""An explanation as one self-contained page: figures inline, no script, nothing loaded from a network."""

from __future__ import annotations

import html
import io
import re
from fractions import Fraction

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eplb_gap.analysis.explain import STEPS, Explanation
from eplb_gap.analysis.figures import waterfall
from eplb_gap.analysis.verdict import points, verdict

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { background: #f3f5f7; border-left: .3rem solid #1f3b57; padding: .6rem 1rem; }
.figure { overflow-x: auto; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; }
th { text-align: left; vertical-align: bottom; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.table { overflow-x: auto; } p.note { color: #555; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; } }
"""


def render(result: Explanation, source: str, layer_ids: list[int]) -> str:
    """Return the page as HTML text.

    Parameters
    ----------
    result : Explanation
    source : str
        What the loads are called: a file name, say.
    layer_ids : list of int
        Which layer of the model every row of the loads is.
    """
    shape = result.deployment
    said = verdict(result)
    title = f"Expert placement: where the balance of {source} is lost"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=note>{html.escape(_setting(result))}</p>",
        "<div class=verdict>" + "".join(f"<p>{_inline(line)}</p>" for line in said.sentences) + "</div>",
        "<h2>Steps from a perfect balance to the map that served</h2>",
        f"<div class=figure>{_svg(waterfall.total(result), 'total')}</div>",
        _steps_table(result),
        "<h2>What was measured as an alternative</h2>",
        "<ul>" + "".join(f"<li>{_inline(line)}</li>" for line in said.items) + "</ul>",
        "<h2>Layer by layer</h2>",
        f"<div class=figure>{_svg(waterfall.layers(result), 'layers')}</div>",
        _layers_table(result, layer_ids),
        f"<p class=note>{html.escape(_method(shape.policy))}</p>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


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
        "with the best assignment for the serving window, the map planned on the history and the planned map, both with the best "
        "token split, the planned map. Optima are intervals; the upper value is used in the "
        "steps. Sums are exact in fractions; shown are two digits. Layers weigh by their mean load."
    )


def _steps_table(result: Explanation) -> str:
    rows = []
    steps = result.steps()
    for level, step in zip(result.levels[1:], STEPS, strict=True):
        low, high = result.total(level.lower), result.total(level.upper)
        known = points(high) if low == high else f"{points(low)} to {points(high)}"
        rows.append([step.label, f"{100 * float(steps[step.key]):+.2f}", known])
    return _table(["step", "points", "excess reached, %"], rows)


def _layers_table(result: Explanation, layer_ids: list[int]) -> str:
    rows = []
    for row, layer in enumerate(layer_ids):
        steps = result.layer_steps(row)
        total = sum(steps.values(), Fraction(0))
        rows.append([str(layer), *(f"{100 * float(value):+.2f}" for value in steps.values()), points(total)])
    return _table(["layer", *(step.label for step in STEPS), "sum"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        first, *others = (html.escape(cell) for cell in cells)
        return f"<tr><{tag}>{first}</{tag}>" + "".join(f"<{tag} class=number>{cell}</{tag}>" for cell in others) + "</tr>"

    return (
        "<div class=table><table><thead>" + line(head, "th") + "</thead><tbody>"
        + "".join(line(row, "td") for row in rows) + "</tbody></table></div>"
    )  # fmt: skip


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def _svg(fig: Figure, prefix: str) -> str:
    """Return a figure as an SVG element; its ids get a prefix, since two figures share one document."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", drawn)
