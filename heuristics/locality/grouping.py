"""Planners that group experts by co-activation: experts that tokens go to together share a node, then a node is balanced.

Experts, or whole groups under the hierarchical policy, are divided over the nodes as evenly as they can be. Either all slots of a
node are for its own experts (replicas "home"), so that replicas change no visits: which experts get them, and which GPU of the
node each is on, is the work of a balance planner on the node alone. Or Adams' rule says which experts get replicas, and these go
to other nodes whose experts are asked together with them ("spread").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from eplb_gap.heuristics.locality.spread_replicas import spread_replicas
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

Replicas = Literal["home", "spread"]
ROUNDS = 50
"""Most rounds of balanced k-means; it ends at the first that changes nothing."""


def spectral_grouping(
    routing: RoutingTrace, deployment: Deployment, packing: str = "fast", replicas: Replicas = "home"
) -> Placement:
    """Plan by spectral clustering of the co-activation graph.

    The normalised Laplacian's first eigenvectors, one a node, are the coordinates of an expert, its row scaled to length one
    (Ng, Jordan and Weiss, 2001). Balanced k-means (Malinen and Fränti, 2014) divides them: an assignment problem in every round.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan for, of every layer.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    packing : str, default "fast"
        Method of :func:`eplb_gap.rebalance` for a node's experts, where replicas stay at home; "sglang-deepseek" replicates by
        the largest load a replica (Adams' rule) and packs the largest first onto the GPU of least load with a slot left, but may
        break forbidden duplicates.
    replicas : {"home", "spread"}, default "home"
        Whether replicas stay on the node of their expert or go where they save visits, under the global policy
        (:func:`eplb_gap.heuristics.locality.spread_replicas.spread_replicas`).

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If GPUs are unequal or dead, trace and deployment differ in their experts, there are more nodes than experts,
        replicas are neither, or at home and duplicates are forbidden and a GPU has more slots than its node gets experts.
    """
    return _planned(routing, deployment, packing, replicas, _spectral)


def greedy_grouping(
    routing: RoutingTrace, deployment: Deployment, packing: str = "fast", replicas: Replicas = "home"
) -> Placement:
    """Plan by growing one node after the other, each time by the expert with most co-activation with those already there.

    A node starts with the expert that has most co-activation with all that are left. This is the plain greedy form of grouping
    by affinity, the first phase of planners such as GRACE-MoE (Han et al., 2025, arXiv:2509.25041); not their code.

    Parameters
    ----------
    routing, deployment, packing, replicas
        As of :func:`spectral_grouping`.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        As :func:`spectral_grouping`.
    """
    return _planned(routing, deployment, packing, replicas, _greedy)


def hypergraph_grouping(
    routing: RoutingTrace, deployment: Deployment, packing: str = "fast", replicas: Replicas = "home"
) -> Placement:
    """Plan by partitioning the hypergraph whose edges are the sets of experts that tokens went to.

    Its connectivity, summed over tokens, is node visits less tokens: what Mt-KaHyPar (Gottesbüren, Heuer, Maas, Sanders and
    Schlag, 2024) makes small, here with its default preset, one thread and blocks of fixed size. The package ``mtkahypar`` is not
    among the project's dependencies; it has wheels for Python 3.11.

    Parameters
    ----------
    routing, deployment, packing, replicas
        As of :func:`spectral_grouping`.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        As :func:`spectral_grouping`, and if ``mtkahypar`` is not installed.
    """
    return _planned(routing, deployment, packing, replicas, _hypergraph)


Grouping = Callable[[np.ndarray, np.ndarray, np.ndarray], list[list[int]]]
"""Divides items over nodes, given the items of every token, the weights between any two, zero on the diagonal, and how many each
node gets."""


def _planned(routing: RoutingTrace, deployment: Deployment, packing: str, replicas: Replicas, grouping: Grouping) -> Placement:
    deployment.require_regular("grouping by co-activation")
    experts, nodes = deployment.num_experts, deployment.num_nodes
    if routing.num_experts != experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {experts}")
    if replicas not in get_args(Replicas):
        raise InputError(f"replicas is {replicas!r}; one of {', '.join(get_args(Replicas))} is needed")
    if replicas == "spread" and deployment.policy == "hierarchical":
        raise InputError("replicas is 'spread'; under the hierarchical policy replicas stay on the node of their group, 'home'")
    if replicas == "home" and deployment.duplicates == "forbidden" and deployment.slots_per_gpu > experts // nodes:
        raise InputError(
            f"duplicates='forbidden' with {deployment.slots_per_gpu} slots per GPU; "
            f"grouping by co-activation gives a node {experts // nodes} different experts"
        )
    if experts < nodes:
        raise InputError(f"num_nodes is {nodes}; grouping by co-activation needs at most num_experts = {experts}, one for each")
    size = deployment.experts_per_group if deployment.policy == "hierarchical" else 1
    items = experts // size
    sizes = np.full(nodes, items // nodes)
    sizes[: items % nodes] += 1
    loads = routing.loads()
    slots = []
    for layer in range(routing.num_layers):
        weights = routing.co_activation(layer).reshape(items, size, items, size).sum(axis=(1, 3))
        np.fill_diagonal(weights, 0)
        groups = grouping(routing.rows(layer) // size, weights, sizes)
        if replicas == "spread":
            homes = np.repeat(np.arange(nodes), sizes)[np.argsort([item for members in groups for item in members])]
            slots.append(spread_replicas(homes, routing.co_activation(layer), deployment).tolist())
            continue
        layer_slots: list[int] = []
        for members in groups:
            own = np.array([item * size + e for item in sorted(members) for e in range(size)])
            node = Deployment(own.size, deployment.slots_per_node, deployment.gpus_per_node, duplicates=deployment.duplicates)
            layer_slots.extend(own[rebalance(loads[layer : layer + 1, own], node, packing).phy2log[0]].tolist())
        slots.append(layer_slots)
    return Placement(slots, experts)


def _greedy(_: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> list[list[int]]:
    left = np.ones(len(weights), dtype=bool)
    found = []
    for size in sizes.tolist():
        members: list[int] = []
        while len(members) < size:
            towards = weights[:, members].sum(axis=1) if members else weights[:, left].sum(axis=1)
            best = int(np.argmax(np.where(left, towards, -1)))
            left[best] = False
            members.append(best)
        found.append(members)
    return found


def _spectral(_: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> list[list[int]]:
    nodes, items = len(sizes), len(weights)
    scale = 1 / np.sqrt(np.maximum(weights.sum(axis=1), 1))
    vectors = np.linalg.eigh(weights * scale[:, None] * scale)[1]  # ascending: the Laplacian's first are the last here
    points = vectors[:, -min(nodes, items) :]
    points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    asked = weights.any(axis=1)
    points[~asked] = 0.0  # what was never asked with others is near to none, and no place to start from
    centres = points[_far_apart(points, nodes, int(np.argmax(asked)))]
    seats = np.repeat(np.arange(nodes), sizes)
    of_item = np.full(items, -1)
    for _round in range(ROUNDS):
        distances = ((points[:, None] - centres) ** 2).sum(axis=2)
        seat = linear_sum_assignment(distances[:, seats])[1]
        if (seats[seat] == of_item).all():
            break
        of_item = seats[seat]
        centres = np.stack([points[of_item == n].mean(axis=0) if sizes[n] else centres[n] for n in range(nodes)])
    return [np.flatnonzero(of_item == n).tolist() for n in range(nodes)]


def _hypergraph(items: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> list[list[int]]:
    package = _mt_kahypar()
    partitioner = _partitioner(package)
    sets, tokens = np.unique(np.sort(items, axis=1), axis=0, return_counts=True)
    edges = [(sorted(set(one)), count) for one, count in zip(sets.tolist(), tokens.tolist(), strict=True) if len(set(one)) > 1]
    nodes = len(sizes)
    if nodes == 1 or len(weights) == nodes or not edges:
        return [part.tolist() for part in np.split(np.arange(len(weights)), np.cumsum(sizes)[:-1])]
    context = partitioner.context_from_preset(package.PresetType.DEFAULT)
    context.set_partitioning_parameters(nodes, 0.0, package.Objective.KM1)
    context.set_individual_target_block_weights(sizes.tolist())
    context.logging = False
    package.set_seed(0)
    pins, counts = [pins for pins, _ in edges], [count for _, count in edges]
    graph = partitioner.create_hypergraph(context, len(weights), len(edges), pins, [1] * len(weights), counts)
    parts = graph.partition(context)
    found: list[list[int]] = [[] for _ in range(nodes)]
    for item in range(len(weights)):
        found[parts.block_id(item)].append(item)
    return found


def _mt_kahypar() -> Any:
    try:
        import mtkahypar
    except ImportError:
        raise InputError("mtkahypar is not installed; hypergraph grouping needs it: pip install mtkahypar") from None
    return mtkahypar


@cache
def _partitioner(package: Any) -> Any:
    """Return what the package is called through, which it makes once a process."""
    return package.initialize(1)


def _far_apart(points: np.ndarray, count: int, first: int) -> list[int]:
    """Return points to start from: a first, then always the one farthest from those taken."""
    taken = [first]
    nearest = ((points - points[first]) ** 2).sum(axis=1)
    while len(taken) < count:
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((points - points[taken[-1]]) ** 2).sum(axis=1))
    return taken
