"""Search over replica counts on one flat instance: every trial is packed by LPT, exchanges and exact two-GPU re-partition.

Changing counts matters for two reasons. All loads are multiples of a lattice constant that depends on the counts, and no packing
goes below the mean rounded up to that lattice; and with hot experts Adams' counts, which minimise the largest replica, make
many equal large replicas that do not tile a GPU. An expert with one replica on every GPU shifts all loads by the same fraction:
that reaches means which whole and half loads miss.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, copy, entry, kernel, random, seed_random
from eplb_gap.heuristics.kernels.greedy import adams_counts, lpt
from eplb_gap.heuristics.kernels.refinement import swap_descent
from eplb_gap.heuristics.kernels.two_gpu_split import MAX_SLOTS_PER_GPU, split_descent

LATTICE_LIMIT = 1 << 22
"""Least common multiples of counts above this make a lattice too fine to matter."""
FIRST_KICKS, TRIAL_KICKS = 2400, 600
"""Kicks of the two-GPU search for Adams' counts and for every other count vector, divided by the number of GPUs."""
SPREAD = 0.8
"""Share of the trials that give one random expert a replica for every GPU; the others move replicas between experts."""
SAFE_TOTAL = 1 << 40
"""Layers with this many tokens or more are not handed to these kernels: products with counts must fit int64."""


