"""What a named heuristic is, and the three ways to make one: from a configuration, from a layer's plan, without nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from eplb_gap.heuristics.config import PipelineConfig
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

Method = Callable[[np.ndarray, Deployment], Placement]
"""``method(weight float64 or int64 [layers, experts], deployment)``; the weights are finite and non-negative."""


def run_config(config: PipelineConfig, weight: np.ndarray, deployment: Deployment) -> Placement:
    """Run the pipeline with one configuration, on GPUs that are all alive with equally many slots."""
    deployment.require_regular("the pipeline")
    import torch  # imported here so that `import heuristics` stays fast

    from eplb_gap.heuristics.programs.pipeline import run

    return run(config, torch.tensor(weight), deployment)


def from_config(config: PipelineConfig) -> Method:
    """Make a heuristic of a configuration of the pipeline."""
    return partial(run_config, config)


def run_by_layer(
    plan_layer: Callable[[np.ndarray, int, np.ndarray], None], weight: np.ndarray, deployment: Deployment
) -> Placement:
    """Plan one layer after the other.

    Parameters
    ----------
    plan_layer : callable
        ``plan_layer(loads float64 [experts], num_gpus, slots int64 [slots])`` writes the map of a layer to ``slots``.
    weight : ndarray [layers, experts]
    deployment : Deployment
        Regular: this plans on GPUs that are all alive with equally many slots.
    """
    deployment.require_regular("a plan layer by layer")
    phy2log = np.empty((weight.shape[0], deployment.num_slots), dtype=np.int64)
    for loads, slots in zip(np.ascontiguousarray(weight, dtype=np.float64), phy2log, strict=True):
        plan_layer(loads, deployment.num_gpus, slots)
    return Placement(phy2log, deployment.num_experts)


def global_only(name: str, method: Method) -> Method:
    """Make a heuristic that knows no nodes refuse hierarchical deployments, where its maps would be illegal."""
    return partial(_run_globally, name, method)


def _run_globally(name: str, method: Method, weight: np.ndarray, deployment: Deployment) -> Placement:
    if deployment.policy == "hierarchical":
        raise InputError(global_policy_only(name))
    return method(weight, deployment)


def global_policy_only(name: str) -> str:
    """Return the message of the error for a map that would split groups over nodes."""
    return f"method is {name!r}, which plans under the global policy only; deployment.as_global() is needed"
