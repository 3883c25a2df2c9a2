"""Maps on which tokens visit few nodes while every GPU and node stays within a limit of the bound on its load.

Nodes come first: which of its GPUs holds a replica is the same to the visits, so that one cooling exchanges replicas between
nodes and looks at the loads of nodes alone; a second spreads every node's replicas over its GPUs; a third does both, cold. Loads
are those that the dispatcher makes: tokens go to smallest covers, and replicas of one expert are sent what that leaves them, not
even shares (rule ``smallest-cover`` of :mod:`eplb_gap.heuristics.dispatch.replica_choice`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.dispatch.covers import MOST_NODES
from eplb_gap.heuristics.locality.dispatched_map import Dispatched, Tokens, dispatched, tokens_of
from eplb_gap.heuristics.locality.visit_annealing import Cooling, Rules, anneal_visits, excess_of, total_visits
from eplb_gap.heuristics.moves.relabel import keep_slots, relabel
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import check

COUNTED_A_SECOND = (1.2e8, 2.5e7)
"""Tokens counted again in a second that the number of steps is reckoned with: every expert once, and with several replicas."""
MOST_STEPS = 2000
"""Steps for every slot, whatever time there is."""
OVERHEAD = 50
"""What a step costs beside its tokens, in tokens."""
HOT, COLD, FROZEN = 5e-3, 1e-4, 1e-5
"""Temperatures in visits a token."""
STEEP = 100.0
"""Visits that a token above a limit costs at the end; a search that starts so is caught between the limits."""
INSIDE_STEPS = 200
"""Steps for every slot that spread the replicas of nodes over their GPUs; they cost next to nothing."""
ROOM = Fraction(4, 5)
"""Part of ``eps`` that nodes may use up at first: GPUs of a node at its limit would all have to be alike."""
NO_LIMIT = 1 << 60


def plan_visits(
    routing: RoutingTrace,
    deployment: Deployment,
    initial: Placement | None = None,
    eps: float = 0.05,
    max_moves: int | None = None,
    seconds: float = 2.0,
    seed: int = 0,
) -> Placement:
    """Plan a placement on which tokens visit few nodes, within a limit on the loads of GPUs and nodes.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan on, some 20,000.
    deployment : Deployment
        Under the global policy, on up to 24 nodes; with as many slots on every GPU, all alive.
    initial : Placement, optional
        Map to start from, or in use; by default what the planner finds for the loads. GPUs of the new map are named so that few
        replicas move from it.
    eps : float, default 0.05
        No GPU is sent more than ``1 + eps`` times the bound on the largest GPU load, and no node more than ``1 + eps`` times that
        on the largest node load (:func:`eplb_gap.problem.bounds.bounds.best_joint_bound`). Where the search finds no map within
        the limits, it returns the one with fewest tokens above them, the initial one among these.
    max_moves : int, optional
        Most replicas of a layer that may be on a GPU which did not hold them in the initial map.
    seconds : float, default 2.0
        Work on one layer, as one thread of a machine does it in about so long: the number of steps follows from it and the
        sizes alone, so that the same arguments give the same map everywhere.
    seed : int, default 0

    Returns
    -------
    Placement
        Legal. Of two maps within the limits, the new one and the initial, never that of more visits.

    Raises
    ------
    InputError
        If routing, map and deployment do not belong together, the policy is hierarchical, there are too many nodes, GPUs are dead
        or unequal, or a number is out of range.
    PlacementError
        If the initial map is not legal.

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.locality.plan_visits import plan_visits
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 2]], [[1, 3]], [[2, 0]], [[3, 1]]], num_experts=4)  # pairs 0, 2 and 1, 3 are asked together
    >>> placement = plan_visits(routing, Deployment(4, 4, 4, num_nodes=2))
    >>> sorted(sorted(node) for node in placement.by_gpu(2)[0].tolist())
    [[0, 2], [1, 3]]
    """
    return visit_front(routing, deployment, [eps], initial, max_moves, seconds, seed)[0]


def visit_front(
    routing: RoutingTrace,
    deployment: Deployment,
    eps: Sequence[float],
    initial: Placement | None = None,
    max_moves: int | None = None,
    seconds: float = 2.0,
    seed: int = 0,
) -> list[Placement]:
    """Return a map for every one of several limits, see :func:`plan_visits`; visits never rise from a limit to a wider one.

    Parameters
    ----------
    routing, deployment, initial, max_moves, seed
        As of :func:`plan_visits`.
    eps : sequence of float
        Ascending.
    seconds : float
        Work on one layer for one limit.
    """
    widths = [_number("eps", value, 0.0) for value in eps]
    if not widths or sorted(widths) != widths:
        raise InputError(f"eps is {list(eps)}; numbers in ascending order are needed")
    most = deployment.num_slots if max_moves is None else _whole("max_moves", max_moves)
    _number("seconds", seconds, 1e-9)
    _whole("seed", seed)
    start = _checked_start(routing, deployment, initial)
    found = np.empty((len(widths), *start.phy2log.shape), dtype=np.int64)
    for layer in range(routing.num_layers):
        search = _Layer(routing, layer, deployment, start, initial is not None, min(most, deployment.num_slots))
        for place, width in enumerate(widths):
            found[place, layer] = search.best_map(width, seconds, seed, found[place - 1, layer] if place else None)
    fronts = [Placement(slots, routing.num_experts) for slots in found]
    for placement in fronts:
        check(placement, deployment)
    return fronts


class _Layer:
    """One layer: its tokens, the map that it starts from and the bounds of its loads."""

    def __init__(
        self, routing: RoutingTrace, layer: int, deployment: Deployment, start: Placement, in_use: bool, most_moves: int
    ) -> None:
        self.deployment, self.start, self.in_use, self.most_moves = deployment, start.phy2log[layer], in_use, most_moves
        self.tokens: Tokens = tokens_of(routing.rows(layer), routing.num_experts)
        loads = np.diff(self.tokens.starts)
        nodes = Deployment(deployment.num_experts, deployment.num_slots, deployment.num_nodes)
        self.bounds = [best_joint_bound(Instance.of_layer(loads, each)).value for each in (deployment, nodes)]

    def best_map(self, eps: float, seconds: float, seed: int, narrower: np.ndarray | None) -> np.ndarray:
        """Return the best of the map found, that of a narrower limit and the initial one; int64 [slots]."""
        first = self.dispatched(self.start)
        distinct = self.deployment.duplicates == "forbidden"
        limits = [_limit(bound, Fraction(eps)) for bound in self.bounds]
        rules = Rules(limits[0], limits[1], distinct, self.start, first.on_gpu.copy(), self.most_moves)
        nodes_alone = rules._replace(gpu_limit=NO_LIMIT, node_limit=_limit(self.bounds[1], ROOM * Fraction(eps)))
        found = self.searched(first, rules, nodes_alone, seconds, seed)
        candidates = [self.start, found] if narrower is None else [self.start, narrower, found]
        return min(candidates, key=lambda slots: self.rank(slots, rules))

    def dispatched(self, slots: np.ndarray) -> Dispatched:
        return dispatched(self.tokens, slots, self.deployment.num_gpus, self.deployment.num_nodes)

    def rank(self, slots: np.ndarray, rules: Rules) -> tuple[int, int]:
        state = self.dispatched(slots)
        return excess_of(state, rules), total_visits(state)

    def searched(self, first: Dispatched, rules: Rules, nodes_alone: Rules, seconds: float, seed: int) -> np.ndarray:
        """Return the best map of the search, whose replicas that stay on their GPU stay in their slot."""
        tokens, experts, slots = len(self.tokens.rows), first.counts.size, first.slots.size
        work = 2 * self.tokens.rows.size / experts + OVERHEAD
        steps = int(min(seconds * COUNTED_A_SECOND[slots > experts] / work, MOST_STEPS * slots))
        transfers = 0.1 if slots > experts else 0.0
        hot, cold, frozen = max(1.0, HOT * tokens), max(0.1, COLD * tokens), max(0.02, FROZEN * tokens)
        if self.most_moves < slots:
            # Most proposals would be too many moves, which costs no count of tokens.
            steps = steps * min(32, slots // (self.most_moves + 1) + 1)
            stages = [(rules, Cooling(0.2, transfers, 0.5, hot, frozen, STEEP, steps))]
        else:
            stages = [
                (nodes_alone, Cooling(0.0, transfers, 0.5, hot, cold, 1.0, steps * 9 // 10)),
                (rules, Cooling(1.0, 0.0, 0.0, frozen, frozen / 10, STEEP, min(steps, INSIDE_STEPS * slots))),
                (rules, Cooling(0.5, transfers, 0.5, cold / 5, frozen, STEEP, steps // 10)),
            ]
        found = first.slots.copy()
        for stage, (limits, cooling) in enumerate(stages):
            if stage == len(stages) - 1 and self.in_use and len(stages) > 1:
                found = self.named_alike(found)  # before the last: which of its replicas a token goes to follows from their names
            anneal_visits(self.tokens, self.dispatched(found), limits, cooling, seed, found)
        return np.asarray(keep_slots(found[None], self.start[None], self.deployment)[0])

    def named_alike(self, slots: np.ndarray) -> np.ndarray:
        """Return a map with GPUs and nodes named so that few replicas move from the initial one."""
        new, old = (Placement(one[None], self.deployment.num_experts) for one in (slots, self.start))
        return np.asarray(relabel(new, old, self.deployment, whole_nodes=True).phy2log[0])


def _limit(bound: Fraction, eps: Fraction) -> int:
    """Return the most tokens within ``1 + eps`` times a bound, as a number that compiled code can hold."""
    return min(NO_LIMIT, math.floor(bound * (1 + eps)))


def _checked_start(routing: RoutingTrace, deployment: Deployment, initial: Placement | None) -> Placement:
    require_kind("routing", routing, RoutingTrace)
    require_kind("deployment", deployment, Deployment)
    if routing.num_experts != deployment.num_experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {deployment.num_experts}")
    deployment.require_regular("a plan for few node visits")
    if deployment.policy == "hierarchical":
        raise InputError(
            f"num_groups is {deployment.num_groups} on {deployment.num_nodes} nodes, the hierarchical policy: visits follow from "
            "the groups that share a node: solvers.locality.hierarchical_front goes through these; num_groups = 1 plans freely"
        )
    if deployment.num_nodes > MOST_NODES:
        raise InputError(f"num_nodes is {deployment.num_nodes}; smallest covers are looked for on at most {MOST_NODES}")
    if initial is None:
        return rebalance(routing.loads(), deployment)
    try:
        check(initial, deployment)
    except (InputError, PlacementError) as error:
        raise type(error)(f"initial: {error}") from None
    if initial.num_layers != routing.num_layers:
        raise InputError(f"initial has {initial.num_layers} layers; the routing has {routing.num_layers}")
    return initial


def _number(name: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value < np.inf:
        raise InputError(f"{name} is {value!r}; a finite number of at least {least:g} is needed")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 1 << 32:
        raise InputError(f"{name} is {value!r}; an integer from 0 to {(1 << 32) - 1} is needed")
    return int(value)
