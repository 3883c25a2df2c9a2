"""What is said of the search's statements agrees with the rows that it is said of."""

from __future__ import annotations

import copy
from functools import cache

import pytest

from eplb_gap.experiments.exhibits import search_claims
from eplb_gap.experiments.exhibits.search_claims import Seen
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import protocol, recommendations_seeds
from eplb_gap.experiments.studies.recommendations_seeds import BEST, EPSILON, HARD, PLAIN, findings, gain

IDLE = "does nothing"


@cache
def published() -> Rows:
    return Rows(row for suite in search_claims.SUITES for row in rows.read(rows.RESULTS / f"{suite}.ndjson"))


def test_verdicts_on_recommendations_follow_from_rows():
    seen = Seen(published())
    assert {*seen.words(1, "planned"), *seen.words(1, "served")} == {IDLE}
    assert {*seen.words(4, "planned"), *seen.words(4, "served")} == {IDLE}
    assert "hurts" not in seen.words(2, "planned")
    assert set(seen.words(2, "served")) == {IDLE}
    assert set(seen.words(3, "planned")) == {IDLE}
    assert "helps" not in seen.words(3, "served")
    assert -0.1 < gain(published(), "serving", EPSILON, HARD).mean < 0
    assert gain(published(), "serving", EPSILON, HARD).high < 0
    assert set(seen.words(5, "planned")) == {"helps"}
    assert set(seen.words(5, "served")) == {IDLE}
    for program in [*recommendations_seeds.programs()][1:7]:
        _, low, high = gain(published(), "serving", program, BEST)
        assert low <= 0 <= high, program


def test_programs_without_a_swap_share_the_top_score():
    assert protocol.classes(published()) == [(0, 1, 3, 6, 7, 8), (2, 4), (5, 9)]


def test_a_finding_counts_once_and_one_pair_of_windows_parts_it():
    together = next(found for found in findings(published()) if ("all together", BEST) in found)
    assert set(together) == {("all together", BEST), ("3, tie-breaker", BEST), (EPSILON, PLAIN)}
    row = copy.deepcopy(published().one(suite=recommendations_seeds.SUITE))
    row["serving"]["all together"][-1] += 1e-6
    others = published().where(suite=recommendations_seeds.SUITE)[1:]
    apart = findings(Rows([Row(row), *others]))
    assert [("all together", BEST)] in apart
    assert sum(map(len, apart)) == len(recommendations_seeds.COMPARED)


def test_a_statement_needs_its_rows():
    with pytest.raises(LookupError):
        search_claims.claims(Rows(row for row in published() if row["suite"] != "heuristics"))
