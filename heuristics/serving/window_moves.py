"""A new map within a number of moves for many windows at once: from the map in use by the steps that gain most for each move.

What :func:`eplb_gap.heuristics.moves.migration.replan` does for one window of loads, for the sum of the windows' makespans. A
step exchanges two replicas or gives a slot to another expert, counts as one move at least, and must relieve a GPU that is the
fullest of some window. Every layer's path gives a front of moves against its sum; the moves of all layers are divided over the
fronts exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import copy, entry, kernel
from eplb_gap.heuristics.moves.move_budget import divide_moves, fronts_of
from eplb_gap.heuristics.moves.relabel import replica_ranks
from eplb_gap.heuristics.serving.window_descent import LEAST_GAIN, is_met, load_without, rank_gpus
from eplb_gap.heuristics.serving.window_packing import total_makespan
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check

SHARES = 2
"""A layer is searched to so many times its equal share of the moves, and :data:`MORE` more."""
MORE = 4


def replan_windows(history: Any, deployment: Deployment, previous: Placement, total_moves: int) -> Placement:
    """Return the best map found that the map in use can become within a number of moves, for all windows of a history.

    Parameters
    ----------
    history : array_like of int [windows, layers, experts]
    deployment : Deployment
        All GPUs alive with equally many slots.
    previous : Placement
        The map in use. Groups stay on its nodes.
    total_moves : int
        Most moves of all layers together.

    Returns
    -------
    Placement
        No worse than the map in use; without new duplicates on a GPU.

    Raises
    ------
    InputError
        If the history is not of integers or the deployment is not regular.
    PlacementError
        If the map in use is not legal.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement
    >>> in_use = Placement([[0, 1, 2, 3]], 4)
    >>> replan_windows([[[9, 8, 2, 1]], [[8, 9, 1, 2]]], Deployment(4, 4, 2), in_use, 2).phy2log.tolist()
    [[2, 1, 0, 3]]
    """
    loads = as_loads(history, "history", 3)
    deployment.require_regular("a new map for several windows")
    check(previous, deployment)
    layers, slots = previous.phy2log.shape
    most = min(total_moves, SHARES * total_moves // layers + MORE, slots)
    values = np.full((layers, most + 1), np.inf)
    maps = np.empty((layers, most + 1, slots), np.int64)
    nodes = deployment.num_nodes if deployment.policy == "hierarchical" else 1
    weights = np.ascontiguousarray(loads.transpose(1, 2, 0), dtype=np.float64)
    _walk_layers(weights, previous.phy2log.astype(np.int64), nodes, deployment.num_gpus, values, maps)
    fronts = fronts_of(values, np.ones(layers), 0.0)
    points, _ = divide_moves(fronts, total_moves)
    rows = np.arange(layers)
    found = maps[rows, fronts.moves[rows, points]]
    return Placement(found, previous.num_experts, replica_ranks(found, previous.num_experts))


@entry
def _walk_layers(weights: np.ndarray, in_use: np.ndarray, nodes: int, gpus: int, values: np.ndarray, maps: np.ndarray) -> None:
    """Walk from every layer's map: float64 [layers, experts, windows], int64 [layers, slots].

    Writes the least sum of makespans found for every number of moves, float64 [layers, moves], and its map.
    """
    for layer in range(in_use.shape[0]):
        _walk(weights[layer], in_use[layer], nodes, gpus, values[layer], maps[layer])


@kernel
def _walk(weights: np.ndarray, in_use: np.ndarray, nodes: int, gpus: int, values: np.ndarray, maps: np.ndarray) -> None:
    experts, windows = weights.shape
    items = in_use.copy()
    k, per_node, most = items.size // gpus, gpus // nodes, values.size - 1
    counts, sizes = np.zeros(experts, np.int64), np.empty((experts, windows))
    held, before = np.zeros((experts, gpus), np.int64), np.zeros((experts, gpus), np.int64)
    for slot in range(items.size):
        counts[items[slot]] += 1
        held[items[slot], slot // k] += 1
        before[items[slot], slot // k] += 1
    loads, changed = np.zeros((gpus, windows)), np.empty((gpus, windows))
    top, touched, is_touched = np.empty((windows, 3), np.int64), np.empty(gpus, np.int64), np.zeros(gpus, np.bool_)
    hot = np.empty(experts, np.bool_)
    _sum_up(weights, counts, items, sizes, loads)
    moves, value = 0, total_makespan(loads)
    values[0] = value
    copy(items, maps[0])
    for _ in range(2 * values.size):
        rank_gpus(loads, top)
        for e in range(experts):
            hot[e] = False
            for t in range(windows):
                hot[e] |= held[e, top[t, 0]] > 0
        best_rate, best_cost, one, other, given = 0.0, 0, -1, -1, -1
        for t in range(windows):
            if is_met(top, t):
                continue
            full = top[t, 0]
            begin, end = full // per_node * per_node * k, (full // per_node + 1) * per_node * k
            for slot in range(begin, end):
                gpu, d = slot // k, items[slot]
                if slot % k == 0:
                    # No exchange can bring the pair below its own mean.
                    bound = 0.0
                    for s in range(windows):
                        bound += max(load_without(loads, top, s, full, gpu), 0.5 * (loads[full, s] + loads[gpu, s]))
                if gpu == full or held[d, full] > 0 or not bound < value - best_rate:
                    continue
                for own in range(full * k, full * k + k):
                    e = items[own]
                    if held[e, gpu] > 0:
                        continue
                    cost = _arrives(held, before, d, full) + _arrives(held, before, e, gpu)
                    cost -= _left(held, before, e, full) + _left(held, before, d, gpu)
                    if moves + cost > most:
                        continue
                    least = (value - best_rate * max(cost, 1)) * (1.0 - LEAST_GAIN)
                    total = 0.0
                    for s in range(windows):
                        moved = sizes[e, s] - sizes[d, s]
                        total += max(load_without(loads, top, s, full, gpu), max(loads[full, s] - moved, loads[gpu, s] + moved))
                        if total >= least:
                            break
                    if total < least:
                        best_rate, best_cost = (value - total) / max(cost, 1), cost
                        one, other, given = own, slot, -1
            for slot in range(begin, end):
                gpu, d = slot // k, items[slot]
                if counts[d] == 1:
                    continue
                for e in range(experts):
                    # The full GPU is relieved if it gives the replica or holds one of the expert that gets the slot.
                    if not hot[e] or held[e, gpu] > 0 or not (gpu == full or held[e, full] > 0):
                        continue
                    if not _on_node(held, e, full, per_node):
                        continue
                    cost = _arrives(held, before, e, gpu) - _left(held, before, d, gpu)
                    if moves + cost > most:
                        continue
                    least = (value - best_rate * max(cost, 1)) * (1.0 - LEAST_GAIN)
                    total = _handed(
                        weights, counts, sizes, held, loads, top, gpu, d, e, per_node, touched, is_touched, changed, least
                    )
                    if total < least:
                        best_rate, best_cost = (value - total) / max(cost, 1), cost
                        one, other, given = slot, -1, e
        if one < 0:
            return
        e, gpu = items[one], one // k
        held[e, gpu] -= 1
        if given >= 0:
            counts[e] -= 1
            counts[given] += 1
            held[given, gpu] += 1
            items[one] = given
        else:
            d = items[other]
            held[d, gpu] += 1
            held[d, other // k] -= 1
            held[e, other // k] += 1
            items[one], items[other] = d, e
        moves += best_cost
        _sum_up(weights, counts, items, sizes, loads)
        value = total_makespan(loads)
        if value < values[moves]:
            values[moves] = value
            copy(items, maps[moves])


@kernel
def _sum_up(weights: np.ndarray, counts: np.ndarray, items: np.ndarray, sizes: np.ndarray, loads: np.ndarray) -> None:
    """Compute the sizes of replicas and the loads of GPUs anew."""
    gpus, windows = loads.shape
    k = items.size // gpus
    for e in range(counts.size):
        for t in range(windows):
            sizes[e, t] = weights[e, t] / counts[e]
    for gpu in range(gpus):
        for t in range(windows):
            loads[gpu, t] = 0.0
        for slot in range(gpu * k, gpu * k + k):
            for t in range(windows):
                loads[gpu, t] += sizes[items[slot], t]


@kernel
def _arrives(held: np.ndarray, before: np.ndarray, expert: int, gpu: int) -> int:
    """Return the moves that one more replica of an expert on a GPU makes."""
    return int(held[expert, gpu] >= before[expert, gpu])


@kernel
def _left(held: np.ndarray, before: np.ndarray, expert: int, gpu: int) -> int:
    """Return the moves that one fewer saves."""
    return int(held[expert, gpu] > before[expert, gpu])


@kernel
def _on_node(held: np.ndarray, expert: int, gpu: int, per_node: int) -> bool:
    """Whether an expert is on a GPU's node."""
    first = gpu // per_node * per_node
    for other in range(first, first + per_node):  # noqa: SIM110 - any() over a generator does not compile
        if held[expert, other] > 0:
            return True
    return False


