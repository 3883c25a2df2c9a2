"""Which of the published lower bounds a reader can recompute, and which rest on a word."""

from __future__ import annotations

from collections import Counter

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies import gaps, levels, protocol
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.problem.proofs import TRUSTS, described_trust

SUITES = (protocol.SUITE, gaps.SUITE, levels.SUITE)
METHOD = "auto"
"""Method whose bounds are counted: textbook models give nothing but claims."""


def table(measured: Rows) -> str:
    """Return the number of layers by suite and by what their bound rests on, as Markdown."""
    body = []
    for suite in SUITES:
        proofs = [proof for row in measured.where(suite=suite, method=METHOD) for proof in row.get("proof", [])]
        found = Counter(map(described_trust, proofs))
        body.append([suite, str(len(proofs)), *(str(found[name]) for name in TRUSTS)])
    return markdown(["suite", "layers", "witness, recomputed", "exhausted search, a claim", "solver's word, a claim"], body)


STUDY = Study(levels.SUITE, job="solvers", readme={"verifiable": Drawn(SUITES, table)})
