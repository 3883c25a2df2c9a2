"""Sample-average placement, exactly: one map for all windows of a history, and lower bounds on what it can reach.

The value of a map is the mean over windows of its makespan. The bounds hold for every map:

* *windows*: every window costs at least its own best joint bound;
* *groups*: under the hierarchical policy one partition of the groups serves all windows, and a window costs at least the mean
  GPU load of its fullest node and its own joint bound; the best of all partitions is a bound;
* *sum*: the mean of maxima is at least the maximum of the means, so the joint bound of the summed windows over their number;
* *counts*: where few partitions and count vectors are possible, each of them is bounded alone, window by window and in sum, by
  what holds for given counts; the best of all is a bound;
* *maps*: where few maps are possible, all of them are listed; the best is the optimum;
* *shares*: one count vector serves all windows. A window costs at least any weighted mean of its mean load and its replica
  loads, and the sum of such means over the windows is ``b + sum_e a_e / c_e``, whose smallest value over all integer counts
  marginal analysis finds. Any weights prove a bound; they are the witness.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound, lifted_bound
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import SAFE_INT64, verify

MAX_PARTITIONS = 3_000
MAX_VECTORS = 2_000
"""Partitions times count vectors that are bounded one by one."""
MAX_ONE_NODE = 8_000
"""Count vectors of one node, few of which need more than a look."""
MAX_CONTENTS = 2_000
"""Contents of one GPU that are listed."""
MAX_MAPS = 40_000
"""Choices of GPU contents that are listed, of a node and of all nodes together."""
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


def sample_average_bound(history: Any, deployment: Deployment, ascend: bool = True, listing: bool = True) -> Bound:
    """Return the strongest of the bounds on the mean makespan of one layer; the simpler one wins ties.

    Parameters
    ----------
    history : array_like of int [windows, experts]
        Of one layer.
    deployment : Deployment
        Its hierarchical maps are global maps too, so the bounds hold for them. Dead GPUs serve nothing.
    ascend : bool, default True
        Whether weights are looked for, which takes a tenth of a second for ten windows of 256 experts.
    listing : bool, default True
        Whether maps, or else count vectors, are listed where they are few; without, nothing is proven by enumeration.

    Returns
    -------
    Bound
        Of kind "windows", "groups", "sum", "maps", "counts" or "shares".
    """
    checked = as_loads(history, "history", 2)
    floors = _floors(checked, deployment)
    return _strongest(checked, deployment, floors, ascend, listing)


def interval_bounds(history: Any, deployment: Deployment) -> tuple[Fraction, Fraction]:
    """Return bounds on the mean makespan of one layer with a map of its own for every window, and with one map for all.

    No weights are looked for: they gain nothing where no expert outweighs a GPU's mean load, and take most of the time. For the
    same reason no counts are listed for single windows.

    Parameters
    ----------
    history : array_like of int [windows, experts]
        Of one layer.
    deployment : Deployment

    Returns
    -------
    own, together : Fraction
        The first is never the larger.
    """
    checked = as_loads(history, "history", 2)
    floors = _floors(checked, deployment)
    alone = []
    for window, floor in zip(checked, floors, strict=True):
        listed = maps_value(window[None], deployment)
        alone.append(groups_value(window[None], deployment, [floor]) if listed is None else listed)
    own = _windows_value(alone)
    return own, max(own, _strongest(checked, deployment, floors, False, True).value)


def _floors(history: np.ndarray, deployment: Deployment) -> list[Fraction]:
    """Return the best joint bound of every window, whatever the nodes; int64 [windows, experts]."""
    return [best_joint_bound(Instance.of_layer(window, deployment)).value for window in history]


def _strongest(history: np.ndarray, deployment: Deployment, floors: list[Fraction], ascend: bool, listing: bool) -> Bound:
    number = len(history)
    found = [Bound(_windows_value(floors), "windows"), Bound(groups_value(history, deployment, floors), "groups")]
    if number > 1:
        found.append(Bound(_sum_value(history, deployment), "sum"))
    listed = maps_value(history, deployment) if listing else None
    if listed is not None:
        found.append(Bound(listed, "maps"))
        return max(found, key=lambda bound: bound.value)
    vectors = counts_value(history, deployment) if listing else None
    if vectors is not None:
        found.append(Bound(vectors, "counts"))
    if ascend:
        windows = [Instance.of_layer(window, deployment) for window in history]
        shares = ascend_shares(history, deployment)
        found.append(Bound(shares_value(windows, shares), "shares", {"shares": shares, "unit": SHARE_UNIT}))
    return max(found, key=lambda bound: bound.value)


def _windows_value(floors: Sequence[Fraction]) -> Fraction:
    """Return the mean of lower bounds on every window's makespan."""
    return sum(floors, Fraction(0)) / len(floors)


