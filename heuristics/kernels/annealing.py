"""Simulated annealing over placement and replica counts together, on one flat instance, compiled.

The energy is ``sum over GPUs of max(0, load - tau)^2`` for a level tau between a lower bound and the best makespan: only GPUs
above tau matter, and all of them do, not just the fullest. A move exchanges two replicas, or replaces a replica of b by one of
a, which makes every other replica of a smaller and every other replica of b larger.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, holds, kernel, random, seed_random

LEVELS = (0.0, 0.3, 0.6, 0.8)
"""tau runs through these parts of the way from the bound to the best makespan."""
HOTTEST, COLDEST = 0.3, 1e-4
"""First and last temperature, in units of the energy of one GPU at the best makespan."""
NEAR = 8
"""Half of the exchanges are between replicas at most so many places apart in the order of their sizes."""
TRANSFERS = 0.05


@entry
def anneal(
    loads: np.ndarray,
    slots: np.ndarray,
    num_gpus: int,
    max_count: int,
    distinct: bool,
    bound: float,
    level: float,
    steps: int,
    seed: int,
) -> float:
    """Improve a map on GPUs of equally many slots by one cooling from hot to cold.

    Parameters
    ----------
    num_gpus : int
    others
        Those of :func:`anneal_on`.

    Returns
    -------
    float
        Makespan of the best map, in tokens.
    """
    starts = np.empty(num_gpus + 1, np.int64)
    for gpu in range(num_gpus + 1):
        starts[gpu] = gpu * (slots.size // num_gpus)
    return anneal_on(loads, slots, starts, max_count, distinct, bound, level, steps, seed)


@entry
def anneal_on(
    loads: np.ndarray,
    slots: np.ndarray,
    starts: np.ndarray,
    max_count: int,
    distinct: bool,
    bound: float,
    level: float,
    steps: int,
    seed: int,
) -> float:
    """Improve a map by one cooling from hot to cold.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    slots : ndarray
        Expert of every slot, int64 [slots], GPU-major: a legal map; changed in place to the best found, which is legal.
    starts : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    max_count : int
        Most replicas that an expert may have.
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    bound : float
        A lower bound on the makespan, in tokens.
    level : float
        Part of the way from the bound to the best makespan at which tau stays, see :data:`LEVELS`.
    steps : int
        Moves to try; a caller that may be interrupted asks for as many as it can wait for.
    seed : int

    Returns
    -------
    float
        Makespan of the best map, in tokens.
    """
    seed_random(seed)
    experts, num_gpus = loads.size, starts.size - 1
    gpu_of = np.empty(slots.size, dtype=np.int64)
    for g in range(num_gpus):
        for slot in range(starts[g], starts[g + 1]):
            gpu_of[slot] = g
    current = slots.copy()
    counts = np.zeros(experts, dtype=np.int64)
    for expert in current:
        counts[expert] += 1
    # where[e, : counts[e]] are the slots of expert e; place[slot] is the position of a slot there.
    where = np.empty((experts, max_count), dtype=np.int64)
    place = np.empty(slots.size, dtype=np.int64)
    counts[:] = 0
    for slot in range(slots.size):
        expert = current[slot]
        where[expert, counts[expert]] = slot
        place[slot] = counts[expert]
        counts[expert] += 1
    sizes = loads / counts
    gpus = np.zeros(num_gpus)
    for slot in range(slots.size):
        gpus[gpu_of[slot]] += sizes[current[slot]]
    best: float = gpus.max()
    if best <= bound or num_gpus == 1:
        return best
    tau = bound + (best - bound) * level
    unit = (best - tau) ** 2
    if unit == 0.0:  # the bound is within rounding
        return best
    cooling = (COLDEST / HOTTEST) ** (1.0 / steps)
    temperature = unit * HOTTEST
    order = np.argsort(sizes)
    rank = np.empty(experts, dtype=np.int64)
    change = np.zeros(num_gpus)
    touched = np.empty(2 * max_count + 1, dtype=np.int64)
    age = 0
    for _ in range(steps):
        temperature *= cooling
        first = below(slots.size)
        a, g = current[first], gpu_of[first]
        if random() < TRANSFERS:
            gained = below(experts)
            if gained == a or counts[a] == 1 or counts[gained] == max_count:
                continue
            if distinct and holds(current, starts[g], starts[g + 1] - starts[g], gained):
                continue
            loss = loads[a] / (counts[a] - 1) - sizes[a]
            gain = loads[gained] / (counts[gained] + 1) - sizes[gained]
            number = 0
            for position in range(counts[a]):
                number = _touch(change, touched, number, gpu_of[where[a, position]], loss)
            for position in range(counts[gained]):
                number = _touch(change, touched, number, gpu_of[where[gained, position]], gain)
            number = _touch(change, touched, number, g, gain + sizes[gained] - loss - sizes[a])
            delta = 0.0
            for position in range(number):
                h = touched[position]
                delta += max(0.0, gpus[h] + change[h] - tau) ** 2 - max(0.0, gpus[h] - tau) ** 2
            taken = delta <= 0.0 or random() < np.exp(-delta / temperature)
            lowered = False
            for position in range(number):
                h = touched[position]
                if taken:
                    lowered |= gpus[h] >= best and change[h] < 0.0
                    gpus[h] += change[h]
                change[h] = 0.0
            if not taken:
                continue
            counts[a] -= 1
            moved = where[a, counts[a]]
            where[a, place[first]] = moved
            place[moved] = place[first]
            where[gained, counts[gained]] = first
            place[first] = counts[gained]
            counts[gained] += 1
            current[first] = gained
            sizes[a] = loads[a] / counts[a]
            sizes[gained] = loads[gained] / counts[gained]
        else:
            if random() < 0.5:
                second = below(slots.size)
                b = current[second]
            else:
                # The order by size is renewed now and then only: it proposes, the energy decides.
                if age == 0:
                    order = np.argsort(sizes)
                    for position in range(experts):
                        rank[order[position]] = position
                    age = 20 * experts
                age -= 1
                near = rank[a] + below(2 * NEAR + 1) - NEAR
                if near < 0 or near >= experts:
                    continue
                b = order[near]
                second = where[b, below(counts[b])]
            h = gpu_of[second]
            if a == b or g == h:
                continue
            if distinct and (
                holds(current, starts[g], starts[g + 1] - starts[g], b) or holds(current, starts[h], starts[h + 1] - starts[h], a)
            ):
                continue
            moved_load = sizes[a] - sizes[b]
            one, two = gpus[g] - moved_load, gpus[h] + moved_load
            delta = (
                max(0.0, one - tau) ** 2 + max(0.0, two - tau) ** 2 - max(0.0, gpus[g] - tau) ** 2 - max(0.0, gpus[h] - tau) ** 2
            )
            if delta > 0.0 and random() >= np.exp(-delta / temperature):
                continue
            gpus[g], gpus[h] = one, two
            current[first], current[second] = b, a
            where[a, place[first]], where[b, place[second]] = second, first
            place[first], place[second] = place[second], place[first]
        top = gpus.max() if _may_be_best(gpus, best) else best
        if top < best * (1.0 - 1e-12):
            best = top
            for slot in range(slots.size):  # a slice assignment takes seconds to compile
                slots[slot] = current[slot]
            if best <= bound:
                break
    return best


@kernel
def _may_be_best(gpus: np.ndarray, best: float) -> bool:
    for load in gpus:  # noqa: SIM110 - all() over a generator does not compile
        if load >= best:
            return False
    return True


@kernel
def _touch(change: np.ndarray, touched: np.ndarray, number: int, gpu: int, amount: float) -> int:
    """Add to a GPU's change and to the list of GPUs changed; return the length of the list."""
    for position in range(number):
        if touched[position] == gpu:
            change[gpu] += amount
            return number
    change[gpu] = amount
    touched[number] = gpu
    return number + 1
