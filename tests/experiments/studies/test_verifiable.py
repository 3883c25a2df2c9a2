from __future__ import annotations

import pytest

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies.verifiable import kind, table


@pytest.mark.parametrize(
    ("proof", "expected"),
    [
        ("mean", "witness"),
        ("hierarchical", "witness"),
        ("hierarchical, exhausted search", "exhausted search"),
        ("hierarchical, claim of HiGHS", "solver"),
        ("claim of CP-SAT", "solver"),
    ],
)
def test_a_bound_rests_on_its_weakest_part(proof, expected):
    assert kind(proof) == expected


def test_layers_are_counted_once_and_textbook_models_are_left_out():
    row = {"suite": "gap", "method": "auto", "proof": ["mean", "exhausted search", "claim of HiGHS", "mean"]}
    measured = Rows(map(Row, [row, {**row, "method": "milp"}, {"suite": "gap", "method": "auto"}]))
    assert "| gap | 4 | 2 | 1 | 1 |" in table(measured)
