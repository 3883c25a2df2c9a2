"""Which of the published lower bounds a reader can recompute, and which rest on a word."""

from __future__ import annotations

from collections import Counter

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.problem.proofs import TRUSTS, described_trust

SUITES = ("protocol", "gap", "levels")
METHOD = "auto"
"""Method whose bounds are counted: textbook models give nothing but claims."""


def table(measured: list[Row]) -> str:
    """Return the number of layers by suite and by what their bound rests on, as Markdown."""
    body = []
    for suite in SUITES:
        proofs = [p for row in measured if (row["suite"], row["method"]) == (suite, METHOD) for p in row.get("proof", [])]
        found = Counter(map(described_trust, proofs))
        body.append([suite, str(len(proofs)), *(str(found[name]) for name in TRUSTS)])
    return markdown(["suite", "layers", "witness, recomputed", "exhausted search, a claim", "solver's word, a claim"], body)
