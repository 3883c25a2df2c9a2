"""Held-out traces are kept apart; comparisons are over traces, on the same pairs of windows."""

from __future__ import annotations

import re
from statistics import fmean

import numpy as np
import pytest

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.studies import held_out, schema
from eplb_gap.experiments.studies.held_out import BASE, HISTORY, ON_HISTORY, ONE_WINDOW, OPTIMUM, RECORDED, SEEDS, SUITE, TRACES
from eplb_gap.problem import InputError, LoadTrace

PAIRS = 6


def made(name: str, policy: str, seed: int, method: str) -> Row:
    """A row of six pairs: ours is above the base by 10 points when planned and by 5 or 6 points when served, by seed."""
    key = Row({"suite": SUITE, "instance": f"{name} {policy}", "seed": seed, "method": method, "status": "legal"})
    if method in ON_HISTORY:
        return Row(key, kind="history", planning=[0.5] * (PAIRS - HISTORY + 1), serving=[0.6] * (PAIRS - HISTORY + 1))
    ours = method != BASE
    fields = {
        "kind": "solver" if method == OPTIMUM else "heuristic",
        "planning": [0.8 + 0.1 * ours] * PAIRS,
        "serving": [0.1, 0.1, 0.1, 0.4, 0.4, 0.4]
        if not ours
        else [0.15 + 0.01 * (seed % 2)] * 3 + [0.45 + 0.01 * (seed % 2)] * 3,
        "upper": [["102/1", "101/1"]] * PAIRS if not ours else [["100/1", "100/1"]] * PAIRS,
        "lower": [["100/1", "100/1"]] * PAIRS,
    }
    return Row(key | fields)


@pytest.fixture(scope="module")
def measured():
    return Rows(
        made(name, policy, seed, method)
        for name, seeds in TRACES.items()
        for seed in seeds
        for policy, methods in ONE_WINDOW.items()
        for method in (OPTIMUM, *methods, *ON_HISTORY)
    )


def test_no_other_source_knows_the_seeds():
    seeds = re.compile(rf"\b({'|'.join(map(str, SEEDS))})\b")
    sources = [
        path
        for folder in ("analysis", "cli", "experiments", "heuristics", "solvers", "problem", "tests")
        for path in (rows.ROOT / folder).rglob("*.py")
    ]
    assert len(sources) > 100
    assert {path.name for path in sources if seeds.search(path.read_text())} == {"held_out.py"}


def test_cells_are_declared_for_all_traces_whether_or_not_they_are_there():
    keys = [cell.key for cell in held_out.cells()]
    assert len(set(keys)) == len(keys)
    for policy, methods in ONE_WINDOW.items():
        for method in (OPTIMUM, *methods, *ON_HISTORY):
            assert {(SUITE, f"calibrated {policy}", method, seed) for seed in SEEDS} <= set(keys)
            assert (SUITE, f"recorded {policy}", method, 0) in keys


def test_a_missing_file_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr(held_out, "HELD_OUT_TRACE", tmp_path / "none.npz")
    held_out.held_out_trace.cache_clear()
    with pytest.raises(InputError, match=r"none\.npz does not exist"):
        held_out.planned_cell(RECORDED, 0, "global", "fast")


@pytest.fixture
def short(monkeypatch, tmp_path):
    """A small recorded trace in the place of the second one."""
    loads = np.random.default_rng(0).integers(1, 1000, size=(HISTORY + 2, 1, 256))
    path = tmp_path / "held-out-windows.npz"
    LoadTrace(loads, {}).save(path)
    monkeypatch.setattr(held_out, "HELD_OUT_TRACE", path)
    held_out.held_out_trace.cache_clear()
    yield loads
    held_out.held_out_trace.cache_clear()


def test_a_file_is_used_where_there_is_one(short):
    assert (held_out.held_out_trace(RECORDED, 0).loads == short).all()
    assert len(held_out.planned_cell(RECORDED, 0, "global", "fast")["serving"]) == len(short) - 1


@pytest.mark.parametrize("method", ON_HISTORY)
def test_histories_end_before_the_serving_window_and_rows_fit_their_schema(short, method, monkeypatch):
    seen = []
    monkeypatch.setitem(
        ON_HISTORY, method, lambda history, deployment, plan=ON_HISTORY[method]: seen.append(history) or plan(history, deployment)
    )
    row = held_out.history_cell(RECORDED, 0, "hierarchical", method)
    assert [(history == short[at : at + HISTORY]).all() for at, history in enumerate(seen)] == [True, True]
    assert len(row["planning"]) == len(row["serving"]) == 2
    key = {"suite": SUITE, "instance": "", "method": method, "seed": 0, "timestamp": rows.now(), **rows.environment()}
    assert schema.problems({**key, **row, "cell_wall_seconds": 0.1, "cell_cpu_seconds": 0.1}) == []


def test_the_unit_is_the_trace(measured):
    found = held_out.over_seeds(measured, "global", "fast", "serving")
    assert found.wins == len(SEEDS)
    assert found.difference.mean == pytest.approx(fmean(5 + seed % 2 for seed in SEEDS))
    assert 5 < found.difference.low < found.difference.high < 6


def test_methods_on_a_history_are_compared_on_the_pairs_they_have(measured):
    found = held_out.over_seeds(measured, "global", next(iter(ON_HISTORY)), "serving")
    assert found.difference == pytest.approx((20, 20, 20))


def test_what_survives(measured):
    mean, low, high = held_out.survival(measured, "global", "fast")
    assert mean == pytest.approx(55)
    assert 50 < low < mean < high < 60


def test_table_says_gap_and_comparison_of_every_method(measured):
    text = held_out.table(measured)
    assert sum(line.startswith(("| global,", "| hierarchical,")) for line in text.splitlines()) == 2 * (7 + 8)
    assert "| global, `initial_program` | 1.500 [1.500, 1.500] | 0.8000 | 0.2500 | - |" in text
    assert "| 10 / 0 / 0 | 55 [" in text


def test_a_file_that_is_not_there_yet_is_said_in_the_table(measured):
    failures = Rows(Row(row, kind=rows.FAILURE) if row.trace == RECORDED else row for row in measured)
    assert "Not measured: no held-out-windows.npz" in held_out.table(failures)
