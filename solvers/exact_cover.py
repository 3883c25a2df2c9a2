"""Exact-cover branch and bound for small instances: patterns for one GPU, a slack budget, tightening in place.

Loads are integers over M, the least common multiple of the possible counts. A *pattern* is what one GPU may hold: k replicas, one
count per expert. The loads of the G GPUs sum to W whatever the counts, so in a map within a threshold T no GPU carries less than
``W - (G - 1) T``. Few patterns lie in that band, and a map is an exact cover of the experts, each by as many copies as its count
says, with G patterns whose slacks ``T - load`` sum to ``G T - W``: the budget.

The threshold rises from the closed-form bound until a cover is found. From then on it follows the best cover downwards within the
same search, so the search that finds the optimum is also the one that proves it.

At every node a *type*, an expert with one of its counts, is dropped when the remaining patterns cannot supply its copies, when
its count does not fit the slots left, or when it costs more slack than is left. The last test splits the slack of a pattern among
its replicas, by weights that follow what each expert must pay at least: any split gives a valid bound, for every cover pays for
every copy of every expert. Patterns that exceed the budget together with the least payments of all other experts are dropped too,
and so on until nothing changes. Most nodes end there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numba import njit

from problem.bounds import Bound, best_joint_bound, companion_load_at
from problem.instance import Instance
from solvers.construct import greedy_map
from solvers.counts import count_ranges, denominator
from solvers.engine import Finding, Incumbent, Limits

LARGEST_TOTAL = 2**61
"""G + 1 times the scaled total stays below this, so that no sum overflows int64."""
MAX_PATTERNS = 400_000
MAX_ENUMERATION_STEPS = 50_000_000
"""A fifth of a second; an instance that needs more steps has too many patterns to search anyway."""
ANNEALING_STEPS = 1000
GOALS = (0.0, 0.3, 0.6, 0.8)
FIRST_STEP = Fraction(1, 64)
"""The first threshold, as a fraction of the way from the bound to the best map."""
CHEAP_NODES = 300
TARGET_GROWTH = 4.0
"""Thresholds double while a search is cheap, then rise so that a search is expected to take this many times the nodes."""
CHUNK_SECONDS = 0.05
"""Aimed at for one call of compiled code, which neither the clock nor Ctrl-C can stop."""
MARGIN = 1e-9
"""Slack is compared in floats; their relative error is far below this."""
WEIGHT_FLOOR = 0.3

RUNNING, FOUND, EXHAUSTED = 0, 1, 2


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps, then the thresholds that an exhausted search refutes, up to the proof of the optimum.

    Meant for up to about 48 slots. Where the scaled loads would overflow 64-bit integers or the patterns exceed
    ``MAX_PATTERNS``, it ends with what was found until then.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map is where the search starts.
    limits : Limits

    Yields
    ------
    tuple of int or Bound
        A bound of kind "exhausted search" names the largest refuted threshold and the nodes searched so far. The count ranges
        that fix M hold for every map better than the best one known before the search.
    """
    if limits.seconds_left <= 0:
        return
    best = incumbent.slots
    if best is None:
        best = greedy_map(instance)
        yield best
    bound = best_joint_bound(instance)
    yield bound
    lower, upper = max(bound.value, incumbent.bound.value), instance.makespan(best)
    if lower < upper:
        for slots in _annealed(instance, best, lower, limits):
            upper = instance.makespan(slots)
            yield slots
    if lower < upper:
        yield from _proof(instance, lower, upper, limits)


def _annealed(instance: Instance, start: Sequence[int], lower: Fraction, limits: Limits) -> Iterator[tuple[int, ...]]:
    slots = np.array(start, dtype=np.int64)
    loads = np.array(instance.loads, dtype=np.float64)
    upper = instance.makespan(start)
    for burst, share in enumerate(GOALS):
        goal = float(lower + (upper - lower) * Fraction(share))
        steps = ANNEALING_STEPS * instance.num_slots
        distinct = instance.duplicates == "forbidden"
        anneal(loads, slots, instance.num_gpus, instance.max_count, distinct, goal, steps, limits.seed + burst)
        value = instance.makespan(slots)
        if value < upper:
            upper = value
            yield tuple(slots.tolist())


