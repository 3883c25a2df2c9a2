"""Step time as a hinge in the imbalance: flat up to a knee, then a straight line.

``T(r) = T0 (1 + beta max(0, r - knee))``, where r is the mean over layers of the fullest GPU's load divided by the mean GPU's.
Below the knee a better balance is worth nothing. Three numbers, fitted by least squares to maps of one deployment that were
timed: for every split of the maps into those below the knee and those above, the best hinge is a mean and a line that meet, or
has its knee at one of the maps, so that all of them are tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import f as fisher

from eplb_gap.problem.errors import InputError

FEWEST_MAPS = 3
"""As many as a hinge has numbers."""
LEVEL = 0.95
Interval = tuple[float | None, float | None]
"""Two ends; None where what was timed does not bound the number on that side."""
NOTHING = 1e-9
"""Slopes and distances below this are rounding errors."""
UNBOUNDED = 1e6
"""An interval that reaches so many times the best slope has no end."""
SEARCHED = 2000
"""Points of the profile likelihood on each side of the best value."""


@dataclass(frozen=True)
class Hinge:
    """How long a step takes at an imbalance.

    Parameters
    ----------
    seconds : float or None
        T0, the time of what was timed (a step, or all requests of a benchmark) at perfect balance; None where only its growth is
        known.
    beta : float
        Part of T0 by which the time grows for every 1 of imbalance above the knee.
    knee : float
        Imbalance up to which nothing is lost; at least 1.
    beta_interval, knee_interval : tuple of (float or None, float or None), optional
        95 % intervals, where they are known; an end is None where the timed maps do not bound the number on that side.
    """

    seconds: float | None
    beta: float
    knee: float
    beta_interval: Interval | None = None
    knee_interval: Interval | None = None

    def relative(self, imbalance: float) -> float:
        """Return the time at an imbalance as a multiple of T0.

        Raises
        ------
        InputError
            If it is less than 1: no fullest GPU is below the mean.
        """
        if not 1.0 <= imbalance < math.inf:
            raise InputError(f"imbalance is {imbalance}; the fullest GPU over the mean, a number of at least 1, is needed")
        return 1.0 + self.beta * max(0.0, imbalance - self.knee)

    def at(self, imbalance: float) -> float:
        """Return the time at an imbalance, in the unit of T0.

        Raises
        ------
        InputError
            As :meth:`relative`, or if T0 is not known.
        """
        if self.seconds is None:
            raise InputError("seconds of the hinge are not known; only times relative to perfect balance are")
        return self.seconds * self.relative(imbalance)


@dataclass(frozen=True)
class HingeFit:
    """A hinge fitted to timed maps.

    Parameters
    ----------
    hinge : Hinge
        With 95 % intervals by profile likelihood; none for three maps, which it meets exactly. The slope has no upper end where a
        rise at the last map alone explains the times, and the knee no lower end where a straight line does. The knee is always
        below the largest imbalance, as the times are known to grow.
    spread : float or None
        Standard deviation of what the hinge leaves over, in the unit of the times; None for three maps.
    left_out : ndarray
        For every map the relative error of its time as the others alone predict it, float64 [maps]; NaN where they do not
        identify a hinge.
    """

    hinge: Hinge
    spread: float | None
    left_out: np.ndarray


def fit_hinge(imbalance: Sequence[float], seconds: Sequence[float]) -> HingeFit:
    """Fit a hinge to maps of one deployment that served the same requests.

    Parameters
    ----------
    imbalance : sequence of float [maps]
        Mean over layers of the largest GPU load divided by the mean.
    seconds : sequence of float [maps]
        Time that each map took, of a step or of all requests.

    Raises
    ------
    InputError
        If there are fewer than three maps, two of one imbalance where three different ones are needed, or the times do not
        identify a hinge: they do not grow, or not more than they scatter, no map lies in the flat part, so that the knee may be
        anywhere below, or fewer than two lie on the slope, so that a later knee with a steeper one fits as well.

    Examples
    --------
    >>> from eplb_gap.analysis.step_time.hinge import fit_hinge
    >>> fit = fit_hinge([1.0, 1.05, 1.2, 1.4], [10.0, 10.0, 10.5, 11.5])
    >>> round(fit.hinge.knee, 6), round(fit.hinge.beta, 6), round(fit.hinge.at(1.3), 6)
    (1.1, 0.5, 11.0)
    """
    r, t = _checked(imbalance, seconds)
    hinge, rest = _best(r, t)
    _identified(hinge, r, t)
    predicted = np.array([_predicted(r, t, i) for i in range(r.size)])
    if r.size == FEWEST_MAPS:
        _steep(hinge, r)
        return HingeFit(hinge, None, predicted)
    freedom = r.size - FEWEST_MAPS
    variance = rest / freedom
    most = rest + variance * float(fisher.ppf(LEVEL, 1, freedom))
    if float(((t - t.mean()) ** 2).sum()) <= most:
        raise InputError(
            f"seconds go from {t.min():g} to {t.max():g}, which a constant explains as well at {LEVEL:.0%}; no hinge can be "
            "fitted to these maps"
        )
    _steep(hinge, r)
    hinge = replace(hinge, beta_interval=_beta_interval(r, t, hinge, most), knee_interval=_knee_interval(r, t, hinge.knee, most))
    return HingeFit(hinge, math.sqrt(variance), predicted)


def _knee_interval(r: np.ndarray, t: np.ndarray, best: float, most: float) -> Interval:
    """Return the ends of the knees that leave over no more than ``most``."""
    knees = np.linspace(r.min(), r.max(), 2 * SEARCHED + 1)[:-1]
    inside = knees[_left_over(r, t, knees) <= most]
    low = None if _any_knee_below(r, t, most) else float(inside.min(initial=best))
    return low, float(r.max()) if _any_slope_above(r, t, most) else float(inside.max(initial=best))


def _any_knee_below(r: np.ndarray, t: np.ndarray, most: float) -> bool:
    """Return whether a straight line will do, and there is room below its first map: its knee may be anywhere in it."""
    return bool(r.min() > 1.0 and _left_over(r, t, np.array([r.min()]))[0] <= most)


def _any_slope_above(r: np.ndarray, t: np.ndarray, most: float) -> bool:
    """Return whether two constants will do, one of the last map alone: the limit of knees that near it, whose slope has none."""
    last = r == r.max()
    return sum(float(((part - part.mean()) ** 2).sum()) for part in (t[last], t[~last])) <= most


def _beta_interval(r: np.ndarray, t: np.ndarray, hinge: Hinge, most: float) -> Interval:
    """Return the ends of the slopes for which some knee leaves over no more than ``most``.

    A knee below all maps leaves over what a line does, but at a smaller time of perfect balance, so at a larger slope. The lower
    end is always known, as a constant leaves over more.
    """
    least = 1.0 if _any_knee_below(r, t, most) else float(r.min())
    knees = np.linspace(least, r.max(), SEARCHED + 1)[:-1]

    def fits(beta: float) -> bool:
        rises = 1.0 + beta * np.maximum(0.0, r - knees[:, None])
        seconds = (rises * t).sum(axis=1) / (rises**2).sum(axis=1)
        return bool((((seconds[:, None] * rises - t) ** 2).sum(axis=1) <= most).any())

    ends: list[float | None] = []
    for toward in (-1.0, 1.0):
        if toward > 0 and _any_slope_above(r, t, most):
            ends.append(None)
            continue
        step = 0.5 * hinge.beta
        while fits(hinge.beta + toward * step) and step < UNBOUNDED * hinge.beta:
            step *= 2.0
        if step >= UNBOUNDED * hinge.beta:
            ends.append(None)  # the time of perfect balance may be nothing
            continue
        inner, outer = 0.0, step
        for _ in range(40):
            middle = (inner + outer) / 2.0
            inner, outer = (middle, outer) if fits(hinge.beta + toward * middle) else (inner, middle)
        ends.append(hinge.beta + toward * inner)
    return ends[0], ends[1]


def _best(r: np.ndarray, t: np.ndarray) -> tuple[Hinge, float]:
    """Return the hinge that leaves over the least, and the sum of squares that it leaves over."""
    order = np.argsort(r, kind="stable")
    r, t = r[order], t[order]
    knees = [float(value) for value in r[:-1] if value >= 1.0]
    for below in range(1, r.size - 1):
        slope, start = np.polyfit(r[below:], t[below:], 1) if np.ptp(r[below:]) > 0 else (0.0, 0.0)
        meets = (t[:below].mean() - start) / slope if slope > 0 else math.nan
        if r[below - 1] < meets < r[below]:
            knees.append(float(meets))
    return min((_at_knee(r, t, knee) for knee in knees), key=lambda found: found[1])


def _at_knee(r: np.ndarray, t: np.ndarray, knee: float) -> tuple[Hinge, float]:
    columns = np.stack([np.ones_like(r), np.maximum(0.0, r - knee)], axis=1)
    (flat, rise), *_ = np.linalg.lstsq(columns, t, rcond=None)
    left = columns @ np.array([flat, rise]) - t
    return Hinge(float(flat), float(rise / flat), float(knee)), float(left @ left)


def _left_over(r: np.ndarray, t: np.ndarray, knees: np.ndarray) -> np.ndarray:
    """Return the sum of squares that the best hinge of every knee leaves over, float64 [knees]; knees are below the largest r."""
    rise = np.maximum(0.0, r - knees[:, None])
    rise -= rise.mean(axis=1, keepdims=True)
    rest = t - t.mean()
    return np.asarray(rest @ rest - (rise @ rest) ** 2 / (rise**2).sum(axis=1))


def _predicted(r: np.ndarray, t: np.ndarray, index: int) -> float:
    others = np.arange(r.size) != index
    if np.unique(r[others]).size < FEWEST_MAPS:
        return math.nan
    hinge = _best(r[others], t[others])[0]
    try:
        _identified(hinge, r[others], t[others])
        _steep(hinge, r[others])
    except InputError:
        return math.nan
    return hinge.at(float(r[index])) / float(t[index]) - 1.0


def _identified(hinge: Hinge, r: np.ndarray, t: np.ndarray) -> None:
    if hinge.beta <= NOTHING:
        raise InputError(
            f"seconds go from {t.min():g} to {t.max():g} and do not grow with the imbalance; no hinge can be fitted to these maps"
        )
    # A map at perfect balance bounds the knee from below by itself.
    if r.min() > 1.0 and hinge.knee <= r.min() * (1.0 + NOTHING):
        raise InputError(
            f"the best knee is {hinge.knee:g}, the smallest imbalance timed: no map lies in the flat part, and the knee may be "
            "anywhere below; a map that is better balanced is needed"
        )


def _steep(hinge: Hinge, r: np.ndarray) -> None:
    if np.unique(r[r > hinge.knee * (1.0 + NOTHING)]).size < 2:
        raise InputError(
            f"only maps of imbalance {r.max():g} lie above the best knee, {hinge.knee:g}: a later knee with a steeper slope fits "
            "them as well; two maps of different imbalance on the slope are needed"
        )


def _checked(imbalance: Sequence[float], seconds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    r, t = np.asarray(imbalance, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if r.ndim != 1 or r.shape != t.shape:
        raise InputError(f"imbalance and seconds have shapes {r.shape} and {t.shape}; one number of each is needed for every map")
    if not (np.isfinite(r).all() and (r >= 1.0).all()):
        raise InputError("imbalance must be finite and at least 1: the largest GPU load over the mean")
    if not (np.isfinite(t).all() and (t > 0.0).all()):
        raise InputError("seconds must be finite and positive")
    if np.unique(r).size < FEWEST_MAPS:
        raise InputError(
            f"{r.size} maps of {np.unique(r).size} different imbalances were timed; at least {FEWEST_MAPS} different ones are "
            "needed, as a hinge has three numbers"
        )
    return r, t
