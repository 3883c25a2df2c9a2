"""Named heuristics and the one call that runs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from heuristics.config import PipelineConfig
from heuristics.seed_programs import SEED_PROGRAMS
from problem.deployment import Deployment
from problem.errors import InputError
from problem.loads import as_loads
from problem.placement import Placement

Method = Callable[[np.ndarray, Deployment], Placement]
"""``method(weight float64 or int64 [layers, experts], deployment)``; the weights are finite and non-negative."""


def _run_pipeline(config: PipelineConfig, weight: np.ndarray, deployment: Deployment) -> Placement:
    import torch  # imported here so that `import heuristics` stays fast

    from heuristics.pipeline import run

    return run(config, torch.tensor(weight), deployment)


METHODS: dict[str, Method] = {name: partial(_run_pipeline, config) for name, config in SEED_PROGRAMS.items()}
"""Heuristics by name."""


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


def rebalance(loads: Any, deployment: Deployment, method: str = "initial_program") -> Placement:
    """Plan a placement with a heuristic.

    Parameters
    ----------
    loads : array_like of int [layers, experts] or [windows, layers, experts]
        Recorded loads; of a history, oldest window first, the sum is planned on.
    deployment : Deployment
    method : str, default "initial_program"
        Key of :data:`METHODS`.

    Returns
    -------
    Placement
        As the heuristic made it: where duplicates are forbidden it may hold some, which :func:`problem.verify` rejects.

    Raises
    ------
    InputError
        If the loads are no non-negative integers of such a shape, do not fit the deployment, or the method is unknown.
    """
    plan = get_method(method)
    history = np.ndim(loads) == 3
    checked = as_loads(loads, "loads", 3 if history else 2)
    if checked.shape[-1] != deployment.num_experts:
        raise InputError(f"loads has {checked.shape[-1]} experts; the deployment has {deployment.num_experts}")
    return plan(checked.sum(axis=0) if history else checked, deployment)
