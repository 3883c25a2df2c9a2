from __future__ import annotations

import json

import pytest

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.compare import compare
from eplb_gap.experiments.published.publish import publish
from eplb_gap.problem import InputError


def row(method="a", **fields):
    return {"suite": "s", "instance": "i", "method": method, "seed": 0, **fields}


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
    return {**row("solver", kind="solver", hash="h", lower=[low], upper=[up]), "suite": "gap"}


@pytest.mark.parametrize(
    "change", [{"placement": "q"}, {"upper": ["4/1"]}, {"status": "illegal"}, {"planning": {"gpu": 0.5000001}}, {"hash": "g"}]
)
def test_any_change_of_a_deterministic_row_is_a_difference(change):
    assert compare([heuristic()], [heuristic()]).equal == 1
    outcome = compare([heuristic(**change)], [heuristic()])
    assert outcome.equal == 0
    assert len(outcome.problems) == 1


def test_intervals_of_solvers_must_intersect():
    assert compare([solver("2/1", "5/2")], [solver("5/2", "3/1")]).intersecting == 1
    assert compare([solver("2/1", "5/2")], [solver("51/20", "3/1")]).problems
    assert compare([solver("2/1", "5/2")], []).new == 1


def test_publish_copies_rows_and_hashes_every_file(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    results.mkdir()
    rows.append(runs / "s.ndjson", row(value=1))
    rows.append(runs / "s.ndjson", row(value=2))
    assert publish(runs, results) == ["s"]
    assert [r["value"] for r in rows.read(results / "s.ndjson")] == [2]
    manifest = json.loads((results / "MANIFEST.json").read_text())
    assert list(manifest["files"]) == ["s.ndjson"]
    assert len(manifest["files"]["s.ndjson"]) == 64


def test_publish_refuses_failed_rows_and_leaves_the_results_alone(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    rows.append(runs / "a.ndjson", row(value=1))
    rows.append(runs / "s.ndjson", row(kind=rows.FAILURE, status="timed out after 1 s"))
    with pytest.raises(InputError, match=r"1 failed row\(s\), the first s i a 0: timed out after 1 s"):
        publish(runs, results)
    assert not results.exists()


def test_a_failed_row_is_a_difference_with_its_status():
    failed = row(kind=rows.FAILURE, status="killed by signal 9", hash="")
    assert compare([failed], [heuristic()]).problems == ["s i a 0: killed by signal 9"]
