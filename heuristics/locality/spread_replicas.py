"""From experts grouped by node to a map: extra replicas by Adams' rule on the nodes where they save visits, LPT on each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError


def spread_replicas(homes: np.ndarray, co_activation: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return a layer's map: its experts on their home nodes, extra replicas where they save visits.

    Extra replicas are those of Adams' rule, heaviest experts first. Each goes to the node without a replica of the expert whose
    own experts are asked most often together with it, so that its tokens are there anyway; then to any with a GPU that has none.
    No GPU gets two replicas of an expert unless there are more slots than that leaves. On every node replicas go to the lightest
    GPU with a free slot, largest first (LPT with as many replicas on each).

    Parameters
    ----------
    homes : ndarray of int [experts]
        Node of every expert; no node has more than its slots.
    co_activation : ndarray of int [experts, experts]
        Tokens that went to two experts; the loads on the diagonal.
    deployment : Deployment
        Under the global policy, with as many slots on every GPU, all alive.

    Returns
    -------
    ndarray
        int64 [slots].

    Raises
    ------
    InputError
        If GPUs are unequal or dead, shapes differ, or a home is no node or one of more experts than slots.
    """
    deployment.require_regular("spreading replicas")
    experts, nodes, per_node = deployment.num_experts, deployment.num_nodes, deployment.gpus_per_node
    if homes.shape != (experts,) or co_activation.shape != (experts, experts):
        raise InputError(
            f"homes and co_activation have shapes {homes.shape} and {co_activation.shape}; [experts] and [experts, experts] with "
            f"{experts} are needed"
        )
    if homes.min() < 0 or homes.max() >= nodes or np.bincount(homes).max() > deployment.slots_per_node:
        raise InputError(
            f"homes are {homes.tolist()}; nodes from 0 to {nodes - 1} with {deployment.slots_per_node} slots are there"
        )
    loads = co_activation.diagonal()
    on_gpu = 1 if experts * deployment.num_gpus >= deployment.num_slots else deployment.slots_per_gpu
    counts = _adams(loads, deployment.num_slots, on_gpu * deployment.num_gpus)
    held = np.zeros((nodes, experts), np.int64)
    held[homes, np.arange(experts)] = 1
    together = np.stack([co_activation[:, homes == node].sum(axis=1) for node in range(nodes)])
    heaviest = np.argsort(-loads / counts, kind="stable")
    for e in np.repeat(heaviest, counts[heaviest] - 1).tolist():
        wanted = np.lexsort((-together[:, e], held[:, e]))
        _put(held, e, wanted.tolist(), on_gpu * per_node, deployment.slots_per_node, together)
    slots = [gpu for row in held for gpu in _on_gpus(row, loads / counts, on_gpu, deployment)]
    return np.concatenate(slots)


def _adams(loads: np.ndarray, slots: int, most: int) -> np.ndarray:
    """Return replicas by Adams' rule: each extra one to the expert with the largest load per replica, ties to the lowest."""
    counts = np.ones(loads.size, np.int64)
    for _ in range(slots - loads.size):
        counts[np.argmax(np.where(counts < most, loads / counts, -1.0))] += 1
    return counts


def _on_gpus(row: np.ndarray, sizes: np.ndarray, on_gpu: int, deployment: Deployment) -> Iterable[np.ndarray]:
    """Return the experts of every GPU of a node that holds so many replicas of every expert."""
    held = np.zeros((deployment.gpus_per_node, row.size), np.int64)
    alike = np.zeros_like(held)
    order = np.argsort(-sizes, kind="stable")
    for e in np.repeat(order, row[order]).tolist():
        _put(held, e, np.argsort(held @ sizes, kind="stable").tolist(), on_gpu, deployment.slots_per_gpu, alike)
    return [np.repeat(np.arange(row.size), gpu) for gpu in held]


def _put(held: np.ndarray, expert: int, wanted: list[int], most: int, slots: int, worth: np.ndarray) -> None:
    """Put a replica on the first wanted place with a free slot and fewer than ``most`` of the expert.

    Where all places with free slots hold ``most``, another one makes room: being full, it has some expert more often than a free
    one has. Of these the one that loses least by moving there goes; ``worth`` is that of every expert in every place.
    """
    free = [place for place in wanted if held[place].sum() < slots]
    for place in free:
        if held[place, expert] < most:
            held[place, expert] += 1
            return
    place = next(place for place in wanted if held[place, expert] < most)
    others = np.flatnonzero(held[place] > held[free[0]])
    other = others[np.argmax((worth[free[0]] - worth[place])[others])]
    held[place, other] -= 1
    held[free[0], other] += 1
    held[place, expert] += 1
