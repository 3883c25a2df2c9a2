"""The grid: every job's rows have keys of their own and a schema; all jobs run in one call, drawn only when all is there."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from rich.console import Console
from typer.testing import CliRunner

from eplb_gap.cli.main import app
from eplb_gap.experiments.exhibits.exhibits import FIGURES
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell, failure_row
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.experiments.published import reproduce
from eplb_gap.experiments.studies import jobs
from eplb_gap.experiments.studies.catalogue import STUDIES
from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.problem.errors import InputError

QUIET = Console(quiet=True)


def test_every_key_of_the_grid_is_there_once_and_its_suite_has_a_schema():
    keys = [key for of_job in jobs.keys().values() for key in of_job]
    assert max(Counter(keys).values()) == 1
    assert {key[0] for key in keys} == {study.suite for study in STUDIES.values()}


def test_the_grid_is_the_published_one_and_is_listed_without_running_a_balancer(monkeypatch):
    def plan(*arguments):
        raise AssertionError("a balancer ran")

    monkeypatch.setattr(Heuristic, "__call__", plan)
    keys = {key for of_job in jobs.keys().values() for key in of_job}
    assert keys == {row.key for row in rows.read_suites(rows.RESULTS)}


def test_cells_are_within_the_limits_that_their_rows_state():
    for of_job in jobs.cells().values():
        for cell in of_job:
            assert 0 < cell.seconds <= 3600
            assert 0 < cell.memory_bytes <= 8 << 30


@pytest.fixture
def ran(monkeypatch):
    """Let cells and timings give published rows at once; return the suites whose rows were asked for."""
    published, found = rows.read_suites(rows.RESULTS), []

    def run_cells(cells, folder, workers, console, scheduler=None):
        suites = {cell.suite for cell in cells}
        found.extend(suites)
        return published.of(suites)

    def timed(timing, folder, console):
        found.append(timing.suite)
        return published.where(suite=timing.suite, instance=timing.instance)

    monkeypatch.setattr(jobs, "run_cells", run_cells)
    monkeypatch.setattr(Timing, "run", timed)
    return found


def test_all_jobs_run_and_everything_published_is_drawn_from_their_rows(tmp_path, ran, monkeypatch):
    pareto = next(figure for figure in FIGURES if figure.name == "pareto")
    monkeypatch.setattr(reproduce, "FIGURES", [pareto])  # all of them take seconds, and are drawn by other tests
    certified = []
    monkeypatch.setattr(reproduce.certificates, "write", lambda folder: iter([certified.append(folder) or "one"]))
    report = reproduce.reproduce(tmp_path, 1, QUIET, everything=True)
    assert certified == [tmp_path / "certificates"]
    assert set(ran) == {study.suite for study in STUDIES.values()}
    assert (report.comparison.new, report.comparison.problems) == (0, [])
    assert report.comparison.equal > 0 < report.comparison.intersecting
    for text in (*rows.RESULTS.glob("*tables.md"), rows.ROOT / "paper" / "numbers.json"):
        assert (tmp_path / text.name).read_text() == text.read_text()
    assert (tmp_path / "figures" / "pareto.pdf").exists()


def test_the_main_job_draws_its_own_tables_and_figures_alone(tmp_path, ran, monkeypatch):
    drawn = []
    monkeypatch.setattr("eplb_gap.experiments.exhibits.exhibits.Figure.draw", lambda figure, *_: drawn.append(figure.name))
    report = reproduce.reproduce(tmp_path, 1, QUIET)
    assert set(ran) == {"protocol", "gap", "runtime"}
    assert report.tables == (rows.RESULTS / "tables.md").read_text()
    assert drawn == ["gap_distribution", "window_balance", "gap_runtime", "before_after"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "tables.md"]


def test_some_suites_and_methods_are_measured_alone(tmp_path, ran, monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "run_cells", lambda cells, *rest: asked.extend(cell.key for cell in cells) or Rows())
    only = jobs.Selection(("gap", "held_out", "runtime"), ("auto", "fast"))
    reproduce.reproduce(tmp_path, 1, QUIET, only=only)
    keys = {key for of_job in jobs.keys().values() for key in of_job}
    assert set(asked) == {key for key in keys if key.suite in {"gap", "held_out"} and key.method in {"auto", "fast"}}
    assert ran == []  # a timing of several methods is one measurement
    reproduce.reproduce(tmp_path, 1, QUIET, only=jobs.Selection(("runtime",)))
    assert ran == ["runtime"]


@pytest.mark.parametrize(("option", "value"), [("suite", "gaps"), ("method", "best")])
def test_a_selection_of_nothing_names_what_there_is(option, value):
    with pytest.raises(InputError, match=f"--{option} is '{value}'; one of .*gap|fast"):
        jobs.Selection(**{f"{option}s": (value,)}).check(key for of_job in jobs.keys().values() for key in of_job)


def test_with_a_failed_cell_nothing_is_drawn_and_the_failure_is_named(tmp_path, ran, monkeypatch):
    failed = failure_row(Cell("levels", "i", "m", dict), "timed out after 1 s")
    monkeypatch.setattr(jobs, "run_cells", lambda *arguments: Rows([failed]))
    done = CliRunner().invoke(app, ["reproduce", "--all", "--runs", str(tmp_path), "--json"])
    assert done.exit_code == 1
    assert set(json.loads(done.stdout)["problems"]) == {"levels i m 0: timed out after 1 s"}
    assert not list(tmp_path.iterdir())
