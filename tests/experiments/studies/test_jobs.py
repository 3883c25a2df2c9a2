"""The grid: every job's rows have keys of their own and a schema; all jobs run in one call, drawn only when all is there."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eplb_gap.cli.main import app
from eplb_gap.experiments.exhibits.figures import pareto
from eplb_gap.experiments.measuring import row_schema, rows
from eplb_gap.experiments.measuring.cell import Cell, failure_row
from eplb_gap.experiments.published import reproduce_all
from eplb_gap.experiments.studies import jobs
from eplb_gap.heuristics.methods import Heuristic

QUIET = Console(quiet=True)


def test_every_key_of_the_grid_is_there_once_and_its_suite_has_a_schema():
    keys = [key for of_job in jobs.keys().values() for key in of_job]
    assert max(Counter(keys).values()) == 1
    assert {key[0] for key in keys} == {suite for shape in row_schema.SHAPES for suite in shape.suites}


def test_the_grid_is_the_published_one_and_is_listed_without_running_a_balancer(monkeypatch):
    def plan(*arguments):
        raise AssertionError("a balancer ran")

    monkeypatch.setattr(Heuristic, "__call__", plan)
    keys = {key for of_job in jobs.keys().values() for key in of_job}
    assert keys == {rows.key(row) for row in rows.read_suites(rows.RESULTS)}


def test_cells_are_within_the_limits_that_their_rows_state():
    for of_job in jobs.cells().values():
        for cell in of_job:
            assert 0 < cell.seconds <= 3600
            assert 0 < cell.memory_bytes <= 8 << 30


@pytest.fixture
def ran(monkeypatch):
    """Let every job return published rows at once; return the names of the jobs that ran."""
    published, found = rows.read_suites(rows.RESULTS), []

    def job(name, suites):
        def run(folder, workers, console, scheduler=None):
            found.append(name)
            return [row for row in published if row["suite"] in suites]

        return run

    monkeypatch.setattr(reproduce_all, "measure", job("reproduce", {"protocol", "gap", "runtime"}))
    for name, bench in jobs.BENCHES.items():
        monkeypatch.setattr(bench, "run", job(name, set(bench.SUITES)))
    return found


def test_all_jobs_run_and_everything_published_is_drawn_from_their_rows(tmp_path, ran, monkeypatch):
    monkeypatch.setattr(reproduce_all, "FIGURES", [pareto])  # all of them take seconds, and are drawn by other tests
    report = reproduce_all.reproduce_all(tmp_path, 1, QUIET)
    assert ran == ["reproduce", *jobs.BENCHES]
    assert (report.comparison.new, report.comparison.problems) == (0, [])
    assert report.comparison.equal > 0 < report.comparison.intersecting
    for text in (*rows.RESULTS.glob("*tables.md"), rows.ROOT / "paper" / "numbers.json"):
        assert (tmp_path / text.name).read_text() == text.read_text()
    assert (tmp_path / "figures" / "pareto.pdf").exists()


def test_with_a_failed_cell_nothing_is_drawn_and_the_failure_is_named(tmp_path, ran, monkeypatch):
    failed = failure_row(Cell("levels", "i", "m", dict), "timed out after 1 s")
    monkeypatch.setattr(jobs.BENCHES["solvers"], "run", lambda *arguments: [failed])
    done = CliRunner().invoke(app, ["reproduce", "--all", "--runs", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"] == ["levels i m 0: timed out after 1 s"]
    assert not list(tmp_path.iterdir())
