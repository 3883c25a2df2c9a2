"""Annealing of replica counts at two slots per GPU, compiled: the fold of the sorted replicas evaluates them."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, kernel, random, seed_random

HOT, COLD = 3e-6, 1e-8
"""First and last temperature, in squares of the mean GPU load."""


@entry
def anneal_counts(
    loads: np.ndarray, counts: np.ndarray, owners: np.ndarray, most: int, tau: float, moves: int, seed: int
) -> float:
    """Anneal the counts of a fold: one replica more of one expert, one fewer of another.

    The energy is ``sum max(0, pair - tau)^2`` over the pairs of the fold; the temperature falls geometrically.

    Parameters
    ----------
    loads : ndarray
        float64 [experts] in units of the mean GPU load.
    counts : ndarray
        int64 [experts]; replaced by the best ones met.
    owners : ndarray
        Expert of every replica, largest replica first, int64 [slots]; overwritten.
    most : int
        Largest count of an expert.
    tau : float
        Makespan aimed at, same unit.
    moves : int
    seed : int

    Returns
    -------
    float
        Makespan of the best counts.
    """
    seed_random(seed)
    num_slots = owners.size
    sizes = loads[owners] / counts[owners]
    new_sizes, new_owners = np.empty(num_slots), np.empty(num_slots, np.int64)
    energy, best = _fold_energy(sizes, tau, np.inf)
    best_counts = counts.copy()
    replicated, place = np.empty(loads.size, np.int64), np.empty(loads.size, np.int64)
    num_replicated = 0
    for expert in range(loads.size):
        if counts[expert] > 1:
            place[expert] = num_replicated
            replicated[num_replicated] = expert
            num_replicated += 1
    cooling, temperature = (COLD / HOT) ** (1.0 / moves), HOT
    for _ in range(moves):
        if best <= tau or num_replicated == 0:
            break
        temperature *= cooling
        take = replicated[below(num_replicated)]
        give = below(loads.size)
        if give == take or counts[give] >= most:
            continue
        limit = energy - temperature * np.log(1.0 - random())
        _merge(sizes, owners, new_sizes, new_owners, give, loads[give], counts[give] + 1, take, loads[take], counts[take] - 1)
        new_energy, makespan = _fold_energy(new_sizes, tau, limit)
        if new_energy > limit:
            continue
        energy = new_energy
        sizes, new_sizes = new_sizes, sizes
        owners, new_owners = new_owners, owners
        counts[give] += 1
        counts[take] -= 1
        if counts[give] == 2:
            place[give] = num_replicated
            replicated[num_replicated] = give
            num_replicated += 1
        if counts[take] == 1:
            num_replicated -= 1
            moved = replicated[num_replicated]
            replicated[place[take]] = moved
            place[moved] = place[take]
        if makespan < best:
            best = makespan
            best_counts[:] = counts
    counts[:] = best_counts
    return best


@kernel
def _fold_energy(sizes: np.ndarray, tau: float, limit: float) -> tuple[float, float]:
    """Energy and makespan of a fold; both are incomplete once the energy exceeds ``limit``."""
    energy, makespan = 0.0, 0.0
    for i in range(sizes.size // 2):
        pair = sizes[i] + sizes[sizes.size - 1 - i]
        makespan = max(makespan, pair)
        if pair > tau:
            energy += (pair - tau) ** 2
            if energy > limit:
                break
    return energy, makespan


@kernel
def _merge(
    sizes: np.ndarray,
    owners: np.ndarray,
    new_sizes: np.ndarray,
    new_owners: np.ndarray,
    first: int,
    first_load: float,
    first_left: int,
    second: int,
    second_load: float,
    second_left: int,
) -> None:
    """Write the sorted replicas with those of two experts replaced by their new numbers of new size."""
    first_size, second_size = first_load / first_left, second_load / second_left
    end = 0
    for position in range(sizes.size + 1):
        last = position == sizes.size
        if not last and (owners[position] == first or owners[position] == second):
            continue
        size = -1.0 if last else sizes[position]
        while (first_left > 0 and first_size > size) or (second_left > 0 and second_size > size):
            if first_left > 0 and (second_left == 0 or first_size >= second_size):
                new_sizes[end], new_owners[end] = first_size, first
                first_left -= 1
            else:
                new_sizes[end], new_owners[end] = second_size, second
                second_left -= 1
            end += 1
        if not last:
            new_sizes[end], new_owners[end] = size, owners[position]
            end += 1
