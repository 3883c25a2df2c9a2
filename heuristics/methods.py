"""What a heuristic is, the record of what it plans on, and two ways to make one: from a configuration, from a layer's plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from eplb_gap.heuristics.config import PipelineConfig
from eplb_gap.problem.deployment import Deployment, Policy
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

Method = Callable[[np.ndarray, Deployment], Placement]
"""``method(weight float64 or int64 [layers, experts], deployment)``; the weights are finite and non-negative."""
GLOBAL: frozenset[Policy] = frozenset({"global"})
BOTH: frozenset[Policy] = frozenset({"global", "hierarchical"})


@dataclass(frozen=True)
class Heuristic:
    """A heuristic, and what it plans on; called like a :data:`Method`, it refuses first what the record says.

    Parameters
    ----------
    name : str
        Key of :data:`eplb_gap.heuristics.METHODS`; empty for one that a configuration describes.
    plan : Method
    policies : frozenset of {"global", "hierarchical"}
        Policies under which it plans; a balancer that knows no nodes has the global one alone.
    by_loads : frozenset of {"global", "hierarchical"}
        Policies under which the loads decide whether it plans: ``plan`` itself may refuse.
    history : bool
        Whether it plans on the windows of a history ``[windows, layers, experts]`` and not on their sum.
    unequal : bool
        Whether it plans on GPUs with unequal slots.
    compiled : bool
        Whether it takes at most some 25 ms a layer on one core, with kernels; others take up to a tenth of a second.
    refuses : callable, optional
        ``refuses(deployment)`` says why it can't plan on some deployment of its policies; None where it can.
    improve : callable, optional
        ``improve(weight, deployment, previous)`` plans from the map in use, where the method is one that improves it; ``plan``
        then starts from the map that the method's host starts with.
    """

    name: str
    plan: Method
    policies: frozenset[Policy] = BOTH
    by_loads: frozenset[Policy] = frozenset()
    history: bool = False
    unequal: bool = False
    compiled: bool = False
    refuses: Callable[[Deployment], str | None] | None = None
    improve: Callable[[np.ndarray, Deployment, Placement], Placement] | None = None

    def __call__(self, weight: np.ndarray, deployment: Deployment, previous: Placement | None = None) -> Placement:
        """Plan, from a map in use if the method improves one, or raise an InputError with the reason not to."""
        reason = self.refusal(deployment)
        if reason is not None:
            raise InputError(reason)
        if previous is None:
            return self.plan(weight, deployment)
        if self.improve is None:
            who = f"method {self.name!r}" if self.name else "config"
            raise InputError(f"previous is given, but {who} plans anew; eplb_gap.replan moves from a map in use")
        return self.improve(weight, deployment, previous)

    def refusal(self, deployment: Deployment) -> str | None:
        """Return why it plans on no loads at all on a deployment without dead GPUs, or None."""
        if deployment.policy not in self.policies:
            return global_policy_only(self.name)
        if not self.unequal and not deployment.is_regular:
            who = f"method {self.name!r}" if self.name else "config"
            return f"{who} needs equally many slots on all live GPUs; 'fast' plans on unequal ones"
        return None if self.refuses is None else self.refuses(deployment)

    def plans(self, deployment: Deployment) -> bool:
        """Return whether it plans on a deployment whatever the loads are."""
        return self.refusal(deployment) is None and deployment.policy not in self.by_loads


def by_name(heuristics: Iterable[Heuristic]) -> dict[str, Heuristic]:
    """Return heuristics by their names."""
    return {heuristic.name: heuristic for heuristic in heuristics}


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


def global_policy_only(name: str) -> str:
    """Return the message of the error for a map that would split groups over nodes."""
    return f"method is {name!r}, which plans under the global policy only; deployment.as_global() is needed"
