"""The best token split of a given map: shares that minimise the fullest GPU, with the set of GPUs that proves it.

The loads of replicated experts flow to the GPUs that hold them. Three steps per layer, on a few dozen experts:

1. Sweeps. One expert after the other is poured anew over its GPUs to a common level (water-filling): coordinate descent on the
   sum of the squared GPU loads, whose minimum also has the smallest maximum. Linear convergence; a few sweeps come near.
2. A bound. At that minimum an expert takes nothing from GPUs fuller than another of its own, so the GPUs above any level hold
   all load of their experts; the best of these sets Q gives the bound ``T = sum of loads inside Q / |Q|``.
3. An exact end. What GPUs have above T is moved along shortest augmenting paths to GPUs below T. If GPUs above T reach none
   below, the reached set proves a larger T, which is Newton's step for the largest ratio (Dinkelbach, 1967); else T is attained.

Two replicas of one expert on a GPU are one destination; its share is divided evenly between them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import kernel, rest
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.dead_ranks import live_slots, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.shares import TokenSplit
from eplb_gap.problem.validation import check

SWEEPS = 6
"""Sweeps before the exact end, which costs about as much with 3 as with 12; more of them even out GPUs below the fullest too."""
STILL = 1e-13
"""Relative change of a level at which sweeps stop: nothing moves."""
PATHS = 100
"""Most augmenting paths per GPU and per edge: no exact flow needs as many, but rounding is no proof."""
EPSILON = 1e-13
"""Relative to T: smaller excesses and flows are rounding."""


class Flow(NamedTuple):
    """The flow of one layer; an *edge* is an expert with replicas on several GPUs and one of these GPUs.

    Parameters
    ----------
    first : ndarray
        First edge of every replicated expert, int64 [experts + 1].
    weight : ndarray
        Loads of the replicated experts, float64 [experts].
    owner, gpu, flow : ndarray
        Replicated expert, GPU and load of every edge, [slots].
    edge : ndarray
        Edge of every slot, int64 [slots]; -1 where the expert lives on one GPU.
    fixed, total : ndarray
        Load of every GPU without and with the edges, float64 [gpus].
    starts, home : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1], and the GPU of every slot, int64 [slots].
    """

    first: np.ndarray
    weight: np.ndarray
    owner: np.ndarray
    gpu: np.ndarray
    flow: np.ndarray
    edge: np.ndarray
    fixed: np.ndarray
    total: np.ndarray
    starts: np.ndarray
    home: np.ndarray


class Search(NamedTuple):
    """Scratch memory of one layer's split.

    Parameters
    ----------
    entered, left : ndarray
        Edge through which an augmenting path enters a GPU and edge that it leaves its predecessor by, int64 [gpus].
    queue, position : ndarray
        GPUs in an order, and where each is in it, int64 [gpus].
    inside : ndarray
        Load that a set gains with each GPU of that order, float64 [gpus].
    gpu_seen, expert_seen : ndarray
        bool [gpus], [experts].
    counts, start, number : ndarray
        Replicas, end of its slots in ``by_expert``, and number among the replicated of every expert, int64 [experts].
    by_expert : ndarray
        Slots ordered by expert, int64 [slots].
    """

    entered: np.ndarray
    left: np.ndarray
    queue: np.ndarray
    position: np.ndarray
    inside: np.ndarray
    gpu_seen: np.ndarray
    expert_seen: np.ndarray
    counts: np.ndarray
    start: np.ndarray
    number: np.ndarray
    by_expert: np.ndarray


def optimal_split(placement: Placement, loads: Any, deployment: Deployment) -> TokenSplit:
    """Return shares that minimise the largest GPU load of every layer, and the GPUs that prove it.

    Parameters
    ----------
    placement : Placement
    loads : array_like of int [layers, experts]
    deployment : Deployment
        The slots of dead GPUs take nothing, and none of these GPUs is among those that prove the split.

    Returns
    -------
    TokenSplit
        :func:`eplb_gap.problem.validation.verify_split` recomputes makespan and bound exactly; they meet to rounding (about
        1e-12).

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.problem.verify`.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, optimal_split
    >>> placement = Placement([[0, 1, 0, 2]], 3)  # expert 0 is on both GPUs, beside 1 and beside 2
    >>> found = optimal_split(placement, [[10, 6, 2]], Deployment(3, 4, 2))
    >>> found.shares.round(6).tolist()  # the GPU of expert 2 takes more of expert 0: 9 each
    [[0.3, 1.0, 0.7, 1.0]]
    """
    require_kind("placement", placement, Placement)
    require_kind("deployment", deployment, Deployment)
    checked = as_loads(loads, "loads", 2)
    if checked.shape != (placement.num_layers, deployment.num_experts):
        raise InputError(
            f"loads has shape {checked.shape}; {(placement.num_layers, deployment.num_experts)} [layers, experts] is needed"
        )
    check(placement, deployment)
    names = live_slots(deployment)
    slots = np.require(without_dead(placement, deployment).phy2log, np.int64, ("C", "W"))
    starts = np.cumsum((0, *deployment.live.slots_by_gpu), dtype=np.int64)
    found, critical = np.empty(slots.shape), np.empty((len(slots), starts.size - 1), dtype=np.bool_)
    _split_layers(slots, checked.astype(np.float64, order="C"), starts, SWEEPS, found, critical)
    shares, gpus = np.zeros(placement.phy2log.shape), np.flatnonzero(deployment.active)
    shares[:, names] = found
    return TokenSplit(shares, [tuple(gpus[row].tolist()) for row in critical])


@tiered("(i8[:, ::1], f8[:, ::1], i8[::1], i8, f8[:, ::1], b1[:, ::1])")
def _split_layers(
    phy2log: np.ndarray, loads: np.ndarray, starts: np.ndarray, sweeps: int, shares: np.ndarray, critical: np.ndarray
) -> None:
    """Split layers one after the other.

    Parameters
    ----------
    phy2log : ndarray
        int64 [layers, slots]; legal.
    loads : ndarray
        float64 [layers, experts].
    starts : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    sweeps : int
    shares : ndarray
        float64 [layers, slots]; overwritten.
    critical : ndarray
        bool [layers, gpus]; overwritten with the set that bounds the layer.
    """
    flow = new_flow(loads.shape[1], starts)
    search = new_search(loads.shape[1], phy2log.shape[1], critical.shape[1])
    for layer in range(phy2log.shape[0]):
        rest()
        split_flow(phy2log[layer], loads[layer], sweeps, flow, search, critical[layer])
        _write_shares(phy2log[layer], flow, search, shares[layer])


@kernel
def new_flow(experts: int, starts: np.ndarray) -> Flow:
    """Return memory for the flow of layers of that shape; ``starts`` is the first slot of every GPU and, last, their number."""
    gpus, slots = starts.size - 1, starts[starts.size - 1]
    home = np.empty(slots, np.int64)
    for gpu in range(gpus):
        home[starts[gpu] : starts[gpu + 1]] = gpu
    return Flow(
        np.empty(experts + 1, np.int64), np.empty(experts), np.empty(slots, np.int64), np.empty(slots, np.int64),
        np.empty(slots), np.empty(slots, np.int64), np.empty(gpus), np.empty(gpus), starts, home,
    )  # fmt: skip


@kernel
def new_search(experts: int, slots: int, gpus: int) -> Search:
    """Return scratch memory for layers of that shape."""
    return Search(
        np.empty(gpus, np.int64), np.empty(gpus, np.int64), np.empty(gpus, np.int64), np.empty(gpus, np.int64),
        np.empty(gpus), np.empty(gpus, np.bool_), np.empty(experts, np.bool_), np.empty(experts, np.int64),
        np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(slots, np.int64),
    )  # fmt: skip


@kernel
def split_flow(slots: np.ndarray, loads: np.ndarray, sweeps: int, flow: Flow, search: Search, critical: np.ndarray) -> float:
    """Fill ``flow`` with an optimal split of one layer's map and ``critical`` with its set of GPUs; return the makespan."""
    replicated = _connect(slots, loads, flow, search)
    for _ in range(sweeps):
        if _sweep(flow, replicated) <= STILL:
            break
    value = _best_level_set(flow, replicated, search, critical)
    return _finish(flow, replicated, value, search, critical)


@kernel
def _connect(slots: np.ndarray, loads: np.ndarray, flow: Flow, search: Search) -> int:
    """Fill the flow of a layer with the even split over distinct GPUs; return the number of experts that have several."""
    counts, start, number, by_expert = search.counts, search.start, search.number, search.by_expert
    counts[:] = 0
    for e in slots:
        counts[e] += 1
    at = 0
    for e in range(loads.size):
        start[e] = at
        at += counts[e]
    for slot in range(slots.size):
        by_expert[start[slots[slot]]] = slot
        start[slots[slot]] += 1
    flow.fixed[:] = 0.0
    replicated = edges = 0
    for e in range(loads.size):
        flow.first[replicated] = edges
        number[e] = -1
        last = -1
        for at in range(start[e] - counts[e], start[e]):  # slots ascend, so replicas on one GPU are neighbours
            slot = by_expert[at]
            if flow.home[slot] != last:
                last = flow.home[slot]
                flow.gpu[edges], flow.owner[edges] = last, replicated
                edges += 1
            flow.edge[slot] = edges - 1
        if edges - flow.first[replicated] == 1:
            edges -= 1
            flow.fixed[last] += loads[e]
            for at in range(start[e] - counts[e], start[e]):
                flow.edge[by_expert[at]] = -1
        else:
            number[e], flow.weight[replicated] = replicated, loads[e]
            replicated += 1
    flow.first[replicated] = edges
    flow.total[:] = flow.fixed
    for r in range(replicated):
        part = flow.weight[r] / (flow.first[r + 1] - flow.first[r])
        for a in range(flow.first[r], flow.first[r + 1]):
            flow.flow[a] = part
            flow.total[flow.gpu[a]] += part
    return replicated


@kernel
def _sweep(flow: Flow, replicated: int) -> float:
    """Pour every replicated expert anew; return the largest change of a flow relative to the level of its expert."""
    largest = 0.0
    for r in range(replicated):
        weight, begin, end = flow.weight[r], flow.first[r], flow.first[r + 1]
        volume, members = weight, end - begin
        for a in range(begin, end):
            volume += flow.total[flow.gpu[a]] - flow.flow[a]
        level = volume / members
        while True:  # GPUs that are above the level without the expert get nothing; leaving them out lowers it
            volume, inside = weight, 0
            for a in range(begin, end):
                base = flow.total[flow.gpu[a]] - flow.flow[a]
                if base < level:
                    volume += base
                    inside += 1
            if inside >= members or inside == 0:  # rounding may let one in again
                break
            members, level = inside, volume / inside
        if weight == 0.0:
            continue
        for a in range(begin, end):
            g = flow.gpu[a]
            base = flow.total[g] - flow.flow[a]
            new = max(level - base, 0.0)
            largest = max(largest, abs(new - flow.flow[a]) / level)
            flow.flow[a], flow.total[g] = new, base + new
    return largest


@kernel
def _best_level_set(flow: Flow, replicated: int, search: Search, chosen: np.ndarray) -> float:
    """Return the largest bound of the sets of the fullest 1, 2, ... GPUs; overwrite ``chosen`` with that set."""
    order, position, inside = search.queue, search.position, search.inside
    for g in range(order.size):
        at = g
        while at > 0 and flow.total[order[at - 1]] < flow.total[g]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = g
    for at in range(order.size):
        position[order[at]] = at
        inside[at] = flow.fixed[order[at]]
    for r in range(replicated):
        last = 0
        for a in range(flow.first[r], flow.first[r + 1]):
            last = max(last, position[flow.gpu[a]])
        inside[last] += flow.weight[r]
    best, members, load = -1.0, 0, 0.0
    for at in range(order.size):
        load += inside[at]
        if load / (at + 1) > best:
            best, members = load / (at + 1), at + 1
    for at in range(order.size):
        chosen[order[at]] = at < members
    return best


@kernel
def _finish(flow: Flow, replicated: int, value: float, search: Search, chosen: np.ndarray) -> float:
    """Move what GPUs have above ``value`` to those below, raising it to that of a set that has no way out; return it."""
    for _ in range(PATHS * (flow.total.size + flow.flow.size)):
        end = _augmenting_path(flow, replicated, value, search)
        if end == -1:
            return value
        if end >= 0:
            _augment(flow, value, end, search)
            continue
        load, members = 0.0, 0
        for g in range(chosen.size):
            if search.gpu_seen[g]:
                load += flow.fixed[g]
                members += 1
        for r in range(replicated):
            closed = True
            for a in range(flow.first[r], flow.first[r + 1]):
                closed = closed and search.gpu_seen[flow.gpu[a]]
            if closed:
                load += flow.weight[r]
        if load / members <= value * (1.0 + EPSILON):
            return value
        value = load / members
        chosen[:] = search.gpu_seen
    return float(flow.total.max())


@kernel
def _augmenting_path(flow: Flow, replicated: int, value: float, search: Search) -> int:
    """Search breadth-first from all GPUs above ``value``; return the first reached below it, -1 if none is above, -2 if stuck."""
    tail = 0
    for g in range(flow.total.size):
        above = flow.total[g] > value * (1.0 + EPSILON)
        search.gpu_seen[g] = above
        if above:
            search.queue[tail], search.entered[g] = g, -1
            tail += 1
    if tail == 0:
        return -1
    for r in range(replicated):
        search.expert_seen[r] = False
    head = 0
    while head < tail:
        g = search.queue[head]
        head += 1
        for slot in range(flow.starts[g], flow.starts[g + 1]):
            a = flow.edge[slot]
            if a < 0 or flow.flow[a] <= value * EPSILON or search.expert_seen[flow.owner[a]]:
                continue
            search.expert_seen[flow.owner[a]] = True
            for b in range(flow.first[flow.owner[a]], flow.first[flow.owner[a] + 1]):
                h = flow.gpu[b]
                if not search.gpu_seen[h]:
                    search.gpu_seen[h], search.entered[h], search.left[h] = True, b, a
                    if flow.total[h] < value * (1.0 - EPSILON):
                        return int(h)
                    search.queue[tail] = h
                    tail += 1
    return -2


@kernel
def _augment(flow: Flow, value: float, end: int, search: Search) -> None:
    """Move as much as the path to ``end`` can carry: the end's room, its start's excess, the smallest flow that is diverted."""
    amount, g = value - flow.total[end], end
    while search.entered[g] >= 0:
        amount = min(amount, flow.flow[search.left[g]])
        g = flow.gpu[search.left[g]]
    amount = min(amount, flow.total[g] - value)
    flow.total[g] -= amount
    flow.total[end] += amount
    g = end
    while search.entered[g] >= 0:
        flow.flow[search.left[g]] -= amount
        flow.flow[search.entered[g]] += amount
        g = flow.gpu[search.left[g]]


@kernel
def _write_shares(slots: np.ndarray, flow: Flow, search: Search, shares: np.ndarray) -> None:
    """Turn flows into shares; experts without a flow, or on one GPU, are split evenly."""
    for slot in range(slots.size):
        e, a = slots[slot], flow.edge[slot]
        r = search.number[e]
        shares[slot] = 1.0 / search.counts[e]
        if a < 0:
            continue
        whole = 0.0
        for b in range(flow.first[r], flow.first[r + 1]):
            whole += flow.flow[b]
        if whole == 0.0:
            continue
        twins = 0
        for other in range(flow.starts[flow.home[slot]], flow.starts[flow.home[slot] + 1]):
            twins += flow.edge[other] == a
        shares[slot] = flow.flow[a] / (whole * twins)
