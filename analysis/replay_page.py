"""A replay as one self-contained page."""

from __future__ import annotations

import html

from eplb_gap.analysis.figures.replay_timeline import timeline
from eplb_gap.analysis.html_page import document, inline, svg, table
from eplb_gap.analysis.replay.replay import Replay
from eplb_gap.analysis.replay.report import header, lines, remarks, setting
from eplb_gap.problem.loads import LoadTrace

METHOD = (
    "Served balancedness is the sum over the judged steps and all layers of the mean GPU load over the sum of the largest. A "
    "controller is handed the steps before its decision and nothing else; its map serves from the decision plus its lag on. "
    "Moves are replicas copied onto a GPU that did not hold their expert, counted from the first judged step on. Until its first "
    "map serves, a controller serves the contiguous map; the first map may move anything."
)
ALTERNATIVE = "Served balancedness of every controller over the steps, drift of the loads, and replicas moved; means in the table"


def render(result: Replay, trace: LoadTrace, source: str) -> str:
    """Return the page as HTML text.

    Parameters
    ----------
    result : Replay
    trace : LoadTrace
        Its steps.
    source : str
        What the loads are called: a file name, say.
    """
    title = f"Rebalancing over time: controllers on {source}"
    notes = remarks(result)
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p class=note>{html.escape(setting(result))}</p>",
        table(header(result), lines(result)),
        *([f"<ul>{''.join(f'<li>{inline(note)}</li>' for note in notes)}</ul>"] if notes else []),
        "<h2>Over the steps</h2>",
        f'<div class="figure wide" role=img aria-label="{ALTERNATIVE}">{svg(timeline(result, trace), "timeline")}</div>',
        f"<p class=note>{METHOD}</p>",
    ]
    return document(title, body)
