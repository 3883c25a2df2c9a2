from __future__ import annotations

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.experiments.loads.synthetic import calibrated_trace, drifting_loads, family_loads
from eplb_gap.experiments.loads.traces import FLAGSHIP
from eplb_gap.experiments.studies.defective_snake import defective_map, published_score
from eplb_gap.problem import Placement, PlacementError
from eplb_gap.problem.metrics import balancedness_expert


def test_calibrated_trace_follows_its_specification():
    trace = calibrated_trace(0)
    assert trace.loads.shape == (12, 58, 256)
    assert "synthetic" in trace.provenance["kind"]
    assert np.allclose(trace.loads.sum(axis=2), 1.35e6, rtol=0.01)
    log_load = np.log(trace.loads.astype(float))
    groups = log_load.reshape(12, 58, 8, 32)
    assert 0.48 <= groups[0].std(axis=2).mean() <= 0.56
    assert 0.38 <= groups[0].mean(axis=2).std(axis=1).mean() <= 0.56
    drift = trace.drift()
    assert drift[1:4].max() < drift[4:8].min() < drift[8] == drift.max()


def test_seeds_repeat_and_differ():
    assert (calibrated_trace(1).loads == calibrated_trace(1).loads).all()
    assert (calibrated_trace(1).loads != calibrated_trace(2).loads).any()


@pytest.mark.parametrize("family", ["ln2.5", "zipf.8"])
def test_families_are_scaled_and_positive(family):
    loads = family_loads(family, 64, 10_000, 0)
    assert loads.min() >= 1
    assert abs(loads.sum() - 10_000) < 100
    assert loads.max() > 3 * loads.mean()


@pytest.mark.parametrize(("experts", "hot"), [(6, 1), (64, 1), (256, 5), (896, 18)])
def test_hot_loads_have_a_few_experts_far_above_the_others(experts, hot):
    loads = np.sort(family_loads("hot", experts, 10**6, 0))
    assert loads[-hot] > 4 * loads[-hot - 1]
    assert loads[-hot - 1] < 4 * np.median(loads)


def test_flat_loads_are_poisson_around_equal_ones():
    loads = family_loads("flat", 896, 10**6, 0)
    assert loads.var() / loads.mean() == pytest.approx(1, abs=0.2)
    assert loads.sum() == pytest.approx(10**6, rel=1e-3)


def test_drifting_loads_drift_at_one_skew():
    loads = drifting_loads(896, 10**6, 0)
    assert loads.shape == (3, 896)
    assert loads.min() >= 1
    assert (loads == drifting_loads(896, 10**6, 0)).all()
    assert (loads != drifting_loads(896, 10**6, 1)).any()
    log_load = np.log(loads)
    assert log_load.std(axis=1) == pytest.approx([0.6] * 3, abs=0.06)
    correlation = np.corrcoef(log_load)
    assert correlation[0, 1] == pytest.approx(0.8, abs=0.06)
    assert correlation[0, 2] == pytest.approx(0.64, abs=0.08)


def test_the_defective_snake_scores_worse_only_because_its_map_is_broken():
    trace = calibrated_trace(0)
    loads, following = trace.window(1), trace.window(2)
    phy2log, log2phy, logcnt = defective_map(loads, FLAGSHIP)
    correct = heuristics.rebalance(loads, FLAGSHIP, "eplb_snake_pipeline")
    assert (phy2log == correct.phy2log).all()
    honest = balancedness_expert(correct, following)
    assert published_score(following, correct.log2phy(), logcnt, 288) == pytest.approx(honest, rel=1e-12)
    assert published_score(following, log2phy, logcnt, 288) < 0.95 * honest
    with pytest.raises(PlacementError, match="-1 inside its valid prefix"):
        Placement.from_tensors(phy2log, log2phy, logcnt)
