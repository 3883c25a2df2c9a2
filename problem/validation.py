"""The only judge: exact verification of a placement. Imports no heuristic and no solver."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement

SAFE_INT64 = 2**62


def verify(placement: Placement, loads: Any, deployment: Deployment, shares: Any = None) -> list[Fraction]:
    """Check that a placement is legal and return its exact makespans.

    Parameters
    ----------
    placement : Placement
    loads : array_like of int [layers, experts]
    deployment : Deployment
        Shape, policy and whether a GPU may hold two replicas of one expert. What the slots of dead GPUs hold is ignored.
    shares : array_like of float [layers, slots], optional
        Part of its expert's load that each replica serves, see :func:`eplb_gap.problem.shares.verify_shares`; by default even
        shares.

    Returns
    -------
    list of Fraction
        Largest GPU load of every layer.

    Raises
    ------
    InputError
        If loads, placement and deployment do not belong together.
    PlacementError
        Naming layer, slot or expert and the first rule broken: expert out of range, expert without replica, ranks not
        dense, duplicate on a GPU where forbidden, replicas of one expert on two nodes, a group split over nodes, nodes
        with unequal numbers of groups; shares that do not sum to one.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, verify
    >>> verify(Placement([[0, 1, 2, 0]], 3), [[7, 4, 3]], Deployment(3, 4, 2))  # 7/2 + 4 on the first GPU
    [Fraction(15, 2)]
    """
    if shares is not None:
        from eplb_gap.problem.shares import verify_shares  # which judges the map by this function first

        return verify_shares(placement, shares, loads, deployment)
    checked = as_loads(loads, "loads", 2)
    if checked.shape[1] != deployment.num_experts:
        raise InputError(f"loads has {checked.shape[1]} experts; the deployment has {deployment.num_experts}")
    expected = (checked.shape[0], deployment.num_slots)
    if placement.phy2log.shape != expected or placement.num_experts != deployment.num_experts:
        raise InputError(
            f"placement has shape {placement.phy2log.shape} for {placement.num_experts} experts; "
            f"{expected} for {deployment.num_experts} experts is needed"
        )
    judged, live, names = without_dead(placement, deployment), deployment.live, live_slots(deployment)
    gpus = np.repeat(np.arange(deployment.num_gpus), deployment.slots_by_gpu)[names]
    return [_verify_layer(layer, judged, checked[layer], live, names, gpus) for layer in range(checked.shape[0])]


def _verify_layer(
    layer: int, placement: Placement, loads: np.ndarray, deployment: Deployment, names: np.ndarray, gpus: np.ndarray
) -> Fraction:
    """Judge one layer of a map without dead GPUs; slot and GPU have the numbers ``names`` and ``gpus`` in the whole map."""
    slots = placement.phy2log[layer]
    outside = np.flatnonzero((slots < 0) | (slots >= deployment.num_experts))
    if outside.size:
        slot = int(outside[0])
        raise PlacementError(
            f"layer {layer}, slot {names[slot]}: expert {slots[slot]} does not exist; "
            f"experts are 0 to {deployment.num_experts - 1}"
        )
    counts = np.bincount(slots, minlength=deployment.num_experts)
    missing = np.flatnonzero(counts == 0)
    if missing.size:
        raise PlacementError(f"layer {layer}: expert {missing[0]} has no replica; every expert needs at least one")
    _check_ranks(layer, slots, placement.ranks[layer], counts, names)
    if deployment.duplicates == "forbidden":
        _check_duplicates(layer, slots, names, gpus)
    if deployment.policy == "hierarchical":
        _check_nodes(layer, slots, deployment)
    return _makespan(loads, slots, counts, deployment.slots_by_gpu)


def _check_ranks(layer: int, slots: np.ndarray, ranks: np.ndarray, counts: np.ndarray, names: np.ndarray) -> None:
    order = np.lexsort((ranks, slots))
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    wrong = np.flatnonzero(ranks[order] != np.arange(slots.size) - starts)
    if wrong.size:
        slot = int(order[wrong[0]])
        expert = int(slots[slot])
        raise PlacementError(
            f"layer {layer}, slot {names[slot]}: "
            f"replica rank {ranks[slot]} of expert {expert} is missing another or given twice; "
            f"its {counts[expert]} replicas need the ranks 0 to {counts[expert] - 1}, once each"
        )


def _check_duplicates(layer: int, slots: np.ndarray, names: np.ndarray, gpus: np.ndarray) -> None:
    order = np.lexsort((slots, gpus))  # stable: of equal experts on a GPU the first slot comes first
    repeated = np.flatnonzero((np.diff(gpus[order]) == 0) & (np.diff(slots[order]) == 0))
    if repeated.size:
        slot = int(order[repeated[0] + 1])
        raise PlacementError(
            f"layer {layer}, slot {names[slot]}: GPU {gpus[slot]} holds expert {slots[slot]} twice; duplicates are forbidden"
        )


def _check_nodes(layer: int, slots: np.ndarray, deployment: Deployment) -> None:
    nodes = np.arange(slots.size) // deployment.slots_per_node
    groups = slots // deployment.experts_per_group
    home = np.full(deployment.num_groups, -1)
    home[groups[::-1]] = nodes[::-1]  # the first slot of a group decides where it lives
    away = np.flatnonzero(nodes != home[groups])
    if away.size:
        slot = int(away[0])
        raise PlacementError(
            f"layer {layer}, slot {slot}: expert {slots[slot]} of group {groups[slot]} is on node {nodes[slot]}, "
            f"its group on node {home[groups[slot]]}; the hierarchical policy keeps a group on one node"
        )
    hosted = np.bincount(home, minlength=deployment.num_nodes)
    uneven = np.flatnonzero(hosted != deployment.groups_per_node)
    if uneven.size:
        raise PlacementError(
            f"layer {layer}: node {uneven[0]} hosts {hosted[uneven[0]]} groups; "
            f"the hierarchical policy puts {deployment.groups_per_node} on each"
        )


def _makespan(loads: np.ndarray, slots: np.ndarray, counts: np.ndarray, slots_by_gpu: tuple[int, ...]) -> Fraction:
    scale = math.lcm(*{int(c) for c in counts})
    # All loads as multiples of 1/scale: int64 where the sum is safe, Python's unbounded integers otherwise.
    exact = loads if max(1, int(loads.sum())) * scale < SAFE_INT64 else loads.astype(object)
    sizes = exact * scale // counts
    starts = np.cumsum((0, *slots_by_gpu[:-1]))
    return Fraction(int(np.add.reduceat(sizes[slots], starts).max()), scale)
