"""A hinge fitted to timed maps: a published table, known hinges with noise, and what cannot be identified."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.analysis.step_time.hinge import Hinge, fit_hinge
from eplb_gap.problem.errors import InputError

PUBLISHED = ([1.010, 1.073, 1.148, 1.218, 1.220, 1.287, 1.550], [82.72, 83.00, 83.84, 85.88, 86.00, 87.24, 93.48])
"""Seven maps of Qwen2-57B-A14B on eight GPUs, of the same counts, with the seconds that 16,384 requests took."""


def test_the_published_maps_give_the_published_hinge() -> None:
    fit = fit_hinge(*PUBLISHED)
    assert 0.28 <= fit.hinge.beta <= 0.29 and 1.09 <= fit.hinge.knee <= 1.10
    assert np.abs(fit.left_out).max() < 0.005
    assert fit.spread is not None and 0 < fit.spread < 0.5


@pytest.mark.parametrize("seed", range(20))
def test_no_other_knee_fits_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = Hinge(float(rng.uniform(1, 100)), float(rng.uniform(0.1, 1.0)), float(rng.uniform(1.02, 1.2)))
    r = np.sort(np.concatenate([[1.005], rng.uniform(1.0, 1.6, 7), [1.62]]))
    t = np.array([true.at(x) for x in r])
    exact = fit_hinge(r, t)
    assert [exact.hinge.seconds, exact.hinge.beta, exact.hinge.knee] == pytest.approx([true.seconds, true.beta, true.knee])
    noisy = t * (1 + 0.002 * rng.standard_normal(r.size))
    fit = fit_hinge(r, noisy)
    rest = sum((fit.hinge.at(x) - y) ** 2 for x, y in zip(r, noisy, strict=True))
    for knee in np.linspace(1.0, r[-2], 100):
        columns = np.stack([np.ones_like(r), np.maximum(0, r - knee)], axis=1)
        best = np.linalg.lstsq(columns, noisy, rcond=None)[0]
        assert rest <= ((columns @ best - noisy) ** 2).sum() * (1 + 1e-9)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    true = Hinge(80.0, 0.3, 1.1)
    r = np.array([1.0, 1.04, 1.08, 1.15, 1.2, 1.3, 1.4, 1.5])
    rng = np.random.default_rng(7)
    held = np.zeros(2)
    for _ in range(40):
        fit = fit_hinge(r, np.array([true.at(x) for x in r]) + 0.2 * rng.standard_normal(r.size))
        for i, (interval, value) in enumerate(((fit.hinge.beta_interval, true.beta), (fit.hinge.knee_interval, true.knee))):
            assert interval is not None
            low, high = interval
            held[i] += (low is None or low <= value) and (high is None or value <= high)
    assert (held >= 0.85 * 40).all()


def test_an_end_that_no_map_bounds_is_none_and_the_others_are_where_the_fit_says() -> None:
    steep = fit_hinge([1.0, 1.05, 1.1, 1.4], [10.0, 10.01, 10.02, 11.0]).hinge  # any knee up to the last map, however steep
    assert steep.beta_interval is not None and steep.knee_interval is not None
    assert steep.beta_interval == (pytest.approx(0.284, abs=0.001), None) and steep.knee_interval[1] == 1.4
    for knee in (1.3, 1.39, 1.3999):
        at = Hinge(10.01, 0.99 / 10.01 / (1.4 - knee), knee)
        assert abs(at.at(1.4) - 11.0) < 1e-9 and at.beta > steep.beta_interval[0]
    twice = fit_hinge([1.0, 1.05, 1.1, 1.4, 1.4], [10.0, 10.01, 10.02, 11.0, 11.01]).hinge
    assert twice.beta_interval is not None and twice.beta_interval[1] is None
    line = fit_hinge([1.05, 1.1, 1.2, 1.3, 1.4], [10.2, 10.21, 10.8, 11.2, 11.6]).hinge  # perhaps straight from balance on
    assert line.knee_interval is not None and line.knee_interval[0] is None and line.knee_interval[1] < 1.4
    assert line.beta_interval is not None and None not in line.beta_interval
    r, t = np.array([1.05, 1.1, 1.2, 1.3, 1.4]), np.array([10.2, 10.21, 10.8, 11.2, 11.6])
    slope, start = np.polyfit(r, t, 1)
    assert line.beta_interval[0] < slope / (slope + start) < line.beta_interval[1]  # a knee at balance
    published = fit_hinge(*PUBLISHED).hinge
    assert published.beta_interval == pytest.approx((0.260, 0.306), abs=0.001)
    assert published.knee_interval == pytest.approx((1.060, 1.121), abs=0.001)


def test_three_maps_are_met_and_have_no_interval() -> None:
    fit = fit_hinge([1.0, 1.2, 1.4], [10.0, 10.5, 11.5])
    assert [fit.hinge.at(x) for x in (1.0, 1.2, 1.4)] == pytest.approx([10.0, 10.5, 11.5])
    assert fit.hinge.beta_interval is None and fit.spread is None and np.isnan(fit.left_out).all()


@pytest.mark.parametrize(
    ("imbalance", "seconds", "says"),
    [
        ([1.0, 1.2], [1.0, 2.0], "at least 3 different ones"),
        ([1.0, 1.2, 1.2, 1.2], [1.0, 2.0, 2.0, 2.0], "4 maps of 2 different imbalances"),
        ([1.0, 1.2, 1.4], [3.0, 2.0, 1.0], "do not grow"),
        ([1.0, 1.2, 1.3], [5.0, 5.0, 5.0], "do not grow"),
        ([1.0, 1.1, 1.2, 1.3, 1.4], [5.0, 5.1, 4.9, 5.0, 5.05], "a constant explains as well"),
        ([1.0, 1.1, 1.4], [1.0, 1.0, 1.5], "only maps of imbalance 1.4 lie above the best knee, 1.1"),
        ([1.0, 1.05, 1.1, 1.4], [1.0, 1.001, 0.9995, 1.5], "only maps of imbalance 1.4 lie above"),
        ([1.1, 1.2, 1.4, 1.5], [10.0, 11.0, 13.0, 14.0], "no map lies in the flat part"),
        ([0.9, 1.2, 1.4], [1.0, 1.0, 2.0], "at least 1"),
        ([1.0, 1.2, 1.4], [1.0, -1.0, 2.0], "positive"),
        ([1.0, 1.2, float("nan")], [1.0, 1.0, 2.0], "finite"),
        ([1.0, 1.2, 1.4], [1.0, 1.0], "one number of each"),
    ],
)
def test_what_identifies_no_hinge_is_refused(imbalance: list[float], seconds: list[float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        fit_hinge(imbalance, seconds)


def test_no_time_below_perfect_balance() -> None:
    with pytest.raises(InputError, match="at least 1"):
        Hinge(1.0, 0.3, 1.1).at(0.9)
