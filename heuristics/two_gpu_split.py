"""Exact re-partition of two GPUs: the best equal-cardinality split of their replicas, from sorted subset sums.

Every GPU keeps the sums of its subsets, sorted within each cardinality. Pack one takes j replicas of the first GPU and
``k - j`` of the second; for every j the sum nearest to half of the pair's load is found by two pointers over two sorted lists.
Only the two GPUs that changed are rebuilt. (Subset sums of halves: Horowitz and Sahni, 1974.)
"""

from __future__ import annotations

import numpy as np
from numba import njit

MAX_SLOTS_PER_GPU = 10
"""Above this the subset sums of a GPU (2**k) cost more than they gain."""


@njit(cache=True)
def _starts(k: int) -> np.ndarray:
    """Offsets of the cardinalities 0 .. k in the list of all subsets, int64 [k + 2]."""
    starts = np.zeros(k + 2, dtype=np.int64)
    size = 1
    for j in range(k + 1):
        starts[j + 1] = starts[j] + size
        size = size * (k - j) // (j + 1)
    return starts


@njit(cache=True)
def _build(
    items: np.ndarray, starts: np.ndarray, sums: np.ndarray, masks: np.ndarray, scratch: np.ndarray, marks: np.ndarray
) -> None:
    """Fill the sorted subset sums of one GPU and their bit masks, cardinality by cardinality, by merging item after item."""
    k = items.size
    lengths = np.zeros(k + 1, dtype=np.int64)
    lengths[0] = 1
    sums[0], masks[0] = 0.0, 0
    for i in range(k):
        x, bit = items[i], 1 << i
        for j in range(min(i + 1, k), 0, -1):
            here, below = starts[j], starts[j - 1]
            old, fresh = lengths[j], lengths[j - 1]
            for t in range(old):
                scratch[t], marks[t] = sums[here + t], masks[here + t]
            a = b = 0
            while a < old or b < fresh:
                if b >= fresh or (a < old and scratch[a] <= sums[below + b] + x):
                    sums[here + a + b], masks[here + a + b] = scratch[a], marks[a]
                    a += 1
                else:
                    sums[here + a + b], masks[here + a + b] = sums[below + b] + x, masks[below + b] | bit
                    b += 1
            lengths[j] = old + fresh


