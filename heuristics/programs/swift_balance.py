"""SwiftBalance, the policy that vLLM-Ascend runs unless told otherwise, compiled: the map in use, improved by few copies.

A layer that is level to a hundredth stays. Elsewhere the first replica of every expert stays where it is, the redundant slots are
filled anew, and then the fullest GPU exchanges experts with the emptiest ones that it has not sent to or received from yet. As
released it takes an expert with k extra replicas to have ``2 / (k + 2)`` of its load on each, not ``1 / (k + 1)``, and measures
every layer by the mean load of the first; both are kept. Its loads are float32, so are these.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import descending, entry, kernel

LEVEL = 1.01
"""Fullest over mean GPU load up to which a layer stays as it is."""
LEAST_GAIN = 0.01
"""Of the mean GPU load, what an exchange must take from the fullest GPU."""
EXCHANGES = 100
"""Most exchanges of a layer."""
OPEN = -1
"""Expert in a slot that is to be filled."""


def initial_map(num_experts: int, num_slots: int, num_gpus: int) -> np.ndarray:
    """Return the map that the host starts with, int64 [slots]: experts in their order, then the one after a GPU's last.

    Extra replicas go to the GPUs from the last to the first, one each, until no slot is left.

    Parameters
    ----------
    num_experts, num_slots, num_gpus : int
        Equally many slots on all GPUs.
    """
    gpus = [part.tolist() for part in np.array_split(np.arange(num_experts), num_gpus)]
    for i in range(num_slots - num_experts):
        gpu = gpus[-1 - i % num_gpus]
        gpu.append(((gpu[-1] if gpu else i) + 1) % num_experts)
    return np.array(gpus, dtype=np.int64).ravel()


@entry
def improve_layer(loads: np.ndarray, num_gpus: int, mean: float, slots: np.ndarray) -> None:
    """Improve the map of a layer.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    num_gpus : int
    mean : float
        Load of a GPU that gains and results are measured by.
    slots : ndarray
        The map in use, int64 [slots], GPU-major; overwritten. It holds every expert, and a GPU has no more slots than there are
        experts.
    """
    experts, k = loads.size, slots.size // num_gpus
    before = _imbalance(loads, num_gpus, slots)
    if before < LEVEL:
        return
    items, home, held = np.full(slots.size, OPEN), np.empty(experts, np.int64), np.zeros((num_gpus, experts), np.bool_)
    seen = np.zeros(experts, np.bool_)
    for s in range(k):
        for g in range(num_gpus):
            e = slots[g * k + s]
            if not seen[e]:
                seen[e] = held[g, e] = True
                items[g * k + s], home[e] = e, g
    received = np.zeros((num_gpus, experts), np.bool_)
    sent = np.zeros((num_gpus, num_gpus), np.bool_)
    copies = np.zeros(experts, np.int64)
    sizes = _give_extra(loads, slots.size - experts, num_gpus, copies)
    totals = _totals(sizes, num_gpus, items)
    _place_extra(sizes, copies, home, items, held, received, sent, totals)
    if (items == OPEN).any():
        _fill(loads, home, items, held, received, sent, sizes)
        totals = _totals(sizes, num_gpus, items)
    if _exchange(sizes, items, held, received, sent, totals, LEAST_GAIN * mean) / mean < before:
        _keep_slots(held, slots)


@kernel
def _imbalance(loads: np.ndarray, num_gpus: int, slots: np.ndarray) -> float:
    """Return the fullest over the mean GPU load; 1 without any load."""
    k, counts = slots.size // num_gpus, np.zeros(loads.size, np.int64)
    for e in slots:
        counts[e] += 1
    most = total = 0.0
    for g in range(num_gpus):
        load = 0.0
        for e in slots[g * k : g * k + k]:
            load += loads[e] / counts[e]
            total += loads[e] / counts[e]
        most = max(most, load)
    mean = total / num_gpus
    return 1.0 if mean < 1e-9 else most / mean


@kernel
def _totals(sizes: np.ndarray, num_gpus: int, items: np.ndarray) -> np.ndarray:
    """Return the load of every GPU, float32 [gpus]."""
    k, totals = items.size // num_gpus, np.zeros(num_gpus, np.float32)
    for slot, e in enumerate(items):
        if e != OPEN:
            totals[slot // k] += sizes[e]
    return totals


@kernel
def _give_extra(loads: np.ndarray, extra: int, num_gpus: int, copies: np.ndarray) -> np.ndarray:
    """Give extra replicas to the hottest experts one by one, ties to the higher one; return the load of a replica, float32."""
    sizes = loads.copy()
    for _ in range(extra):
        hottest = -1
        for e in range(loads.size):
            if copies[e] + 1 < num_gpus and (hottest < 0 or sizes[e] >= sizes[hottest]):
                hottest = e
        if hottest < 0:
            break
        copies[hottest] += 1
        sizes[hottest] = sizes[hottest] * (copies[hottest] + 1) / (copies[hottest] + 2)
    return sizes.astype(np.float32)


@kernel
def _place_extra(
    sizes: np.ndarray,
    copies: np.ndarray,
    home: np.ndarray,
    items: np.ndarray,
    held: np.ndarray,
    received: np.ndarray,
    sent: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Put extra replicas on the emptiest GPUs with an open slot, largest first; a GPU gets one from each other at most."""
    gpus = totals.size
    k = items.size // gpus
    last = np.empty(gpus, np.int64)  # the last open slot of every GPU, k without one
    for g in range(gpus):
        last[g] = _last_open(items, g * k, k)
    for e in descending(sizes):
        for _ in range(copies[e]):
            best = -1
            for g in range(gpus):
                if last[g] < k and not held[g, e] and not sent[home[e], g] and (best < 0 or totals[g] < totals[best]):
                    best = g
            if best < 0:
                break  # nor is there a place for the next one
            items[best * k + last[best]] = e
            last[best] = _last_open(items, best * k, k)
            held[best, e] = received[best, e] = sent[home[e], best] = True
            totals[best] += sizes[e]


