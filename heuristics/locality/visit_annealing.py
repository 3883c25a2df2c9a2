"""Simulated annealing over maps: fewest node visits while no GPU exceeds a limit, compiled.

A move exchanges two replicas, on one node or on two, or replaces a replica of b by one of a, whose others become smaller. A move
that lifts a GPU above the limit and above what it had is no move. A token visits the fewest nodes that hold all of its experts;
after a move the tokens of the experts that changed nodes are counted again, and back if it is rejected.
"""

from __future__ import annotations

import math

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, kernel, random, seed_random

HOTTEST, COLDEST = 2e-3, 2e-5
"""First and last temperature, in visits a token."""
INSIDE, TRANSFERS = 0.2, 0.1
"""Shares of the moves that exchange replicas of one node, and that change counts."""


@kernel
def cover_size(row: np.ndarray, held: np.ndarray) -> int:
    """Return how many nodes hold all experts of a token at least; ``held`` has each expert's nodes as bits, int64 [experts]."""
    forced = 0
    for e in row:
        if held[e] & (held[e] - 1) == 0:
            forced |= held[e]
    size = 0
    bits = forced
    while bits:
        bits &= bits - 1
        size += 1
    common, either = -1, 0
    for e in row:
        if not held[e] & forced:
            common &= held[e]
            either |= held[e]
    if not either:
        return size
    if common:
        return size + 1
    more = 2
    while not _covered(row, held, forced, either, more):
        more += 1
    return size + more


