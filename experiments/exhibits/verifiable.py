"""Which of the published lower bounds a reader can recompute, and which rest on a word."""

from __future__ import annotations

from collections import Counter

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.rows import Row

SUITES = ("protocol", "gap", "levels")
METHOD = "auto"
"""Method whose bounds are counted: textbook models give nothing but claims."""


def kind(proof: str) -> str:
    """Return what a bound rests on: "witness", "exhausted search" or "solver"; a bound over nodes rests on its weakest node."""
    if "claim of" in proof:
        return "solver"
    return "exhausted search" if "exhausted search" in proof else "witness"


def table(measured: list[Row]) -> str:
    """Return the number of layers by suite and by what their bound rests on, as Markdown."""
    body = []
    for suite in SUITES:
        proofs = [p for row in measured if (row["suite"], row["method"]) == (suite, METHOD) for p in row.get("proof", [])]
        found = Counter(map(kind, proofs))
        body.append([suite, str(len(proofs)), *(str(found[name]) for name in ("witness", "exhausted search", "solver"))])
    return markdown(["suite", "layers", "witness, recomputed", "exhausted search, a claim", "solver's word, a claim"], body)
