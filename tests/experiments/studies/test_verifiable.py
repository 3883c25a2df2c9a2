from __future__ import annotations

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies.verifiable import table


def test_layers_are_counted_once_and_textbook_models_are_left_out():
    row = {"suite": "gap", "method": "auto", "proof": ["mean", "exhausted search", "claim of HiGHS", "mean"]}
    measured = Rows(map(Row, [row, {**row, "method": "milp"}, {"suite": "gap", "method": "auto"}]))
    assert "| gap | 4 | 2 | 1 | 1 |" in table(measured)
