"""What no controller can exceed: the chain from the mean to the best map of every interval, with certified bounds.

A controller that changes its maps every ``interval`` steps serves each interval with one map. Per layer and interval no map is
below the sample-average bound of the interval's own steps (:mod:`eplb_gap.problem.bounds.sample_average`), so the sum of these
bounds holds for **every** such controller, also for one that knows the future and moves what it likes. Its distance to what a
controller served is the certified regret. What the best maps really reach lies between the bound and the maps found here. No
expert outweighs the mean load of a GPU of many slots, and then all that is known of one node is that mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.registry import rebalance
from eplb_gap.heuristics.serving.sample_average import patient_plan
from eplb_gap.problem.bounds.sample_average import interval_bounds
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.step_makespans import by_layer, step_makespans, total


@dataclass(frozen=True)
class Limit:
    """Sums over the judged steps and all layers, in tokens; every one is a part of the chain from the mean on.

    Parameters
    ----------
    interval, offset : int
        Maps change at steps ``offset``, ``offset + interval``, ...
    mean : Fraction
        Mean GPU loads.
    step_lower, step_upper : Fraction
        Optimum of every step on its own: a bound, and what maps made for the step reach.
    interval_lower, interval_upper : Fraction
        Best map of every interval: a bound for every controller, and what maps made for the interval reach.
    """

    interval: int
    offset: int
    mean: Fraction
    step_lower: Fraction
    step_upper: Fraction
    interval_lower: Fraction
    interval_upper: Fraction

    @property
    def balancedness(self) -> tuple[float, float]:
        """What the best controller serves at least and at most."""
        return _ratio(self.mean, self.interval_upper), _ratio(self.mean, self.interval_lower)

    def regret(self, served: Fraction) -> tuple[float, float]:
        """Return by how much of the mean a controller's makespans exceed the best maps': at least, and at most."""
        least, most = served - self.interval_upper, served - self.interval_lower
        return (float(least / self.mean), float(most / self.mean)) if self.mean else (0.0, 0.0)


def certified_limit(
    loads: np.ndarray,
    deployment: Deployment,
    interval: int,
    first: int,
    offset: int = 0,
    tick: Callable[[int, int], None] | None = None,
) -> Limit:
    """Bound what every controller can serve that changes its maps every ``interval`` steps.

    Parameters
    ----------
    loads : ndarray
        int64 [steps, layers, experts].
    deployment : Deployment
    interval : int
    first : int
        First step that is judged.
    offset : int, default 0
        Step at which a map may change; the lag of the controllers.
    tick : callable, optional
        ``tick(steps done, steps)``.

    Raises
    ------
    InputError
        If a number is out of range.
    """
    if not 0 <= first < len(loads):
        raise InputError(f"first is {first}; a step from 0 to {len(loads) - 1} is needed")
    if interval < 1 or offset < 0:
        raise InputError(f"interval and offset are {interval} and {offset}; at least 1 and 0 are needed")
    step_lower = step_upper = interval_lower = interval_upper = Fraction(0)
    start = first
    while start < len(loads):
        end = min(len(loads), start + interval - (start - offset) % interval)
        steps = loads[start:end]
        for layer in range(steps.shape[1]):
            own, together = interval_bounds(steps[:, layer], deployment)
            step_lower += own * len(steps)
            interval_lower += together * len(steps)
        as_layers = steps.reshape(1, -1, steps.shape[2])  # one call plans all steps, each as a layer
        step_upper += total(*step_makespans(rebalance(as_layers[0], deployment), as_layers, deployment))
        plans = [rebalance(steps.sum(axis=0), deployment)]
        if not deployment.live.unequal_slots:
            plans.append(patient_plan(steps, deployment))
        interval_upper += _best_by_layer(plans, steps, deployment)
        start = end
        if tick is not None:
            tick(start, len(loads))
    mean = Fraction(int(loads[first:].sum(dtype=object)), deployment.live.num_gpus)
    return Limit(interval, offset, mean, step_lower, min(step_upper, interval_upper), interval_lower, interval_upper)


def _best_by_layer(plans: list[Placement], steps: np.ndarray, deployment: Deployment) -> Fraction:
    """Return the sum over layers of what the best of some maps serves there."""
    found = [by_layer(*step_makespans(placement, steps, deployment)) for placement in plans]
    return sum((min(layer) for layer in zip(*found, strict=True)), Fraction(0))


def _ratio(mean: Fraction, served: Fraction) -> float:
    return float(mean / served) if served else 1.0
