"""Node and GPU visits of a map of all layers on recorded routing, copies over the network, and what no map can go below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.dispatch.replica_choice import Rule, choose_replicas
from eplb_gap.problem.bounds.group_visits import MOST_GROUPS, fewest_group_visits
from eplb_gap.problem.bounds.node_visits import room_bound, star_bound
from eplb_gap.problem.bounds.visit_dual import MOST_TOPK
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind, shown
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.routing.traffic import Dispatch, Traffic, check_dispatch, traffic
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.locality.visit_bound import visit_bound


@dataclass(frozen=True)
class VisitBound:
    """What the visits of all tokens in one layer sum to at least, whatever the map and the choice of replicas.

    Parameters
    ----------
    visits : Fraction
    proof : str
        The bound that is largest: ``groups`` where it is attained by some map (:mod:`eplb_gap.problem.bounds.group_visits`),
        ``star``, ``room for experts`` or ``room for groups`` (:mod:`eplb_gap.problem.bounds.node_visits`), ``prices``
        (:mod:`eplb_gap.problem.bounds.visit_dual`).
    """

    visits: Fraction
    proof: str


@dataclass(frozen=True)
class LayerTraffic:
    """One layer.

    Parameters
    ----------
    counted : Traffic
    even_makespan : Fraction
        Fullest GPU if every expert's tokens were shared evenly over its replicas, as balance is measured everywhere else.
    bound : VisitBound or None
        On node visits under ``node-dedup``, on GPU visits under ``rank-dedup``; None where the dispatch does not pay by visits.
    stays : int or None
        Tokens whose next layer needs no node that this layer does not visit; None for the last layer.
    """

    counted: Traffic
    even_makespan: Fraction
    bound: VisitBound | None
    stays: int | None


@dataclass(frozen=True)
class Figures:
    """Exact figures of one layer or of several summed.

    Parameters
    ----------
    node_visits, gpu_visits : Fraction
        Nodes and GPUs that a token is sent to, its own among them.
    between_nodes : Fraction
        Copies of a token that cross from one node to another.
    node_in, node_out, gpu_in : Fraction or None
        Copies into the busiest node, out of it and into the busiest GPU, over the mean, every layer with its own busiest; None
        where there are no copies.
    gpu_load, even_gpu_load : Fraction
        Fullest GPU over the mean with the replicas that the rule chooses, and with even shares.
    bound, gap : Fraction or None
        Least visits of a token, of nodes or GPUs as the dispatch pays, and ``visits / bound - 1``; None where it pays for none.
    stays : Fraction or None
        Share of the tokens whose next layer needs no further node; None where no next layer is looked at.
    """

    node_visits: Fraction
    gpu_visits: Fraction
    between_nodes: Fraction
    node_in: Fraction | None
    node_out: Fraction | None
    gpu_in: Fraction | None
    gpu_load: Fraction
    even_gpu_load: Fraction
    bound: Fraction | None
    gap: Fraction | None
    stays: Fraction | None


@dataclass(frozen=True)
class NetworkTraffic:
    """Traffic of a map, layer by layer.

    Parameters
    ----------
    dispatch : {"node-dedup", "rank-dedup", "none"}
    replicas : {"hashed", "local-first", "smallest-cover"}
    sources : {"recorded", "even"}
        Whether the routing says on which GPU every token was, or as many are taken to come from every GPU.
    layers : tuple of LayerTraffic
    """

    dispatch: Dispatch
    replicas: Rule
    sources: str
    layers: tuple[LayerTraffic, ...]

    @property
    def tokens(self) -> int:
        """Tokens of a layer."""
        return self.layers[0].counted.tokens

    def layer(self, row: int) -> Figures:
        """Return the figures of one layer."""
        return self._figures(self.layers[row : row + 1])

    def total(self) -> Figures:
        """Return the figures of all layers: sums over sums, so that every layer counts by its tokens."""
        return self._figures(self.layers)

    def _figures(self, layers: Sequence[LayerTraffic]) -> Figures:
        counted = [layer.counted for layer in layers]
        tokens = sum(part.tokens for part in counted)
        node_visits = Fraction(sum(part.node_visits for part in counted))
        gpu_visits = Fraction(sum(part.gpu_visits for part in counted))
        bound = gap = None
        if self.dispatch != "none":
            bound = sum((layer.bound.visits for layer in layers if layer.bound is not None), Fraction(0))
            gap = (node_visits if self.dispatch == "node-dedup" else gpu_visits) / bound - 1
        means = sum((Fraction(sum(part.gpu_loads), len(part.gpu_loads)) for part in counted), Fraction(0))
        followed = [layer for layer in layers if layer.stays is not None]
        return Figures(
            node_visits / tokens,
            gpu_visits / tokens,
            sum((sum(part.into_nodes, Fraction(0)) for part in counted), Fraction(0)) / tokens,
            _busiest([part.into_nodes for part in counted]),
            _busiest([part.out_of_nodes for part in counted]),
            _busiest([part.into_gpus for part in counted]),
            sum(max(part.gpu_loads) for part in counted) / means,
            sum((layer.even_makespan for layer in layers), Fraction(0)) / means,
            None if bound is None else bound / tokens,
            gap,
            Fraction(sum(layer.stays or 0 for layer in followed), sum(p.counted.tokens for p in followed)) if followed else None,
        )


def visit_bounds(
    routing: RoutingTrace,
    deployment: Deployment,
    dispatch: Dispatch,
    prove: Callable[[str], None] | None = None,
) -> list[VisitBound | None]:
    """Return for every layer the largest lower bound that is known on the visits which a dispatch pays for.

    Under the hierarchical policy an expert's replicas are on one node, so that nodes are visited as if it had one.

    Parameters
    ----------
    routing, deployment, dispatch
        As of :func:`network_traffic`.
    prove : callable, optional
        Look for prices that prove more, up to a minute a layer, where no expert has replicas and no policy says the bound
        exactly (:func:`eplb_gap.solvers.locality.visit_bound.visit_bound`); called with what is being done.
    """
    check_dispatch(dispatch)
    deployment.require_regular("a bound on visits")
    if dispatch == "none":
        return [None] * routing.num_layers
    by_node = dispatch == "node-dedup"
    parts = deployment.num_nodes if by_node else deployment.num_gpus
    by_group = by_node and deployment.policy == "hierarchical"
    slots = deployment.num_experts if by_group else deployment.num_slots
    bounds: list[VisitBound | None] = []
    for layer in range(routing.num_layers):
        rows = routing.rows(layer).astype(np.int64)
        groups = rows // deployment.experts_per_group
        if by_group and deployment.num_groups <= MOST_GROUPS:
            visits = fewest_group_visits(groups, deployment.num_groups, parts)
            bounds.append(VisitBound(Fraction(visits), "groups"))
            continue
        known = [
            VisitBound(star_bound(routing.co_activation(layer), routing.topk, slots, parts), "star"),
            VisitBound(Fraction(room_bound(rows, slots // parts)), "room for experts"),
        ]
        if by_group:
            known.append(VisitBound(Fraction(room_bound(groups, deployment.groups_per_node)), "room for groups"))
        if prove is not None and slots == deployment.num_experts and routing.topk <= MOST_TOPK:
            prove(f"layer {layer + 1} of {routing.num_layers}")
            found = visit_bound(*routing.bundles(layer), deployment.num_experts, parts)
            known.append(VisitBound(found.value, "prices"))
        bounds.append(max(known, key=lambda bound: bound.visits))
    return bounds


def network_traffic(
    routing: RoutingTrace,
    placement: Placement,
    deployment: Deployment,
    dispatch: Dispatch = "node-dedup",
    replicas: Rule = "local-first",
    *,
    bounds: Sequence[VisitBound | None] | None = None,
) -> NetworkTraffic:
    """Count what a map sends over the network for recorded tokens, and how their replicas load the GPUs.

    A map that breaks the deployment's policy is counted as it is, against the bounds of maps without one.

    Parameters
    ----------
    routing : RoutingTrace
        As many layers and experts as the map. Its ``source``, if recorded, is the GPU of every token before dispatch.
    placement : Placement
    deployment : Deployment
        With as many slots on every GPU, all alive. Under the global policy it has its nodes and one group.
    dispatch : {"node-dedup", "rank-dedup", "none"}, default "node-dedup"
        One copy of a token for every node of its replicas, for every GPU of them, or for each of them.
    replicas : {"hashed", "local-first", "smallest-cover"}, default "local-first"
        How the dispatcher chooses among replicas (:mod:`eplb_gap.heuristics.dispatch.replica_choice`).
    bounds : sequence, optional
        Those of :func:`visit_bounds` for the same tokens, deployment and dispatch; several maps share them.

    Returns
    -------
    NetworkTraffic

    Raises
    ------
    InputError
        If routing, map and deployment do not belong together, slots are unequal, GPUs dead, or a source is no GPU.
    PlacementError
        If an expert has no replica.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, RoutingTrace, network_traffic
    >>> routing = RoutingTrace([[[0, 1]], [[0, 1]], [[0, 2]], [[2, 3]]], num_experts=4)  # four tokens, one layer, top-2
    >>> two_nodes = Deployment(num_experts=4, num_slots=4, num_gpus=4, num_nodes=2)
    >>> found = network_traffic(routing, Placement([[0, 1, 2, 3]], 4), two_nodes).total()
    >>> found.node_visits, found.between_nodes, found.gap  # one token of four needs both nodes
    (Fraction(5, 4), Fraction(5, 8), Fraction(0, 1))
    >>> found.gpu_load  # GPU 0 has three of the eight choices
    Fraction(3, 2)
    """
    require_kind("routing", routing, RoutingTrace)
    require_kind("deployment", deployment, Deployment)
    deployment.require_regular("traffic")
    if routing.num_experts != deployment.num_experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {deployment.num_experts}")
    if bounds is not None:
        if not isinstance(bounds, Sequence) or not all(bound is None or isinstance(bound, VisitBound) for bound in bounds):
            raise InputError(f"bounds is {shown(bounds)}; what visit_bounds returned is needed")
        if len(bounds) != routing.num_layers:
            raise InputError(f"bounds has {len(bounds)} entries; one for each of the {routing.num_layers} layers is needed")
    loads = routing.loads()
    try:
        even = verify(placement, loads, deployment)
    except PlacementError:
        deployment, bounds = replace(deployment, num_groups=1, duplicates="allowed"), None
        even = verify(placement, loads, deployment)
    known = visit_bounds(routing, deployment, dispatch) if bounds is None else bounds
    counted: list[Traffic] = []
    stays: list[int | None] = []
    visited = None
    for layer in range(routing.num_layers):
        rows, phy2log = routing.rows(layer), placement.phy2log[layer]
        chosen = choose_replicas(rows, phy2log, deployment, replicas, routing.source)
        counted.append(traffic(rows, chosen, phy2log, deployment, dispatch, routing.source))
        before, visited = visited, _visited(chosen // deployment.slots_per_node, deployment.num_nodes)
        if before is not None:
            stays.append(int((visited <= before).all(axis=1).sum()))
    layers = map(LayerTraffic, counted, even, known, [*stays, None])
    return NetworkTraffic(dispatch, replicas, "even" if routing.source is None else "recorded", tuple(layers))


def _visited(nodes: np.ndarray, num_nodes: int) -> np.ndarray:
    """Return which nodes every token visits, bool [tokens, nodes]."""
    visited = np.zeros((len(nodes), num_nodes), dtype=np.bool_)
    visited[np.arange(len(nodes))[:, None], nodes] = True
    return visited


def _busiest(copies: Sequence[Sequence[Fraction]]) -> Fraction | None:
    """Return the largest of every layer over its mean, weighted by the mean."""
    means = sum((sum(layer, Fraction(0)) / len(layer) for layer in copies), Fraction(0))
    return sum(map(max, copies), Fraction(0)) / means if means else None
