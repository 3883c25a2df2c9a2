"""Tables and words as the reports print them."""

from __future__ import annotations


def yes_or_no(met: bool) -> str:
    """Return whether a level is met, as the tables say it."""
    return "yes" if met else "no"


def markdown(header: list[str], body: list[list[str]]) -> str:
    """Render a Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "--:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in body])
