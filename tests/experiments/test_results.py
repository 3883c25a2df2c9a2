"""What is committed is what the rows say."""

from __future__ import annotations

import hashlib
import json

import pytest

from experiments import heuristic_bench, rows, serving_bench, solver_bench
from experiments.figures.__main__ import README, fill_readme, readme_blocks
from experiments.suites import RECORDED_TRACE, gap_cells, protocol_cells
from experiments.tables import write_tables
from problem import LoadTrace


@pytest.fixture(scope="module")
def published():
    return rows.read_suites(rows.RESULTS)


def test_every_cell_of_the_main_job_is_published(published):
    keys = {rows.key(row) for row in published}
    assert {cell.key for cell in protocol_cells() + gap_cells()} <= keys


def test_manifest_hashes_are_those_of_the_files():
    manifest = json.loads((rows.RESULTS / "MANIFEST.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((rows.RESULTS / name).read_bytes()).hexdigest() == digest, name


def test_readme_and_tables_are_drawn_from_the_published_rows(published, tmp_path):
    text = README.read_text()
    assert fill_readme(text, readme_blocks(published)) == text
    assert write_tables(published, tmp_path / "tables.md") == (rows.RESULTS / "tables.md").read_text()


@pytest.mark.parametrize(
    ("bench", "name"),
    [(solver_bench, "solver_tables.md"), (heuristic_bench, "heuristic_tables.md"), (serving_bench, "serving_tables.md")],
)
def test_bench_tables_are_drawn_from_the_published_rows(published, bench, name):
    assert {cell.key for cell in bench.cells()} <= {rows.key(row) for row in published}
    assert bench.tables(published) == (rows.RESULTS / name).read_text()


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
