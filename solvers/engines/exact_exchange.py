"""Exchanges of a few replicas between two GPUs that move exactly the load they should, compiled; loads are integers.

The *excess* of a GPU is its load less the target. An exchange between the GPU with the largest excess and one below the target
moves just that excess, or more if the other GPU has room for it: the former is then within the target, the other one too or at
least below what the former was. So the excess of all GPUs together falls with every exchange, and some exchange is nearly always
found where GPUs have many slots: three replicas of 24 can be chosen in 2024 ways, for four million differences. Sums are sorted
and looked up (Horowitz and Sahni, 1974). Where none is found, an exchange at random changes what is on a pair of GPUs.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import ascending, below, entry, kernel, seed_random

SAMPLE = 24
"""Slots of a GPU, at random if it has more, of which some are exchanged."""
MOST = 3
"""Replicas that are exchanged for as many."""


@entry
def settle(experts: np.ndarray, sizes: np.ndarray, num_gpus: int, target: int, tries: int, seed: int) -> None:
    """Lower the largest GPU load of a map towards a target.

    Parameters
    ----------
    experts : ndarray
        Expert of every slot, int64 [slots], GPU-major; changed in place, and so is ``sizes``. The makespan may rise.
    sizes : ndarray
        Load of every slot, int64 [slots].
    num_gpus : int
        At least 2.
    target : int
        Makespan at which to stop.
    tries : int
        Pairs of GPUs to look at, under half a millisecond each.
    seed : int
    """
    seed_random(seed)
    k = sizes.size // num_gpus
    loads = np.zeros(num_gpus, dtype=np.int64)
    for slot in range(sizes.size):
        loads[slot // k] += sizes[slot]
    order = np.empty(num_gpus, dtype=np.int64)
    ascending(loads, order)
    place = 0
    for _ in range(tries):
        full, other = order[num_gpus - 1], order[place]
        excess, room = loads[full] - target, target - loads[other]
        if excess <= 0:
            break
        if room > 0:
            low, high = excess, max(excess, room)
        else:  # no GPU below the target can take the excess
            full = below(num_gpus)
            other = (full + 1 + below(num_gpus - 1)) % num_gpus
            low, high = -excess, excess
        moved = _exchange(experts, sizes, full, other, k, low, high)
        loads[full] -= moved
        loads[other] += moved
        place += 1
        if moved != 0 or room <= 0:
            ascending(loads, order)
            place = 0


@kernel
def _exchange(experts: np.ndarray, sizes: np.ndarray, full: int, other: int, k: int, low: int, high: int) -> int:
    """Exchange replicas so that the first GPU loses from ``low`` to ``high``; return what it loses, 0 if that can't be."""
    number = min(MOST, max(1, k // 2))
    mine, theirs = _sample(full * k, k), _sample(other * k, k)
    sums, chosen = _combinations(sizes, mine, number)
    their_sums, their_chosen = _combinations(sizes, theirs, number)
    order = np.empty(their_sums.size, dtype=np.int64)
    ascending(their_sums, order)
    shift = below(sums.size)
    for i in range(sums.size):
        a = (i + shift) % sums.size
        left, right = 0, order.size
        while left < right:
            middle = (left + right) >> 1
            if their_sums[order[middle]] < sums[a] - high:
                left = middle + 1
            else:
                right = middle
        if left < order.size and their_sums[order[left]] <= sums[a] - low:
            b = order[left]
            for j in range(number):
                one, two = mine[chosen[a, j]], theirs[their_chosen[b, j]]
                experts[one], experts[two] = experts[two], experts[one]
                sizes[one], sizes[two] = sizes[two], sizes[one]
            moved: int = sums[a] - their_sums[b]
            return moved
    return 0


@kernel
def _sample(first: int, k: int) -> np.ndarray:
    """Return slots of a GPU, in random order, int64 [at most ``SAMPLE``]."""
    slots = np.empty(k, dtype=np.int64)
    for i in range(k):
        slots[i] = first + i
    drawn = np.empty(min(k, SAMPLE), dtype=np.int64)
    for i in range(drawn.size):
        j = i + below(k - i)
        slots[i], slots[j] = slots[j], slots[i]
        drawn[i] = slots[i]
    return drawn


@kernel
def _combinations(sizes: np.ndarray, slots: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of all choices of so many slots, int64 [choices], and their places, int64 [choices, number]."""
    choices = 1
    for j in range(number):
        choices = choices * (slots.size - j) // (j + 1)
    sums, chosen = np.zeros(choices, dtype=np.int64), np.empty((choices, number), dtype=np.int64)
    at = np.arange(number)
    for c in range(choices):
        for j in range(number):
            chosen[c, j] = at[j]
            sums[c] += sizes[slots[at[j]]]
        j = number - 1
        while j > 0 and at[j] == slots.size - number + j:
            j -= 1
        at[j] += 1
        for i in range(j + 1, number):
            at[i] = at[i - 1] + 1
    return sums, chosen
