from __future__ import annotations

from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import verifiable
from eplb_gap.experiments.studies.catalogue import STUDIES

KINDS = ["mean", "exhausted search", "claim of HiGHS", "replayed search", "pattern dual"]
ROW = {
    "suite": "gap",
    "kind": "solver",
    "method": "auto",
    "proof": KINDS,
    "upper": ["4/1", "5/1", "6/1", "7/1", "11/1"],
    "lower": ["4/1", "5/1", "6/1", "7/1", "10/1"],
}


def line(*measured):
    table = verifiable.table(Rows(map(Row, measured)))
    return next(line for line in table.splitlines() if line.startswith("| gap |"))


def test_nothing_that_rests_on_a_claim_is_counted_as_optimal():
    assert line(ROW) == "| gap | 5 | 1 | 1 | 1 (10.000 %) | 1 claim of HiGHS, 1 exhausted search | 0 |"


def test_layers_are_counted_once_and_textbook_models_and_heuristics_are_left_out():
    heuristic = {"suite": "gap", "kind": "heuristic", "method": "fast", "upper": ROW["upper"]}
    assert line(ROW, {**ROW, "method": "milp"}, heuristic) == line(ROW)


def test_rows_that_keep_no_kind_prove_nothing():
    old = {name: value for name, value in ROW.items() if name != "proof"}
    assert line(old) == "| gap | 5 | 0 | 0 | 0 | 0 | 5 |"


def test_windows_are_read_as_their_layers():
    nested = {**ROW, "upper": [ROW["upper"]] * 2, "lower": [ROW["lower"]] * 2, "proof": [KINDS] * 2}
    assert line(nested) == "| gap | 10 | 2 | 2 | 2 (10.000 %) | 2 claim of HiGHS, 2 exhausted search | 0 |"


def test_a_model_whose_proofs_are_counts_has_no_optimal_layer():
    row = Row(suite="decomposition", proof={"global": {"mean": 7}, "hierarchical": {"hierarchical": 5, "claim of CBC": 2}})
    assert verifiable.of_decomposition(Rows([row])) == [
        "decomposition (sums of layers)", "14", "-", "-", "12", "2 claim of CBC", "0",
    ]  # fmt: skip
    assert verifiable.of_decomposition(Rows([Row(suite="decomposition")]))[-1] == "1 rows"


def test_every_suite_that_keeps_proofs_is_in_the_table():
    keeping = {study.suite for study in STUDIES.values() for shape in study.shapes if "proof" in shape.fields}
    assert keeping == set(verifiable.SUITES)