@kernel
def _handed(
    weights: np.ndarray, counts: np.ndarray, sizes: np.ndarray, held: np.ndarray, loads: np.ndarray, top: np.ndarray, gpu: int,
    old: int, new: int, per_node: int, touched: np.ndarray, is_touched: np.ndarray, changed: np.ndarray, least: float,
) -> float:  # fmt: skip
    """Return the sum of makespans if a replica on a GPU is given to another expert, or anything from ``least`` on."""
    windows = loads.shape[1]
    first = gpu // per_node * per_node
    up, down, number = 1.0 / (counts[old] - 1), 1.0 / (counts[new] + 1), 0
    for other in range(first, first + per_node):
        of_old, of_new = held[old, other], held[new, other]
        if of_old == 0 and of_new == 0:
            continue
        left, right = of_old - int(other == gpu), of_new + int(other == gpu)
        for t in range(windows):
            grown = left * weights[old, t] * up - of_old * sizes[old, t]
            changed[number, t] = loads[other, t] + grown + right * weights[new, t] * down - of_new * sizes[new, t]
        touched[number], is_touched[other] = other, True
        number += 1
    total = 0.0
    for t in range(windows):
        highest, known = 0.0, False
        for place in range(3):
            if top[t, place] >= 0 and not is_touched[top[t, place]]:
                highest, known = loads[top[t, place], t], True
                break
        if not known:
            for other in range(loads.shape[0]):
                if not is_touched[other]:
                    highest = max(highest, loads[other, t])
        for place in range(number):
            highest = max(highest, changed[place, t])
        total += highest
        if total >= least:
            break
    for place in range(number):
        is_touched[touched[place]] = False
    return total
