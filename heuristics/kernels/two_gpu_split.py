"""Exact re-partition of two GPUs: the best equal-cardinality split of their replicas, from sorted subset sums.

Every GPU keeps the sums of its subsets, sorted within each cardinality. Pack one takes j replicas of the first GPU and
``k - j`` of the second; for every j the sum nearest to half of the pair's load is found by two pointers over two sorted lists.
Only the two GPUs that changed are rebuilt. Where pairs have splits enough, GPUs are then settled one by one just above the
mean, which gathers what is missing in few GPUs. (Subset sums of halves: Horowitz and Sahni, 1974.)
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import ascending, below, entry, kernel, random, seed_random

MAX_SLOTS_PER_GPU = 10
"""Above this the subset sums of a GPU (2**k) cost more than they gain."""
DENSE = 0.01
"""Splits of a pair times relative room above the mean: below this hardly any split lands there, and kicks only shuffle."""
SHUFFLES = 0.2
"""Share of the kicks that shuffle a random pair nevertheless: without them settling walks in circles."""
STEPS_PER_GPU = 1000
"""Most re-partitions per GPU, beside the kicks; descents end after a few of them."""
MOST_SUMS = 25_000_000
"""Most subset sums that one call looks at: some 50 ms, which neither a clock nor Ctrl-C can end."""
PATIENCE = 8
"""Kicks without effect that every settled GPU buys: where none can be settled, other counts are the better try."""


@kernel
def _starts(k: int) -> np.ndarray:
    """Offsets of the cardinalities 0 .. k in the list of all subsets, int64 [k + 2]."""
    starts = np.zeros(k + 2, dtype=np.int64)
    size = 1
    for j in range(k + 1):
        starts[j + 1] = starts[j] + size
        size = size * (k - j) // (j + 1)
    return starts


@kernel
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


@kernel
def _nearest_split(
    first: np.ndarray, second: np.ndarray, starts: np.ndarray, k: int, target: float, room: float, current: float
) -> tuple[float, int, int]:
    """Return the smallest distance of a pack's load to ``target`` and the positions of its two subsets.

    Ends at the first distance within ``room``. With a positive ``current``, packs of that load are passed over: the pair as it
    is. Otherwise ``target`` is half of the pair's load, and only every other cardinality is looked at: the complements are
    equally far from it.
    """
    best, at_first, at_second = np.inf, 0, 0
    for i in range(0, k + 1, 1 if current > 0.0 else 2):
        j = k // 2 + (i + 1) // 2 if i % 2 else k // 2 - i // 2  # from the middle, where most packs are
        a, b = starts[j], starts[k - j + 1] - 1
        last, lowest = starts[j + 1], starts[k - j]
        while a < last and b >= lowest:
            load = first[a] + second[b]
            distance = abs(load - target)
            if distance < best and (current == 0.0 or abs(load - current) > 1e-11 * current):
                best, at_first, at_second = distance, a, b
                if best <= room:
                    return best, at_first, at_second
            if load < target:
                a += 1
            else:
                b -= 1
    return best, at_first, at_second


@entry
def split_descent(
    experts: np.ndarray, sizes: np.ndarray, num_gpus: int, distinct: bool, stop: float, kicks: int, seed: int
) -> tuple[float, int]:
    """Lower the fullest GPU by exact re-partitions with the other GPUs, lightest first; then settle GPUs one by one.

    Halving pairs ends a little above the mean. From there a GPU is *settled* when its load is between the mean and ``stop``.
    Every kick re-partitions the fullest or the lightest GPU with another one so that one of the two is settled; what is missing
    gathers in few GPUs, until one pair has room for both to end below ``stop``. Some kicks only shuffle a pair.

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
        Most kicks; fewer are used where hardly any settles a GPU.
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
    best_experts, best_sizes = np.empty(experts.size, np.int64), np.empty(experts.size)
    for slot in range(experts.size):
        best_experts[slot], best_sizes[slot] = experts[slot], sizes[slot]
    total = 0.0
    for g in range(num_gpus):
        loads[g] = _gpu_load(sizes, g, k)
        total += loads[g]
    best, mean = _largest(loads), total / num_gpus
    low = mean * (1.0 - 1e-12)
    pair_splits = 0
    for j in range(k + 1):
        pair_splits += (starts[j + 1] - starts[j]) ** 2
    dense = pair_splits * (stop - mean) > DENSE * mean
    order = np.empty(num_gpus, np.int64)
    seed_random(seed)
    steps = used = settled = 0
    most_steps, sums_left = kicks + STEPS_PER_GPU * num_gpus, MOST_SUMS
    # Every turn lowers the fullest GPU, or else uses up one of the kicks: the loop ends by counting, whatever rounding does.
    while best > max(stop, 0.0) and used <= kicks and steps < most_steps and sums_left > 0:
        sums_left -= 8 * num_gpus
        full = 0
        for g in range(1, num_gpus):
            if loads[g] > loads[full]:
                full = g
        ascending(loads, order)
        first, second, at_first, at_second = full, -1, 0, 0
        # A pair that only halves what is left would undo settled GPUs: after the first kick it must end below ``stop``.
        halving = used == 0 or not dense
        goal = loads[full] * (1.0 - 1e-12) if halving else stop
        reached = goal if halving else stop * (1.0 + 1e-15)
        for place in range(num_gpus):
            g = order[place]
            half = (loads[full] + loads[g]) * 0.5
            if half >= reached:
                break
            sums_left -= 2 * width
            for gpu in (full, g):
                if not built[gpu]:
                    _build(sizes[gpu * k : gpu * k + k], starts, sums[gpu], masks[gpu], scratch, marks)
                    built[gpu] = True
            near, a, b = _nearest_split(sums[full], sums[g], starts, k, half, stop - half, 0.0)
            if half + near < reached and not (distinct and _repeats(experts, full, g, k, masks[full, a], masks[g, b])):
                second, at_first, at_second, reached = g, a, b, half + near
                if reached <= stop:
                    break
        descended = second >= 0
        if not descended:
            if used >= kicks or (dense and used >= PATIENCE * (1 + settled)) or num_gpus < 2:
                break
            used += 1
            first = full if random() < 0.5 else order[0]
            shift = below(num_gpus)
            target = low + (stop - low) * random()
            if dense and random() >= SHUFFLES:
                # Partners that are not settled come first.
                for i in range(2 * num_gpus):
                    g = (shift + i) % num_gpus
                    if g == first or (low <= loads[g] <= stop) != (i >= num_gpus):
                        continue
                    sums_left -= 2 * width
                    for gpu in (first, g):
                        if not built[gpu]:
                            _build(sizes[gpu * k : gpu * k + k], starts, sums[gpu], masks[gpu], scratch, marks)
                            built[gpu] = True
                    room = min(target - low, stop - target)
                    _, a, b = _nearest_split(sums[first], sums[g], starts, k, target, room, loads[g])
                    if low <= sums[first, a] + sums[g, b] <= stop and not (
                        distinct and _repeats(experts, first, g, k, masks[first, a], masks[g, b])
                    ):
                        second, at_first, at_second = g, a, b
                        settled += 1
                        break
            if second < 0:
                first = below(num_gpus)
                second = (first + 1 + below(num_gpus - 1)) % num_gpus
                # Noise of the order of what is missing changes the composition of the pair and keeps it nearly balanced.
                noise = 10.0 * (best / mean - 1.0) * (random() - 0.5)
                target = (loads[first] + loads[second]) * 0.5 * (1.0 + noise)
                for gpu in (first, second):
                    if not built[gpu]:
                        _build(sizes[gpu * k : gpu * k + k], starts, sums[gpu], masks[gpu], scratch, marks)
                        built[gpu] = True
                near, at_first, at_second = _nearest_split(sums[first], sums[second], starts, k, target, 0.0, 0.0)
                if near == np.inf:  # no subsets to regroup
                    continue
                if distinct and _repeats(experts, first, second, k, masks[first, at_first], masks[second, at_second]):
                    continue
        _regroup(experts, sizes, first, second, k, masks[first, at_first], masks[second, at_second])
        for g in (first, second):
            loads[g] = _gpu_load(sizes, g, k)
            built[g] = False
        steps += 1
        if descended and max(loads[first], loads[second]) > goal:
            used += 1
        largest = _largest(loads)
        if largest < best:
            best = largest
            for slot in range(experts.size):
                best_experts[slot], best_sizes[slot] = experts[slot], sizes[slot]
    for slot in range(experts.size):
        experts[slot], sizes[slot] = best_experts[slot], best_sizes[slot]
    return best, steps


@kernel
def _gpu_load(sizes: np.ndarray, gpu: int, k: int) -> float:
    total = 0.0
    for slot in range(gpu * k, gpu * k + k):
        total += sizes[slot]
    return total


@kernel
def _largest(loads: np.ndarray) -> float:
    largest: float = loads[0]
    for load in loads:
        largest = max(largest, load)
    return largest


@kernel
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
    for i in range(k):
        experts[first * k + i], sizes[first * k + i] = names[i], loads[i]
        experts[second * k + i], sizes[second * k + i] = names[k + i], loads[k + i]


@kernel
def _repeats(experts: np.ndarray, first: int, second: int, k: int, keep: int, take: int) -> bool:
    """Whether the regrouped pair would hold two replicas of one expert on a GPU."""
    for i in range(k):
        for j in range(k):
            if (keep >> i & 1) == (take >> j & 1) and experts[first * k + i] == experts[second * k + j]:
                return True
    return False
