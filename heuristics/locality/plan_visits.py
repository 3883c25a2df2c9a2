"""Maps on which tokens visit few nodes while every GPU and node stays within a limit of the bound on its load."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.locality.visit_annealing import anneal_visits
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import check


def plan_visits(
    routing: RoutingTrace,
    deployment: Deployment,
    initial: Placement | None = None,
    eps: float = 0.05,
    max_moves: int | None = None,
    seconds: float = 2.0,
    seed: int = 0,
) -> Placement:
    """Plan a placement with few node visits.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan on.
    deployment : Deployment
        Under the global policy, regular.
    initial : Placement, optional
        Map to start from; by default that of the planner.
    eps : float, default 0.05
        GPUs may carry 1 + eps times the bound on the largest load.
    max_moves : int, optional
        Most replicas of a layer that may move from the initial map.
    seconds : float, default 2.0
        Work of one layer.
    seed : int, default 0
    """
    loads = routing.loads()
    start = rebalance(loads, deployment) if initial is None else initial
    if deployment.policy == "hierarchical":
        raise InputError(
            f"num_groups is {deployment.num_groups} on {deployment.num_nodes} nodes, the hierarchical policy, where visits follow "
            "from which groups share a node: solvers.locality.hierarchical_front has all of these; num_groups = 1 plans freely"
        )
    found = np.empty_like(start.phy2log)
    for layer in range(routing.num_layers):
        rows = routing.rows(layer).astype(np.int64)
        flat = rows.ravel()
        starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=routing.num_experts))])
        tokens = np.argsort(flat, kind="stable") // rows.shape[1]
        bound = best_joint_bound(Instance.of_layer(loads[layer], deployment)).value
        slots = start.phy2log[layer].copy()
        anneal_visits(
            rows, starts, tokens, loads[layer].astype(float), slots, deployment.num_gpus, deployment.num_nodes,
            float(bound * (1 + Fraction(eps))), deployment.duplicates == "forbidden", True, int(seconds * 20000), seed,
        )  # fmt: skip
        found[layer] = slots
    placement = Placement(found, routing.num_experts)
    check(placement, deployment)
    return placement
