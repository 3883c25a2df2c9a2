"""Synthetic loads; everything that comes from here is called synthetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eplb_gap.problem.loads import LoadTrace

LAYERS, EXPERTS, GROUPS = 58, 256, 8
TOKENS_PER_LAYER = 1.35e6
GROUP_SD, EXPERT_SD = 0.48, 0.52
STEP_SDS = (0.52, 0.13, 0.11, 0.14, 0.28, 0.40, 0.40, 0.40, None, 0.50, 0.48)  # None: regime change
REGIME_FACTOR = 1.3
HOT_SHARE, HOT_FACTOR, HOT_SD = 0.02, 20.0, 0.3
DRIFT_WINDOWS, DRIFT_SD, DRIFT_RHO = 3, 0.6, 0.8


def calibrated_trace(seed: int, steps: Sequence[float | None] = STEP_SDS) -> LoadTrace:
    """Return the calibrated stand-in for the recorded load file of a 58-layer, 256-expert model: a window more than steps.

    The log load is a fixed effect of the layer's group (sd .48) plus a stationary AR(1) process per expert (sd .52) whose
    steps were fitted to published statistics of the recorded file, with one change of regime; counts are Poisson around
    1.35e6 tokens a layer. The fit has no held-out check.

    Parameters
    ----------
    seed : int
        Seed of ``numpy.random.default_rng``.
    steps : sequence of float or None
        Standard deviation of each step; None is a change of regime. By default the fitted ones.
    """
    generator = np.random.default_rng(seed)
    group = generator.normal(size=(LAYERS, GROUPS)) * GROUP_SD
    expert = generator.normal(size=(LAYERS, EXPERTS)) * EXPERT_SD
    windows = [_counts(group, expert, generator)]
    for step in steps:
        if step is None:
            group = generator.normal(size=group.shape) * GROUP_SD * REGIME_FACTOR
            expert = generator.normal(size=expert.shape) * EXPERT_SD * REGIME_FACTOR
        else:
            rho = 1 - step**2 / (2 * EXPERT_SD**2)
            expert = rho * expert + np.sqrt(1 - rho**2) * EXPERT_SD * generator.normal(size=expert.shape)
        windows.append(_counts(group, expert, generator))
    return LoadTrace(
        np.stack(windows), {"kind": "synthetic, calibrated to published statistics", "seed": seed, "window_steps": 100}
    )


def _counts(group: np.ndarray, expert: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    log_load = np.repeat(group, EXPERTS // GROUPS, axis=1) + expert
    share = np.exp(log_load)
    counts: np.ndarray = generator.poisson(TOKENS_PER_LAYER * share / share.sum(axis=1, keepdims=True))
    return counts


def family_loads(family: str, experts: int, total: int, seed: int) -> np.ndarray:
    """Return synthetic loads of one layer, int64 [experts], scaled to about ``total`` tokens, at least 1 each.

    Parameters
    ----------
    family : str
        "flat": Poisson around equal loads; "lnS": lognormal with sigma S; "zipfA": ``1 / rank**A`` in random order times
        lognormal noise of sigma .05; "zipfA@P": the same, the hottest expert's load changed to a part P of all; "hot": lognormal
        with sigma .3, and 2 % of the experts, at least one, 20 times hotter.
    experts, total, seed : int
    """
    generator = np.random.default_rng(seed)
    if family == "flat":
        raw = generator.poisson(total / experts, size=experts).astype(float)
    elif family == "hot":
        raw = np.exp(HOT_SD * generator.normal(size=experts))
        raw[generator.permutation(experts)[: max(1, round(HOT_SHARE * experts))]] *= HOT_FACTOR
    elif family.startswith("ln"):
        raw = np.exp(float(family[2:]) * generator.normal(size=experts))
    else:
        exponent, _, part = family.removeprefix("zipf").partition("@")
        rank = 1 + generator.permutation(experts)
        raw = rank ** -float(exponent) * np.exp(0.05 * generator.normal(size=experts))
        if part:
            others = raw.sum() - raw.max()
            raw[raw.argmax()] = float(part) / (1 - float(part)) * others
    loads: np.ndarray = scaled(raw[None], total)[0]
    return loads


def drifting_loads(experts: int, total: int, seed: int) -> np.ndarray:
    """Return a few windows of one layer whose log loads are a stationary AR(1) process per expert; int64 [windows, experts].

    Every window is lognormal with sigma .6; the correlation of log loads from one to the next is .8.

    Parameters
    ----------
    experts : int
    total : int
        Tokens of a window, about.
    seed : int
    """
    generator = np.random.default_rng(seed)
    windows = [generator.normal(size=experts)]
    for _ in range(DRIFT_WINDOWS - 1):
        windows.append(DRIFT_RHO * windows[-1] + np.sqrt(1 - DRIFT_RHO**2) * generator.normal(size=experts))
    return scaled(np.exp(DRIFT_SD * np.stack(windows)), total)


def scaled(loads: np.ndarray, total: int) -> np.ndarray:
    """Return loads scaled to about ``total`` tokens per layer, rounded, at least 1 each; int64 [layers, experts]."""
    counts: np.ndarray = np.maximum(1, np.rint(loads * (total / loads.sum(axis=1, keepdims=True)))).astype(np.int64)
    return counts