@kernel
def _common_divisor(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


@entry
def lattice_bound(loads: np.ndarray, counts: np.ndarray, num_gpus: int) -> float:
    """Return the mean GPU load rounded up to the lattice of the replica sizes ``w_e / c_e``: a bound for these counts.

    With L the least common multiple of the counts, every GPU load is a multiple of ``gcd(w_e L / c_e) / L``.
    """
    scale = 1
    for c in counts:
        scale = scale // _common_divisor(scale, c) * c
        if scale > LATTICE_LIMIT:
            return _total(loads) / num_gpus
    step = 0
    for e in range(loads.size):
        step = _common_divisor(step, loads[e] * (scale // counts[e]))
    if step == 0:
        return 0.0
    total = _total(loads) * scale
    # Rounded up twice, which is the same: the product of step and GPUs need not fit int64.
    per_gpu = -(-total // num_gpus)
    return -(-per_gpu // step) * (step / scale)


@entry
def pack_counts(
    loads: np.ndarray, counts: np.ndarray, num_gpus: int, distinct: bool, stop: float, kicks: int, seed: int, slots: np.ndarray
) -> float:
    """Pack given counts into ``slots`` and return the makespan in tokens; infinite where LPT makes forbidden duplicates.

    Parameters
    ----------
    loads, counts : ndarray
        int64 [experts].
    num_gpus : int
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    stop : float
        Makespan in tokens at which to stop.
    kicks, seed : int
        See :func:`eplb_gap.heuristics.kernels.two_gpu_split.split_descent`.
    slots : ndarray
        int64 [slots]; overwritten, GPU-major.
    """
    if not lpt(loads, counts, num_gpus, slots) and distinct:
        return np.inf
    sizes = _slot_sizes(loads, counts, slots)
    swap_descent(slots, sizes, num_gpus, distinct, stop)
    if slots.size // num_gpus <= MAX_SLOTS_PER_GPU:
        split_descent(slots, sizes, num_gpus, distinct, stop, kicks, seed)
    return _makespan(sizes, num_gpus)


@kernel
def _slot_sizes(loads: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return the load of the replica on every slot, float64 [slots]."""
    sizes = np.empty(slots.size)
    for slot in range(slots.size):
        sizes[slot] = loads[slots[slot]] / counts[slots[slot]]
    return sizes


@kernel
def _makespan(sizes: np.ndarray, num_gpus: int) -> float:
    k, largest = sizes.size // num_gpus, 0.0
    for gpu in range(num_gpus):
        total = 0.0
        for slot in range(gpu * k, gpu * k + k):
            total += sizes[slot]
        largest = max(largest, total)
    return largest


@kernel
def _total(loads: np.ndarray) -> int:
    total = 0
    for load in loads:
        total += load
    return total


@entry
def search_counts(
    loads: np.ndarray,
    counts: np.ndarray,
    num_gpus: int,
    max_count: int,
    distinct: bool,
    stop: float,
    trials: int,
    seed: int,
    slots: np.ndarray,
) -> float:
    """Improve a map by changing counts: spread an expert or move replicas between experts, pack, keep what is no worse.

    Parameters
    ----------
    loads : ndarray
        int64 [experts].
    counts : ndarray
        int64 [experts]; counts of the map in ``slots``, changed in place.
    num_gpus, max_count : int
    distinct : bool
    stop : float
        Makespan in tokens at which to stop.
    trials : int
        Count vectors to try.
    seed : int
    slots : ndarray
        int64 [slots]; the map, changed in place to the best found.

    Returns
    -------
    float
        Makespan in tokens.
    """
    seed_random(seed)
    can_spread = num_gpus <= max_count and slots.size - num_gpus >= loads.size - 1
    best = _makespan(_slot_sizes(loads, counts, slots), num_gpus)
    trial, map_of_trial = np.empty(counts.size, np.int64), np.empty(slots.size, np.int64)
    for number in range(trials):
        if best <= stop:
            break
        copy(counts, trial)
        if can_spread and random() < SPREAD:
            _spread(loads, slots.size, num_gpus, max_count, trial)
        else:
            _transfer(max_count, trial)
        if lattice_bound(loads, trial, num_gpus) > max(stop, best * (1.0 - 1e-9)) or _largest_replica(loads, trial) >= best:
            continue
        value = pack_counts(loads, trial, num_gpus, distinct, stop, TRIAL_KICKS // num_gpus, seed + number, map_of_trial)
        seed_random(seed + 7919 * (number + 1))
        if value <= best:
            best = value
            copy(trial, counts)
            copy(map_of_trial, slots)
    return best


@kernel
def _largest_replica(loads: np.ndarray, counts: np.ndarray) -> float:
    largest = 0.0
    for e in range(loads.size):
        largest = max(largest, loads[e] / counts[e])
    return largest


@kernel
def _spread(loads: np.ndarray, num_slots: int, num_gpus: int, max_count: int, counts: np.ndarray) -> None:
    """Overwrite ``counts``: a random expert gets a replica for every GPU, the others Adams' counts of the slots left."""
    chosen = below(loads.size)
    others = np.empty(loads.size, np.int64)
    copy(loads, others)
    others[chosen] = 0
    copy(adams_counts(others, num_slots - num_gpus + 1, max_count), counts)
    counts[chosen] += num_gpus - 1  # has one so far, more only where the others can take none


@kernel
def _transfer(max_count: int, counts: np.ndarray) -> None:
    """Move up to six replicas between random experts, half of them towards triples: they refine the lattice."""
    experts = counts.size
    for _ in range(1 + below(6)):
        donor, taker = below(experts), below(experts)
        if random() < 0.5:
            for _ in range(20):
                if counts[taker] == 2:
                    break
                taker = below(experts)
        for _ in range(50):
            if counts[donor] > 1 and donor != taker:
                break
            donor = below(experts)
        if counts[donor] > 1 and donor != taker and counts[taker] < max_count:
            counts[donor] -= 1
            counts[taker] += 1


@entry
def plan(
    loads: np.ndarray, num_gpus: int, max_count: int, distinct: bool, stop: float, trials: int, seed: int, slots: np.ndarray
) -> float:
    """Write the best map found from Adams' counts and ``trials`` other count vectors to ``slots``; return its makespan.

    Infinite where no trial could avoid forbidden duplicates.
    """
    counts = adams_counts(loads, slots.size, max_count)
    hopeless = lattice_bound(loads, counts, num_gpus) > stop
    best = pack_counts(loads, counts, num_gpus, distinct, stop, 0 if hopeless else FIRST_KICKS // num_gpus, seed, slots)
    if best > stop and trials > 0 and best < np.inf:
        best = search_counts(loads, counts, num_gpus, max_count, distinct, stop, trials, seed, slots)
    return best
