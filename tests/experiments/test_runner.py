from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments import rows
from experiments.runner import Cell, run_cells


def double(number, log):
    with open(log, "a") as file:
        file.write(f"{number}\n")
    return {"kind": "test", "value": 2 * number}


def fail(log):
    raise RuntimeError("the cell failed")


def cells(folder, numbers):
    return [Cell("s", f"n{n}", "double", double, {"number": n, "log": str(folder / "log")}) for n in numbers]


def quiet():
    return Console(file=io.StringIO())


def test_rows_come_back_in_the_order_of_the_cells_with_their_metadata(tmp_path):
    found = run_cells(cells(tmp_path, (3, 1, 2)), tmp_path, 2, quiet())
    assert [r["value"] for r in found] == [6, 2, 4]
    assert all({"versions", "revision", "cpu", "timestamp", "cell_wall_seconds"} <= set(r) for r in found)


def test_a_second_run_does_only_what_is_missing(tmp_path):
    run_cells(cells(tmp_path, (1, 2)), tmp_path, 1, quiet())
    found = run_cells(cells(tmp_path, (1, 2, 3)), tmp_path, 1, quiet())
    assert [r["value"] for r in found] == [2, 4, 6]
    assert sorted((tmp_path / "log").read_text().split()) == ["1", "2", "3"]


def test_rows_of_another_revision_are_run_again(tmp_path):
    run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())
    old = rows.read(tmp_path / "s.ndjson")[0]
    rows.append(tmp_path / "s.ndjson", {**old, "revision": "another"})
    run_cells(cells(tmp_path, (1,)), tmp_path, 1, quiet())
    assert (tmp_path / "log").read_text().split() == ["1", "1"]


def test_a_failure_keeps_the_rows_that_were_finished(tmp_path):
    broken = Cell("s", "broken", "fail", fail, {"log": ""})
    with pytest.raises(RuntimeError, match="the cell failed"):
        run_cells([*cells(tmp_path, (1,)), broken], tmp_path, 1, quiet())
    assert [r["value"] for r in rows.read(tmp_path / "s.ndjson")] == [2]
