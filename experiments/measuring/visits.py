"""What rows say of the nodes that tokens visit: counts of a map on recorded routing, and the best bound that is known."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from eplb_gap.experiments.measuring.rows import Fields
from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.bounds.node_visits import star_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fraction
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.routing.traffic import traffic
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.locality.visit_bound import visit_bound

ASKED_GAP = 0.15
"""Level of the gap between a map's visits and the bound."""
COUNTS, RATIOS = "object of list of integer", "object of list of number"
SERVED = {
    "tokens": "object of integer",
    "visits": COUNTS,
    "hashed_visits": COUNTS,
    "busiest_node": "object of list of p/q",
    "busiest_gpu": "object of list of p/q",
    "gpu_load": RATIOS,
    "node_load": RATIOS,
    "even_gpu_load": RATIOS,
    "even_node_load": RATIOS,
}
"""Fields of :func:`served`: by part of the routing, one number a layer."""


def served(placement: Placement, parts: Mapping[str, RoutingTrace], deployment: Deployment) -> Fields:
    """Return what a map sends over the network and computes, part by part of a routing, layer by layer.

    ``visits``, ``busiest_node``, ``busiest_gpu``, ``gpu_load`` and ``node_load`` are those of a dispatcher that sends one copy to
    every node of a smallest cover; ``hashed_visits`` those of one that takes replicas in turn, wherever they are. Loads are the
    fullest over the mean: of the replicas that the cover chose, and (``even``) if every expert's tokens were shared evenly.
    """
    found: Fields = {name: {} for name in SERVED}
    for name, routing in parts.items():
        loads = routing.loads()
        makespans = verify(placement, loads, deployment)
        layers = [_layer(placement, routing, layer, deployment) for layer in range(routing.num_layers)]
        for field in layers[0]:
            found[field][name] = [layer[field] for layer in layers]
        found["tokens"][name] = len(routing.experts)
        mean = loads.sum(axis=1) / deployment.num_gpus
        found["even_gpu_load"][name] = [float(top) / middle for top, middle in zip(makespans, mean.tolist(), strict=True)]
        found["even_node_load"][name] = _even_node_loads(placement, loads, deployment)
    return found


def _layer(placement: Placement, routing: RoutingTrace, layer: int, deployment: Deployment) -> Fields:
    rows, phy2log = routing.rows(layer), placement.phy2log[layer]
    cover = choose_replicas(rows, phy2log, deployment, "smallest-cover", routing.source)
    hashed = choose_replicas(rows, phy2log, deployment, "hashed", routing.source)
    counted = traffic(rows, cover, phy2log, deployment, "node-dedup", routing.source)
    gpus = np.array(counted.gpu_loads)
    nodes = gpus.reshape(deployment.num_nodes, -1).sum(axis=1)
    return {
        "visits": counted.node_visits,
        "hashed_visits": traffic(rows, hashed, phy2log, deployment, "node-dedup", routing.source).node_visits,
        "busiest_node": fraction(counted.busiest_node),
        "busiest_gpu": fraction(counted.busiest_gpu),
        "gpu_load": float(gpus.max() / gpus.mean()),
        "node_load": float(nodes.max() / nodes.mean()),
    }


def _even_node_loads(placement: Placement, loads: np.ndarray, deployment: Deployment) -> list[float]:
    found = []
    for phy2log, load in zip(placement.phy2log, loads, strict=True):
        shares = load / np.maximum(np.bincount(phy2log, minlength=load.size), 1)
        nodes = shares[phy2log].reshape(deployment.num_nodes, -1).sum(axis=1)
        found.append(float(nodes.max() / nodes.mean()))
    return found


def best_bound(routing: RoutingTrace, layer: int, deployment: Deployment, eps: float) -> tuple[Fraction, str]:
    """Return the best bound that is known on the visits of all tokens in a layer, and how it is proven.

    That by prices is on maps without replicas whose node loads are within ``1 + eps`` times the bound on them; with replicas the
    bound by counts of pairs, of any map, is what there is.
    """
    star = star_bound(routing.co_activation(layer), routing.topk, deployment.num_slots, deployment.num_nodes)
    if deployment.num_slots > deployment.num_experts:
        return star, "star"
    loads = np.bincount(routing.rows(layer).ravel(), minlength=deployment.num_experts)
    node = best_joint_bound(Instance.of_layer(loads, Deployment(loads.size, loads.size, deployment.num_nodes))).value
    most = int(node * (1 + Fraction(str(eps))))
    dual = visit_bound(*routing.bundles(layer), deployment.num_experts, deployment.num_nodes, most).value
    return max((dual, "prices"), (star, "star"))
