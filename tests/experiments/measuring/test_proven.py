"""What rests on a claim is never counted as optimal."""

from __future__ import annotations

import pytest

from eplb_gap.experiments.measuring.proven import NOT_KEPT, closed, proofs, witnessed
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.solve_cells import certified_status, proof_fields

ROW = {"upper": ["2/1", "2/1", "3/1"], "lower": ["2/1", "2/1", "2/1"], "status": ["optimal", "optimal", "bounded"]}


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["mean", "pairing dual", "mean"], "2/3"),
        (["mean", "claim of HiGHS", "mean"], "1/3, 1 claimed"),
        (["exhausted search", "hierarchical, exhausted search", "mean"], "0/3, 2 claimed"),
        (None, "0/3, 2 of a kind not kept"),
    ],
)
def test_equal_fractions_are_told_apart_by_what_they_rest_on(kinds, said):
    row = Row(ROW if kinds is None else {**ROW, "proof": kinds})
    assert str(closed([row])) == said
    assert str(closed([Row({name: value for name, value in row.items() if name != "upper"})])) == said


def test_proofs_of_windows_are_read_as_layers_and_missing_ones_are_named():
    assert proofs(Row(ROW, proof=[["mean"], ["claim of CBC", "mean"]])) == ["mean", "claim of CBC", "mean"]
    assert proofs(Row(ROW)) == [NOT_KEPT] * 3
    assert not witnessed(NOT_KEPT)


def test_a_row_counts_its_bounds_by_what_must_be_believed():
    fields = proof_fields([["mean", "exhausted search"], ["mean", "claim of CBC"]])
    assert fields["trust"] == {"recomputed": 2, "search": 1, "solver": 1}
    assert [certified_status(*case) for case in ((True, [["mean"]]), (True, fields["proof"]), (False, [["mean"]]))] == [
        "certified",
        "claimed",
        "bounded",
    ]
