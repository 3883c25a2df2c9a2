"""What is committed is what the rows say."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap import read_routing
from eplb_gap.experiments.loads.traces import RECORDED_ROUTING, RECORDED_TRACE
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.published.described import APART
from eplb_gap.experiments.studies import jobs
from eplb_gap.problem import LoadTrace


@pytest.fixture(scope="module")
def published():
    return rows.read_suites(rows.RESULTS)


@pytest.mark.parametrize("job", jobs.keys())
def test_every_row_of_the_grid_is_published(published, job):
    assert set(jobs.keys()[job]) <= {row.key for row in published}


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


def test_the_recorded_routing_is_that_of_the_model_it_names():
    routing = read_routing(RECORDED_ROUTING)
    provenance, model = routing.provenance, routing.provenance["model"]
    assert (routing.num_experts, routing.topk) == (model["experts"], model["top_experts"]) == (256, 8)
    assert (routing.loads().sum(axis=1) == len(routing.experts) * routing.topk).all()
    assert np.unique(routing.step).tolist() == list(range(0, 1200, provenance["routing_every"]))
    assert (np.bincount(routing.step)[:: provenance["routing_every"]] == provenance["tokens_per_step"]).all()
    groups = np.sort(routing.experts[::64] // (model["experts"] // model["groups"]), axis=2)
    assert (1 + np.diff(groups.astype(int), axis=2).astype(bool).sum(axis=2)).max() == model["top_groups"]
    rhythm = LoadTrace.load(RECORDED_ROUTING.with_name("recorded-rhythm.npz")).provenance
    assert (provenance["checkpoint_sha256"], provenance["seed"]) == (rhythm["checkpoint_sha256"], rhythm["seed"])


def test_every_trace_is_described():
    described = {name.strip("`") for name, _ in APART}
    traces = {f"traces/{path.name}" for path in RECORDED_TRACE.parent.iterdir()}
    assert traces == {name for name in described if name.startswith("traces/")}


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
