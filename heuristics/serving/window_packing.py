"""Loads of several windows at once: replica counts, groups on nodes and LPT on load vectors, compiled; a start for exchanges.

Every expert weighs a vector, one entry a window. LPT gives a replica to the GPU whose ``sum_t L_t^4`` it raises least: the
fourth power stands for the maximum, which is not known before the end. Windows are divided by their mean GPU load first and
weighed by it afterwards, for the objective, the sum of the windows' makespans, is in tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import descending, kernel
from eplb_gap.heuristics.kernels.greedy import adams_counts
from eplb_gap.heuristics.kernels.window_loads import total_makespan


class WindowPacking(NamedTuple):
    """A layer, its replica counts and its map; slots are GPU-major, GPUs node-major.

    Parameters
    ----------
    weights : ndarray
        float64 [experts, windows], any one unit.
    counts : ndarray
        Replicas, int64 [experts].
    items : ndarray
        Expert of every slot, int64 [slots].
    loads : ndarray
        Load of every GPU, float64 [gpus, windows].
    """

    weights: np.ndarray
    counts: np.ndarray
    items: np.ndarray
    loads: np.ndarray


@kernel
def fill(table: np.ndarray, value: float) -> None:
    """Overwrite a table; a slice assignment compiles twenty times as long."""
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            table[i, j] = value


@kernel
def refresh(packing: WindowPacking) -> None:
    """Recompute the GPU loads of a map."""
    weights, counts, items, loads = packing
    k = items.size // loads.shape[0]
    fill(loads, 0.0)
    for slot in range(items.size):
        e = items[slot]
        share = 1.0 / counts[e]
        for t in range(loads.shape[1]):
            loads[slot // k, t] += weights[e, t] * share


@kernel
def _normalised(weights: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights over the mean load of a pack in their window, and those means over the largest."""
    experts, windows = weights.shape
    means = np.zeros(windows)
    for e in range(experts):
        for t in range(windows):
            means[t] += weights[e, t] / packs
    relative = np.zeros((experts, windows))
    for e in range(experts):
        for t in range(windows):
            if means[t] > 0.0:
                relative[e, t] = weights[e, t] / means[t]
    largest = 1e-300
    for mean in means:
        largest = max(largest, mean)
    for t in range(windows):
        means[t] /= largest
    return relative, means


@kernel
def vector_lpt(
    relative: np.ndarray, importance: np.ndarray, experts: np.ndarray, counts: np.ndarray, packs: int, slots: np.ndarray
) -> bool:
    """Write an LPT map of some experts on equal packs; copies of an expert on distinct packs where room allows.

    Parameters
    ----------
    relative : ndarray
        float64 [all experts, windows], each window in units of its mean load.
    importance : ndarray
        Weight of every window, float64 [windows].
    experts : ndarray
        Those to place, int64 [n].
    counts : ndarray
        int64 [all experts]; those of ``experts`` sum to the slots.
    packs : int
    slots : ndarray
        int64 [slots], pack-major; overwritten.

    Returns
    -------
    bool
        Whether no pack holds two replicas of one expert.
    """
    windows, k = importance.size, slots.size // packs
    peaks = np.empty(experts.size)
    for i in range(experts.size):
        peak = 0.0
        for t in range(windows):
            peak = max(peak, relative[experts[i], t] * importance[t])
        peaks[i] = peak / counts[experts[i]]
    loads, powers, scores = np.zeros((windows, packs)), np.zeros(packs), np.empty(packs)
    filled = np.zeros(packs, np.int64)
    distinct = True
    for i in descending(peaks):
        e = experts[i]
        left = counts[e]
        while left > 0:  # a second round only if fewer packs than copies have room
            distinct &= left == counts[e]
            for g in range(packs):
                scores[g] = -powers[g] if filled[g] < k else np.inf
            for t in range(windows):
                size, factor = relative[e, t] / counts[e], importance[t]
                for g in range(packs):
                    square = (loads[t, g] + size) * (loads[t, g] + size)
                    scores[g] += factor * square * square
            while left > 0:
                best = 0
                for g in range(1, packs):
                    if scores[g] < scores[best]:
                        best = g
                if scores[best] == np.inf:
                    break
                powers[best] += scores[best]
                scores[best] = np.inf
                for t in range(windows):
                    loads[t, best] += relative[e, t] / counts[e]
                slots[best * k + filled[best]] = e
                filled[best] += 1
                left -= 1
    return distinct