@kernel
def _covered(row: np.ndarray, held: np.ndarray, forced: int, either: int, size: int) -> bool:
    """Whether some ``size`` of the nodes in ``either`` hold every expert of a token that ``forced`` doesn't."""
    nodes = np.empty(64, dtype=np.int64)
    count = 0
    while either:
        nodes[count] = either & -either
        either &= either - 1
        count += 1
    subset = (1 << size) - 1
    while subset < 1 << count:
        cover = forced
        for i in range(count):
            if subset >> i & 1:
                cover |= nodes[i]
        complete = True
        for e in row:
            if not held[e] & cover:
                complete = False
                break
        if complete:
            return True
        lowest = subset & -subset  # the next larger number with as many bits (Gosper)
        ripple = subset + lowest
        subset = ripple | (((subset ^ ripple) >> 2) // lowest)
    return False


@kernel
def _count_again(
    expert: int, rows: np.ndarray, starts: np.ndarray, tokens: np.ndarray, held: np.ndarray, visits: np.ndarray
) -> int:
    """Write the visits of an expert's tokens anew, and return by how much they grew together."""
    change = 0
    for place in range(starts[expert], starts[expert + 1]):
        token = tokens[place]
        new = cover_size(rows[token], held)
        change += new - visits[token]
        visits[token] = new
    return change


@kernel
def _mask(expert: int, slots: np.ndarray, slots_per_node: int) -> int:
    nodes = 0
    for s in range(slots.size):
        if slots[s] == expert:
            nodes |= 1 << (s // slots_per_node)
    return nodes


@kernel
def _fits(gpus: np.ndarray, slots: np.ndarray, sizes: np.ndarray, k: int, limit: float, fresh: np.ndarray) -> bool:
    """Write the GPU loads of a map to ``fresh``; whether none is above the limit and above what it was."""
    for g in range(gpus.size):
        load = 0.0
        for s in range(g * k, (g + 1) * k):
            load += sizes[slots[s]]
        fresh[g] = load
        if load > limit and load > gpus[g]:
            return False
    return True


@entry
def anneal_visits(
    rows: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    loads: np.ndarray,
    slots: np.ndarray,
    num_gpus: int,
    num_nodes: int,
    limit: float,
    distinct: bool,
    transfers: bool,
    steps: int,
    seed: int,
) -> int:
    """Improve a map by one cooling.

    Parameters
    ----------
    rows : ndarray
        Experts of every token, int64 [tokens, topk].
    starts, tokens : ndarray
        The tokens of every expert, one expert after the other: int64 [experts + 1] and [tokens times topk].
    loads : ndarray
        float64 [experts], divided evenly over replicas.
    slots : ndarray
        Expert of every slot, int64 [slots], GPU-major, every expert in one at least; changed in place to the best found.
    num_gpus, num_nodes : int
        At most 24 nodes.
    limit : float
        GPU load that no move exceeds unless it lowers that GPU.
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    transfers : bool
        Whether the replica counts may change.
    steps, seed : int

    Returns
    -------
    int
        Node visits of all tokens under the map.
    """
    seed_random(seed)
    k, per_node = slots.size // num_gpus, slots.size // num_nodes
    counts = np.zeros(loads.size, dtype=np.int64)
    held = np.zeros(loads.size, dtype=np.int64)
    for s in range(slots.size):
        counts[slots[s]] += 1
        held[slots[s]] |= 1 << (s // per_node)
    sizes = np.empty(loads.size)
    for e in range(loads.size):
        sizes[e] = loads[e] / counts[e]
    gpus, fresh = np.zeros(num_gpus), np.zeros(num_gpus)
    _fits(gpus, slots, sizes, k, math.inf, gpus)
    visits = np.empty(rows.shape[0], dtype=np.int64)
    total = 0
    for t in range(rows.shape[0]):
        visits[t] = cover_size(rows[t], held)
        total += visits[t]
    best = total
    kept = slots.copy()
    hot, cold = HOTTEST * rows.shape[0], COLDEST * rows.shape[0]
    for step in range(steps):
        kind = random()
        one = below(slots.size)
        if transfers and kind < TRANSFERS:
            gone, come = slots[one], below(loads.size)
            if counts[gone] < 2 or gone == come or (distinct and _on_gpu(slots, one // k, k, come)):
                continue
            slots[one] = come
            sizes[gone], sizes[come] = loads[gone] / (counts[gone] - 1), loads[come] / (counts[come] + 1)
            if _fits(gpus, slots, sizes, k, limit, fresh):
                was_gone, was_come = held[gone], held[come]
                held[gone], held[come] = _mask(gone, slots, per_node), _mask(come, slots, per_node)
                change = 0
                if held[gone] != was_gone:
                    change += _count_again(gone, rows, starts, tokens, held, visits)
                if held[come] != was_come:
                    change += _count_again(come, rows, starts, tokens, held, visits)
                if change <= 0 or random() < math.exp(-change / (hot * (cold / hot) ** (step / steps))):
                    total += change
                    counts[gone] -= 1
                    counts[come] += 1
                    gpus[:] = fresh
                    if total < best:
                        best = total
                        kept[:] = slots
                    continue
                held[gone], held[come] = was_gone, was_come
                _count_again(gone, rows, starts, tokens, held, visits)
                _count_again(come, rows, starts, tokens, held, visits)
            slots[one] = gone
            sizes[gone], sizes[come] = loads[gone] / counts[gone], loads[come] / counts[come]
            continue
        other = below(slots.size)
        if kind < TRANSFERS + INSIDE:
            other = one // per_node * per_node + below(per_node)
        a, b, here, there = slots[one], slots[other], one // k, other // k
        if a == b or here == there:
            continue
        shift = sizes[a] - sizes[b]
        if (gpus[here] - shift > limit and shift < 0) or (gpus[there] + shift > limit and shift > 0):
            continue
        if distinct and (_on_gpu(slots, here, k, b) or _on_gpu(slots, there, k, a)):
            continue
        slots[one], slots[other] = b, a
        change = 0
        if one // per_node != other // per_node:
            was_a, was_b = held[a], held[b]
            held[a], held[b] = _mask(a, slots, per_node), _mask(b, slots, per_node)
            change = _count_again(a, rows, starts, tokens, held, visits) + _count_again(b, rows, starts, tokens, held, visits)
            if change > 0 and random() >= math.exp(-change / (hot * (cold / hot) ** (step / steps))):
                slots[one], slots[other] = a, b
                held[a], held[b] = was_a, was_b
                _count_again(a, rows, starts, tokens, held, visits)
                _count_again(b, rows, starts, tokens, held, visits)
                continue
        total += change
        gpus[here] -= shift
        gpus[there] += shift
        if total < best:
            best = total
            kept[:] = slots
    slots[:] = kept
    return best


@kernel
def _on_gpu(slots: np.ndarray, gpu: int, k: int, expert: int) -> bool:
    for s in range(gpu * k, (gpu + 1) * k):  # noqa: SIM110 - any() over a generator does not compile
        if slots[s] == expert:
            return True
    return False
