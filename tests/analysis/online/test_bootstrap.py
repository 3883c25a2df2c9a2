"""Moving-block bootstrap: intervals cover what they should, and blocks are as long as the steps are alike."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.analysis.online.bootstrap import block_length, correlation_time, draw


def autoregressive(rng: np.random.Generator, series: int, steps: int, memory: float) -> np.ndarray:
    """Return stationary series of unit variance, float64 [series, steps]."""
    found = rng.normal(size=(series, steps))
    for step in range(1, steps):
        found[:, step] = memory * found[:, step - 1] + np.sqrt(1 - memory**2) * found[:, step]
    return found


def test_intervals_cover_the_truth_where_steps_are_alike_and_single_steps_do_not() -> None:
    rng = np.random.default_rng(1)
    true, hits, naive = 1 / 1.5 - 1 / 2, 0, 0
    noise = autoregressive(rng, 120, 600, 0.9)
    for series in noise:
        served = np.stack([2 + 0.1 * series, np.full(600, 1.5)])
        block, short = block_length(served[:1] - served[1], 5)
        assert not short
        found = draw(np.ones(600), served, block, 200).difference(1, 0)
        hits += found.low <= true <= found.high
        single = draw(np.ones(600), served, 1, 200).difference(1, 0)
        naive += single.low <= true <= single.high
    assert 0.85 <= hits / 120 <= 0.99
    assert naive / 120 < 0.65


def test_the_estimate_is_that_of_the_steps_and_pairs_share_their_blocks() -> None:
    rng = np.random.default_rng(2)
    mean = rng.uniform(1, 2, 50)
    worse, better = mean * 1.5, mean * 1.2
    found = draw(mean, np.stack([worse, better]), 7)
    assert found.balancedness(0).value == pytest.approx(1 / 1.5)
    gain = found.difference(1, 0)
    # Both are the same steps up to a factor: what differs between draws cancels.
    assert gain.low == pytest.approx(gain.value) == pytest.approx(gain.high)
    nothing = draw(np.zeros(9), np.zeros((1, 9)), 2).balancedness(0)
    assert (nothing.value, nothing.low, nothing.high) == (1.0, 1.0, 1.0)


def test_blocks_are_as_long_as_an_interval_and_as_the_loads_stay_alike() -> None:
    rng = np.random.default_rng(3)
    white = rng.normal(size=(1, 4000))
    assert block_length(white, 40) == (40, False)
    # Of an autoregression (1 + memory) / (1 - memory) = 19.
    slow = autoregressive(rng, 1, 4000, 0.9)
    assert 12 < correlation_time(slow[0]) < 28
    assert 24 < block_length(slow, 1)[0] < 56
    assert block_length(white[:, :40], 30) == (10, True)
    assert correlation_time(np.full(9, 0.1)) == 1.0