def _sum_value(history: np.ndarray, deployment: Deployment) -> Fraction:
    """Return the best joint bound of the summed windows over their number; int64 [windows, experts]."""
    first = Instance.of_layer(history[0], deployment)
    sums = tuple(int(load) for load in history.sum(axis=0, dtype=object))
    summed = Instance(sums, first.num_slots, first.num_gpus, first.duplicates, first.slots_by_gpu)
    return best_joint_bound(summed).value / len(history)


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
    nodes = deployment.num_nodes
    if deployment.policy == "global" or num_partitions(deployment.num_groups, nodes) > MAX_PARTITIONS:
        return _windows_value(floors)
    sums = history.reshape(len(history), deployment.num_groups, -1).sum(axis=2, dtype=object)
    # In integers over one denominator: floors count as what a node's load would be with them on all its GPUs.
    below = math.lcm(*(floor.denominator for floor in floors))
    least = [int(floor * below * deployment.gpus_per_node) for floor in floors]
    largest = max(max(int(total) for total in sums.sum(axis=1)) * below, *least)
    kind: type = np.int64 if largest * len(floors) < SAFE_INT64 else object
    scaled = sums.astype(kind) * below
    nodewise = scaled[:, _homes(deployment.num_groups, nodes)].sum(axis=3)
    fullest = np.maximum(nodewise.max(axis=2), np.array(least, dtype=kind)[:, None])
    return Fraction(int(fullest.sum(axis=0).min()), below * deployment.gpus_per_node * len(floors))


