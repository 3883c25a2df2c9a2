"""SGLang's ``deepseek_vec``, compiled: replicas by the largest load per replica of every recorded step, dealt in a snake.

An extra replica goes to the expert by which the sum over steps of the largest load per replica falls most; only an expert that is
the largest of some step can lower it. The original adds ``1e-4`` tokens per expert id to a load, but not to the relieved one, and
computes in float32; where that swallows the addition and two experts tie for the largest load, no replica helps and the first
expert of the node gets it. Sums over steps are added up in the order of torch.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import descending, entry, kernel
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

NUDGE = 1e-4
"""Tokens per expert id that keep loads apart."""
LEVELS, RUN = 4, 16
"""Of partial sums, and how many of one level make one of the next, for fewer than 2**19 steps."""


def plan(weight: np.ndarray, deployment: Deployment) -> Placement:
    """Plan on the steps of a history.

    Parameters
    ----------
    weight : ndarray [layers, experts] or [steps, layers, experts]
        Loads, of one step or of several, oldest first.
    deployment : Deployment
        Regular.

    Returns
    -------
    Placement
        Replica ranks are numbered in the order in which the replicas were handed out.
    """
    deployment.require_regular("sglang-vec")
    shape = deployment if deployment.policy == "hierarchical" else deployment.as_global()
    steps = np.ascontiguousarray(weight if weight.ndim == 3 else weight[None], dtype=np.float32)
    # The original sums integers under the global policy, float32 under the other.
    totals = np.ascontiguousarray(steps[0] if len(steps) == 1 else weight.sum(axis=0), dtype=np.float32)
    layers = steps.shape[1]
    phy2log, ranks = np.empty((2, layers, deployment.num_slots), np.int64)
    for layer in range(layers):
        own = np.ascontiguousarray(steps[:, layer])
        _plan_layer(own, totals[layer], shape.num_groups, shape.num_nodes, shape.num_gpus, phy2log[layer], ranks[layer])
    return Placement(phy2log, deployment.num_experts, ranks)


@entry
def _plan_layer(
    steps: np.ndarray,
    totals: np.ndarray,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    slots: np.ndarray,
    ranks: np.ndarray,
) -> None:
    """Write the map and the replica ranks, int64 [slots], of a layer with loads float32 [steps, experts] and their totals."""
    number, experts = steps.shape
    if num_nodes > 1:
        column = np.empty(number, np.float32)
        for e in range(experts):
            for t in range(number):
                column[t] = steps[t, e]
            totals[e] = _over_steps(column)
    by_node = _by_node(totals, num_groups, num_nodes)
    on_node, room, gpus = experts // num_nodes, slots.size // num_nodes, num_gpus // num_nodes
    held, rank, sizes = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
    loads, nudges = np.empty((number, on_node), np.float32), np.empty(on_node, np.float32)
    for node in range(num_nodes):
        own = by_node[node * on_node : (node + 1) * on_node]
        for i in range(on_node):
            nudges[i] = np.float32(node * on_node + i) * np.float32(NUDGE)
            for t in range(number):
                loads[t, i] = steps[t, own[i]]
        counts = _replicate(loads, nudges, held, rank)
        for r in range(room):
            sizes[r] = totals[own[held[r]]] / np.float32(counts[held[r]])
        order, k = descending(sizes), room // gpus
        for place in range(room):
            row, gpu = place // gpus, place % gpus
            if row % 2 == 1:
                gpu = gpus - 1 - gpu
            # With one slot per GPU replicas are not dealt at all.
            r = order[place] if k > 1 else place
            slots[node * room + gpu * k + row] = own[held[r]]
            ranks[node * room + gpu * k + row] = rank[r]


@kernel
def _by_node(totals: np.ndarray, num_groups: int, num_nodes: int) -> np.ndarray:
    """Return the experts node by node, groups in the order in which they came: the heaviest to the lightest node with room."""
    size, room = totals.size // num_groups, num_groups // num_nodes
    weights, loads = np.zeros(num_groups, np.float32), np.zeros(num_nodes, np.float32)
    filled = np.zeros(num_nodes, np.int64)
    for e in range(totals.size):
        weights[e // size] += totals[e]
    experts = np.empty(totals.size, np.int64)
    for group in descending(weights):
        best = -1
        for node in range(num_nodes):
            if filled[node] < room and (best < 0 or loads[node] < loads[best]):
                best = node
        start = (best * room + filled[best]) * size
        for i in range(size):
            experts[start + i] = group * size + i
        loads[best] += weights[group]
        filled[best] += 1
    return experts


@kernel
def _replicate(loads: np.ndarray, nudges: np.ndarray, held: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Write the expert and the number of every replica of a node, int64 [replicas]; return the counts, int64 [experts]."""
    steps, experts = loads.shape
    counts, score = np.ones(experts, np.int64), np.empty((steps, experts), np.float32)
    first, second = np.full(steps, -1), np.full(steps, -1)
    largest, after = np.empty(steps, np.float32), np.empty(steps, np.float32)
    asked = np.zeros(experts, np.int64)  # in which round an expert was looked at
    for e in range(experts):
        held[e], rank[e] = e, 0
        for t in range(steps):
            score[t, e] = loads[t, e] + nudges[e]
    chosen = -1
    for r in range(experts, held.size):
        for t in range(steps):
            if chosen < 0 or first[t] == chosen or second[t] == chosen:
                first[t], second[t] = _two_largest(score[t])
                largest[t] = score[t, first[t]]
                after[t] = loads[t, first[t]] / np.float32(counts[first[t]] + 1)
                if second[t] >= 0:
                    after[t] = max(after[t], score[t, second[t]])
        chosen, least = -1, np.float32(0)
        for t in range(steps):
            e = first[t]
            if asked[e] == r:
                continue
            asked[e] = r
            total = _relieved(largest, after, first, e)
            if chosen < 0 or total < least or (total == least and e < chosen):
                chosen, least = e, total
        # All experts that are nowhere the largest leave the sum as it is, the first of them takes precedence.
        idle = 0
        while idle < experts and asked[idle] == r:
            idle += 1
        if idle < experts:
            total = _relieved(largest, after, first, -1)
            if total < least or (total == least and idle < chosen):
                chosen = idle
        held[r], rank[r] = chosen, counts[chosen]
        counts[chosen] += 1
        for t in range(steps):
            score[t, chosen] = (loads[t, chosen] + nudges[chosen]) / np.float32(counts[chosen])
    return counts


