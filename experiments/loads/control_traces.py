"""Synthetic loads over time for which it is known in advance which controllers must do well.

Log shares of experts are normal, with a part that the experts of a group have in common; a step's log shares are noisy around
them, its tokens multinomial. Skew and noise are those of the recorded trace while its traffic does not change: 2048 tokens
of 8 experts each, a coefficient of variation of .48 in windows of 100 steps, a total-variation distance of .137 between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace

STEPS, LAYERS, EXPERTS, GROUPS, TOKENS, TOP = 600, 8, 256, 8, 2048, 8
GROUP_SD, EXPERT_SD = 0.18, 0.43
GROUP_NOISE, EXPERT_NOISE = 0.08, 0.19
MEMORY = 400.0  # steps after which the correlation of drifting log shares is 1/e
REGIME_STEPS = 100.0  # mean length of a regime
TURN = 5  # steps of a domain before the other has its turn
REGIME_FACTOR = 1.3  # of the sd: regimes and domains differ more than a mix of domains is uneven


def stationary(
    seed: int, steps: int = STEPS, layers: int = LAYERS, experts: int = EXPERTS, tokens: int = TOKENS, top: int = TOP
) -> LoadTrace:
    """Return loads whose steps differ by chance alone: the longer the window, the better the plan.

    Parameters
    ----------
    seed : int
        Seed of ``numpy.random.default_rng``.
    steps, layers, experts : int
        Shape of the loads; experts are a multiple of eight, so many are the groups.
    tokens, top : int
        Tokens of a step and experts of a token; every step and layer sums to their product.

    Returns
    -------
    LoadTrace
        One window per step; its provenance says kind "synthetic", the seed and which control it is.

    Raises
    ------
    InputError
        If the seed is negative, a size not positive, or the groups do not divide the experts.
    """
    generator = _generator(seed, steps, layers, experts, tokens, top)
    usual = _log_shares(generator, layers, experts)
    return _trace(generator, np.broadcast_to(usual, (steps, layers, experts)), tokens, top, "stationary", seed)


def drifting(
    seed: int,
    steps: int = STEPS,
    layers: int = LAYERS,
    experts: int = EXPERTS,
    tokens: int = TOKENS,
    top: int = TOP,
    memory: float = MEMORY,
) -> LoadTrace:
    """Return loads whose log shares are a stationary AR(1) process: short windows are noisy, long ones out of date.

    Parameters
    ----------
    seed, steps, layers, experts, tokens, top
        As for :func:`stationary`.
    memory : float
        Steps after which the correlation of log shares has fallen to 1/e.
    """
    generator = _generator(seed, steps, layers, experts, tokens, top)
    if not memory > 0:
        raise InputError(f"memory is {memory}; a positive number of steps is needed")
    kept = np.exp(-1 / memory)
    paths = np.empty((steps, layers, experts))
    paths[0] = _log_shares(generator, layers, experts)
    for step in range(1, steps):
        paths[step] = kept * paths[step - 1] + np.sqrt(1 - kept**2) * _log_shares(generator, layers, experts)
    return _trace(generator, paths, tokens, top, "drifting", seed, memory=memory)


def regimes(
    seed: int,
    steps: int = STEPS,
    layers: int = LAYERS,
    experts: int = EXPERTS,
    tokens: int = TOKENS,
    top: int = TOP,
    mean_steps: float = REGIME_STEPS,
) -> LoadTrace:
    """Return loads whose shares are drawn anew at Poisson times: after a change only short windows know the new ones.

    Parameters
    ----------
    seed, steps, layers, experts, tokens, top
        As for :func:`stationary`.
    mean_steps : float
        Mean length of a regime; ``provenance["changes"]`` lists the first steps of all but the first regime.
    """
    generator = _generator(seed, steps, layers, experts, tokens, top)
    if not mean_steps >= 1:
        raise InputError(f"mean_steps is {mean_steps}; at least 1 is needed")
    changed = generator.random(steps) < 1 / mean_steps
    changed[0] = False
    regime = np.cumsum(changed)
    drawn = np.stack([REGIME_FACTOR * _log_shares(generator, layers, experts) for _ in range(int(regime[-1]) + 1)])
    changes = np.flatnonzero(changed).tolist()
    return _trace(generator, drawn[regime], tokens, top, "regimes", seed, mean_steps=mean_steps, changes=changes)


def recurring(
    seed: int,
    steps: int = STEPS,
    layers: int = LAYERS,
    experts: int = EXPERTS,
    tokens: int = TOKENS,
    top: int = TOP,
    turn: int = TURN,
) -> LoadTrace:
    """Return loads of two domains that take turns every few steps: a map must serve both, not their sum.

    Parameters
    ----------
    seed, steps, layers, experts, tokens, top
        As for :func:`stationary`.
    turn : int
        Steps of a domain before the other has its turn.
    """
    generator = _generator(seed, steps, layers, experts, tokens, top)
    if turn < 1:
        raise InputError(f"turn is {turn}; at least 1 step is needed")
    domains = np.stack([REGIME_FACTOR * _log_shares(generator, layers, experts) for _ in range(2)])
    return _trace(generator, domains[np.arange(steps) // turn % 2], tokens, top, "recurring", seed, turn=turn)


CONTROLS: dict[str, Callable[..., LoadTrace]] = {make.__name__: make for make in (stationary, drifting, regimes, recurring)}
"""By name, each called with a seed and, if it is to be smaller, a shape."""


def _generator(seed: int, steps: int, layers: int, experts: int, tokens: int, top: int) -> np.random.Generator:
    for name, found in (("steps", steps), ("layers", layers), ("experts", experts), ("tokens", tokens), ("top", top)):
        if found < 1:
            raise InputError(f"{name} is {found}; at least 1 is needed")
    if seed < 0:
        raise InputError(f"seed is {seed}; a non-negative integer is needed")
    if experts % GROUPS:
        raise InputError(f"experts is {experts}; a multiple of the {GROUPS} groups is needed")
    return np.random.default_rng(seed)


def _log_shares(
    generator: np.random.Generator, layers: int, experts: int, group_sd: float = GROUP_SD, expert_sd: float = EXPERT_SD
) -> np.ndarray:
    group = group_sd * generator.normal(size=(layers, GROUPS))
    own = expert_sd * generator.normal(size=(layers, experts))
    return np.asarray(np.repeat(group, experts // GROUPS, axis=1) + own)


def _trace(
    generator: np.random.Generator, expected: np.ndarray, tokens: int, top: int, control: str, seed: int, **said: Any
) -> LoadTrace:
    steps, layers, experts = expected.shape
    noise = _log_shares(generator, steps * layers, experts, GROUP_NOISE, EXPERT_NOISE).reshape(expected.shape)
    shares = np.exp(expected + noise)
    loads = generator.multinomial(tokens * top, shares / shares.sum(axis=2, keepdims=True))
    provenance = {"kind": "synthetic", "control": control, "seed": seed, "window_steps": 1, "tokens_per_step": tokens, **said}
    return LoadTrace(loads, provenance)