@cache
def _homes(groups: int, nodes: int) -> np.ndarray:
    """Return the groups of every node in all partitions, int64 [partitions, nodes, groups of a node]."""
    return np.array(list(partitions(tuple(range(groups)), groups // nodes)))


def _nodes_and_groups(deployment: Deployment) -> tuple[int, int] | None:
    """Return the nodes of a map and their groups, 1 and 1 under the global policy; None where there are too many to list."""
    live = deployment.live
    nodes = live.num_nodes if live.policy == "hierarchical" else 1
    groups = live.num_groups if nodes > 1 else 1
    return None if live.unequal_slots or num_partitions(groups, nodes) > MAX_VECTORS else (nodes, groups)


def maps_value(history: np.ndarray, deployment: Deployment) -> Fraction | None:
    """Return the optimum, by listing all maps; None where there are more than :data:`MAX_MAPS`.

    GPUs of a node are alike, so every choice of their contents is met once. Makespans are integers over the least common
    multiple of all counts.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment
        With equally many slots on all live GPUs; otherwise None is returned.
    """
    live, shape = deployment.live, _nodes_and_groups(deployment)
    if shape is None:
        return None
    nodes, groups = shape
    experts, size = live.num_experts // nodes, live.num_experts // groups
    held = _contents(experts, live.num_slots // nodes, live.num_gpus // nodes, live.duplicates == "forbidden")
    homes = _homes(groups, nodes)
    if held is None or len(homes) * nodes * len(held) > MAX_MAPS:
        return None
    counts = held.sum(axis=1, dtype=np.int64)
    multiple = math.lcm(*range(1, int(counts.max()) + 1))
    kind: type = np.int64 if multiple * int(history.sum(dtype=object)) < SAFE_INT64 else object
    sizes = held.astype(kind) * (multiple // counts)[:, None]
    loads: np.ndarray = history.astype(kind)
    values = []
    for home in homes:
        together: np.ndarray = np.zeros((1, len(history)), dtype=kind)
        for node in home:
            own = loads[:, (node[:, None] * size + np.arange(size)).ravel()]
            makespans = np.tensordot(sizes, own, axes=(2, 1)).max(axis=1)
            if kind is np.int64:  # objects have no order of rows
                makespans = np.unique(makespans, axis=0)
            if len(together) * len(makespans) > MAX_MAPS:
                return None
            together = np.maximum(together[:, None], makespans).reshape(-1, len(history))
        values.append(int(together.sum(axis=1).min()))
    return Fraction(min(values), multiple * len(history))


@cache
def _gpu_contents(experts: int, k: int, distinct: bool) -> np.ndarray | None:
    """Return how many replicas of every expert a GPU of k slots can hold, int64 [contents, experts]; None if too many."""
    if (math.comb(experts, k) if distinct else math.comb(experts + k - 1, k)) > MAX_CONTENTS:
        return None
    ways = itertools.combinations if distinct else itertools.combinations_with_replacement
    return np.array([np.bincount(chosen, minlength=experts) for chosen in ways(range(experts), k)])


@cache
def _contents(experts: int, slots: int, gpus: int, distinct: bool) -> np.ndarray | None:
    """Return how many replicas of every expert every GPU holds in all maps, int8 [maps, gpus, experts]; None if too many."""
    of_gpu = _gpu_contents(experts, slots // gpus, distinct)
    if of_gpu is None or math.comb(len(of_gpu) + gpus - 1, gpus) > MAX_MAPS or of_gpu.max() > np.iinfo(np.int8).max:
        return None
    held = of_gpu.astype(np.int8)[np.array(list(itertools.combinations_with_replacement(range(len(of_gpu)), gpus)))]
    covering: np.ndarray = held[(held.max(axis=1) > 0).all(axis=1)]
    return covering


def counts_value(history: np.ndarray, deployment: Deployment) -> Fraction | None:
    """Return the smallest bound of all partitions and count vectors, each for itself; None where there are too many.

    For given counts a window costs at least the lifted bound of its fullest node, and all windows together at least that of their
    sum. On one node every expert is on some GPU, whose content costs as well (:func:`_beside`).

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment
        With equally many slots on all live GPUs; otherwise None is returned.
    """
    live, shape = deployment.live, _nodes_and_groups(deployment)
    if shape is None:
        return None
    nodes, groups = shape
    gpus, slots, size = live.num_gpus // nodes, live.num_slots // nodes, live.num_experts // groups
    vectors = _count_vectors(live.num_experts // nodes, slots, gpus if live.duplicates == "forbidden" else slots)
    homes = list(partitions(tuple(range(groups)), groups // nodes))
    if vectors is None or len(homes) * len(vectors) ** nodes > (MAX_ONE_NODE if nodes == 1 else MAX_VECTORS):
        return None
    rows = [*history.tolist(), history.sum(axis=0, dtype=object).tolist()]
    if nodes == 1:
        contents = None if gpus == 1 else _gpu_contents(size, slots // gpus, live.duplicates == "forbidden")
        return _least_of_counts(history, rows, vectors, gpus, contents) / len(history)
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


def _least_of_counts(
    history: np.ndarray,
    rows: list[list[int]],
    vectors: list[tuple[int, ...]],
    gpus: int,
    contents: np.ndarray | None,
) -> Fraction:
    """Return the smallest bound of all counts on one node; what mean and largest replica already put above it is passed over."""
    given = np.array(vectors)
    multiple = math.lcm(*range(1, int(given.max()) + 1))
    largest = multiple * gpus * int(history.sum(dtype=object))
    loads: np.ndarray = history.astype(np.int64 if largest < SAFE_INT64 else object)
    replicas = ((multiple // given)[:, None] * loads).max(axis=2)
    simple = np.maximum(replicas * gpus, loads.sum(axis=1) * multiple).sum(axis=1)
    best: Fraction | None = None
    for number in np.argsort(simple, kind="stable").tolist():
        if best is not None and Fraction(int(simple[number]), multiple * gpus) >= best:
            break
        counts = vectors[number]
        *windows, together = (_lifted(row, counts, gpus) for row in rows)
        value = max(sum(windows, Fraction(0)), together)
        if contents is not None and (best is None or value < best):
            value = max(value, _beside(history, counts, gpus, contents, windows))
        best = value if best is None else min(best, value)
    assert best is not None  # there are counts
    return best


def _beside(history: np.ndarray, counts: Sequence[int], gpus: int, contents: np.ndarray, floors: Sequence[Fraction]) -> Fraction:
    """Return, for given counts, what all windows cost together: the largest over experts of their GPU's cheapest content.

    A window costs at least the load of that GPU, the mean load of the others, and its own floor.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    counts : sequence of int [experts]
    gpus : int
        At least 2.
    contents : ndarray
        Replicas of every expert in all contents of a GPU, int64 [contents, experts].
    floors : sequence of Fraction [windows]
        Lifted bounds of the windows for these counts.
    """
    multiple, parts = math.lcm(*counts), math.lcm(*range(1, gpus + 1))  # of these all sizes, means and floors are integers
    largest = multiple * parts * int(history.sum(dtype=object))
    kind: type = np.int64 if largest < SAFE_INT64 else object
    possible: np.ndarray = contents[(contents <= np.array(counts)).all(axis=1)].astype(kind)
    sizes: np.ndarray = history.T.astype(kind) * (multiple * parts // np.array(counts))[:, None].astype(kind)
    loads = possible @ sizes
    others = (multiple * parts * history.sum(axis=1, dtype=object).astype(kind) - loads) // (gpus - 1)
    least: np.ndarray = np.array([int(floor * multiple * parts) for floor in floors], dtype=kind)
    costs = np.maximum(np.maximum(loads, others), least).sum(axis=1)
    cheapest = [costs[possible[:, expert] > 0].min() for expert in range(len(counts))]
    return Fraction(int(max(cheapest)), multiple * parts)


def _lifted(loads: Sequence[int], counts: Sequence[int], gpus: int) -> Fraction:
    return lifted_bound([Fraction(w, c) for w, c in zip(loads, counts, strict=True) for _ in range(c)], gpus)


@cache
def _count_vectors(experts: int, slots: int, most: int) -> list[tuple[int, ...]] | None:
    """Return all counts from 1 to ``most`` that fill the slots; None where there may be too many."""
    spare = slots - experts
    if math.comb(spare + experts - 1, spare) > MAX_ONE_NODE:
        return None
    found: list[tuple[int, ...]] = []
    for chosen in itertools.combinations_with_replacement(range(experts), spare):
        counts = [1] * experts
        for e in chosen:
            counts[e] += 1
        if max(counts) <= most:
            found.append(tuple(counts))
    return found


def proven_average(bound: Bound, history: Any, deployment: Deployment) -> Fraction:
    """Return what a bound of one layer proves by its kind and witness, recomputed in integers and fractions.

    Parameters
    ----------
    bound : Bound
        Of a kind in :data:`AVERAGES`; its value is not read.
    history : array_like of int [windows, experts]
    deployment : Deployment

    Raises
    ------
    InputError
        If the kind is none of these, the witness is not what the kind needs, or there is too much to list.

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> history, deployment = [[9, 1, 5, 5], [1, 9, 5, 5]], Deployment(4, 4, 2)
    >>> proven_average(sample_average_bound(history, deployment), history, deployment)
    Fraction(10, 1)
    """
    if bound.kind not in AVERAGES:
        raise InputError(f"there is no bound on an average of kind {bound.kind!r}; the kinds are {', '.join(AVERAGES)}")
    needed = {"shares", "unit"} if bound.kind == "shares" else set()
    if set(bound.witness) != needed:
        raise InputError(f"the witness of the {bound.kind} bound has {sorted(bound.witness)}; {sorted(needed)} is needed")
    value = AVERAGES[bound.kind](as_loads(history, "history", 2), deployment, bound.witness)
    if value is None:
        raise InputError(f"{bound.kind} are listed where they are few; these are too many")
    return value


def _proven_by_shares(history: np.ndarray, deployment: Deployment, witness: Mapping[str, Any]) -> Fraction:
    if witness["unit"] != SHARE_UNIT:
        raise InputError(f"unit is {witness['unit']!r}; {SHARE_UNIT} is needed")
    rows = witness["shares"]
    if not isinstance(rows, list) or len(rows) != len(history) or any(type(x) is not int for row in rows for x in row):
        raise InputError(f"shares are not {len(history)} rows of integers, one for every window")
    return shares_value([Instance.of_layer(window, deployment) for window in history], rows)


AVERAGES: dict[str, Callable[[np.ndarray, Deployment, Mapping[str, Any]], Fraction | None]] = {
    "windows": lambda history, deployment, _: _windows_value(_floors(history, deployment)),
    "groups": lambda history, deployment, _: groups_value(history, deployment, _floors(history, deployment)),
    "sum": lambda history, deployment, _: _sum_value(history, deployment),
    "maps": lambda history, deployment, _: maps_value(history, deployment),
    "counts": lambda history, deployment, _: counts_value(history, deployment),
    "shares": _proven_by_shares,
}
"""How every kind of bound on an average is recomputed; None where there is too much to list."""


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
