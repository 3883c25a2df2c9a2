"""Maps on which tokens visit few nodes, under either policy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.locality.plan_visits import plan_visits
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.solvers.locality.hierarchical_front import hierarchical_front


def fewest_visits(routing: RoutingTrace, deployment: Deployment, eps: float = 0.05) -> Placement:
    """Return a map with few node visits within a limit on the GPU loads, under the policy of the deployment.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan on.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    eps : float, default 0.05
        Under the global policy that of :func:`eplb_gap.heuristics.locality.plan_visits.plan_visits`. Under the hierarchical one
        the map has the fewest visits of all divisions of groups over nodes whose planned makespan is at most ``1 + eps`` times
        that of the best of them.

    Raises
    ------
    InputError
        As of the two searches.

    Examples
    --------
    >>> from eplb_gap import Deployment, RoutingTrace
    >>> from eplb_gap.analysis.network.planning import fewest_visits
    >>> routing = RoutingTrace([[[0, 2]], [[1, 3]], [[2, 0]], [[3, 1]]], num_experts=4)  # pairs 0, 2 and 1, 3 are asked together
    >>> two_nodes = Deployment(4, 4, 4, num_nodes=2, num_groups=4)
    >>> sorted(sorted(node) for node in fewest_visits(routing, two_nodes).by_gpu(2)[0].tolist())
    [[0, 2], [1, 3]]
    """
    if deployment.policy == "global":
        return plan_visits(routing, deployment, eps=eps)
    layers = []
    for layer in range(routing.num_layers):
        front = hierarchical_front(routing, deployment, layer, method="planner")
        limit = front[-1].upper * (1 + Fraction(eps))  # makespans fall along the front
        layers.append(next(point for point in front if point.upper <= limit).placement.phy2log[0])
    return Placement(np.stack(layers), routing.num_experts)
