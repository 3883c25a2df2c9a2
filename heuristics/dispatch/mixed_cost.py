"""Maps and choices of replicas for steps that pay for weights and for tokens, by annealing over sampled steps.

Given a map, the jobs of a step (:mod:`eplb_gap.problem.routing.mixed_cost`) go from the largest down to the least loaded GPU that
holds the expert; then jobs leave the fullest GPU while that lowers it, if need be by sending a job of the GPU they come to on to
another. A move of the annealing exchanges two replicas, replaces one whose expert has a second, or lets two groups of a
hierarchical map change places, expert by expert; all steps are chosen for anew.
"""

from __future__ import annotations

import math

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, kernel, random, seed_random
from eplb_gap.heuristics.dispatch.activated import fewest_activated
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.mixed_cost import StepCost, step_cost_bounds, step_costs

HOTTEST, COLDEST = 5e-3, 5e-5
"""First and last temperature, as shares of the mean cost of a step."""
TRANSFERS, REGROUPINGS = 0.3, 0.1
"""Shares of the moves that change counts, and, of groups on nodes, that exchange two."""


def choose_for_cost(counts: np.ndarray, phy2log: np.ndarray, deployment: Deployment, cost: StepCost) -> np.ndarray:
    """Return a GPU for every active expert of every step, int64 [steps, experts], -1 for the others.

    Of two choices the cheaper one, step by step: jobs from the largest down, and the fewest activated experts, which is optimal
    where tokens cost nothing.

    Parameters
    ----------
    counts : ndarray of int [steps, experts]
        Tokens of every step by expert.
    phy2log : ndarray of int [slots]
        The layer's map, which holds every expert.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    cost : StepCost

    Raises
    ------
    InputError
        If counts, map or deployment are not what they must be.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.dispatch.mixed_cost import choose_for_cost
    >>> from eplb_gap.problem.routing.mixed_cost import StepCost
    >>> two_gpus = Deployment(num_experts=3, num_slots=4, num_gpus=2)
    >>> choose_for_cost(np.array([[5, 4, 1]]), np.array([0, 1, 2, 0]), two_gpus, StepCost(expert=1, token=1)).tolist()
    [[1, 0, 1]]
    """
    jobs = cost.jobs(counts)
    by_number, _ = fewest_activated(counts > 0, phy2log, deployment)
    by_size = np.full(counts.shape, -1)
    held = np.zeros((deployment.num_experts, deployment.num_gpus), dtype=np.bool_)
    held[phy2log, np.arange(phy2log.size) // deployment.slots_per_gpu] = True
    _choose_all(jobs, _orders(jobs), held, by_size)
    costs = [step_costs(gpus, counts, phy2log, deployment, cost) for gpus in (by_number, by_size)]
    return np.asarray(np.where((costs[0] < costs[1])[:, None], by_number, by_size))


def plan_for_cost(
    counts: np.ndarray, deployment: Deployment, cost: StepCost, moves: int = 4000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Plan the map of a layer for a sample of steps: the mean of what the fullest GPU of a step pays is to be small.

    Parameters
    ----------
    counts : ndarray of int [steps, experts]
        Tokens of every step by expert.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    cost : StepCost
    moves : int, default 4000
        Moves that are tried, from the default planner's map of the summed counts.
    seed : int, default 0

    Returns
    -------
    tuple of ndarray
        The map, int64 [slots], and the GPU of every active expert in every step, as of :func:`choose_for_cost`.

    Raises
    ------
    InputError
        If an argument is not what it must be.
    """
    deployment.require_regular("a plan for decode steps")
    if moves < 0:
        raise InputError(f"moves is {moves}; at least 0 are needed")
    jobs = cost.jobs(counts)
    if counts.shape[1] != deployment.num_experts:
        raise InputError(f"counts has {counts.shape[1]} experts; the deployment has {deployment.num_experts}")
    start = rebalance(counts.sum(axis=0, dtype=np.int64)[None], deployment).phy2log[0]
    best, found = start, choose_for_cost(counts, start, deployment, cost)
    value = int(step_costs(found, counts, start, deployment, cost).sum())
    bound = int(step_cost_bounds(counts, deployment.num_gpus, cost).sum())
    if moves and value > bound:
        slots = start.copy()
        on_node, group = deployment.num_slots, deployment.num_experts
        if deployment.policy == "hierarchical":
            on_node, group = deployment.slots_per_node, deployment.experts_per_group
        distinct = deployment.duplicates == "forbidden"
        _anneal(jobs, _orders(jobs), slots, deployment.num_gpus, on_node, group, distinct, bound, moves, seed)
        gpus = choose_for_cost(counts, slots, deployment, cost)
        if step_costs(gpus, counts, slots, deployment, cost).sum() < value:
            best, found = slots, gpus
    return best, found


def _orders(jobs: np.ndarray) -> np.ndarray:
    """Return the experts of every step from the most expensive down, int64 [steps, experts]."""
    return np.argsort(-jobs, axis=1, kind="stable")


@entry
def _choose_all(jobs: np.ndarray, orders: np.ndarray, held: np.ndarray, gpus: np.ndarray) -> int:
    """Write a GPU for every job of every step, -1 where there is none, and return the sum of the fullest GPUs."""
    total = 0
    load = np.empty(held.shape[1], dtype=np.int64)
    for step in range(jobs.shape[0]):
        total += _choose(jobs[step], orders[step], held, load, gpus[step])
    return total


@kernel
def _choose(jobs: np.ndarray, order: np.ndarray, held: np.ndarray, load: np.ndarray, gpus: np.ndarray) -> int:
    """Write the GPUs of one step and return the load of the fullest."""
    num_gpus = held.shape[1]
    for g in range(num_gpus):
        load[g] = 0
    for e in order:
        gpus[e] = -1
        if jobs[e] > 0:
            for g in range(num_gpus):
                if held[e, g] and (gpus[e] < 0 or load[g] < load[gpus[e]]):
                    gpus[e] = g
            load[gpus[e]] += jobs[e]
    for _ in range(jobs.size):
        fullest = 0
        for g in range(num_gpus):
            if load[g] > load[fullest]:
                fullest = g
        if not _relieve(fullest, jobs, held, load, gpus):
            return int(load[fullest])
    return _largest(load)


@kernel
def _largest(load: np.ndarray) -> int:
    largest = 0
    for value in load:
        largest = max(largest, value)
    return largest


@kernel
def _relieve(fullest: int, jobs: np.ndarray, held: np.ndarray, load: np.ndarray, gpus: np.ndarray) -> bool:
    """Send a job of the fullest GPU away so that every GPU concerned stays below it; whether there is one."""
    num_gpus = held.shape[1]
    limit = load[fullest]
    for e in range(jobs.size):
        if gpus[e] == fullest:
            for g in range(num_gpus):
                if held[e, g] and load[g] + jobs[e] < limit:
                    gpus[e] = g
                    load[fullest] -= jobs[e]
                    load[g] += jobs[e]
                    return True
    for e in range(jobs.size):
        if gpus[e] != fullest:
            continue
        for g in range(num_gpus):
            if g == fullest or not held[e, g]:
                continue
            for other in range(jobs.size):
                if gpus[other] != g or load[g] + jobs[e] - jobs[other] >= limit:
                    continue
                for h in range(num_gpus):
                    after = load[h] + jobs[other] - (jobs[e] if h == fullest else 0)
                    if h != g and held[other, h] and after < limit:
                        gpus[e], gpus[other] = g, h
                        load[fullest] -= jobs[e]
                        load[g] += jobs[e] - jobs[other]
                        load[h] += jobs[other]
                        return True
    return False


@entry
def _anneal(
    jobs: np.ndarray,
    orders: np.ndarray,
    slots: np.ndarray,
    num_gpus: int,
    on_node: int,
    group: int,
    distinct: bool,
    bound: int,
    moves: int,
    seed: int,
) -> int:
    """Change a map, int64 [slots], to the best that is found, and return its cost; replicas stay among ``on_node`` slots."""
    seed_random(seed)
    k = slots.size // num_gpus
    experts = jobs.shape[1]
    copies = np.zeros((experts, num_gpus), dtype=np.int64)
    held = np.zeros((experts, num_gpus), dtype=np.bool_)
    counts = np.zeros(experts, dtype=np.int64)
    _count(slots, k, copies, held, counts)
    gpus = np.empty(jobs.shape, dtype=np.int64)
    value = best = _choose_all(jobs, orders, held, gpus)
    kept = slots.copy()
    hot, cold = HOTTEST * value, COLDEST * value
    regroupings = REGROUPINGS if on_node < slots.size else 0.0
    for move in range(moves):
        kind = random()
        one = below(slots.size)
        other = one // on_node * on_node + below(on_node)
        a, b, here, there = slots[one], slots[other], one // k, other // k
        if kind < regroupings:
            a, b = below(experts // group), below(experts // group)
            if a == b:
                continue
            _exchange(a, b, group, slots)
            _count(slots, k, copies, held, counts)
        else:
            replaces = kind < regroupings + TRANSFERS
            if a == b or (here == there and not replaces) or (replaces and counts[a] < 2):
                continue
            if distinct and (copies[b, here] or (not replaces and copies[a, there])):
                continue
            _put(one, b, k, slots, copies, held, counts)
            if not replaces:
                _put(other, a, k, slots, copies, held, counts)
        new = _choose_all(jobs, orders, held, gpus)
        if new <= value or random() < math.exp((value - new) / (hot * (cold / hot) ** (move / moves))):
            value = new
            if value < best:
                best = value
                for s in range(slots.size):
                    kept[s] = slots[s]
                if best <= bound:
                    break
        elif kind < regroupings:
            _exchange(a, b, group, slots)
            _count(slots, k, copies, held, counts)
        else:
            _put(one, a, k, slots, copies, held, counts)
            if kind >= regroupings + TRANSFERS:
                _put(other, b, k, slots, copies, held, counts)
    for s in range(slots.size):
        slots[s] = kept[s]
    return best


@kernel
def _put(slot: int, expert: int, k: int, slots: np.ndarray, copies: np.ndarray, held: np.ndarray, counts: np.ndarray) -> None:
    """Put an expert into a slot in place of the one that is there."""
    gone, g = slots[slot], slot // k
    slots[slot] = expert
    copies[gone, g] -= 1
    copies[expert, g] += 1
    counts[gone] -= 1
    counts[expert] += 1
    held[gone, g] = copies[gone, g] > 0
    held[expert, g] = True


@kernel
def _count(slots: np.ndarray, k: int, copies: np.ndarray, held: np.ndarray, counts: np.ndarray) -> None:
    """Write which GPUs hold which experts, how often, and how many replicas there are."""
    for e in range(counts.size):
        counts[e] = 0
        for g in range(copies.shape[1]):
            copies[e, g] = 0
            held[e, g] = False
    for s in range(slots.size):
        copies[slots[s], s // k] += 1
        held[slots[s], s // k] = True
        counts[slots[s]] += 1


@kernel
def _exchange(one: int, other: int, group: int, slots: np.ndarray) -> None:
    """Let two groups change places: the first expert of one is where that of the other was, and so on."""
    for s in range(slots.size):
        if slots[s] // group == one:
            slots[s] += (other - one) * group
        elif slots[s] // group == other:
            slots[s] += (one - other) * group
