"""Intervals cover what they should, effect sizes are bounded, comparisons are paired."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from eplb_gap.experiments.measuring.statistics import FEWEST, Interval, mean_interval, paired, ratio_interval, two_way_interval

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)
"""Of eight values there is an interval, of fewer there is none unless they are equal."""


@pytest.mark.parametrize("values", [[3.5], [2.0, 2.0, 2.0], [0.1] * 7])
def test_one_value_or_equal_ones_have_no_width(values):
    found = mean_interval(values)
    assert found.low == found.mean == found.high == pytest.approx(values[0])


def test_intervals_are_near_the_normal_ones_and_repeat():
    values = np.random.default_rng(5).normal(10, 2, size=400)
    found = mean_interval(values)
    half = 1.96 * stats.sem(values)
    assert found == mean_interval(values)
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx((half, half), rel=0.1)


def test_most_intervals_hold_the_true_mean():
    generator = np.random.default_rng(3)
    found = [mean_interval(generator.normal(size=30)) for _ in range(200)]
    assert 0.88 <= np.mean([low <= 0 <= high for _, low, high in found]) <= 0.98


@given(VALUES)
def test_the_mean_is_within_and_the_ends_within_the_values(values):
    mean, low, high = mean_interval(values)
    tolerance = 1e-9 * max(map(abs, values))
    if len(values) < FEWEST and len(set(values)) > 1:
        assert np.isnan([low, high]).all()
        return
    assert min(values) - tolerance <= low <= mean + tolerance
    assert mean - tolerance <= high <= max(values) + tolerance


def test_pairing_removes_what_instances_share():
    base = np.random.default_rng(2).normal(0, 100, size=12)
    found = paired(base + np.linspace(0.9, 1.1, 12), base)
    assert found.difference.mean == pytest.approx(1)
    assert 0.9 < found.difference.low < found.difference.high < 1.1
    assert (found.effect, found.wins, found.ties, found.losses) == (1, 12, 0, 0)


def test_rank_biserial_by_hand():
    found = paired([5, 0, 4, 7], [1, 1, 2, 7])  # differences 4, -1, 2, 0: ranks 3 and 2 for, 1 against
    assert found.effect == pytest.approx(4 / 6)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)


def test_rank_biserial_is_that_of_the_signed_rank_statistic():
    ours, base = np.random.default_rng(4).normal(size=(2, 20))
    against = stats.wilcoxon(ours, base, alternative="greater").statistic / (20 * 21 / 2)
    assert paired(ours, base).effect == pytest.approx(2 * against - 1)


@pytest.mark.parametrize(("difference", "effect"), [(0.0, 0.0), (1.0, 1.0), (-1.0, -1.0)])
def test_equal_differences_have_an_effect(difference, effect):
    found = paired(np.arange(5.0) + difference, np.arange(5.0))
    assert found.effect == effect
    assert found.difference == Interval(difference, difference, difference)


@given(
    VALUES.flatmap(lambda base: st.tuples(st.just(base), st.lists(st.floats(-1e6, 1e6), min_size=len(base), max_size=len(base))))
)
def test_the_other_way_round_the_effect_turns_its_sign(both):
    one, other = both
    forth, back = paired(one, other), paired(other, one)
    assert forth.effect == pytest.approx(-back.effect)
    assert -1 <= forth.effect <= 1
    assert (forth.wins, forth.losses) == (back.losses, back.wins)
    assert forth.wins + forth.ties + forth.losses == len(one)


def test_ratio_is_resampled_in_pairs():
    whole = np.array([1.0, 5.0, 9.0, 2.0, 3.0, 4.0, 6.0, 8.0])
    assert tuple(ratio_interval(whole / 2, whole)) == pytest.approx((0.5, 0.5, 0.5))
    mean, low, high = ratio_interval([1, 2, 3, 0, 1, 2, 3, 0], [4] * 8)
    assert mean == pytest.approx(6 / 16)
    assert low < mean < high


def test_layers_that_resemble_each_other_do_not_make_windows_certain():
    windows = np.random.default_rng(6).normal(size=10)
    alone, repeated = two_way_interval(windows), two_way_interval(np.repeat(windows[:, None], 50, axis=1))
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * stats.sem(windows), rel=0.25)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, float("nan")]])
def test_what_is_no_sample_is_refused(values):
    with pytest.raises(ValueError, match="one or more finite numbers"):
        mean_interval(values)


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="ours has 2 values and base 3"):
        paired([1, 2], [1, 2, 3])
