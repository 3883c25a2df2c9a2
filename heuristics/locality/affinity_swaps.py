"""Affinity-aware EPLB: GPUs are filled for balance, then exchanged between nodes by the affinity of their hottest experts."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import check

MOST_SWAPS = 20
"""As in the published program."""


def affinity_swaps(routing: RoutingTrace, deployment: Deployment) -> Placement:
    """Fill GPUs by DeepSeek's algorithm, then exchange GPUs between nodes while hottest experts with affinity come together.

    As the "expert affinity aware" EPLB for SGLang is described [1]_: the affinity of two GPUs is the number of tokens that went
    to the hottest expert of both, and the exchange of two GPUs that raises the affinity within nodes most is made, at most
    :data:`MOST_SWAPS` times. Balance of GPUs, and replicas, stay those of DeepSeek's algorithm.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan on.
    deployment : Deployment
        Under the global policy, with as many slots on every GPU, all alive.

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If routing and deployment do not belong together, the policy is hierarchical, or GPUs are dead or unequal.
    PlacementError
        If DeepSeek's algorithm puts two replicas of an expert on a GPU where that is forbidden.

    References
    ----------
    .. [1] Ant Group: Add Expert Affinity Aware EPLB algorithm. github.com/antgroup/sglang/pull/2, 2025.

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.locality.affinity_swaps import affinity_swaps
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 2]], [[1, 3]], [[2, 0]], [[3, 1]]], num_experts=4)  # pairs 0, 2 and 1, 3 are asked together
    >>> placement = affinity_swaps(routing, Deployment(4, 4, 4, num_nodes=2))
    >>> sorted(sorted(node) for node in placement.by_gpu(2)[0].tolist())
    [[0, 2], [1, 3]]
    """
    deployment.require_regular("exchanging GPUs")
    if routing.num_experts != deployment.num_experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {deployment.num_experts}")
    if deployment.policy == "hierarchical":
        raise InputError(
            f"num_groups is {deployment.num_groups} on {deployment.num_nodes} nodes, the hierarchical policy; exchanging GPUs "
            "between nodes needs the global one, num_groups = 1"
        )
    loads = routing.loads()
    by_gpu = rebalance(loads, deployment, "initial_program").by_gpu(deployment.num_gpus)
    layers = []
    for layer, gpus in enumerate(by_gpu):
        sizes = loads[layer] / np.bincount(gpus.ravel(), minlength=deployment.num_experts)
        hottest = np.take_along_axis(gpus, sizes[gpus].argmax(axis=1)[:, None], axis=1)[:, 0]
        together = routing.co_activation(layer)
        np.fill_diagonal(together, 0)  # replicas of one expert have no use for each other
        affinity = together[np.ix_(hottest, hottest)]
        layers.append(gpus[_exchanged(affinity, deployment.num_nodes)].ravel())
    placement = Placement(np.stack(layers), deployment.num_experts)
    check(placement, deployment)
    return placement


def _exchanged(affinity: np.ndarray, nodes: int) -> np.ndarray:
    """Return the GPUs in the order of their new places, node after node, int64 [gpus]."""
    gpus = len(affinity)
    order, node_of = np.arange(gpus), np.repeat(np.arange(nodes), gpus // nodes)
    for _ in range(MOST_SWAPS):
        placed = affinity[np.ix_(order, order)]
        within = np.stack([placed[:, node_of == node].sum(axis=1) for node in range(nodes)], axis=1)
        to_node = within[:, node_of]  # of every GPU, with the GPUs on the node of every other
        stays = to_node.diagonal()
        gains = to_node + to_node.T - 2 * placed - stays[:, None] - stays
        gains[node_of[:, None] == node_of] = 0
        if gains.max() <= 0:
            break
        one, other = np.unravel_index(int(np.argmax(gains)), gains.shape)
        order[[one, other]] = order[[other, one]]
    return order
