"""The only judge: exact verification of a placement. Imports no heuristic and no solver."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.shares import TokenSplit, as_shares, split_bound

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
        Part of its expert's load that each replica serves, see :func:`makespans`; by default even shares.

    Returns
    -------
    list of Fraction
        Largest GPU load of every layer.

    Raises
    ------
    InputError
        If loads, placement, shares and deployment do not belong together.
    PlacementError
        Naming layer, slot or expert and the first rule broken, as :func:`check`; shares that do not sum to one or are given to
        a dead GPU.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, verify
    >>> verify(Placement([[0, 1, 2, 0]], 3), [[7, 4, 3]], Deployment(3, 4, 2))  # 7/2 + 4 on the first GPU
    [Fraction(15, 2)]
    """
    checked = _as_loads_of(loads, placement, deployment)
    check(placement, deployment)
    return makespans(placement, checked, deployment, shares)


def check(placement: Placement, deployment: Deployment) -> None:
    """Check that a placement is legal, whatever the loads.

    Raises
    ------
    InputError
        If placement and deployment do not belong together.
    PlacementError
        Naming layer, slot or expert and the first rule broken: expert out of range, expert without replica, ranks not
        dense, duplicate on a GPU where forbidden, replicas of one expert on two nodes, a group split over nodes, nodes
        with unequal numbers of groups.
    """
    legal = legal_layers(placement, deployment)
    if not legal.all():
        _name_what_is_broken(int(np.argmin(legal)), placement, deployment)


