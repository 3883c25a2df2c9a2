"""Balancedness step by step: latency follows the slowest GPU of every step, which a window's sum does not show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.analysis.windows import Windows
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.metrics import balancedness_gpu, gpu_loads
from eplb_gap.problem.placement import Placement

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass(frozen=True)
class PerStep:
    """One map on the steps of the window it serves.

    Parameters
    ----------
    balancedness : float
        Sum over steps and layers of the mean GPU load over the sum of the maximum: what latency follows.
    of_window : float
        The same of the window's sum.
    by_step : ndarray
        Balancedness of every step, over its layers, float64 [steps].
    """

    balancedness: float
    of_window: float
    by_step: np.ndarray

    @property
    def flattery(self) -> float:
        """By how much the window's sum flatters the map."""
        return self.of_window - self.balancedness

    def quantiles(self) -> list[float]:
        """Return the least, the tenth, median, ninetieth percentile and the largest balancedness of a step."""
        return [float(value) for value in np.quantile(self.by_step, QUANTILES)]


def serving_steps(recorded: LoadTrace, windowed: LoadTrace, windows: Windows) -> np.ndarray:
    """Return the recorded steps of the window that is served, int64 [steps, layers, experts].

    Parameters
    ----------
    recorded : LoadTrace
        Step by step.
    windowed : LoadTrace
        The same, summed over windows; its oldest steps that filled none are left out.
    windows : Windows
        Of ``windowed``.

    Raises
    ------
    InputError
        If a window is one recorded step: then there is nothing inside it.
    """
    per_window = len(recorded.loads) // len(windowed.loads)
    if per_window < 2:
        raise InputError("--per-step needs --window STEPS of at least two recorded steps")
    first = len(recorded.loads) - per_window * (len(windowed.loads) - windows.serve_window)
    return np.asarray(recorded.loads[first : first + per_window])


def per_step(placement: Placement, steps: np.ndarray, deployment: Deployment) -> PerStep:
    """Score a map on every step.

    Parameters
    ----------
    placement : Placement
    steps : ndarray
        int64 [steps, layers, experts].
    deployment : Deployment
    """
    loads = [gpu_loads(placement, step, deployment) for step in steps]
    means = np.array([step.mean(axis=1).sum() for step in loads])
    maxima = np.array([step.max(axis=1).sum() for step in loads])
    by_step = np.divide(means, maxima, out=np.ones_like(means), where=maxima > 0)
    whole = float(means.sum() / maxima.sum()) if maxima.any() else 1.0
    return PerStep(whole, balancedness_gpu(placement, steps.sum(axis=0), deployment), by_step)