def _proof(instance: Instance, lower: Fraction, upper: Fraction, limits: Limits) -> Iterator[Finding]:
    multiple = denominator(count_ranges(instance, upper))
    if instance.total * multiple * (instance.num_gpus + 1) >= LARGEST_TOTAL:
        return
    best = int(upper * multiple)
    base = refuted = math.ceil(lower * multiple) - 1
    reach = (best - base) * FIRST_STEP
    nodes = previous = 0
    growth = 2.0
    proven = lower
    while proven < Fraction(best, multiple):
        threshold = min(max(refuted + 1, base + int(reach)), best - 1)
        cover = _CoverSearch(instance, multiple, threshold)
        while cover.status != EXHAUSTED:
            if cover.too_large or limits.seconds_left <= 0:
                return
            cover.run()
            if cover.status == FOUND:
                slots = cover.map()
                yield slots
                best = int(instance.makespan(slots) * multiple)
                cover.lower_threshold(best - 1)
        nodes += cover.nodes
        refuted = min(threshold, best - 1)
        proven = Fraction(refuted + 1, multiple)
        yield Bound(proven, "exhausted search", {"threshold": str(Fraction(refuted, multiple)), "nodes": nodes})
        growth = _next_growth(growth, cover.nodes, previous)
        previous = cover.nodes
        reach *= Fraction(growth)


def _next_growth(growth: float, nodes: int, previous: int) -> float:
    """Return the factor to the next threshold, given that the last one multiplied the nodes by ``nodes / previous``."""
    if nodes < CHEAP_NODES or nodes <= previous:
        return 2.0
    steepness = math.log(nodes / max(previous, 1)) / math.log(growth)
    return min(2.0, max(1.2, TARGET_GROWTH ** (1.0 / steepness)))


class _Patterns(NamedTuple):
    """Patterns by descending load, and the types that they are made of.

    ``need[p, j]`` is how many of the first ``j + 1`` replicas of pattern p are of the type of the last of them.
    """

    load: np.ndarray
    types: np.ndarray
    need: np.ndarray
    expert: np.ndarray
    copies: np.ndarray


class _State(NamedTuple):
    """Where a search stands: everything a call of :func:`advance` needs to go on.

    Per depth: the patterns that remain (``lists[start[d] : start[d + 1]]``), the types that remain (``alive[d, : num_alive[d]]``,
    those of an expert side by side), how many copies of each type are still to be placed (``room``), the weights of the experts,
    the load still to be placed, the expert branched on (-1: not entered), the position of its pattern in the list, the pattern.
    Per expert: its count (0: open) and its copies placed.
    """

    lists: np.ndarray
    start: np.ndarray
    alive: np.ndarray
    num_alive: np.ndarray
    room: np.ndarray
    weight: np.ndarray
    rest: np.ndarray
    branch: np.ndarray
    position: np.ndarray
    chosen: np.ndarray
    fixed: np.ndarray
    placed: np.ndarray
    control: np.ndarray  # threshold, depth, nodes so far