def legal_layers(placement: Placement, deployment: Deployment) -> np.ndarray:
    """Return in which layers a placement is legal, bool [layers]; an InputError as of :func:`check`."""
    _check_types(placement, deployment)
    _check_shape(placement, placement.num_layers, deployment)
    judged, live, experts = without_dead(placement, deployment), deployment.live, deployment.num_experts
    exists = (judged.phy2log >= 0) & (judged.phy2log < experts)
    slots = np.where(exists, judged.phy2log, 0)
    rows = np.arange(len(slots))[:, None]
    counts = np.bincount((rows * experts + slots).ravel(), minlength=len(slots) * experts).reshape(-1, experts)
    legal = exists.all(axis=1) & (counts > 0).all(axis=1) & _are_dense(judged.ranks, slots, counts)
    if live.duplicates == "forbidden":
        held = np.sort(np.repeat(np.arange(live.num_gpus), live.slots_by_gpu) * experts + slots, axis=1)
        legal &= (np.diff(held, axis=1) > 0).all(axis=1)
    if live.policy == "hierarchical":
        hosts = np.zeros((len(slots), live.num_groups, live.num_nodes), dtype=bool)
        hosts[rows, slots // live.experts_per_group, np.arange(live.num_slots) // live.slots_per_node] = True
        legal &= (hosts.sum(axis=2) == 1).all(axis=1) & (hosts.sum(axis=1) == live.groups_per_node).all(axis=1)
    return np.asarray(legal)


def _are_dense(ranks: np.ndarray, slots: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return in which layers the replicas of every expert have the ranks from 0 on, once each; bool [layers]."""
    rows = np.arange(len(slots))[:, None]
    known = (ranks >= 0) & (ranks < counts[rows, slots])
    # Experts side by side, each as wide as its count: dense ranks are all places once.
    places = (np.cumsum(counts, axis=1) - counts)[rows, slots] + np.where(known, ranks, 0)
    taken = np.zeros(slots.shape, dtype=bool)
    taken[rows, places] = True
    return np.asarray((known & taken).all(axis=1))


def makespans(placement: Placement, loads: Any, deployment: Deployment, shares: Any = None) -> list[Fraction]:
    """Return the exact makespans of a placement that is known to be legal.

    Parameters
    ----------
    placement, loads, deployment
        As of :func:`verify`.
    shares : array_like of float [layers, slots], optional
        By default even. Shares are floats and seldom sum to exactly 1. They are read as proportions: a replica takes its share
        over the sum of its expert's shares, in fractions, so that all of the load is served and the makespan is that of a
        feasible split. The slots of dead GPUs take none.

    Raises
    ------
    InputError, PlacementError
        If they do not belong together, or as :func:`eplb_gap.problem.shares.as_shares`.
    """
    checked = _as_loads_of(loads, placement, deployment)
    judged, slots_by_gpu = without_dead(placement, deployment), deployment.live.slots_by_gpu
    if shares is None:
        counts = judged.counts()
        return [_makespan(row, judged.phy2log[i], counts[i], slots_by_gpu) for i, row in enumerate(checked)]
    # Filler is marked, whether the map did so or not: a share of it is refused.
    parts = as_shares(shares, with_dead(judged, deployment))[:, live_slots(deployment)]
    return [_shared_makespan(row, judged.phy2log[i], parts[i], slots_by_gpu) for i, row in enumerate(checked)]


def verify_split(
    placement: Placement, split: TokenSplit, loads: Any, deployment: Deployment
) -> tuple[list[Fraction], list[Fraction]]:
    """Return the exact makespan of every layer under a split and the bound that its critical GPUs prove.

    Raises
    ------
    InputError, PlacementError
        As :func:`verify` and :func:`eplb_gap.problem.shares.split_bound`, and if there is not one set of GPUs per layer.
    """
    upper = verify(placement, loads, deployment, split.shares)
    if len(split.critical) != len(upper):
        raise InputError(f"critical has {len(split.critical)} sets; one for each of the {len(upper)} layers is needed")
    rows = zip(placement.phy2log, as_loads(loads, "loads", 2), split.critical, strict=True)
    return upper, [split_bound(slots, of_layer, deployment, gpus) for slots, of_layer, gpus in rows]


def _as_loads_of(loads: Any, placement: Placement, deployment: Deployment) -> np.ndarray:
    _check_types(placement, deployment)
    checked = as_loads(loads, "loads", 2)
    if checked.shape[1] != deployment.num_experts:
        raise InputError(f"loads has {checked.shape[1]} experts; the deployment has {deployment.num_experts}")
    _check_shape(placement, checked.shape[0], deployment)
    return checked


def _check_types(placement: Any, deployment: Any) -> None:
    """Refuse what is no placement or no deployment, where a program without types would fail on an attribute."""
    require_kind("placement", placement, Placement)
    require_kind("deployment", deployment, Deployment)


def _check_shape(placement: Placement, layers: int, deployment: Deployment) -> None:
    expected = (layers, deployment.num_slots)
    if placement.phy2log.shape != expected or placement.num_experts != deployment.num_experts:
        raise InputError(
            f"placement has shape {placement.phy2log.shape} for {placement.num_experts} experts; "
            f"{expected} for {deployment.num_experts} experts is needed"
        )


def _name_what_is_broken(layer: int, whole: Placement, deployment: Deployment) -> None:
    """Raise the error of an illegal layer; slots and GPUs have the numbers of the whole map."""
    placement, names = without_dead(whole, deployment), live_slots(deployment)
    gpus = np.repeat(np.arange(deployment.num_gpus), deployment.slots_by_gpu)[names]
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
    _check_nodes(layer, slots, deployment)


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


def _shared_makespan(loads: np.ndarray, slots: np.ndarray, shares: np.ndarray, slots_by_gpu: tuple[int, ...]) -> Fraction:
    given = [Fraction(share) for share in shares.tolist()]
    sums = [Fraction(0)] * loads.size
    for expert, part in zip(slots.tolist(), given, strict=True):
        sums[expert] += part
    taken = iter([part * int(loads[e]) / sums[e] for e, part in zip(slots.tolist(), given, strict=True)])
    return max(sum(itertools.islice(taken, count), Fraction(0)) for count in slots_by_gpu)