@kernel
def _deal(experts: np.ndarray, counts: np.ndarray, packs: int, slots: np.ndarray) -> None:
    """Deal the replicas round the packs: copies of an expert lie on distinct packs whenever it has no more than there are."""
    k, at = slots.size // packs, 0
    for e in experts:
        for _ in range(counts[e]):
            slots[at % packs * k + at // packs] = e
            at += 1


@kernel
def _group_sums(weights: np.ndarray, groups: int) -> np.ndarray:
    experts, windows = weights.shape
    size = experts // groups
    sums = np.zeros((groups, windows))
    for e in range(experts):
        for t in range(windows):
            sums[e // size, t] += weights[e, t]
    return sums


@kernel
def rank_partitions(weights: np.ndarray, nodes: int, partitions: np.ndarray) -> np.ndarray:
    """Return partitions of the groups by the sum of the windows' largest node loads, least first; int64 [partitions].

    Parameters
    ----------
    weights : ndarray
        float64 [experts, windows].
    nodes : int
    partitions : ndarray
        Node of every group, int64 [partitions, groups].
    """
    sums = _group_sums(weights, partitions.shape[1])
    groups, windows = sums.shape
    values, loads = np.empty(partitions.shape[0]), np.empty((nodes, windows))
    for row in range(partitions.shape[0]):
        fill(loads, 0.0)
        for group in range(groups):
            for t in range(windows):
                loads[partitions[row, group], t] += sums[group, t]
        values[row] = -total_makespan(loads)
    return descending(values)


@kernel
def fold_groups(weights: np.ndarray, groups: int, nodes: int) -> WindowPacking:
    """Return the groups on nodes by LPT on vectors: groups take the part of experts, nodes that of GPUs."""
    sums = _group_sums(weights, groups)
    relative, importance = _normalised(sums, nodes)
    packing = WindowPacking(sums, np.empty(groups, np.int64), np.empty(groups, np.int64), np.empty((nodes, sums.shape[1])))
    order = np.empty(groups, np.int64)
    for group in range(groups):
        packing.counts[group], order[group] = 1, group
    vector_lpt(relative, importance, order, packing.counts, nodes, packing.items)
    refresh(packing)
    return packing


@kernel
def start(packing: WindowPacking, home: np.ndarray, nodes: int, most: int) -> None:
    """Fill in counts, map and loads: Adams on every expert's largest window, then LPT on vectors, node by node.

    Parameters
    ----------
    packing : WindowPacking
        Its weights are read, all else is overwritten.
    home : ndarray
        Node of every group, int64 [groups].
    nodes : int
    most : int
        Largest count; no pack gets two replicas of an expert unless this exceeds the GPUs of a node.
    """
    weights, counts, items, loads = packing
    experts, gpus = weights.shape[0], loads.shape[0]
    size, s, g = experts // home.size, items.size // nodes, gpus // nodes
    relative, importance = _normalised(weights, gpus)
    peaks = np.empty(experts // nodes)
    on_node = np.empty(experts // nodes, np.int64)
    for node in range(nodes):
        at = 0
        for e in range(experts):
            if home[e // size] == node:
                on_node[at], peaks[at] = e, weights[e, 0]
                for t in range(weights.shape[1]):
                    peaks[at] = max(peaks[at], weights[e, t])
                at += 1
        own = adams_counts(peaks, s, most)
        for i in range(at):
            counts[on_node[i]] = own[i]
        slots = items[node * s : node * s + s]
        if not vector_lpt(relative, importance, on_node, counts, g, slots) and most <= g:
            _deal(on_node, counts, g, slots)
    refresh(packing)
