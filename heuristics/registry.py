"""Named heuristics and the one call that runs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from eplb_gap.heuristics.config import Config, FastConfig, PipelineConfig
from eplb_gap.heuristics.config_file import check, read
from eplb_gap.heuristics.methods import Heuristic, Method, by_name, from_config
from eplb_gap.heuristics.own import FAST, SAMPLE_AVERAGE, run_fast
from eplb_gap.heuristics.programs.peers import ELASTIC, PEERS, REWRITTEN
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check as check_map

DEFAULT_METHOD = "fast"
MOST_WINDOWS = 8
"""Past windows that a plan on a history looks at."""


def in_windows(steps: np.ndarray) -> np.ndarray:
    """Return steps summed into at most ``MOST_WINDOWS`` consecutive windows, as equally long as their number allows.

    Parameters
    ----------
    steps : ndarray
        [steps, layers, experts], oldest first.
    """
    parts = np.array_split(steps, min(MOST_WINDOWS, len(steps)))
    return np.stack([part.sum(axis=0) for part in parts])


_OF_CONFIGS = {**SEED_PROGRAMS, **{name: recommendation.config for name, recommendation in RECOMMENDATIONS.items()}}
HEURISTICS: dict[str, Heuristic] = {
    **by_name(Heuristic(name, from_config(config)) for name, config in _OF_CONFIGS.items()),
    **PEERS,
    **REWRITTEN,
    **ELASTIC,
    **FAST,
    SAMPLE_AVERAGE.name: SAMPLE_AVERAGE,
}
"""The records of all heuristics by name: what each plans on, and what it refuses.

>>> from eplb_gap import HEURISTICS
>>> "fast" in HEURISTICS, "initial_program" in HEURISTICS
(True, True)
"""
METHODS: Mapping[str, Method] = HEURISTICS
"""Heuristics by name, to be called."""


def get_method(name: str) -> Heuristic:
    """Return a heuristic by its name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in HEURISTICS:
        raise InputError(f"method is {name!r}; the heuristics are {', '.join(HEURISTICS)}")
    return HEURISTICS[name]


def configured(config: Config) -> Heuristic:
    """Return the heuristic that a configuration describes."""
    if isinstance(config, FastConfig):
        return Heuristic("", partial(run_fast, config.effort, tolerance=config.tolerance))
    return Heuristic("", from_config(config))


def choose(method: str, config: Any) -> Heuristic:
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


def rebalance(
    loads: Any,
    deployment: Deployment,
    method: str = DEFAULT_METHOD,
    config: Any = None,
    previous: Placement | None = None,
) -> Placement:
    """Plan a placement with a heuristic.

    Parameters
    ----------
    loads : array_like of int [layers, experts] or [windows, layers, experts]
        Recorded loads; of a history, oldest window first, the sum is planned on, except by a heuristic of histories.
    deployment : Deployment
        Dead GPUs are left out of the plan and get filler. Unequal slots on the others are for the method "fast" alone.
    method : str, default "fast"
        Key of :data:`METHODS`.
    config : path, FastConfig or PipelineConfig, optional
        What to run in place of a named method; a file is one that ``eplb-gap calibrate`` wrote
        (:mod:`eplb_gap.heuristics.config_file`).
    previous : Placement, optional
        The map in use, for a method that improves it, such as "swift-balance"; without one it starts from the map that its host
        starts with. Every expert must be on a GPU that is alive: :func:`eplb_gap.replan` brings lost ones back.

    Returns
    -------
    Placement
        As the heuristic made it: where duplicates are forbidden it may hold some, which :func:`eplb_gap.problem.verify` rejects.

    Raises
    ------
    InputError
        If the loads are no non-negative integers of such a shape, do not fit the deployment, method or config is not what it must
        be, the method refuses the deployment, or a map in use is given to one that plans anew or does not belong to the loads.
    PlacementError
        If the map in use is not legal.

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
    require_kind("deployment", deployment, Deployment)
    plan = choose(method, config)
    history = _axes(loads) == 3
    checked = as_loads(loads, "loads", 3 if history else 2)
    if checked.shape[-1] != deployment.num_experts:
        raise InputError(f"loads has {checked.shape[-1]} experts; the deployment has {deployment.num_experts}")
    in_use = None if previous is None else _in_use(previous, checked.shape[-2], deployment)
    planned_on = checked if plan.history or not history else checked.sum(axis=0)
    return with_dead(plan(planned_on, deployment.live, in_use), deployment)


def _in_use(previous: Placement, layers: int, deployment: Deployment) -> Placement:
    """Return a map in use on the GPUs that are alive."""
    try:
        check_map(previous, deployment)
    except (InputError, PlacementError) as error:
        raise type(error)(f"previous: {error}") from None
    if previous.num_layers != layers:
        raise InputError(f"previous has {previous.num_layers} layers; the loads have {layers}")
    return without_dead(previous, deployment)


def _axes(loads: Any) -> int:
    try:
        axes = np.ndim(loads)
    except ValueError:  # ragged, which the check of the loads words
        return 2
    if axes not in (2, 3):
        raise InputError(f"loads has {axes} axes; [layers, experts] or [windows, layers, experts] is needed")
    return axes


def planning_loads(method: str, history: np.ndarray) -> np.ndarray:
    """Return what a named heuristic plans on: the last window, or for one that takes a history up to eight windows of it.

    Parameters
    ----------
    method : str
    history : ndarray
        int64 [windows, layers, experts], oldest first.
    """
    return np.asarray(history[-MOST_WINDOWS:] if get_method(method).history else history[-1])
