"""Fewer weight copies for the same balance: a new map renamed to resemble the one in use, and layers not worth a change kept.

Which of two GPUs holds a set of replicas does not matter to the balance, but every replica on a GPU that did not hold its expert
before must be copied there. Naming the GPUs so that most stay is an assignment problem, solved exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.heuristics.kernels.assignment import most
from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_numbers
from eplb_gap.problem.metrics import per_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import legal_layers

NOBODY = -1
"""Expert in the slots of a map in use that hold nothing."""
ROUNDING = 1e-12
"""Relative differences up to this are rounding of float64 sums: no gain, and a threshold missed by less is met."""


def moved(placement: Placement, previous: Placement, deployment: Deployment) -> np.ndarray:
    """Return how many replicas must be copied onto a GPU that did not hold them.

    Parameters
    ----------
    placement, previous : Placement
        The new map and the one in use; experts that do not exist are held by nobody.
    deployment : Deployment
        What dead GPUs hold counts in neither map.

    Returns
    -------
    ndarray
        int64 [layers]: replicas of the new map less those that their GPU held before, as multisets.

    Raises
    ------
    InputError
        If the maps and the deployment do not belong together.
    """
    return np.asarray(arrivals(placement, previous, deployment).sum(axis=1))


def arrivals(placement: Placement, previous: Placement, deployment: Deployment) -> np.ndarray:
    """Return how many replicas every GPU must receive: as :func:`moved`, GPU by GPU.

    Returns
    -------
    ndarray
        int64 [layers, gpus]; 0 for dead GPUs.
    """
    _check_shapes(placement, previous, deployment)
    new, old = _held(placement, deployment), _held(previous, deployment)
    return np.asarray(np.maximum(new - old, 0).sum(axis=2))


def relabel(placement: Placement, previous: Placement, deployment: Deployment, whole_nodes: bool = False) -> Placement:
    """Rename GPUs, nodes and slots of a map so that as few replicas as possible move.

    GPUs change places within their node and nodes as wholes, under the global policy all live GPUs of equally many slots freely,
    unless nodes are to be kept whole;
    an expert that stays on its GPU stays in its slot, so that exactly the slots that :func:`moved` counts change. No other
    renaming of this kind moves fewer.

    Parameters
    ----------
    placement : Placement
        The new map.
    previous : Placement
        The map in use; it need not be legal.
    deployment : Deployment
    whole_nodes : bool, default False
        Whether the GPUs of a node stay together under the global policy too, for a map that is to keep its traffic between nodes;
        for a regular deployment alone.

    Returns
    -------
    Placement
        As legal as the new map, with the same makespans; replica ranks in the order of the slots.

    Raises
    ------
    InputError
        If the maps and the deployment do not belong together.
    """
    _check_shapes(placement, previous, deployment)
    if whole_nodes:
        deployment.require_regular("a relabelling of whole nodes")
    if deployment.dead_gpus:
        left, in_use = without_dead(placement, deployment), without_dead(previous, deployment)
        return with_dead(relabel(left, in_use, deployment.live), deployment)
    overlap = _overlap(_held(previous, deployment), _held(placement, deployment))
    renamed = np.empty_like(placement.phy2log)
    for gpus, slots in _alike(deployment):
        nodes = deployment.num_nodes if whole_nodes or deployment.policy == "hierarchical" else 1
        sources = _sources(overlap[:, gpus][:, :, gpus], nodes)
        renamed[:, slots] = np.take_along_axis(placement.phy2log[:, slots], sources[:, :, None], axis=1)
    old = np.where(previous.ranks < 0, NOBODY, previous.phy2log)
    return Placement(keep_slots(renamed, old, deployment), placement.num_experts)


def adopt_where_better(
    placement: Placement, previous: Placement, loads: Any, deployment: Deployment, threshold: float = 0.0
) -> Placement:
    """Return the new map, but layers that gain too little exactly as they are.

    Parameters
    ----------
    placement, previous : Placement
        The new map, best relabelled, and the one in use. A layer in which the latter is not legal is replaced in any case.
    loads : array_like of float or int [layers, experts] or [windows, layers, experts]
        Loads on which both are compared, finite and non-negative; of a history, the mean over its windows counts.
    deployment : Deployment
    threshold : float, default 0.0
        Least part of its largest GPU load that a layer must gain; at 0 every gain counts, and layers without one stay.

    Raises
    ------
    InputError
        If loads, maps and deployment do not belong together, or the threshold is negative or not finite.
    """
    _check_shapes(placement, previous, deployment)
    if not 0.0 <= threshold < np.inf:
        raise InputError(f"threshold is {threshold!r}; a finite number of at least 0 is needed")
    if deployment.dead_gpus:
        left, in_use = without_dead(placement, deployment), without_dead(previous, deployment)
        return with_dead(adopt_where_better(left, in_use, loads, deployment.live, threshold), deployment)
    history = as_numbers(loads, "loads").astype(np.float64)
    # Layer by layer one unit for all windows: they weigh as much as they have load.
    windows, layers = history.reshape(-1, *history.shape[-2:]), placement.num_layers
    columns = np.moveaxis(windows, 0, 1).reshape(windows.shape[1], -1)
    units = normalised(columns, (layers, len(windows) * placement.num_experts)).reshape(layers, len(windows), -1)
    legal = legal_layers(Placement(previous.phy2log, previous.num_experts), deployment)
    base = np.where(legal[:, None], previous.phy2log, placement.phy2log)
    old = _mean_makespans(Placement(base, placement.num_experts), units, deployment)
    gain = old - _mean_makespans(placement, units, deployment)
    stays = gain <= old * max(threshold - ROUNDING, ROUNDING)
    return Placement(np.where(stays[:, None], base, placement.phy2log), placement.num_experts)


def _check_shapes(placement: Placement, previous: Placement, deployment: Deployment) -> None:
    expected = (placement.num_layers, deployment.num_slots)
    for name, found in (("placement", placement), ("previous", previous)):
        if found.phy2log.shape != expected or found.num_experts != deployment.num_experts:
            raise InputError(
                f"{name} has shape {found.phy2log.shape} for {found.num_experts} experts; "
                f"{expected} for {deployment.num_experts} experts is needed"
            )


def _held(placement: Placement, deployment: Deployment) -> np.ndarray:
    """Return the replicas of every expert on every GPU, int64 [layers, gpus, experts]; none on dead ones."""
    layers, gpus, experts = placement.num_layers, deployment.num_gpus, deployment.num_experts
    slots = live_slots(deployment)
    held, home = placement.phy2log[:, slots], np.repeat(np.arange(gpus), deployment.slots_by_gpu)[slots]
    exists = (held >= 0) & (held < experts) & (placement.ranks[:, slots] >= 0)
    cells = ((np.arange(layers)[:, None] * gpus + home) * experts + held)[exists]
    return np.bincount(cells, minlength=layers * gpus * experts).reshape(layers, gpus, experts)


def _alike(deployment: Deployment) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the GPUs that have equally many slots, int64 [gpus], and these slots, int64 [gpus, slots of each]."""
    sizes = np.array(deployment.slots_by_gpu)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        gpus = np.flatnonzero(sizes == size)
        yield gpus, starts[gpus, None] + np.arange(size)


