from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from eplb_gap.cli.main import app
from eplb_gap.experiments.measuring import cold_start
from eplb_gap.experiments.measuring.cell import Cell, failure_row
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.studies import jobs

FAILED = failure_row(Cell("levels", "i", "m", dict), "timed out after 1 s")


@pytest.fixture
def sent(monkeypatch):
    """Let cells fail; return where they were sent to."""
    found = []

    def run(cells, folder, workers, console, scheduler=None):
        found.append((workers, scheduler))
        return Rows([FAILED])

    monkeypatch.setattr(jobs, "run_cells", run)
    monkeypatch.setattr(Timing, "run", lambda *arguments: Rows())
    return found


def test_a_bench_with_a_failed_cell_ends_with_1_and_prints_no_tables(tmp_path, sent):
    done = CliRunner().invoke(app, ["bench", "solvers", "--runs", str(tmp_path), "--workers", "3"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no tables" in done.stderr
    assert sent == [(1, None), (3, None)]


def test_json_of_a_bench_names_failures_too(tmp_path, sent):
    done = CliRunner().invoke(app, ["bench", "solvers", "--runs", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert [row["status"] for row in json.loads(done.stdout)] == ["timed out after 1 s"] * 2


def test_reproduce_names_a_failed_cell_and_writes_no_tables(tmp_path, sent):
    done = CliRunner().invoke(app, ["reproduce", "--runs", str(tmp_path)])
    assert done.exit_code == 1
    assert "no tables and figures" in done.stdout
    assert "levels i m 0: timed out after 1 s" in done.stderr
    assert not (tmp_path / "tables.md").exists()


def test_a_scheduler_gets_what_is_not_timed_against_a_level(tmp_path, sent):
    CliRunner().invoke(app, ["bench", "solvers", "--runs", str(tmp_path), "--scheduler", "tcp://h:1"])
    assert sent == [(1, None), (2, "tcp://h:1")]


def test_the_bench_of_heuristics_ends_with_first_answers(tmp_path, monkeypatch):
    job = jobs.BENCHES["heuristics"]
    monkeypatch.setattr(type(job), "run", lambda *arguments: Rows())
    monkeypatch.setattr(type(job), "tables", lambda *arguments: "TABLES\n")
    monkeypatch.setattr(cold_start, "tables", lambda: "FIRST ANSWERS")
    done = CliRunner().invoke(app, ["bench", "heuristics", "--runs", str(tmp_path)])
    assert (done.exit_code, done.stdout.rstrip("\n")) == (0, "TABLES")
    assert "FIRST ANSWERS" in done.stderr