@njit(cache=True)
def _best_split(first: np.ndarray, second: np.ndarray, starts: np.ndarray, k: int, target: float) -> tuple[float, int, int]:
    """Return the smallest distance of a pack's load to ``target`` and the positions of its two subsets."""
    best, at_first, at_second = np.inf, 0, 0
    for j in range(k // 2 + 1):  # the complements cover the other half
        a, b = starts[j], starts[k - j + 1] - 1
        last, lowest = starts[j + 1], starts[k - j]
        while a < last and b >= lowest:
            difference = first[a] + second[b] - target
            if abs(difference) < best:
                best, at_first, at_second = abs(difference), a, b
            if difference < 0.0:
                a += 1
            else:
                b -= 1
    return best, at_first, at_second


@njit(cache=True)
def split_descent(
    experts: np.ndarray, sizes: np.ndarray, num_gpus: int, distinct: bool, stop: float, kicks: int, seed: int
) -> tuple[float, int]:
    """Lower the fullest GPU by exact re-partitions with the other GPUs, lightest first; kick random pairs when stuck.

    Parameters
    ----------
    experts : ndarray
        Logical expert of every slot, int64 [slots]; changed in place to the best map found.
    sizes : ndarray
        Load of the replica on every slot, float64 [slots] in tokens; changed in place.
    num_gpus : int
    distinct : bool
        Whether a re-partition may not put two replicas of one expert on a GPU.
    stop : float
        Makespan in tokens at which to stop.
    kicks : int
        Most re-partitions of random pairs with a noisy target.
    seed : int

    Returns
    -------
    float, int
        Makespan reached and number of re-partitions.
    """
    k = experts.size // num_gpus
    starts = _starts(k)
    width = starts[k + 1]
    sums, masks = np.empty((num_gpus, width)), np.empty((num_gpus, width), dtype=np.int64)
    scratch, marks = np.empty(width), np.empty(width, dtype=np.int64)
    loads = np.empty(num_gpus)
    built = np.zeros(num_gpus, dtype=np.bool_)  # most GPUs are never part of a re-partition
    for g in range(num_gpus):
        loads[g] = sizes[g * k : g * k + k].sum()
    best_experts, best_sizes, best, mean = experts.copy(), sizes.copy(), loads.max(), loads.mean()
    np.random.seed(seed)
    steps = used = 0
    while best > stop:
        full = int(np.argmax(loads))
        partner, distance, at_full, at_partner = -1, np.inf, 0, 0
        for g in np.argsort(loads):
            if g == full:
                continue
            half = (loads[full] + loads[g]) * 0.5
            if half >= loads[full] * (1.0 - 1e-12):
                break
            for gpu in (full, g):
                if not built[gpu]:
                    _build(sizes[gpu * k : gpu * k + k], starts, sums[gpu], masks[gpu], scratch, marks)
                    built[gpu] = True
            near, a, b = _best_split(sums[full], sums[g], starts, k, half)
            if half + near < loads[full] * (1.0 - 1e-12) and half + near < distance:
                if distinct and _repeats(experts, full, g, k, masks[full, a], masks[g, b]):
                    continue
                partner, distance, at_full, at_partner = g, half + near, a, b
                if distance <= stop:
                    break
        if partner < 0:
            if used == kicks or num_gpus < 2:
                break
            used += 1
            full = np.random.randint(num_gpus)
            partner = (full + 1 + np.random.randint(num_gpus - 1)) % num_gpus
            # Noise of the order of what is missing changes the composition of the pair and keeps it nearly balanced.
            noise = 10.0 * (best / mean - 1.0) * (np.random.random() - 0.5)
            target = (loads[full] + loads[partner]) * 0.5 * (1.0 + noise)
            for gpu in (full, partner):
                if not built[gpu]:
                    _build(sizes[gpu * k : gpu * k + k], starts, sums[gpu], masks[gpu], scratch, marks)
                    built[gpu] = True
            _, at_full, at_partner = _best_split(sums[full], sums[partner], starts, k, target)
            if distinct and _repeats(experts, full, partner, k, masks[full, at_full], masks[partner, at_partner]):
                continue
        _regroup(experts, sizes, full, partner, k, masks[full, at_full], masks[partner, at_partner])
        for g in (full, partner):
            loads[g] = sizes[g * k : g * k + k].sum()
            built[g] = False
        steps += 1
        reached = loads.max()
        if reached < best:
            best = reached
            best_experts[:], best_sizes[:] = experts, sizes
    experts[:], sizes[:] = best_experts, best_sizes
    return best, steps


@njit(cache=True)
def _regroup(experts: np.ndarray, sizes: np.ndarray, first: int, second: int, k: int, keep: int, take: int) -> None:
    """Put ``keep`` of the first GPU and ``take`` of the second together on the first, all other replicas on the second."""
    names, loads = np.empty(2 * k, dtype=np.int64), np.empty(2 * k)
    one, two = 0, k
    for gpu, mask in ((first, keep), (second, take)):
        for i in range(k):
            slot = gpu * k + i
            if mask >> i & 1:
                names[one], loads[one] = experts[slot], sizes[slot]
                one += 1
            else:
                names[two], loads[two] = experts[slot], sizes[slot]
                two += 1
    experts[first * k : first * k + k], sizes[first * k : first * k + k] = names[:k], loads[:k]
    experts[second * k : second * k + k], sizes[second * k : second * k + k] = names[k:], loads[k:]


@njit(cache=True)
def _repeats(experts: np.ndarray, first: int, second: int, k: int, keep: int, take: int) -> bool:
    """Whether the regrouped pair would hold two replicas of one expert on a GPU."""
    for i in range(k):
        for j in range(k):
            if (keep >> i & 1) == (take >> j & 1) and experts[first * k + i] == experts[second * k + j]:
                return True
    return False
