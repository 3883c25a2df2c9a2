"""Experts that a map in use lost with dead GPUs: which they are, and the fewest moves that bring them back.

An expert is lost in a layer if no GPU that is alive holds it: all its replicas were on dead ones. It must be copied onto a live
GPU whatever that costs: a forced move. As a lost expert is on no GPU, one slot that another expert can spare is always enough, so
that the least number of moves is the number of lost experts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.metrics import per_gpu
from eplb_gap.problem.placement import Placement


def lost_experts(previous: Placement, deployment: Deployment) -> list[list[int]]:
    """Return the experts of every layer that no live GPU holds, ascending.

    Parameters
    ----------
    previous : Placement
        The map that was in use when the GPUs died.
    deployment : Deployment
        With the GPUs that are dead now. Without any nothing is lost: an expert that such a map does not have is no loss, but
        makes it illegal.

    Raises
    ------
    InputError
        If they are none, or the map does not have the deployment's slots and experts.
    """
    require_kind("previous", previous, Placement)
    require_kind("deployment", deployment, Deployment)
    expected = deployment.num_slots, deployment.num_experts
    if (previous.num_slots, previous.num_experts) != expected:
        raise InputError(
            f"previous has {previous.num_slots} slots and {previous.num_experts} experts; the deployment has {expected[0]} and "
            f"{expected[1]}"
        )
    if not deployment.dead_gpus:
        return [[] for _ in range(previous.num_layers)]
    everyone = np.arange(deployment.num_experts)
    return [np.setdiff1d(everyone, held).tolist() for held in previous.phy2log[:, live_slots(deployment)]]


def with_lost_experts(loads: np.ndarray, previous: Placement, deployment: Deployment, lost: list[list[int]]) -> np.ndarray:
    """Return the map of the live GPUs with one replica of every lost expert on it, int64 [layers, live slots].

    Hot experts come first, each in the place of the replica whose loss leaves the fullest GPU lightest.

    Parameters
    ----------
    loads : ndarray
        float64 [layers, experts].
    previous, deployment
        As of :func:`lost_experts`.
    lost : list of list of int [layers]
        Their answer.

    Raises
    ------
    PlacementError
        If a live slot holds an expert that does not exist.
    """
    live = deployment.live
    maps = without_dead(previous, deployment).phy2log.copy()
    outside = np.argwhere((maps < 0) | (maps >= live.num_experts))
    if outside.size:
        layer, slot = (int(i) for i in outside[0])
        raise PlacementError(
            f"layer {layer}, slot {live_slots(deployment)[slot]}: expert {maps[layer, slot]} does not exist; "
            f"experts are 0 to {live.num_experts - 1}"
        )
    home = np.repeat(np.arange(live.num_gpus), live.slots_by_gpu)
    for row, slots, gone in zip(loads, maps, lost, strict=True):
        for expert in sorted(gone, key=lambda e: (-row[e], e)):
            _place(row, slots, home, expert, live)
    return maps


def _place(loads: np.ndarray, slots: np.ndarray, home: np.ndarray, expert: int, live: Deployment) -> None:
    counts = np.bincount(slots, minlength=loads.size)
    sizes = loads / np.maximum(counts, 1)
    best, chosen = np.inf, -1
    for slot in np.flatnonzero(counts[slots] > 1).tolist():
        other = slots[slot]
        smaller = sizes[slots]
        smaller[slots == other] = loads[other] / (counts[other] - 1)
        smaller[slot] = loads[expert]
        fullest = float(per_gpu(smaller, live.slots_by_gpu).max())
        if fullest < best:
            best, chosen = fullest, slot
    slots[chosen] = expert


def least_moves(lost: list[list[int]], limits: Any, name: str) -> np.ndarray:
    """Return the number of forced moves of every layer, int64 [layers].

    Parameters
    ----------
    lost : list of list of int [layers]
    limits : ndarray
        Most moves of every layer, int64 [layers].
    name : str
        Of the argument that says so.

    Raises
    ------
    InputError
        Naming the layer and its lost experts, if it may not move as many replicas.
    """
    forced = np.array([len(gone) for gone in lost])
    short = np.flatnonzero(forced > limits)
    if short.size:
        layer = int(short[0])
        raise InputError(
            f"{name} allows {limits[layer]} moves in layer {layer}; its experts {named(lost[layer])} were on dead GPUs alone, "
            f"at least {forced[layer]} moves are needed"
        )
    return forced


def named(experts: list[int]) -> str:
    """Return experts as words."""
    return ", ".join(map(str, experts))
