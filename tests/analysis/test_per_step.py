from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import heuristics
from eplb_gap.analysis.per_step import per_step, serving_steps
from eplb_gap.analysis.windows import Windows
from eplb_gap.problem import Deployment, InputError, LoadTrace, Placement
from eplb_gap.problem.metrics import balancedness_gpu


def test_alternating_steps_are_flattered_by_their_sum():
    # Two GPUs take turns: the sum is balanced, every step has all load on one GPU.
    found = per_step(Placement([[0, 1]], 2), np.array([[[8, 0]], [[0, 8]], [[4, 4]]]), Deployment(2, 2, 2))
    assert found.by_step.tolist() == [0.5, 0.5, 1.0]
    assert found.balancedness == pytest.approx(12 / 20)
    assert (found.of_window, found.flattery) == (1.0, pytest.approx(0.4))
    assert found.quantiles() == [0.5, 0.5, 0.5, 0.9, 1.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_sum_never_looks_worse_than_its_steps(seed, layers):
    deployment = Deployment(6, 9, 3)
    steps = np.random.default_rng(seed).integers(0, 50, (4, layers, 6))
    placement = heuristics.rebalance(steps.sum(axis=0), deployment)
    found = per_step(placement, steps, deployment)
    # The maximum of a sum is at most the sum of the maxima.
    assert found.flattery >= -1e-12
    assert min(found.by_step) - 1e-12 <= found.balancedness <= max(found.by_step) + 1e-12
    assert found.of_window == balancedness_gpu(placement, steps.sum(axis=0), deployment)


def test_the_steps_of_the_serving_window_are_found_where_the_oldest_were_left_out():
    steps = LoadTrace(np.arange(1, 1 + 7 * 2 * 4).reshape(7, 2, 4))
    windowed = LoadTrace(steps.loads[1:].reshape(3, 2, 2, 4).sum(axis=1))
    chosen = Windows.of(windowed, plan_window=0)
    found = serving_steps(steps, windowed, chosen)
    assert (found.sum(axis=0) == chosen.serving).all()
    assert (found == steps.loads[3:5]).all()
    with pytest.raises(InputError, match="--per-step needs --window"):
        serving_steps(windowed, windowed, chosen)


def test_a_step_without_load_is_balanced():
    found = per_step(Placement([[0, 1]], 2), np.array([[[0, 0]], [[2, 6]]]), Deployment(2, 2, 2))
    assert found.by_step.tolist() == [1.0, 4 / 6]
