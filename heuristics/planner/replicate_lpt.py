"""Adams' counts and LPT without duplicates, compiled: one sort, one small heap, no second sort.

The experts of a flat instance are sorted once. Replication then only ever touches a prefix of the sorted list, so a heap of
those few experts and a pointer to the next untouched one give Adams' counts; emptying the heap while walking down the untouched
rest yields the replicas in descending order, copies of one expert in a row. LPT therefore takes the c lightest GPUs for the c
copies of an expert at once: they are distinct by construction, and every GPU's list of replicas comes out sorted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import kernel

OCTAVE_BITS = 4
"""The sort has at least 2**OCTAVE_BITS buckets for every doubling of the load."""
SMALL = 24
"""So few keys are sorted by insertion alone."""


class Flat(NamedTuple):
    """A flat instance and its packing; experts are numbered by descending load ("rank"), slots are GPU-major.

    Parameters
    ----------
    loads : ndarray
        float64 [experts], descending, any unit.
    counts : ndarray
        Replicas, int64 [experts].
    items : ndarray
        Expert of every slot, int64 [slots].
    sizes : ndarray
        Load of the replica on every slot, float64 [slots]; descending within a GPU.
    totals : ndarray
        Load of every GPU, float64 [gpus].
    """

    loads: np.ndarray
    counts: np.ndarray
    items: np.ndarray
    sizes: np.ndarray
    totals: np.ndarray


class Scratch(NamedTuple):
    """Memory of :func:`replicate` and :func:`arrange`, allocated once for many instances.

    Parameters
    ----------
    heap_keys : ndarray
        float64 [experts].
    heap_ranks : ndarray
        int64 [experts].
    keys : ndarray
        Tournament tree over the GPUs, int64 [2 * leaves]; ``leaves`` is the power of two not below the number of GPUs.
    filled, taken : ndarray
        int64 [gpus].
    """

    heap_keys: np.ndarray
    heap_ranks: np.ndarray
    keys: np.ndarray
    filled: np.ndarray
    taken: np.ndarray


@kernel
def most_replicas(experts: int, slots: int, gpus: int) -> int:
    """Return how many replicas of an expert a node's plan allows: one per GPU, unless only more of some fill the slots.

    More replicas than GPUs only cost slots: on some GPU the expert weighs at least as much as with one replica on each.
    """
    return gpus if experts * gpus >= slots else slots - experts + 1


@kernel
def new_flat(experts: int, slots: int, gpus: int) -> Flat:
    """Return an instance of that shape, not filled."""
    return Flat(np.empty(experts), np.empty(experts, np.int64), np.empty(slots, np.int64), np.empty(slots), np.empty(gpus))


@kernel
def new_scratch(experts: int, gpus: int) -> Scratch:
    """Return memory for instances of at most that shape."""
    leaves = 1
    while leaves < gpus:
        leaves *= 2
    return Scratch(
        np.empty(experts),
        np.empty(experts, np.int64),
        np.empty(2 * leaves, np.int64),
        np.empty(gpus, np.int64),
        np.empty(gpus, np.int64),
    )


@kernel
def sort_descending(bits: np.ndarray, keys: np.ndarray, order: np.ndarray, buckets: np.ndarray) -> None:
    """Sort non-negative floats, given by their bit patterns, descending; ties by index.

    Parameters
    ----------
    bits : ndarray
        int64 [n]; bit patterns of non-negative floats are ordered as the floats are.
    keys, order : ndarray
        int64 [n]; overwritten with the sorted patterns and where they came from.
    buckets : ndarray
        int64 [a power of two, at least 256]; overwritten.
    """
    n = bits.size
    if n <= SMALL:
        for i in range(n):
            keys[i], order[i] = bits[i], i
    else:
        # One bucket per 1/16 octave (finer where there are more buckets): exponent and leading bits of the mantissa.
        shift, width = 52 - OCTAVE_BITS, buckets.size
        while width > 256:
            width >>= 1
            shift -= 1
        last = buckets.size - 1
        top = bits[0]
        for i in range(1, n):
            top = max(top, bits[i])
        for b in range(buckets.size):
            buckets[b] = 0
        for i in range(n):
            buckets[min((top - bits[i]) >> shift, last)] += 1
        start = 0
        for b in range(buckets.size):
            size = buckets[b]
            buckets[b] = start
            start += size
            if start == n:
                break
        for i in range(n):
            b = min((top - bits[i]) >> shift, last)
            at = buckets[b]
            buckets[b] = at + 1
            keys[at], order[at] = bits[i], i
    for i in range(1, n):
        key = keys[i]
        if keys[i - 1] < key:
            e, j = order[i], i
            while j > 0 and keys[j - 1] < key:
                keys[j], order[j] = keys[j - 1], order[j - 1]
                j -= 1
            keys[j], order[j] = key, e


@kernel
def _sift_down(keys: np.ndarray, ranks: np.ndarray, at: int, length: int) -> None:
    key, rank = keys[at], ranks[at]
    while True:
        child = 2 * at + 1
        if child >= length:
            break
        if child + 1 < length and keys[child + 1] > keys[child]:
            child += 1
        if keys[child] <= key:
            break
        keys[at], ranks[at] = keys[child], ranks[child]
        at = child
    keys[at], ranks[at] = key, rank


@kernel
def replicate(loads: np.ndarray, counts: np.ndarray, slots: int, most: int, scratch: Scratch) -> int:
    """Write Adams' counts of loads in descending order; return how many leading experts are replicated.

    Parameters
    ----------
    loads : ndarray
        float64 [experts], descending.
    counts : ndarray
        int64 [experts]; overwritten.
    slots : int
    most : int
        Replicas that an expert may have; ``most * experts`` is at least ``slots``.
    scratch : Scratch
    """
    keys, ranks = scratch.heap_keys, scratch.heap_ranks
    experts = loads.size
    for r in range(experts):
        counts[r] = 1
    touched = length = 0
    for _ in range(slots - experts):
        if touched < experts and (length == 0 or loads[touched] >= keys[0]):
            counts[touched] = 2
            if most > 2:
                at, key = length, loads[touched] / 2
                length += 1
                while at > 0 and keys[(at - 1) >> 1] < key:
                    keys[at], ranks[at] = keys[(at - 1) >> 1], ranks[(at - 1) >> 1]
                    at = (at - 1) >> 1
                keys[at], ranks[at] = key, touched
            touched += 1
        else:
            rank = ranks[0]
            counts[rank] += 1
            if counts[rank] == most:
                length -= 1
                keys[0], ranks[0] = keys[length], ranks[length]
            else:
                keys[0] = loads[rank] / counts[rank]
            _sift_down(keys, ranks, 0, length)
    return touched


@kernel
def _set_key(keys: np.ndarray, leaf: int, key: int) -> None:
    """Change a leaf of the tournament tree and the winners above it."""
    keys[leaf] = key
    while leaf > 1:
        key = min(key, keys[leaf ^ 1])
        leaf >>= 1
        keys[leaf] = key


@kernel
def arrange(flat: Flat, replicated: int, scratch: Scratch) -> bool:
    """Pack the replicas of the counts by LPT, copies of an expert on distinct GPUs while enough GPUs have room.

    Parameters
    ----------
    flat : Flat
        Loads and counts; items, sizes and totals are overwritten.
    replicated : int
        Experts behind this rank have one replica.
    scratch : Scratch

    Returns
    -------
    bool
        Whether no GPU holds two replicas of one expert.
    """
    loads, counts, items, sizes, totals = flat
    heap, ranks, keys, filled, taken = scratch
    gpus, full = totals.size, np.iinfo(np.int64).max
    k, leaves = items.size // gpus, keys.size // 2
    # A key is the GPU's load as a fixed-point share of the total with the number of the GPU in the low bits.
    low = 0
    while 1 << low < gpus:
        low += 1
    total = 0.0
    for load in loads:
        total += load
    scale = 2.0 ** (61 - low) / total if total > 0.0 else 0.0
    for g in range(leaves):
        keys[leaves + g] = g if g < gpus else full
    for g in range(gpus):
        filled[g], totals[g] = 0, 0.0
    for at in range(leaves - 1, 0, -1):
        keys[at] = min(keys[2 * at], keys[2 * at + 1])

    for r in range(replicated):
        heap[r], ranks[r] = loads[r] / counts[r], r
    for at in range(replicated // 2 - 1, -1, -1):
        _sift_down(heap, ranks, at, replicated)
    length, single = replicated, replicated
    distinct, mask = True, (1 << low) - 1
    while length > 0 or single < loads.size:
        if length > 0 and (single == loads.size or heap[0] >= loads[single]):
            rank, size = ranks[0], heap[0]
            length -= 1
            heap[0], ranks[0] = heap[length], ranks[length]
            _sift_down(heap, ranks, 0, length)
        else:
            rank, size = single, loads[single]
            single += 1
        step = np.int64(size * scale) << low
        left = counts[rank]
        while left > 0:  # a second round only if fewer GPUs than copies have room
            number = 0
            while left > 0:
                key = keys[1]
                if key == full:
                    distinct = False
                    break
                gpu = key & mask
                at = gpu * k + filled[gpu]
                items[at], sizes[at] = rank, size
                filled[gpu] += 1
                totals[gpu] += size
                left -= 1
                key = full if filled[gpu] == k else key + step
                if counts[rank] == 1:
                    _set_key(keys, leaves + gpu, key)
                    break
                _set_key(keys, leaves + gpu, full)
                taken[number] = key  # written back when all copies are placed
                number += 1
            for position in range(number):
                if taken[position] != full:
                    _set_key(keys, leaves + (taken[position] & mask), taken[position])
    return distinct
