"""Forecasts of the next window's loads, chosen by what they would have been worth on the windows already seen.

No forecast is best on all traffic: where loads drift, the last window is hard to beat; where traffic types alternate, it is the
worst of all. So every candidate is tried on the past: it forecasts each past window from those before it, a cheap planner plans
on that, and the map is scored on the window that came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.placement import Placement

LAST = "last"
DECAY = 0.5
"""Weight of a window relative to the one after it."""
FIT_STEPS = 200


@dataclass(frozen=True)
class Forecast:
    """Loads to plan on, and why.

    Parameters
    ----------
    name : str
        Key of :data:`FORECASTS`.
    loads : ndarray
        Forecast of the next window, int64 [layers, experts].
    scores : dict
        Mean balancedness on GPUs over the past windows that each candidate forecast; empty for a history of one window.
    """

    name: str
    loads: np.ndarray
    scores: dict[str, float]

    @property
    def beats_last_window(self) -> bool:
        """Whether, on the past, the choice was better than planning on the last window."""
        return bool(self.scores) and self.scores[self.name] > self.scores[LAST]


def last_window(history: np.ndarray) -> np.ndarray:
    """Return the last window."""
    return np.asarray(history[-1])


def mean_window(history: np.ndarray) -> np.ndarray:
    """Return the mean of all windows, on which maps are as good as on their sum."""
    return np.asarray(history.mean(axis=0))


def decayed_mean(history: np.ndarray) -> np.ndarray:
    """Return the mean of all windows, each with half the weight of the next."""
    weights = DECAY ** np.arange(len(history))[::-1]
    return np.asarray(np.tensordot(weights / weights.sum(), history, axes=1))


def trend(history: np.ndarray) -> np.ndarray:
    """Return the last window plus half of every expert's last change, at least zero."""
    if len(history) == 1:
        return last_window(history)
    return np.asarray(np.maximum(1.5 * history[-1] - 0.5 * history[-2], 0.0))


def successors(history: np.ndarray) -> np.ndarray:
    """Return the mixture of what followed the past windows that, mixed, resemble the last one most.

    The mixture is one for all layers, because the traffic is: non-negative weights with the least squared distance of the
    experts' shares, found by multiplicative steps.
    """
    if len(history) < 3:
        return last_window(history)
    shares = (history / np.maximum(history.sum(axis=2, keepdims=True), 1.0)).reshape(len(history), -1)
    past, target = shares[:-1], shares[-1]
    products, wanted = past @ past.T, past @ target
    weights = np.full(len(past), 1.0 / len(past))
    for _ in range(FIT_STEPS):
        weights *= wanted / np.maximum(products @ weights, 1e-300)
    if not weights.sum() > 0.0:
        return last_window(history)
    return np.asarray(np.tensordot(weights / weights.sum(), history[1:], axes=1))


FORECASTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    LAST: last_window,
    "sum": mean_window,
    "decay": decayed_mean,
    "trend": trend,
    "successors": successors,
}
"""``forecast(history float64 [windows, layers, experts])`` of the next window, by name; of equals the first is chosen."""


def choose(history: Any, deployment: Deployment) -> Forecast:
    """Forecast the next window by the candidate that did best on the past.

    Parameters
    ----------
    history : array_like of int [windows, layers, experts]
        Oldest window first.
    deployment : Deployment
        What the backtest plans for.

    Returns
    -------
    Forecast
        Of a history of one window, that window.

    Raises
    ------
    InputError
        If the history is no such array or does not fit the deployment.
    """
    from eplb_gap.heuristics.planner import fast, uneven  # import numba

    live = deployment.live

    def plan(loads: np.ndarray) -> Placement:
        return fast.plan(loads, live, effort="lpt") if live.is_regular else uneven.plan(loads, live, steps=0)

    checked = as_loads(history, "history", 3)
    if checked.shape[2] != deployment.num_experts:
        raise InputError(f"history has {checked.shape[2]} experts; the deployment has {deployment.num_experts}")
    known = checked.astype(np.float64)
    scores = {}
    if len(checked) > 1:
        for name, forecast in FORECASTS.items():
            served = [balancedness_gpu(plan(forecast(known[:now])), checked[now], live) for now in range(1, len(checked))]
            scores[name] = sum(served) / len(served)
    name = max(scores, key=scores.__getitem__) if scores else LAST
    return Forecast(name, np.rint(FORECASTS[name](known)).astype(np.int64), scores)