def _overlap(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the replicas that every GPU of one map shares with every GPU of another, float32 [layers, old, new]."""
    shared = np.zeros((old.shape[0], old.shape[1], new.shape[1]), dtype=np.float32)
    # min(a, b) is the number of thresholds t >= 1 that both reach: a product of matrices for each, exact in float32.
    for threshold in range(1, int(min(old.max(), new.max())) + 1):
        reached = [(counts >= threshold).astype(np.float32) for counts in (old, new)]
        shared += reached[0] @ reached[1].transpose(0, 2, 1)
    return shared


def _sources(overlap: np.ndarray, nodes: int) -> np.ndarray:
    """Return the GPU of the new map whose replicas every GPU gets, int64 [layers, gpus], so that the shared ones are most."""
    gpus = overlap.shape[1] // nodes
    tables = overlap.reshape(-1, nodes, gpus, nodes, gpus).transpose(0, 1, 3, 2, 4)
    inside = most(tables)  # layer, old node, new node, GPU of the old node
    shared = np.take_along_axis(tables, inside[..., None], axis=4).sum(axis=(3, 4))
    homes = most(shared)[:, :, None]
    taken = np.take_along_axis(inside, homes[..., None], axis=2)[:, :, 0]
    return np.asarray((homes * gpus + taken).reshape(len(overlap), -1))


def keep_slots(new: np.ndarray, old: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Order the replicas of every GPU so that those it held keep their slots and the others fill up; int64 [layers, slots]."""
    kept = np.empty_like(new)
    _keep_slots(new, old, np.cumsum((0, *deployment.slots_by_gpu)), kept)
    return kept


@entry
def _keep_slots(new: np.ndarray, old: np.ndarray, begin: np.ndarray, kept: np.ndarray) -> None:
    slots = new.shape[1]
    stays, filled = np.empty(slots, np.bool_), np.empty(slots, np.bool_)
    for layer in range(new.shape[0]):
        for gpu in range(begin.size - 1):
            for slot in range(begin[gpu], begin[gpu + 1]):
                stays[slot] = filled[slot] = False
            # The i-th copy of an expert after takes the slot of the i-th copy before.
            for slot in range(begin[gpu], begin[gpu + 1]):
                for source in range(begin[gpu], begin[gpu + 1]):
                    if new[layer, source] == old[layer, slot] and not stays[source]:
                        kept[layer, slot] = new[layer, source]
                        stays[source] = filled[slot] = True
                        break
            source = begin[gpu]
            for slot in range(begin[gpu], begin[gpu + 1]):
                if filled[slot]:
                    continue
                for _ in range(begin[gpu + 1] - source):
                    source += 1
                    if not stays[source - 1]:
                        kept[layer, slot] = new[layer, source - 1]
                        break


def replica_ranks(maps: np.ndarray, experts: int) -> np.ndarray:
    """Return the number of every replica within its expert, in the order of the slots, of legal maps; int64 [layers, slots]."""
    ranks = np.empty_like(maps)
    _rank(maps, np.empty(experts, np.int64), ranks)
    return ranks


@entry
def _rank(maps: np.ndarray, seen: np.ndarray, ranks: np.ndarray) -> None:
    for layer in range(maps.shape[0]):
        for e in range(seen.size):
            seen[e] = 0
        for slot in range(maps.shape[1]):
            ranks[layer, slot] = seen[maps[layer, slot]]
            seen[maps[layer, slot]] += 1


def normalised(loads: Any, expected: tuple[int, int]) -> np.ndarray:
    """Return checked loads in units of the layer's largest, so that no sum overflows; float64 [layers, experts]."""
    weight = as_numbers(loads, "loads").astype(np.float64)
    if weight.shape != expected:
        raise InputError(f"loads has shape {weight.shape}; that of the maps, {expected} [layers, experts], is needed")
    bad = np.argwhere(~(np.isfinite(weight) & (weight >= 0.0)))
    if bad.size:
        layer, expert = (int(i) for i in bad[0])
        raise InputError(f"loads[{layer}, {expert}] is {weight[layer, expert]}; loads must be finite and non-negative")
    largest = weight.max(axis=1, keepdims=True)
    return np.asarray(np.divide(weight, largest, out=np.zeros_like(weight), where=largest > 0.0))


def _mean_makespans(placement: Placement, weight: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return the mean over windows of every layer's largest GPU load, float64 [layers]; weights [layers, windows, experts]."""
    sizes = np.take_along_axis(weight / np.maximum(placement.counts(), 1)[:, None], placement.phy2log[:, None], axis=2)
    return np.asarray(per_gpu(sizes, deployment.slots_by_gpu).max(axis=2).mean(axis=1))
