"""What is committed is what the rows say."""

from __future__ import annotations

import pytest

from experiments import heuristic_bench, rows, serving_bench, solver_bench
from experiments.suites import RECORDED_TRACE, gap_cells, protocol_cells
from problem import LoadTrace


@pytest.fixture(scope="module")
def published():
    return rows.read_suites(rows.RESULTS)


def test_every_cell_of_the_main_job_is_published(published):
    keys = {rows.key(row) for row in published}
    assert {cell.key for cell in protocol_cells() + gap_cells()} <= keys


@pytest.mark.parametrize("bench", [solver_bench, heuristic_bench, serving_bench])
def test_every_cell_of_the_benches_is_published(published, bench):
    assert {cell.key for cell in bench.cells()} <= {rows.key(row) for row in published}


def test_recorded_trace_says_what_it_is():
    trace = LoadTrace.load(RECORDED_TRACE)
    assert trace.loads.shape == (12, 8, 256)
    provenance = trace.provenance
    assert provenance["kind"] == "recorded from a small model trained for this purpose"
    assert provenance["window_steps"] == 100
    assert (trace.loads.sum(axis=2) == provenance["tokens_per_step"] * 100 * provenance["model"]["top_experts"]).all()
    assert all(domain["licence"] not in {"", "not stated"} for domain in provenance["corpus"])
    steps = LoadTrace.load(RECORDED_TRACE.with_name("recorded-steps.npz"))
    assert (steps.windowed(100).loads == trace.loads).all()


def test_levels_of_skew_and_drift():
    trace = LoadTrace.load(RECORDED_TRACE)
    skew, drift = trace.skew(num_groups=8), trace.drift()
    stable = slice(1, 5)
    assert skew["cv"][stable].min() >= 0.35
    assert skew["max_over_mean"][stable].min() >= 2.2
    assert skew["group_max_over_mean"][stable].min() >= 1.25
    assert drift[1:4].max() <= 0.02
    assert 0.03 <= drift[4:8].min() <= drift[4:8].max() <= 0.12
    assert drift[8] >= 0.15