@kernel
def _two_largest(values: np.ndarray) -> tuple[int, int]:
    """Return the places of the largest value and of the next one, -1 without one; the first of equals."""
    first, second = 0, -1
    for i in range(1, values.size):
        if values[i] > values[first]:
            first, second = i, first
        elif second < 0 or values[i] > values[second]:
            second = i
    return first, second


@kernel
def _relieved(largest: np.ndarray, after: np.ndarray, first: np.ndarray, expert: int) -> np.float32:
    """Return the sum over steps of the largest load per replica after one more replica of an expert."""
    values = np.empty(first.size, np.float32)
    for t in range(first.size):
        values[t] = after[t] if first[t] == expert else largest[t]
    return _over_steps(values)


@kernel
def _over_steps(values: np.ndarray) -> np.float32:
    """Return the sum of float32 values: of runs, of runs of runs and so on, and what is left over last."""
    partial, n = np.zeros(LEVELS, np.float32), values.size
    for i in range(n - n % RUN):
        partial[0] += values[i]
        unit, level = RUN, 1
        while level < LEVELS and (i + 1) % unit == 0:
            partial[level] += partial[level - 1]
            partial[level - 1] = 0
            unit *= RUN
            level += 1
    for i in range(n - n % RUN, n):
        partial[0] += values[i]
    for level in range(1, LEVELS):
        partial[0] += partial[level]
    return np.float32(partial[0])
