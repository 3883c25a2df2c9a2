"""The profile beside price and branch: its cells, what a row of the baseline holds, and shares within a gap."""

from __future__ import annotations

import json

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import baseline_profile
from eplb_gap.experiments.studies.baseline_profile import METHODS, STUDY, SUITE, bounds_within, cells, share_within, table


def made(method: str, trajectory: list[tuple[float, float]]) -> Row:
    end = trajectory[-1][1]
    one = {
        "upper": ["2/1"],
        "lower": ["2/1" if end == 0 else "1/1"],
        "proof": ["mean"],
        "status": ["optimal" if end == 0 else "bounded"],
    }
    return Row({"suite": SUITE, "instance": "i", "seed": 0, "method": method, "trajectory": trajectory, **one})


def test_every_method_gets_the_same_forty_instances() -> None:
    by_method = {method: {(c.instance, c.seed) for c in cells() if c.method == method} for method in METHODS}
    assert all(found == by_method["auto"] for found in by_method.values())
    assert len(by_method["auto"]) == 40


def test_a_gap_counts_from_the_moment_it_was_proven() -> None:
    late, never = made("milp", [(0.5, 0.1), (2.5, 0.0)]), made("milp", [(0.1, 0.02)])
    rows = Rows([late, never])
    assert share_within(rows, 1.0, 1e-3) == "0 of 2"
    assert share_within(rows, 3.0, 1e-3) == "1 of 2"
    assert share_within(rows, 1.0, 2e-2) == "1 of 2"
    assert "| `milp` |" in table(rows)


def test_bounds_are_held_against_the_best_map_of_all_methods() -> None:
    # The MILP's own map is twice its bound; another method's map meets that bound.
    own = Row({**made("milp", [(0.5, 1.0)]), "lower": ["1/1"], "upper": ["2/1"]})
    other = Row({**made("auto", [(0.5, 0.0)]), "lower": ["1/2"], "upper": ["1/1"]})
    rows = Rows([own, other])
    assert bounds_within(rows, "milp", 1e-3) == "1 of 1"
    assert bounds_within(rows, "auto", 1e-3) == "0 of 1"


def test_a_row_of_the_baseline_is_verified_and_its_proof_a_claim_or_closed_form() -> None:
    row = baseline_profile.profile_cell((4, 6, 3), "ln1.0", 3, "price-and-branch")
    assert row["proof"] != []
    assert row["gap"][0] >= 0.0
    assert row["trajectory"][-1][1] == row["gap"][0]
    assert not [p for p in STUDY.shapes[0].problems(Row(json.loads(json.dumps(row)))) if "lacks" not in p]
