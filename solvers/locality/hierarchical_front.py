"""The hierarchical policy's trade of node visits against makespan, over every way to put the groups on nodes.

Replicas stay on the node of their group, so the groups of a token say which nodes it visits, and a node's part of all visits is
how many tokens have one of its groups. A partition's visits are the sum over its nodes, its makespan the largest of them: each
set of groups that a node can host is counted and solved once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import CLAIM_OF
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.facade import solve

MOST_PARTITIONS = 100_000
"""Ways to put groups on nodes that are enumerated; 8 groups on 4 nodes have 105, 12 on 4 have 15,400."""
MOST_GROUPS = 63
"""Groups that the bits of one int64 tell apart."""
Groups = tuple[int, ...]


@dataclass(frozen=True)
class FrontPoint:
    """One partition of the groups over nodes that no other was found to beat in both visits and makespan.

    Parameters
    ----------
    partition : tuple of tuple of int
        Groups of every node.
    visits : int
        Nodes that tokens visit, summed over tokens; exact.
    upper : Fraction
        Makespan of the placement; exact.
    lower : Fraction
        What no hierarchical placement with fewer visits than the next point goes below; behind the last point, none at all.
        Proven; no claim of a solver is in it.
        ``upper`` is optimal only where the two are equal.
    placement : Placement
        One layer.
    """

    partition: tuple[Groups, ...]
    visits: int
    upper: Fraction
    lower: Fraction
    placement: Placement = field(repr=False)

    @property
    def is_optimal(self) -> bool:
        """Whether the makespan is proven the least at so many visits."""
        return self.upper == self.lower


def hierarchical_front(
    routing: RoutingTrace, deployment: Deployment, layer: int = 0, method: str = "auto", time_limit: float = 60.0
) -> list[FrontPoint]:
    """Return the Pareto front of node visits and makespan of one layer under the hierarchical policy.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens; the loads are theirs.
    deployment : Deployment
        With the hierarchical policy.
    layer : int, default 0
    method : str, default "auto"
        An engine of :func:`eplb_gap.solve` for the nodes, or "planner": the method "fast" and closed-form bounds.
    time_limit : float, default 60.0
        Wall seconds that the engine may take, all sets of groups together; the planner takes what it needs.

    Returns
    -------
    list of FrontPoint
        Visits rise, makespans fall. The first has the fewest visits that any hierarchical placement has. Within a limit on the
        makespan, the first point whose ``upper`` is within it has the fewest visits, proven if ``lower`` of the point before it
        is above the limit.

    Raises
    ------
    InputError
        If the policy is global, trace and deployment differ in their experts, the layer is unknown, there are more than 63
        groups, or more than 100,000 partitions.

    Examples
    --------
    >>> from eplb_gap import Deployment, hierarchical_front
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 1]], [[0, 1]], [[2, 3]], [[0, 2]]], num_experts=4)  # top-2; every expert a group
    >>> front = hierarchical_front(routing, Deployment(4, 4, 2, num_nodes=2, num_groups=4))
    >>> [(point.partition, point.visits, point.upper, point.is_optimal) for point in front]
    [(((0, 1), (2, 3)), 5, Fraction(5, 1), True), (((0, 3), (1, 2)), 8, Fraction(4, 1), True)]
    """
    _check(routing, deployment)
    rows = routing.rows(layer)
    loads = routing.loads()[layer]
    sets = list(itertools.combinations(range(deployment.num_groups), deployment.groups_per_node))
    visits = set_visits(rows, deployment)
    nodes = _solved(loads, sets, deployment, method, time_limit)
    found: list[tuple[int, Fraction, tuple[Groups, ...], Fraction]] = []
    for partition in partitions(deployment.num_groups, deployment.groups_per_node):
        upper = max(nodes[groups][0] for groups in partition)
        lower = max(nodes[groups][1] for groups in partition)
        found.append((sum(visits[groups] for groups in partition), upper, partition, lower))
    found.sort()
    front: list[FrontPoint] = []
    for count, upper, partition, lower in found:
        floor = min(lower, front[-1].lower) if front else lower
        if front and upper >= front[-1].upper:
            front[-1] = replace(front[-1], lower=floor)
            continue
        slots = [slot for groups in partition for slot in nodes[groups][2]]
        placement = Placement([slots], deployment.num_experts)
        (judged,) = verify(placement, loads[None], deployment)
        front.append(FrontPoint(partition, count, judged, floor, placement))
    return front


def partitions(num_groups: int, groups_per_node: int) -> Iterator[tuple[Groups, ...]]:
    """Yield every way to divide groups into equal sets, each once; sets ascend by their first group.

    Examples
    --------
    >>> from eplb_gap.solvers.locality.hierarchical_front import partitions
    >>> list(partitions(4, 2))
    [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    """

    def divided(left: Groups) -> Iterator[tuple[Groups, ...]]:
        if not left:
            yield ()
            return
        for others in itertools.combinations(left[1:], groups_per_node - 1):
            for rest in divided(tuple(group for group in left[1:] if group not in others)):
                yield ((left[0], *others), *rest)

    yield from divided(tuple(range(num_groups)))


def set_visits(rows: np.ndarray, deployment: Deployment) -> dict[Groups, int]:
    """Return for every set of groups that a node can host how many tokens have an expert in it.

    Parameters
    ----------
    rows : ndarray of int [tokens, topk]
        Logical experts of every token.
    deployment : Deployment
        With the hierarchical policy.

    Raises
    ------
    InputError
        If the policy is global.
    """
    _check_policy(deployment)
    bits = np.left_shift(np.int64(1), rows.astype(np.int64) // deployment.experts_per_group)
    masks, weights = np.unique(np.bitwise_or.reduce(bits, axis=1), return_counts=True)
    sets = itertools.combinations(range(deployment.num_groups), deployment.groups_per_node)
    return {groups: int(weights[masks & sum(1 << group for group in groups) != 0].sum()) for groups in sets}


def _solved(
    loads: np.ndarray, sets: list[Groups], deployment: Deployment, method: str, time_limit: float
) -> dict[Groups, tuple[Fraction, Fraction, list[int]]]:
    """Return upper and lower bound and the map of a node, for every set of groups."""
    size = deployment.experts_per_group
    experts = np.array([[e for group in groups for e in range(group * size, (group + 1) * size)] for groups in sets])
    node = Deployment(experts.shape[1], deployment.slots_per_node, deployment.gpus_per_node, duplicates=deployment.duplicates)
    if method == "planner":
        placement = rebalance(loads[experts], node)
        upper = verify(placement, loads[experts], node)
        lower = [best_joint_bound(Instance.of_node(loads[row], deployment)).value for row in experts]
    else:
        solution = solve(loads[experts], node, method, time_limit=time_limit)
        placement, upper = solution.placement, solution.upper
        # A solver's word is not taken: what it merely claims gives way to the bound in closed form.
        lower = [
            best_joint_bound(Instance.of_node(loads[row], deployment)).value if CLAIM_OF in proof else bound
            for row, bound, proof in zip(experts, solution.lower, solution.proof, strict=True)
        ]
    maps = np.take_along_axis(experts, placement.phy2log, axis=1).tolist()
    return dict(zip(sets, zip(upper, lower, maps, strict=True), strict=True))


def _check_policy(deployment: Deployment) -> None:
    if deployment.policy != "hierarchical":
        raise InputError(
            f"num_groups is {deployment.num_groups} on {deployment.num_nodes} nodes, the global policy; "
            "a front over partitions of groups needs the hierarchical one"
        )
    if deployment.num_groups > MOST_GROUPS:
        raise InputError(f"num_groups is {deployment.num_groups}; at most {MOST_GROUPS} are told apart")


def _check(routing: RoutingTrace, deployment: Deployment) -> None:
    _check_policy(deployment)
    if routing.num_experts != deployment.num_experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {deployment.num_experts}")
    groups, each, nodes = deployment.num_groups, deployment.groups_per_node, deployment.num_nodes
    count = math.factorial(groups) // (math.factorial(each) ** nodes * math.factorial(nodes))
    if count > MOST_PARTITIONS:
        raise InputError(f"num_groups is {groups} on {nodes} nodes: {count} partitions; at most {MOST_PARTITIONS} are enumerated")