@kernel
def _last_open(items: np.ndarray, start: int, k: int) -> int:
    for s in range(k - 1, -1, -1):
        if items[start + s] == OPEN:
            return s
    return k


@kernel
def _fill(
    loads: np.ndarray,
    home: np.ndarray,
    items: np.ndarray,
    held: np.ndarray,
    received: np.ndarray,
    sent: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Fill the slots that are still open, GPU by GPU, with the hottest expert that the GPU lacks; writes the sizes anew."""
    experts, k = loads.size, items.size // len(held)
    counts = np.zeros(experts, np.int64)
    for e in items:
        if e != OPEN:
            counts[e] += 1
    for e in range(experts):
        sizes[e] = loads[e] / counts[e]
    for slot in range(items.size):
        if items[slot] != OPEN:
            continue
        g, hottest = slot // k, -1
        for e in range(experts):
            if not held[g, e] and (hottest < 0 or sizes[e] >= sizes[hottest]):
                hottest = e
        items[slot] = hottest
        held[g, hottest] = received[g, hottest] = sent[home[hottest], g] = True
        sizes[hottest] = np.float64(sizes[hottest]) * (counts[hottest] / (counts[hottest] + 1))
        counts[hottest] += 1


@kernel
def _exchange(
    sizes: np.ndarray,
    items: np.ndarray,
    held: np.ndarray,
    received: np.ndarray,
    sent: np.ndarray,
    totals: np.ndarray,
    least: float,
) -> float:
    """Exchange experts of the fullest GPU while that takes ``least`` from it; return its load as the search last saw it."""
    k = items.size // totals.size
    most, exchanged = 0.0, True
    for _ in range(EXCHANGES):
        order = descending(-totals)
        hot = order[-1]
        most = np.float64(totals[hot])
        if not exchanged:
            break
        exchanged = False
        for g in order[:-1]:
            if sent[g, hot] or sent[hot, g]:
                continue
            a, b, after = _best_pair(sizes, items, held, received, hot, g, k, most, totals[g])
            if a < 0 or most - after < least:
                continue
            given, taken = items[a], items[b]
            items[a], items[b] = taken, given
            held[hot, given] = held[g, taken] = False
            held[hot, taken] = held[g, given] = received[hot, taken] = received[g, given] = True
            totals[hot] += sizes[taken] - sizes[given]
            totals[g] += sizes[given] - sizes[taken]
            sent[g, hot] = sent[hot, g] = exchanged = True
            break
    return most


@kernel
def _best_pair(
    sizes: np.ndarray,
    items: np.ndarray,
    held: np.ndarray,
    received: np.ndarray,
    hot: int,
    cold: int,
    k: int,
    most: float,
    load: float,
) -> tuple[int, int, float]:
    """Return the slots of the two experts whose exchange leaves the fuller of two GPUs emptiest, -1 without one, and its load."""
    a, b, best = -1, -1, most
    for i in range(hot * k, hot * k + k):
        given = items[i]
        if held[cold, given] or received[hot, given]:
            continue
        for j in range(cold * k, cold * k + k):
            taken = items[j]
            if held[hot, taken] or received[cold, taken]:
                continue
            here = most - np.float64(sizes[given]) + np.float64(sizes[taken])
            there = np.float64(load - sizes[taken] + sizes[given])  # in float32, as the original's totals are
            if max(here, there) < best:
                a, b, best = i, j, max(here, there)
    return a, b, best


@kernel
def _keep_slots(held: np.ndarray, slots: np.ndarray) -> None:
    """Write what every GPU holds now over the map in use: what stays on its GPU stays in its slot; empties ``held``."""
    k = slots.size // len(held)
    for g in range(len(held)):
        for slot in range(g * k, g * k + k):
            if held[g, slots[slot]]:
                held[g, slots[slot]] = False
            else:
                slots[slot] = OPEN
        slot = g * k
        for e in range(held.shape[1]):
            if held[g, e]:
                while slots[slot] != OPEN:
                    slot += 1
                slots[slot] = e
