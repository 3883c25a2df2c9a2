"""Sample-average placement, exactly: one map for all windows of a history, and lower bounds on what it can reach.

The value of a map is the mean over windows of its makespan. The bounds hold for every map:

* *windows*: every window costs at least its own best joint bound;
* *groups*: under the hierarchical policy one partition of the groups serves all windows, and a window costs at least the mean
  GPU load of its fullest node and its own joint bound; the best of all partitions is a bound;
* *sum*: the mean of maxima is at least the maximum of the means, so the joint bound of the summed windows over their number;
* *counts*: where few partitions and count vectors are possible, each of them is bounded alone, window by window and in sum, by
  what holds for given counts; the best of all is a bound;
* *shares*: one count vector serves all windows. A window costs at least any weighted mean of its mean load and its replica
  loads, and the sum of such means over the windows is ``b + sum_e a_e / c_e``, whose smallest value over all integer counts
  marginal analysis finds. Any weights prove a bound; they are the witness.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound, lifted_bound
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

MAX_PARTITIONS = 3_000
MAX_VECTORS = 2_000
"""Partitions times count vectors that are bounded one by one."""
ASCENT_STEPS = 400
SHARE_UNIT = 2**20
"""Weights are multiples of its inverse."""


def sample_average_makespan(placement: Placement, history: Any, deployment: Deployment) -> list[Fraction]:
    """Check that a placement is legal and return its exact mean makespan over the windows, layer by layer.

    Parameters
    ----------
    placement : Placement
        One map for all windows.
    history : array_like of int [windows, layers, experts]
    deployment : Deployment

    Returns
    -------
    list of Fraction
        Mean over windows of the largest GPU load of every layer, in tokens.

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.problem.verify`.
    """
    windows = [verify(placement, window, deployment) for window in as_loads(history, "history", 3)]
    return [sum(layer, Fraction(0)) / len(windows) for layer in zip(*windows, strict=True)]


def sample_average_bound(history: Any, deployment: Deployment, ascend: bool = True) -> Bound:
    """Return the strongest of the bounds on the mean makespan of one layer; the simpler one wins ties.

    Parameters
    ----------
    history : array_like of int [windows, experts]
        Of one layer.
    deployment : Deployment
        Its hierarchical maps are global maps too, so the bounds hold for them. Dead GPUs serve nothing.
    ascend : bool, default True
        Whether weights are looked for, which takes a tenth of a second for ten windows of 256 experts.

    Returns
    -------
    Bound
        Of kind "windows", "groups", "sum", "counts" or "shares".
    """
    checked = as_loads(history, "history", 2)
    windows = [Instance.of_layer(window, deployment) for window in checked]
    number = len(windows)
    sums = tuple(sum(loads) for loads in zip(*(w.loads for w in windows), strict=True))
    first = windows[0]
    summed = Instance(sums, first.num_slots, first.num_gpus, first.duplicates, first.slots_by_gpu)
    floors = [best_joint_bound(window).value for window in windows]
    own = Bound(sum(floors, Fraction(0)) / number, "windows")
    grouped = Bound(groups_value(checked, deployment, floors), "groups")
    joint = Bound(best_joint_bound(summed).value / number, "sum")
    listed = counts_value(checked, deployment)
    each = [] if listed is None else [Bound(listed, "counts")]
    if ascend:
        shares = ascend_shares(checked, deployment)
        each.append(Bound(shares_value(windows, shares), "shares", {"shares": shares, "unit": SHARE_UNIT}))
    return max(own, grouped, joint, *each, key=lambda bound: bound.value)


def groups_value(history: np.ndarray, deployment: Deployment, floors: Sequence[Fraction]) -> Fraction:
    """Return the smallest mean over windows of the fullest node's mean GPU load, or the window's floor where that is larger.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment
        Under the global policy, or with more than :data:`MAX_PARTITIONS` partitions, the floors alone are averaged.
    floors : sequence of Fraction
        A lower bound on every window's makespan.
    """
    nodes, per_node = deployment.num_nodes, deployment.groups_per_node
    if deployment.policy == "global" or num_partitions(deployment.num_groups, nodes) > MAX_PARTITIONS:
        return sum(floors, Fraction(0)) / len(floors)
    sums = history.reshape(len(history), deployment.num_groups, -1).sum(axis=2, dtype=object)
    values = []
    for partition in partitions(tuple(range(deployment.num_groups)), per_node):
        fullest = [max(sum(window[group] for group in node) for node in partition) for window in sums]
        loads = [Fraction(load, deployment.gpus_per_node) for load in fullest]
        values.append(sum(map(max, loads, floors), Fraction(0)))
    return min(values) / len(floors)


def counts_value(history: np.ndarray, deployment: Deployment) -> Fraction | None:
    """Return the smallest bound of all partitions and count vectors, each for itself; None where there are too many.

    For given counts a window costs at least the lifted bound of its fullest node, and all windows together at least that of their
    sum.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment
        With equally many slots on all live GPUs; otherwise None is returned.
    """
    live = deployment.live
    nodes = live.num_nodes if live.policy == "hierarchical" else 1
    groups = live.num_groups if nodes > 1 else 1
    if live.unequal_slots or num_partitions(groups, nodes) > MAX_VECTORS:
        return None
    gpus, slots, size = live.num_gpus // nodes, live.num_slots // nodes, live.num_experts // groups
    vectors = _count_vectors(live.num_experts // nodes, slots, gpus if live.duplicates == "forbidden" else slots)
    homes = list(partitions(tuple(range(groups)), groups // nodes))
    if vectors is None or len(homes) * len(vectors) ** nodes > MAX_VECTORS:
        return None
    rows = [*history.tolist(), history.sum(axis=0, dtype=object).tolist()]
    values: list[Fraction] = []
    for home in homes:
        of_nodes = []
        for node in home:
            experts = [group * size + e for group in node for e in range(size)]
            of_nodes.append([[_lifted([row[e] for e in experts], counts, gpus) for row in rows] for counts in vectors])
        for chosen in itertools.product(*of_nodes):
            *windows, together = map(max, zip(*chosen, strict=True))
            values.append(max(sum(windows, Fraction(0)), together))
    return min(values) / len(history)


def _lifted(loads: Sequence[int], counts: Sequence[int], gpus: int) -> Fraction:
    return lifted_bound([Fraction(w, c) for w, c in zip(loads, counts, strict=True) for _ in range(c)], gpus)


def _count_vectors(experts: int, slots: int, most: int) -> list[tuple[int, ...]] | None:
    """Return all counts from 1 to ``most`` that fill the slots; None where there may be too many."""
    spare = slots - experts
    if math.comb(spare + experts - 1, spare) > MAX_VECTORS:
        return None
    found: list[tuple[int, ...]] = []
    for chosen in itertools.combinations_with_replacement(range(experts), spare):
        counts = [1] * experts
        for e in chosen:
            counts[e] += 1
        if max(counts) <= most:
            found.append(tuple(counts))
    return found


def shares_value(windows: Sequence[Instance], shares: Sequence[Sequence[int]]) -> Fraction:
    """Return the bound that weights prove, in exact arithmetic.

    Parameters
    ----------
    windows : sequence of Instance
        Windows of one layer: the same experts, slots and GPUs.
    shares : sequence of sequence of int [windows, experts + 1]
        Non-negative, of sum :data:`SHARE_UNIT` in every window; the last weighs the mean GPU load, the others the replicas.

    Raises
    ------
    InputError
        If the shares are not as described.
    """
    experts = windows[0].num_experts
    for row in shares:
        if len(row) != experts + 1 or min(row) < 0 or sum(row) != SHARE_UNIT:
            raise InputError(
                f"a window's shares are {len(row)} with sum {sum(row)}; {experts + 1} with sum {SHARE_UNIT} are needed"
            )
    pairs = list(zip(windows, shares, strict=True))
    constant = sum((window.mean * row[experts] for window, row in pairs), Fraction(0))
    weights = [sum(window.loads[e] * row[e] for window, row in pairs) for e in range(experts)]
    return (constant + _least_sum(weights, windows[0])) / (SHARE_UNIT * len(windows))


def _least_sum(weights: Sequence[int], shape: Instance) -> Fraction:
    """Return the smallest ``sum_e a_e / c_e`` of all counts: the terms are convex, so the best next replica is always right."""
    counts = [1] * len(weights)
    queue = [(-Fraction(a, 2), e) for e, a in enumerate(weights)] if shape.max_count > 1 else []
    heapq.heapify(queue)
    for _ in range(min(shape.num_slots - len(weights), len(weights) * (shape.max_count - 1))):
        _, e = heapq.heappop(queue)
        counts[e] += 1
        if counts[e] < shape.max_count:
            heapq.heappush(queue, (-Fraction(weights[e], counts[e] * (counts[e] + 1)), e))
    return sum((Fraction(a, c) for a, c in zip(weights, counts, strict=True)), Fraction(0))


def ascend_shares(history: np.ndarray, deployment: Deployment) -> list[list[int]]:
    """Return weights that prove a good bound, by exponentiated supergradient steps in floating point.

    The bound is concave in the weights; at any weights the loads of the best counts are a supergradient.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment

    Returns
    -------
    list of list of int [windows, experts + 1]
        As :func:`shares_value` wants them.
    """
    loads = history.astype(np.float64)
    experts = loads.shape[1]
    shape = Instance.of_layer(history[0], deployment)
    means = loads.sum(axis=1) / shape.num_gpus
    scale = max(float(means.max()), 1e-300)
    terms = np.concatenate([loads, means[:, None]], axis=1) / scale
    logs = np.zeros_like(terms)
    best, best_value = np.full_like(terms, 1.0 / (experts + 1)), -np.inf
    for step in range(ASCENT_STEPS):
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        counts = _best_counts((shares * terms)[:, :-1].sum(axis=0), shape.num_slots, shape.max_count)
        gains = np.concatenate([terms[:, :-1] / counts, terms[:, -1:]], axis=1)
        value = float((shares * gains).sum())
        if value > best_value:
            best, best_value = shares, value
        logs += gains * (8.0 / (1.0 + step) ** 0.5)
    rounded = np.floor(best * SHARE_UNIT).astype(np.int64)
    rounded[:, -1] += SHARE_UNIT - rounded.sum(axis=1)
    return [[int(share) for share in row] for row in rounded]


def _best_counts(weights: np.ndarray, num_slots: int, most: int) -> np.ndarray:
    """Return counts that minimise ``sum_e a_e / c_e`` in floating point, int64 [experts]: the largest gains, one replica each."""
    experts = weights.size
    extra = min(num_slots - experts, experts * (most - 1))
    steps = np.arange(1, min(most, extra + 1))
    if not steps.size:
        return np.ones(experts, dtype=np.int64)
    gains = weights[:, None] / (steps * (steps + 1))
    taken = np.argsort(-gains, axis=None, kind="stable")[:extra] // steps.size
    return 1 + np.bincount(taken, minlength=experts)
