"""What our self-contained pages are made of: figures inline, no script, nothing loaded from a network."""

from __future__ import annotations

import html
import re

from matplotlib.figure import Figure

from eplb_gap.analysis.figures.style import drawn

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { background: #f3f5f7; border-left: .3rem solid #1f3b57; padding: .6rem 1rem; }
.figure { overflow-x: auto; } svg { max-width: 100%; height: auto; }
.wide svg { width: 100%; min-width: 42rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; }
th { text-align: left; vertical-align: bottom; }
th:first-child, td:first-child { min-width: 9rem; } th.number { min-width: 4.5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.table { overflow-x: auto; } p.note { color: #555; font-size: .9rem; }
@media print { body { margin: 0; max-width: none; } }
"""


GENERATOR = '<meta name="generator" content="eplb-gap">'
"""By which a page that is there is known as one that can be written over."""


def document(title: str, body: list[str]) -> str:
    """Return a whole page of elements that are HTML already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"{GENERATOR}"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table; all columns but the first are numbers."""

    def line(cells: list[str], tag: str) -> str:
        first, *others = (html.escape(cell) for cell in cells)
        return f"<tr><{tag}>{first}</{tag}>" + "".join(f"<{tag} class=number>{cell}</{tag}>" for cell in others) + "</tr>"

    return (
        "<div class=table><table><thead>" + line(head, "th") + "</thead><tbody>"
        + "".join(line(row, "td") for row in rows) + "</tbody></table></div>"
    )  # fmt: skip


def inline(text: str) -> str:
    """Return words as HTML, with what stands in backquotes as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def svg(fig: Figure, prefix: str) -> str:
    """Return a figure as an SVG element and close it; its ids get a prefix, since two figures share one document."""
    text = drawn(fig, ".svg").decode()
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text[text.index("<svg") :])
