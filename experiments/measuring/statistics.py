"""Statistics of the experiments: means and paired comparisons, with bootstrap intervals and an effect size.

Intervals are 95 % bootstrap intervals of a fixed seed, bias-corrected and accelerated (Efron, 1987); of windows and layers at
once, which have no such correction, percentile intervals. Below eight units there is none. What is resampled is what is passed:
the caller says what the units are, that consecutive windows of one trace are not quite independent, and that an interval over
instances somebody chose describes them and no population.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95
FEWEST = 8
"""Units below which an interval would say more about the method than about the data."""


class Interval(NamedTuple):
    """An estimate and its 95 % bootstrap interval; where there is none both ends are NaN, with which no comparison holds."""

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval in another unit; ``factor`` is positive."""
        return Interval(self.mean * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Paired:
    """Two methods on the same instances.

    Parameters
    ----------
    difference : Interval
        Mean of ours minus base.
    effect : float
        Matched-pairs rank-biserial correlation in [-1, 1]: the share of the ranks of absolute differences that speak for larger
        values of ours minus the share that speaks against; ties are left out, and 0 if all are ties. Unlike a mean difference
        over its deviation it is defined for equal differences and does not grow without limit on a few pairs.
    wins, ties, losses : int
        Instances on which ours is larger, equal, smaller.
    """

    difference: Interval
    effect: float
    wins: int
    ties: int
    losses: int


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean and its interval; of equal values the interval is their value, of fewer than eight others there is none.

    Parameters
    ----------
    values : sequence of float
        One per independent unit; at least one.
    """
    data = _data(values)
    return _bootstrap((data,), lambda sample, axis: sample.mean(axis=axis))


def two_way_interval(values: np.ndarray) -> Interval:
    """Return the mean over windows and layers and its interval.

    Parameters
    ----------
    values : ndarray
        float64 [windows] or [windows, layers]. Windows are drawn with replacement and, independently, layers are: the layers of
        one window and the windows of one layer resemble each other, and values drawn one by one would look too certain.
    """
    generator = np.random.default_rng(SEED)
    table = values.reshape(len(values), -1)
    if len(table) < FEWEST:
        return Interval(float(values.mean()), math.nan, math.nan)
    windows, layers = (generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in table.shape)
    estimates = ((windows @ table) * layers).sum(axis=1) / table.size
    low, high = np.quantile(estimates, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(values.mean()), float(low), float(high))


def ratio_interval(part: Sequence[float] | np.ndarray, whole: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of ``part`` over the mean of ``whole`` and its interval; the two are resampled together.

    Parameters
    ----------
    part, whole : sequence of float
        One of each per independent unit; at least one, and no resample of ``whole`` has mean 0.
    """
    return _bootstrap((_data(part), _data(whole)), lambda one, other, axis: one.mean(axis=axis) / other.mean(axis=axis))


def served_gain(
    mean: Sequence[float] | np.ndarray, ours: Sequence[float] | np.ndarray, base: Sequence[float] | np.ndarray
) -> Interval:
    """Return by how much one balancedness over time exceeds another, and its interval; blocks of steps are resampled together.

    Parameters
    ----------
    mean, ours, base : sequence of float
        Of every block of consecutive steps the sum of mean loads and of the largest loads that two controllers served; blocks
        are longer than what makes neighbouring steps alike.
    """
    return _bootstrap(
        (_data(mean), _data(ours), _data(base)),
        lambda every, one, other, axis: every.mean(axis=axis) * (1 / one.mean(axis=axis) - 1 / other.mean(axis=axis)),
    )


def paired(ours: Sequence[float] | np.ndarray, base: Sequence[float] | np.ndarray) -> Paired:
    """Compare two methods on the same instances.

    Parameters
    ----------
    ours, base : sequence of float
        One value per instance, in the same order.
    """
    one, other = _data(ours), _data(base)
    if one.shape != other.shape:
        raise ValueError(f"ours has {one.size} values and base {other.size}; one of each per instance is needed")
    differences = one - other
    signs = np.sign(differences)
    ranks = stats.rankdata(np.abs(differences[signs != 0]))
    effect = float(ranks @ signs[signs != 0] / ranks.sum()) if ranks.size else 0.0
    wins, ties, losses = (int((signs == sign).sum()) for sign in (1, 0, -1))
    return Paired(mean_interval(differences), effect, wins, ties, losses)


def _data(values: Sequence[float] | np.ndarray) -> np.ndarray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise ValueError(f"values have shape {data.shape}; one or more finite numbers in a row are needed")
    return data


def _bootstrap(data: tuple[np.ndarray, ...], statistic: Callable[..., np.ndarray]) -> Interval:
    estimate = float(statistic(*data, axis=-1))
    if all((sample == sample[0]).all() for sample in data):
        return Interval(estimate, estimate, estimate)
    if len(data[0]) < FEWEST:
        return Interval(estimate, math.nan, math.nan)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            data,
            statistic,
            n_resamples=RESAMPLES,
            paired=len(data) > 1,
            vectorized=True,
            confidence_level=LEVEL,
            method="BCa",
            rng=np.random.default_rng(SEED),
        )
    low, high = found.confidence_interval
    if math.isnan(low) or math.isnan(high):  # leaving a unit out never changes the statistic: there is nothing to correct
        low, high = np.quantile(found.bootstrap_distribution, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(estimate, float(low), float(high))
