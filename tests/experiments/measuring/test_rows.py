from __future__ import annotations

import json
from fractions import Fraction

import pytest

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.published.compare import compare
from eplb_gap.experiments.published.publish import publish
from eplb_gap.problem import InputError


def row(method="a", **fields):
    return Row({"suite": "s", "instance": "i", "method": method, "seed": 0, **fields})


def test_the_last_row_of_a_key_counts(tmp_path):
    path = tmp_path / "s.ndjson"
    for value in (1, 2):
        rows.append(path, row(value=value))
    rows.append(path, row("b", value=3))
    assert [r["value"] for r in rows.read(path)] == [2, 3]


def test_a_last_line_cut_short_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "s.ndjson"
    rows.append(path, row(value=1))
    with path.open("ab") as file:
        file.write(json.dumps(row("b", value=2)).encode()[:20])
    assert [r["value"] for r in rows.read(path)] == [1]
    # The next row must not be glued to the torn one.
    rows.append(path, row("c", value=3))
    assert [r["value"] for r in rows.read(path)] == [1, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "s.ndjson"
    path.write_text('{"suite": 1}\n' + json.dumps(row()) + "\n")
    with pytest.raises(InputError, match="line 1"):
        rows.read(path)


def heuristic(**changes):
    fields = {
        "kind": "heuristic",
        "hash": "h",
        "placement": "p",
        "status": "legal",
        "duplicates": 0,
        "upper": ["3/1"],
        "planning": {"gpu": 0.5},
        "serving": None,
    }
    return row(**{**fields, **changes})


def solver(low, up):
    return Row(row("solver", kind="solver", hash="h", lower=[low], upper=[up]), suite="gap")


@pytest.mark.parametrize(
    "change", [{"placement": "q"}, {"upper": ["4/1"]}, {"status": "illegal"}, {"planning": {"gpu": 0.5000001}}, {"hash": "g"}]
)
def test_any_change_of_a_deterministic_row_is_a_difference(change):
    assert compare(Rows([heuristic()]), Rows([heuristic()])).equal == 1
    outcome = compare(Rows([heuristic(**change)]), Rows([heuristic()]))
    assert outcome.equal == 0
    assert len(outcome.problems) == 1


def test_intervals_of_solvers_must_intersect():
    assert compare(Rows([solver("2/1", "5/2")]), Rows([solver("5/2", "3/1")])).intersecting == 1
    assert compare(Rows([solver("2/1", "5/2")]), Rows([solver("51/20", "3/1")])).problems
    assert compare(Rows([solver("2/1", "5/2")]), Rows([])).new == 1


def test_publish_copies_rows_and_hashes_every_file(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    results.mkdir()
    rows.append(runs / "s.ndjson", row(value=1))
    rows.append(runs / "s.ndjson", row(value=2))
    assert publish(runs, results) == ["s"]
    assert [r["value"] for r in rows.read(results / "s.ndjson")] == [2]
    manifest = json.loads((results / "MANIFEST.json").read_text())
    assert list(manifest["files"]) == ["best_known.json", "s.ndjson"]
    assert len(manifest["files"]["s.ndjson"]) == 64


def test_publish_keeps_the_rows_of_the_grid_that_were_not_measured_anew(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"

    def of_gap(method, value, instance="flashlb"):
        return Row(suite="gap", instance=instance, method=method, seed=0, kind="heuristic", value=value)

    for old in (of_gap("fast", 1), of_gap("initial_program", 1), of_gap("milp", 1), of_gap("auto", 1, "no such instance")):
        rows.append(results / "gap.ndjson", old)
    rows.append(runs / "gap.ndjson", of_gap("milp", 2))
    publish(runs, results)
    left = {(row["method"], row["value"]) for row in rows.read(results / "gap.ndjson")}
    assert left == {("initial_program", 1), ("milp", 2)}  # the others are of no cell


def test_publish_refuses_failed_rows_and_leaves_the_results_alone(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    rows.append(runs / "a.ndjson", row(value=1))
    rows.append(runs / "s.ndjson", row(kind=rows.FAILURE, status="timed out after 1 s"))
    with pytest.raises(InputError, match=r"1 failed row\(s\), the first s i a 0: timed out after 1 s"):
        publish(runs, results)
    assert not results.exists()


def test_a_failed_row_is_a_difference_with_its_status():
    failed = row(kind=rows.FAILURE, status="killed by signal 9", hash="")
    assert compare(Rows([failed]), Rows([heuristic()])).problems == ["s i a 0: killed by signal 9"]


@pytest.mark.parametrize(
    ("instance", "trace", "policy", "window"),
    [
        ("recorded-03", "recorded", None, 3),
        ("recorded-domains", None, None, None),
        ("calibrated hierarchical", "calibrated", "hierarchical", None),
        ("mix of six global", "mix of six", "global", None),
        ("recorded global 03", "recorded", "global", 3),
        ("flagship-global-recorded", None, None, None),
        ("flagship hierarchical 1e+06 0.0001", None, None, None),
        ("256/288/144 recorded", None, None, None),
        ("small 07", None, None, None),
    ],
)
def test_columns_are_said_by_the_instance_where_a_row_does_not_state_them(instance, trace, policy, window):
    found = Row({"instance": instance})
    assert (found.trace, found.policy, found.window) == (trace, policy, window)
    stated = Row({"instance": instance, "trace": "t", "policy": "p", "window": 7})
    assert (stated.trace, stated.policy, stated.window) == ("t", "p", 7)


def test_rows_are_chosen_by_fields_and_columns():
    measured = Rows(
        row(method, suite=suite, instance=instance)
        for suite in ("a", "b")
        for instance in ("recorded-00", "recorded-01", "recorded-domains-00", "recorded global")
        for method in ("x", "y")
    )
    assert [r["instance"] for r in measured.where(suite="a", trace="recorded", method="x")] == [
        "recorded-00",
        "recorded-01",
        "recorded global",
    ]
    assert measured.one(suite="b", window=1, method="y").key == ("b", "recorded-01", "y", 0)
    assert len(measured.of(("b",))) == 8
    with pytest.raises(LookupError, match="no row with suite 'c', policy 'global'"):
        measured.one(suite="c", policy="global")


def test_makespans_are_exact_in_one_list_and_none_where_a_map_is_illegal():
    assert row(upper=[["7/2", "3/1"], ["1/3"]]).upper == [Fraction(7, 2), Fraction(3), Fraction(1, 3)]
    assert row(upper=None).upper == row(upper=[["7/2"], None]).upper == row().upper == []
    assert row(lower=["1/3"]).lower == [Fraction(1, 3)]


@pytest.mark.parametrize(
    "line", [b"[]", b'[["suite", "s"], ["instance", "i"], ["method", "m"], ["seed", 0]]', b'{"suite": 1}', b"{"]
)
def test_only_an_object_with_a_key_is_a_row(line):
    with pytest.raises(ValueError):
        Row.parse(line)


def test_failures_and_rows_of_other_code_are_not_done():
    key, codes = row().key, {row().key: "now"}
    assert rows.done([row(code="now")], codes) == {key: row(code="now")}
    for other in (row(code="then"), row(), row(code="now", kind=rows.FAILURE), row("b", code="now")):
        assert rows.done([other], codes) == {}
