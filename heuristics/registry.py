"""Named heuristics and the one call that runs them."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from eplb_gap.heuristics.config import Config, FastConfig, PipelineConfig
from eplb_gap.heuristics.config_file import check, read
from eplb_gap.heuristics.methods import Method, from_config
from eplb_gap.heuristics.programs.peers import ELASTIC, PEERS
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment, UnevenDeployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement

DEFAULT_METHOD = "fast"
MOST_WINDOWS = 8
"""Past windows that a plan on a history looks at."""


def _fast(effort: Any, weight: np.ndarray, deployment: Deployment, tolerance: float | None = None) -> Placement:
    from eplb_gap.heuristics.planner.fast import plan  # imports numba

    return plan(weight, deployment, effort=effort, tolerance=tolerance)


FAST: dict[str, Method] = {
    "fast-lpt": partial(_fast, "lpt"),
    "fast": partial(_fast, "fast"),
    "fast-split": partial(_fast, "split"),
    "fast-counts": partial(_fast, "counts"),
}
"""The project's own planner by effort; see :mod:`eplb_gap.heuristics.planner.fast`."""


def _sample_average(history: np.ndarray, deployment: Deployment) -> Placement:
    from eplb_gap.heuristics.serving.sample_average import plan  # imports numba

    return plan(history if history.ndim == 3 else history[None], deployment)


HISTORY_METHODS: dict[str, Method] = {"sample-average": _sample_average}
"""Heuristics that plan on the windows of a history ``[windows, layers, experts]``; loads of two axes are one window."""
METHODS: dict[str, Method] = {
    **{name: from_config(config) for name, config in SEED_PROGRAMS.items()},
    **{name: from_config(recommendation.config) for name, recommendation in RECOMMENDATIONS.items()},
    **PEERS,
    **ELASTIC,
    **FAST,
    **HISTORY_METHODS,
}
"""Heuristics by name.

>>> from eplb_gap import HEURISTICS
>>> "fast" in HEURISTICS, "initial_program" in HEURISTICS
(True, True)
"""


def get_method(name: str) -> Method:
    """Return a heuristic by its name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"method is {name!r}; the heuristics are {', '.join(METHODS)}")
    return METHODS[name]


def configured(config: Config) -> Method:
    """Return the heuristic that a configuration describes."""
    if isinstance(config, FastConfig):
        return partial(_fast, config.effort, tolerance=config.tolerance)
    return from_config(config)


def choose(method: str, config: Any) -> Method:
    """Return the heuristic of a configuration, of a file that holds one, or, without either, the one of that name.

    Raises
    ------
    InputError
        If a configuration and a method other than the default are given, or either is not what it must be.
    """
    if config is None:
        return get_method(method)
    if method != DEFAULT_METHOD:
        raise InputError(f"method is {method!r} and config is given too; only one of the two can say what to run")
    if isinstance(config, (FastConfig, PipelineConfig)):
        check(config)
        return configured(config)
    if isinstance(config, (str, os.PathLike)):
        return configured(read(config))
    raise InputError(f"config is a {type(config).__name__}; a path, a FastConfig or a PipelineConfig is needed")


def rebalance(loads: Any, deployment: Deployment, method: str = DEFAULT_METHOD, config: Any = None) -> Placement:
    """Plan a placement with a heuristic.

    Parameters
    ----------
    loads : array_like of int [layers, experts] or [windows, layers, experts]
        Recorded loads; of a history, oldest window first, the sum is planned on, except by :data:`HISTORY_METHODS`.
    deployment : Deployment
        Dead GPUs are left out of the plan and get filler. Unequal slots on the others are for the method "fast" alone, which is
        then :mod:`eplb_gap.heuristics.planner.uneven`.
    method : str, default "fast"
        Key of :data:`METHODS`.
    config : path, FastConfig or PipelineConfig, optional
        What to run in place of a named method; a file is one that ``eplb-gap calibrate`` wrote
        (:mod:`eplb_gap.heuristics.config_file`).

    Returns
    -------
    Placement
        As the heuristic made it: where duplicates are forbidden it may hold some, which :func:`problem.verify` rejects.

    Raises
    ------
    InputError
        If the loads are no non-negative integers of such a shape, do not fit the deployment, method or config is not what it must
        be, or the method can't plan on unequal slots.

    Examples
    --------
    >>> from eplb_gap import Deployment, rebalance, verify
    >>> loads, deployment = [[90, 50, 30, 10]], Deployment(4, 6, 3)
    >>> placement = rebalance(loads, deployment)
    >>> placement.counts().tolist()
    [[2, 2, 1, 1]]
    >>> verify(placement, loads, deployment)
    [Fraction(70, 1)]
    """
    plan = choose(method, config)
    history = _axes(loads) == 3
    checked = as_loads(loads, "loads", 3 if history else 2)
    if checked.shape[-1] != deployment.num_experts:
        raise InputError(f"loads has {checked.shape[-1]} experts; the deployment has {deployment.num_experts}")
    live = deployment.live
    summed = checked.sum(axis=0) if history else checked
    if isinstance(live, UnevenDeployment):
        if method != DEFAULT_METHOD or config is not None:
            raise InputError(f"{_named(method, config)} needs equally many slots on all live GPUs; 'fast' plans on unequal ones")
        from eplb_gap.heuristics.planner import uneven  # imports numba

        return with_dead(uneven.plan(summed, live), deployment)
    return with_dead(plan(checked if takes_history(plan) else summed, live), deployment)


def _axes(loads: Any) -> int:
    try:
        axes = np.ndim(loads)
    except ValueError:  # ragged, which the check of the loads words
        return 2
    if axes not in (2, 3):
        raise InputError(f"loads has {axes} axes; [layers, experts] or [windows, layers, experts] is needed")
    return axes


def takes_history(method: Method) -> bool:
    """Return whether a heuristic plans on a history [windows, layers, experts] itself, not on its sum."""
    return method in HISTORY_METHODS.values()


def planning_loads(method: str, history: np.ndarray) -> np.ndarray:
    """Return what a named heuristic plans on: the last window, or for one that takes a history up to eight windows of it.

    Parameters
    ----------
    method : str
    history : ndarray
        int64 [windows, layers, experts], oldest first.
    """
    return np.asarray(history[-MOST_WINDOWS:] if takes_history(get_method(method)) else history[-1])


def _named(method: str, config: Any) -> str:
    return f"method {method!r}" if config is None else "config"
