"""Exact makespans of maps on many steps at once: integers over one common multiple of a layer's replica counts."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.metrics import live_map, per_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import SAFE_INT64


def step_makespans(placement: Placement, steps: np.ndarray, deployment: Deployment) -> tuple[np.ndarray, np.ndarray]:
    """Return the makespan of every layer at every step, as numerators and each layer's denominator.

    Parameters
    ----------
    placement : Placement
    steps : ndarray
        int64 [steps, layers, experts].
    deployment : Deployment

    Returns
    -------
    numerators : ndarray
        [steps, layers], int64, or Python integers where int64 is too small.
    denominators : ndarray
        Python integers [layers]: least common multiple of the layer's replica counts.
    """
    live, slots = live_map(placement, deployment)
    counts = np.maximum(live.counts(), 1)
    multiples = [math.lcm(*row.tolist()) for row in counts]
    largest = max(multiples) * int(steps.sum(axis=2).max(initial=0))
    kind: type = np.int64 if largest < SAFE_INT64 else object
    weights = np.array(multiples, dtype=object)[:, None] // counts
    scaled = steps.astype(kind, copy=False) * weights.astype(kind)
    sizes = np.take_along_axis(scaled, np.broadcast_to(live.phy2log, (len(steps), *live.phy2log.shape)), axis=2)
    return per_gpu(sizes, slots).max(axis=2), np.array(multiples, dtype=object)


def total(numerators: np.ndarray, denominators: np.ndarray) -> Fraction:
    """Return the sum of makespans over all steps and layers, exactly."""
    return sum(by_layer(numerators, denominators), Fraction(0))


def by_layer(numerators: np.ndarray, denominators: np.ndarray) -> list[Fraction]:
    """Return the sum of every layer's makespans over all steps, exactly."""
    sums = numerators.sum(axis=0, dtype=object)
    return [Fraction(int(top), int(below)) for top, below in zip(sums, denominators, strict=True)]
