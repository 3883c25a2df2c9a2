"""The map of a server without EPLB: experts in their order, redundant slots for the first ones."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement


def contiguous_map(deployment: Deployment, layers: int) -> Placement:
    """Return the map that looks at no loads: experts 0, 1, 2, ... on the slots in their order, then again from 0.

    Under the hierarchical policy every node does so with the experts of its own groups, so that the map is legal.

    Parameters
    ----------
    deployment : Deployment
    layers : int
        All get the same map.

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.control.contiguous import contiguous_map
    >>> contiguous_map(Deployment(4, 6, 3), 1).phy2log.tolist()
    [[0, 1, 2, 3, 0, 1]]
    """
    live = deployment.live
    nodes = live.num_nodes if live.policy == "hierarchical" else 1
    experts, slots = live.num_experts // nodes, live.num_slots // nodes
    row = (np.arange(slots) % experts + experts * np.arange(nodes)[:, None]).ravel()
    return with_dead(Placement(np.tile(row, (layers, 1)), live.num_experts), deployment)