class _CoverSearch:
    """One search for covers within a threshold that may be lowered as it goes."""

    def __init__(self, instance: Instance, multiple: int, threshold: int) -> None:
        self.instance = instance
        self.nodes = 0
        self.too_large = False
        self.status = EXHAUSTED
        gpus, k = instance.num_gpus, instance.slots_per_gpu
        total = instance.total * multiple
        companions = companion_load_at(instance, Fraction(threshold, multiple))
        if gpus * threshold < total or companions is None:
            return
        types = sorted(
            (-load * multiple // count, expert, count)
            for expert, (load, counts) in enumerate(
                zip(instance.loads, count_ranges(instance, Fraction(threshold, multiple) - companions), strict=True)
            )
            for count in counts
        )
        size = np.array([-negative for negative, _, _ in types], dtype=np.int64)
        expert = np.array([e for _, e, _ in types], dtype=np.int64)
        count = np.array([c for _, _, c in types], dtype=np.int64)
        most = np.ones_like(count) if instance.duplicates == "forbidden" else count
        found = np.empty((MAX_PATTERNS, k), dtype=np.uint16)
        n = enumerate_patterns(size, expert, most, total - (gpus - 1) * threshold, threshold, MAX_ENUMERATION_STEPS, found)
        self.too_large = n < 0
        if n == 0:
            return
        self.status = RUNNING
        if self.too_large:
            return
        load = size[found[:n]].sum(axis=1)
        order = np.argsort(-load, kind="stable")
        sorted_types = found[order]
        self.patterns = _Patterns(load[order], sorted_types, _occurrences(sorted_types), expert, count)
        self.state = _State(
            lists=np.zeros((gpus + 1) * n, dtype=np.int32),
            start=np.zeros(gpus + 2, dtype=np.int64),
            alive=np.zeros((gpus + 1, len(types)), dtype=np.uint16),
            num_alive=np.full(gpus + 1, len(types), dtype=np.int64),
            room=np.zeros((gpus + 1, len(types)), dtype=np.int64),
            weight=np.ones((gpus + 1, instance.num_experts), dtype=np.float64),
            rest=np.full(gpus + 1, total, dtype=np.int64),
            branch=np.full(gpus + 1, -1, dtype=np.int64),
            position=np.zeros(gpus + 1, dtype=np.int64),
            chosen=np.zeros(gpus + 1, dtype=np.int64),
            fixed=np.zeros(instance.num_experts, dtype=np.int64),
            placed=np.zeros(instance.num_experts, dtype=np.int64),
            control=np.array([threshold, 0, 0], dtype=np.int64),
        )
        self.state.lists[:n] = np.arange(n)
        self.state.start[1] = n
        self.state.alive[0] = np.argsort(expert, kind="stable")
        self.state.room[0] = count
        self.visits = 500_000

    def run(self) -> None:
        """Go on for about ``CHUNK_SECONDS``, or until a cover is found or none is left."""
        started = time.perf_counter()
        self.status = advance(self.patterns, self.state, self.instance.num_gpus, self.instance.num_slots, self.visits)
        seconds = time.perf_counter() - started
        if self.status == RUNNING:
            self.visits = max(10_000, min(2 * self.visits, int(self.visits * CHUNK_SECONDS / seconds)))
        self.nodes = int(self.state.control[2])

    def map(self) -> tuple[int, ...]:
        """Return the cover that was just found as a map."""
        chosen = self.state.chosen[: self.instance.num_gpus]
        return tuple(self.patterns.expert[self.patterns.types[chosen]].ravel().tolist())

    def lower_threshold(self, threshold: int) -> None:
        """Go on for covers within a smaller threshold, one that the cover just found exceeds."""
        self.state.control[0] = threshold
        self.status = RUNNING


@njit(cache=True)
def anneal(
    loads: np.ndarray, slots: np.ndarray, num_gpus: int, max_count: int, distinct: bool, goal: float, steps: int, seed: int
) -> None:
    """Improve a map by annealing on ``sum max(0, load - goal)^2``, over exchanges of two slots and changes of two counts.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    slots : ndarray
        int64 [slots]; changed in place to the map of the smallest makespan met.
    num_gpus, max_count : int
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    goal : float
        Makespan aimed at.
    steps, seed : int
    """
    np.random.seed(seed)
    k = slots.size // num_gpus
    current = slots.copy()
    counts = np.zeros(loads.size, dtype=np.int64)
    for expert in current:
        counts[expert] += 1
    gpus = np.zeros(num_gpus)
    for slot in range(slots.size):
        gpus[slot // k] += loads[current[slot]] / counts[current[slot]]
    trial = gpus.copy()
    best = gpus.max()
    energy = np.inf
    scale = 0.3 * max(best - goal, 1e-9 * best) ** 2
    for step in range(steps):
        temperature = scale * 10.0 ** (-5.0 * step / steps)
        trial[:] = gpus
        slot, other = np.random.randint(slots.size), -1
        old = current[slot]
        if np.random.random() < 0.2:
            new = np.random.randint(loads.size)
            if new == old or counts[old] == 1 or counts[new] == max_count:
                continue
            if distinct and _holds(current, slot // k * k, k, new):
                continue
            # The slot's own replica is changed as one of the old expert's, then exchanged.
            smaller, larger = loads[new] / (counts[new] + 1), loads[old] / (counts[old] - 1)
            for position in range(slots.size):
                if current[position] == new:
                    trial[position // k] += smaller - loads[new] / counts[new]
                elif current[position] == old:
                    trial[position // k] += larger - loads[old] / counts[old]
            trial[slot // k] += smaller - larger
        else:
            other = np.random.randint(slots.size)
            new = current[other]
            if old == new or slot // k == other // k:
                continue
            if distinct and (_holds(current, slot // k * k, k, new) or _holds(current, other // k * k, k, old)):
                continue
            moved = loads[old] / counts[old] - loads[new] / counts[new]
            trial[slot // k] -= moved
            trial[other // k] += moved
        after = 0.0
        for load in trial:
            after += max(0.0, load - goal) ** 2
        if after <= energy or np.random.random() < np.exp((energy - after) / temperature):
            current[slot] = new
            if other >= 0:
                current[other] = old
            else:
                counts[new] += 1
                counts[old] -= 1
            gpus[:] = trial
            energy = after
            if gpus.max() < best * (1.0 - 1e-12):
                best = gpus.max()
                slots[:] = current


@njit(cache=True)
def _holds(slots: np.ndarray, start: int, k: int, expert: int) -> bool:
    for slot in range(start, start + k):  # noqa: SIM110 - any() over a generator does not compile
        if slots[slot] == expert:
            return True
    return False


@njit(cache=True)
def enumerate_patterns(
    size: np.ndarray, expert: np.ndarray, most: np.ndarray, low: int, high: int, max_steps: int, out: np.ndarray
) -> int:
    """Write all multisets of k types with a load from ``low`` to ``high`` and one type per expert; return how many.

    Parameters
    ----------
    size : ndarray
        int64 [types], descending.
    expert, most : ndarray
        int64 [types]: the expert of a type, and how many replicas of the type one GPU may hold.
    low, high : int
    max_steps : int
    out : ndarray
        uint16 [room, k]; types ascend within a pattern.

    Returns
    -------
    int
        -1 if there are more patterns than room, or it takes more steps.
    """
    n, k = size.size, out.shape[1]
    item = np.zeros(k + 1, dtype=np.int64)
    total = np.zeros(k + 1, dtype=np.int64)
    found = steps = depth = 0
    pair = max(0, k - 2)
    while depth >= 0:
        steps += 1
        if steps > max_steps:
            return -1
        first = item[depth]
        if depth < pair:
            if first == n or total[depth] + (k - depth) * size[first] < low:
                depth -= 1
                if depth >= 0:
                    item[depth] += 1
            elif total[depth] + size[first] + (k - depth - 1) * size[n - 1] > high or not _fits(item, depth, first, expert, most):
                item[depth] += 1
            else:
                total[depth + 1] = total[depth] + size[first]
                depth += 1
                item[depth] = first
            continue
        base = total[depth]
        edge = n  # the first type that is small enough to go with a; it moves left as a gets smaller
        for a in range(first, n):
            steps += 1
            if base + min(2, k) * size[a] < low:
                break
            if k == 1:
                if size[a] <= high:
                    if found == out.shape[0]:
                        return -1
                    out[found, 0] = a
                    found += 1
                continue
            while edge > 0 and base + size[a] + size[edge - 1] <= high:
                edge -= 1
            if not _fits(item, depth, a, expert, most):
                continue
            item[depth] = a
            for b in range(max(a, edge), n):
                steps += 1
                if base + size[a] + size[b] < low:
                    break
                if _fits(item, depth + 1, b, expert, most):
                    if found == out.shape[0]:
                        return -1
                    for j in range(depth + 1):
                        out[found, j] = item[j]
                    out[found, depth + 1] = b
                    found += 1
        depth -= 1
        if depth >= 0:
            item[depth] += 1
    return found


@njit(cache=True)
def _fits(item: np.ndarray, length: int, new: int, expert: np.ndarray, most: np.ndarray) -> bool:
    same = 1
    for j in range(length):
        if item[j] == new:
            same += 1
        elif expert[item[j]] == expert[new]:
            return False
    return same <= most[new]


@njit(cache=True)
def _occurrences(types: np.ndarray) -> np.ndarray:
    need = np.ones(types.shape, dtype=np.int64)
    for p in range(types.shape[0]):
        for j in range(1, types.shape[1]):
            if types[p, j] == types[p, j - 1]:
                need[p, j] = need[p, j - 1] + 1
    return need


@njit(cache=True)
def advance(patterns: _Patterns, state: _State, num_gpus: int, num_slots: int, max_visits: int) -> int:
    """Search depth first until a cover is found, none is left, or about ``max_visits`` patterns were looked at.

    After a cover the caller lowers the threshold below its largest load and calls again.

    Returns
    -------
    int
        ``RUNNING``, ``FOUND`` or ``EXHAUSTED``.
    """
    k = patterns.types.shape[1]
    branch, position, chosen, rest, start = state.branch, state.position, state.chosen, state.rest, state.start
    threshold, depth = state.control[0], state.control[1]
    workspace = _workspace(patterns.copies, state.fixed.size)
    visits = 0
    for d in range(depth):
        # A chosen pattern, or what is left for the GPUs behind it, does not fit a lowered threshold.
        if patterns.load[chosen[d]] > threshold or (num_gpus - d - 1) * threshold < rest[d + 1]:
            while depth > d:
                depth -= 1
                _place(patterns, state, chosen[depth], -1)
            break
    while visits < max_visits:
        budget = (num_gpus - depth) * threshold - rest[depth]
        if branch[depth] < 0:
            state.control[2] += 1
            visits += _enter(patterns, state, workspace, depth, threshold, budget, num_slots - depth * k)
        expert = branch[depth]
        found = -1
        for i in range(position[depth] + 1, start[depth + 1] - start[depth]):
            pattern = state.lists[start[depth] + i]
            slack = threshold - patterns.load[pattern]
            if slack > budget:
                break
            # Patterns above a lowered threshold lead the list.
            if slack >= 0 and _covers(patterns.types, patterns.expert, pattern, expert):
                position[depth] = i
                found = pattern
                break
        if found < 0:
            if depth == 0:
                return EXHAUSTED
            depth -= 1
            _place(patterns, state, chosen[depth], -1)
        else:
            chosen[depth] = found
            rest[depth + 1] = rest[depth] - patterns.load[found]
            _place(patterns, state, found, 1)
            depth += 1
            branch[depth] = -1
            state.control[1] = depth
            if depth == num_gpus:
                return FOUND
    state.control[1] = depth
    return RUNNING


class _Workspace(NamedTuple):
    """Scratch of one node. ``share[t]`` holds the cheapest shares of type t, ascending, ``supply[t]`` of them."""

    share: np.ndarray
    supply: np.ndarray
    extra: np.ndarray
    dearest: np.ndarray
    cost: np.ndarray
    weight: np.ndarray
    score: np.ndarray


@njit(cache=True)
def _workspace(count: np.ndarray, num_experts: int) -> _Workspace:
    return _Workspace(
        np.zeros((count.size, count.max())),
        np.zeros(count.size, dtype=np.int64),
        np.zeros(count.size),
        np.zeros(count.size),
        np.zeros(count.size),
        np.ones(num_experts),
        np.zeros(num_experts),
    )


@njit(cache=True)
def _place(patterns: _Patterns, state: _State, pattern: int, sign: int) -> None:
    """Place a pattern, or take it away (``sign`` -1)."""
    for j in range(patterns.types.shape[1]):
        t = patterns.types[pattern, j]
        expert = patterns.expert[t]
        state.placed[expert] += sign
        state.fixed[expert] = patterns.copies[t] if state.placed[expert] > 0 else 0


@njit(cache=True)
def _covers(types: np.ndarray, experts: np.ndarray, pattern: int, expert: int) -> bool:
    for j in range(types.shape[1]):  # noqa: SIM110 - any() over a generator does not compile
        if experts[types[pattern, j]] == expert:
            return True
    return False


@njit(cache=True)
def _enter(patterns: _Patterns, state: _State, work: _Workspace, depth: int, threshold: int, budget: int, slots_left: int) -> int:
    """Fill the lists of a new node, drop what cannot be part of a cover, choose the expert to branch on; return the visits."""
    if depth > 0:
        _inherit(patterns, state, depth)
    loads, types, need, experts = patterns.load, patterns.types, patterns.need, patterns.expert
    supply, shares, extra, dearest, old_weight = work.supply, work.share, work.extra, work.dearest, work.weight
    room, alive, weight, lists = state.room[depth], state.alive[depth], state.weight[depth], state.lists
    k = types.shape[1]
    above = max(depth - 1, 0)
    source, target = state.start[above], state.start[depth]
    length = state.start[above + 1] - source
    parent = state.branch[above]
    # Of the patterns with the expert branched on above, those before the chosen one have been searched.
    siblings_done = state.position[above] if depth > 0 else 0
    cap = budget * (1.0 + MARGIN)
    limit = cap
    visits = 0
    first_pass = True
    for q in range(state.num_alive[depth]):
        supply[alive[q]] = 0
    old_weight[:] = weight
    while True:
        visits += length
        kept = 0
        for i in range(length):
            pattern = lists[source + i]
            slack = threshold - loads[pattern]
            if slack > budget:
                break
            if slack < 0:
                continue
            uses = room[types[pattern, 0]]
            for j in range(k):
                t = types[pattern, j]
                uses = min(uses, room[t] if need[pattern, j] == 1 else room[t] // need[pattern, j])
            if uses == 0 or (i < siblings_done and _covers(types, experts, pattern, parent)):
                continue
            if not first_pass:
                # Beyond what every expert must pay: a dearer count, a dearer copy than the dearest of the cheapest.
                whole = over = 0.0
                for j in range(k):
                    whole += old_weight[experts[types[pattern, j]]]
                unit = slack / whole
                for j in range(k):
                    t = types[pattern, j]
                    if need[pattern, j] == 1:
                        over += extra[t] + max(0.0, unit * old_weight[experts[t]] - dearest[t])
                if over > limit:
                    continue
            lists[target + kept] = pattern
            kept += 1
            whole = 0.0
            for j in range(k):
                whole += weight[experts[types[pattern, j]]]
            unit = slack / whole
            for j in range(k):
                t = types[pattern, j]
                share = unit * weight[experts[t]]
                if supply[t] < room[t] or share < shares[t, room[t] - 1]:
                    supply[t] = _insert(shares, t, supply[t], room[t], share, uses)
        shrunk = kept < length
        source, length, siblings_done, first_pass = target, kept, 0, False
        old_weight[:] = weight
        before_types = state.num_alive[depth]
        least = _drop_types(patterns, state, work, depth, cap, slots_left)
        if least > cap:
            state.branch[depth] = state.fixed.size
            state.start[depth + 1] = target
            return visits
        limit = cap - least
        if not shrunk and state.num_alive[depth] == before_types:
            break
        if least > 0.0:
            floor = WEIGHT_FLOOR * least / state.fixed.size
            for expert in range(state.fixed.size):
                weight[expert] = max(floor, work.cost[expert])
        for q in range(state.num_alive[depth]):
            supply[alive[q]] = 0
    state.start[depth + 1] = target + length
    state.branch[depth] = _branching_expert(patterns, state, work, depth, limit)
    state.position[depth] = -1
    return visits + length


@njit(cache=True)
def _inherit(patterns: _Patterns, state: _State, depth: int) -> None:
    """Copy types, room and weights from the node above, less what the pattern chosen there rules out."""
    room, alive = state.room[depth], state.alive[depth]
    room[:] = state.room[depth - 1]
    state.weight[depth] = state.weight[depth - 1]
    kept = 0
    for q in range(state.num_alive[depth - 1]):
        t = state.alive[depth - 1, q]
        expert = patterns.expert[t]
        if state.placed[expert] > 0:
            room[t] = state.fixed[expert] - state.placed[expert] if patterns.copies[t] == state.fixed[expert] else 0
        if room[t] > 0:
            alive[kept] = t
            kept += 1
    state.num_alive[depth] = kept


@njit(cache=True)
def _insert(shares: np.ndarray, t: int, length: int, most: int, share: float, times: int) -> int:
    """Insert a share up to ``times`` times among the ``most`` cheapest of type t; return how many there are."""
    for _ in range(times):
        if length < most:
            at = length
            length += 1
        elif share < shares[t, most - 1]:
            at = most - 1
        else:
            break
        while at > 0 and shares[t, at - 1] > share:
            shares[t, at] = shares[t, at - 1]
            at -= 1
        shares[t, at] = share
    return length


@njit(cache=True)
def _drop_types(patterns: _Patterns, state: _State, work: _Workspace, depth: int, cap: float, slots_left: int) -> float:
    """Drop the types that no cover can use; return the least slack that the experts pay together, infinite without a cover."""
    room, alive = state.room[depth], state.alive[depth]
    num_alive = state.num_alive[depth]
    least = 0.0
    kept = fewest_slots = most_slots = 0
    work.cost[:] = 0.0
    q = 0
    while q < num_alive:
        expert = patterns.expert[alive[q]]
        first, cheapest = kept, np.inf
        fewest, most = slots_left + 1, 0
        while q < num_alive and patterns.expert[alive[q]] == expert:
            t = alive[q]
            q += 1
            cost = np.inf
            if work.supply[t] == room[t]:
                cost = 0.0
                for i in range(room[t]):
                    cost += work.share[t, i]
                work.dearest[t] = work.share[t, room[t] - 1]
            if cost > cap:
                room[t] = 0
                continue
            work.extra[t] = cost
            cheapest = min(cheapest, cost)
            fewest, most = min(fewest, room[t]), max(most, room[t])
            alive[kept] = t
            kept += 1
        if most == 0:
            return np.inf
        for i in range(first, kept):
            work.extra[alive[i]] -= cheapest
        work.cost[expert] = cheapest
        least += cheapest
        fewest_slots += fewest
        most_slots += most
    if fewest_slots > slots_left or most_slots < slots_left:
        return np.inf
    num_alive, kept, q = kept, 0, 0
    while q < num_alive:
        first = q
        expert = patterns.expert[alive[q]]
        fewest, most = slots_left + 1, 0
        while q < num_alive and patterns.expert[alive[q]] == expert:
            fewest, most = min(fewest, room[alive[q]]), max(most, room[alive[q]])
            q += 1
        for i in range(first, q):
            t = alive[i]
            too_many = room[t] > fewest + slots_left - fewest_slots
            too_few = room[t] < most - (most_slots - slots_left)
            if too_many or too_few or least + work.extra[t] > cap:
                room[t] = 0
            else:
                alive[kept] = t
                kept += 1
    state.num_alive[depth] = kept
    return least


@njit(cache=True)
def _branching_expert(patterns: _Patterns, state: _State, work: _Workspace, depth: int, limit: float) -> int:
    """Return the expert in the fewest patterns, each counted by the share of the budget that it leaves."""
    work.score[:] = 0.0
    for i in range(state.start[depth], state.start[depth + 1]):
        pattern = state.lists[i]
        over = 0.0
        for j in range(patterns.types.shape[1]):
            if patterns.need[pattern, j] == 1:
                over += work.extra[patterns.types[pattern, j]]
        left = 1.0 - over / limit if limit > 0.0 else 1.0
        for j in range(patterns.types.shape[1]):
            if patterns.need[pattern, j] == 1:
                work.score[patterns.expert[patterns.types[pattern, j]]] += left
    fewest, chosen = np.inf, 0
    for q in range(state.num_alive[depth]):
        expert = patterns.expert[state.alive[depth, q]]
        if work.score[expert] < fewest:
            fewest, chosen = work.score[expert], expert
    return chosen
