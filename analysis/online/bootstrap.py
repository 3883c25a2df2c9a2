"""Uncertainty of served balance: moving-block bootstrap over steps, the same blocks for all controllers that are compared.

Steps that follow each other are alike, so that whole blocks of them are drawn (Künsch 1989): at least as long as the longest
interval between two maps and as twice the integrated autocorrelation time of what is compared (initial positive sequence, Geyer
1992). Balancedness is a ratio of sums over steps, computed anew for every draw; intervals are quantiles of the draws, moved so
that their mean is the estimate, because blocks draw the first and the last steps less often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
FEWEST_BLOCKS = 4
"""Blocks are no longer than this part of the steps, or there would be nothing to draw."""
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A number and the 95 % interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """Balancedness of several controllers on steps drawn together.

    Parameters
    ----------
    values : ndarray
        On the steps themselves, float64 [controllers].
    drawn : ndarray
        float64 [controllers, draws].
    """

    values: np.ndarray
    drawn: np.ndarray

    def balancedness(self, controller: int) -> Estimate:
        """Return what a controller serves."""
        return _estimate(self.values[controller], self.drawn[controller])

    def difference(self, controller: int, other: int) -> Estimate:
        """Return by how much a controller serves more than another."""
        return _estimate(self.values[controller] - self.values[other], self.drawn[controller] - self.drawn[other])


def draw(mean: np.ndarray, served: np.ndarray, block: int, draws: int = DRAWS) -> Draws:
    """Draw blocks of steps with replacement, as many as make up the steps.

    Parameters
    ----------
    mean : ndarray
        Mean GPU load of every step, float64 [steps].
    served : ndarray
        Largest GPU load that every controller served, float64 [controllers, steps].
    block : int
        Steps of a block, 1 to all.
    draws : int, default 2000
    """
    sums = np.concatenate([np.zeros((len(served) + 1, 1)), np.cumsum(np.vstack([mean, served]), axis=1)], axis=1)
    blocks = sums[:, block:] - sums[:, :-block]
    count = math.ceil(mean.size / block)
    chosen = np.random.default_rng(SEED).integers(0, blocks.shape[1], (draws, count))
    mean_drawn, *served_drawn = (row[chosen].sum(axis=1) for row in blocks)
    return Draws(_ratio(sums[0, -1], sums[1:, -1]), _ratio(mean_drawn, np.array(served_drawn)))


def block_length(differences: np.ndarray, interval: int) -> tuple[int, bool]:
    """Return how many steps a block needs, and whether the steps are too few for it, so that it is shorter.

    Parameters
    ----------
    differences : ndarray
        What is compared at every step, float64 [series, steps].
    interval : int
        Longest interval between two maps.
    """
    needed = max([interval, *(math.ceil(2 * correlation_time(series)) for series in differences)])
    most = max(1, differences.shape[1] // FEWEST_BLOCKS)
    return min(needed, most), needed > most


def correlation_time(series: np.ndarray) -> float:
    """Return the integrated autocorrelation time, 1 for independent values.

    Pairs of lags count as long as their sum is positive.
    """
    centred = series - series.mean()
    power = float(centred @ centred)
    if power <= 1e-24 * float(series @ series):  # all alike, up to rounding
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * centred.size)
    correlations = np.fft.irfft(np.abs(spectrum) ** 2)[: centred.size] / power
    pairs = correlations[: centred.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    ended = np.flatnonzero(pairs <= 0)
    return max(1.0, 2 * float(pairs[: ended[0] if ended.size else None].sum()) - 1)


def _ratio(mean: np.ndarray, served: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(mean, served, out=np.ones_like(served), where=served > 0))


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    moved = drawn - drawn.mean() + value
    low, high = np.quantile(moved, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))
