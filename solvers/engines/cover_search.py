"""Depth-first search for exact covers within a slack budget, compiled, and restartable after any number of steps.

At every node a *type*, an expert with one of its counts, is dropped when the remaining patterns cannot supply its copies, when
its count does not fit the slots left, or when it costs more slack than is left. The last test splits the slack of a pattern among
its replicas, by weights that follow what each expert must pay at least: any split gives a valid bound, for every cover pays for
every copy of every expert. Patterns that exceed the budget together with the least payments of all other experts are dropped too,
and so on until nothing changes. Most nodes end there, and most of those the first time: all that this takes are the few cheapest
patterns of every type, which are looked up in an order that all children of a node share.

All of it is integer arithmetic, rounded down where there is a quotient: :mod:`eplb_gap.problem.bounds.exhausted`, which shares no
code with this module, does the same steps and so visits the same nodes. What it cannot know is which expert each of them branched
on: that is the log.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel

SHARE_BITS, WEIGHT_BITS, COST_BITS = 12, 10, 36
"""Binary places of a pattern's slack per weight, of a mean weight, and of the budget as costs are counted."""
WEIGHT_FLOOR = 307
"""Three tenths of a mean weight."""
PLACE_BITS = 20
"""For the place of a pattern in a list, behind its share."""
NEVER = np.iinfo(np.int64).max // 4

BITS = 62
RUNNING, FOUND, EXHAUSTED = 0, 1, 2


class Patterns(NamedTuple):
    """Patterns by descending load, and the types that they are made of.

    ``need[p, j]`` is how many of the first ``j + 1`` replicas of pattern p are of the type of the last of them; bit e of
    ``held[p]`` says that it holds expert e, for the first ``BITS`` experts.
    """

    load: np.ndarray
    types: np.ndarray
    need: np.ndarray
    held: np.ndarray
    expert: np.ndarray
    copies: np.ndarray


class State(NamedTuple):
    """Where a search stands: everything a call of :func:`advance` needs to go on.

    Per depth: the patterns that remain (``lists[start[d] : start[d + 1]]``) and their slacks per weight (``unit``), where each
    type is among them from its cheapest share up (``ranked[k * start[d] + first[d, t] :]``, a share and a place in the list),
    the types that remain (``alive[d, : num_alive[d]]``, those of an expert side by side), how many copies of each type are
    still to be placed (``room``), the weights of the types, the load still to be placed, the expert branched on (-1: not
    entered), the position of its pattern in the list, the pattern.
    Per expert: its count (0: open) and its copies placed.
    ``control``: threshold, depth, nodes so far, entries in the log, binary places that costs are rounded by, work of a replay.
    """

    lists: np.ndarray
    unit: np.ndarray
    ranked: np.ndarray
    first: np.ndarray
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
    control: np.ndarray


@entry
def occurrences(types: np.ndarray) -> np.ndarray:
    need = np.ones(types.shape, dtype=np.int64)
    for p in range(types.shape[0]):
        for j in range(1, types.shape[1]):
            if types[p, j] == types[p, j - 1]:
                need[p, j] = need[p, j - 1] + 1
    return need


@entry
def experts_held(types: np.ndarray, experts: np.ndarray) -> np.ndarray:
    held = np.zeros(types.shape[0], dtype=np.int64)
    for p in range(types.shape[0]):
        for j in range(types.shape[1]):
            if experts[types[p, j]] < BITS:
                held[p] |= np.int64(1) << np.int64(experts[types[p, j]])
    return held


@entry
def advance(patterns: Patterns, state: State, log: np.ndarray, num_gpus: int, num_slots: int, max_visits: int) -> int:
    """Search depth first until a cover is found, none is left, or about ``max_visits`` patterns were looked at.

    The depth and the branching expert of every node that does not end at once go to ``log``, uint8 [room, 2], until it is full.

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
    while visits < max_visits:
        visits += 1
        budget = (num_gpus - depth) * threshold - rest[depth]
        if branch[depth] < 0:
            state.control[2] += 1
            if depth > 0:
                visits += start[depth] - start[depth - 1]  # nodes without candidates take time too
            visits += _enter(patterns, state, workspace, depth, threshold, budget, num_slots - depth * k)
            logged = state.control[3]
            if branch[depth] < state.fixed.size and logged < log.shape[0]:
                log[logged, 0], log[logged, 1] = depth, branch[depth]
                state.control[3] = logged + 1
        expert = branch[depth]
        found = -1
        for i in range(position[depth] + 1, start[depth + 1] - start[depth]):
            pattern = state.lists[start[depth] + i]
            slack = threshold - patterns.load[pattern]
            if slack > budget:
                break
            if _holds(patterns, pattern, expert):
                if depth == num_gpus - 1 and not _completes(patterns, state, pattern):
                    continue
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
    room: np.ndarray


@kernel
def _workspace(count: np.ndarray, num_experts: int) -> _Workspace:
    return _Workspace(
        np.zeros((count.size, count.max()), dtype=np.int64),
        np.zeros(count.size, dtype=np.int64),
        np.zeros(count.size, dtype=np.int64),
        np.zeros(count.size, dtype=np.int64),
        np.zeros(num_experts, dtype=np.int64),
        np.ones(count.size, dtype=np.int64),
        np.zeros(num_experts),
        np.zeros(count.size, dtype=np.int64),
    )


@kernel
def _place(patterns: Patterns, state: State, pattern: int, sign: int) -> None:
    """Place a pattern, or take it away (``sign`` -1)."""
    for j in range(patterns.types.shape[1]):
        t = patterns.types[pattern, j]
        expert = patterns.expert[t]
        state.placed[expert] += sign
        state.fixed[expert] = patterns.copies[t] if state.placed[expert] > 0 else 0


@kernel
def _covers(types: np.ndarray, experts: np.ndarray, pattern: int, expert: int) -> bool:
    for j in range(types.shape[1]):  # noqa: SIM110 - any() over a generator does not compile
        if experts[types[pattern, j]] == expert:
            return True
    return False


@kernel
def _completes(patterns: Patterns, state: State, pattern: int) -> bool:
    """Return whether all copies of all experts are placed once this last pattern is."""
    _place(patterns, state, pattern, 1)
    complete = True
    for e in range(state.fixed.size):
        complete &= state.placed[e] == state.fixed[e] and state.fixed[e] > 0
    _place(patterns, state, pattern, -1)
    return complete


@kernel
def _enter(patterns: Patterns, state: State, work: _Workspace, depth: int, threshold: int, budget: int, slots_left: int) -> int:
    """Fill the lists of a new node, drop what cannot be part of a cover, choose the expert to branch on; return the visits."""
    if depth > 0:
        _inherit(patterns, state, depth)
    loads, types, need, experts = patterns.load, patterns.types, patterns.need, patterns.expert
    supply, shares, extra, dearest, old_weight = work.supply, work.share, work.extra, work.dearest, work.weight
    room, alive, weight, lists = state.room[depth], state.alive[depth], state.weight[depth], state.lists
    k = types.shape[1]
    target = state.start[depth]
    length = state.start[1]
    round_off = state.control[4]
    cap = budget >> round_off
    limit = cap
    visits: int = 0
    first_pass = True
    shrunk = looked_up = False
    if depth > 0:
        within = _within(patterns, state, depth, threshold - budget)
        state.control[5] += within
        complete = _complete(state)
        shrunk = _loses(patterns, state, depth, within, complete)
        if shrunk:
            # The shares are those of the node above: a look at the cheapest ones does the first pass.
            work.room[:] = room
            visits += _look_up(patterns, state, work, depth, within, complete, cap)
            least = cap + 1 if visits < 0 else _drop_types(patterns, state, work, depth, cap, slots_left)
            if least > cap:
                state.branch[depth] = state.fixed.size
                state.start[depth + 1] = target
                return abs(visits)
            limit = cap - least
            old_weight[:] = weight
            _reweigh(state, work, depth, least, experts)
            first_pass, looked_up = False, True
        length = _candidates(patterns, state, depth, within, complete)
        shrunk = shrunk or length < target - state.start[depth - 1]
    if first_pass:
        old_weight[:] = weight
    while True:
        for q in range(state.num_alive[depth]):
            supply[alive[q]] = 0
        visits += length
        kept = 0
        lost = not looked_up
        for i in range(length):
            pattern = lists[target + i]
            unit = state.unit[target + i]
            uses = room[types[pattern, 0]]
            for j in range(k):
                t = types[pattern, j]
                uses = min(uses, room[t] if need[pattern, j] == 1 else room[t] // need[pattern, j])
            if uses == 0:
                lost = lost or _usable(patterns, work.room, pattern)
                continue
            if not first_pass:
                # Beyond what every expert must pay: a dearer count, a dearer copy than the dearest of the cheapest.
                over = 0
                for j in range(k):
                    t = types[pattern, j]
                    if need[pattern, j] == 1:
                        over += extra[t] + max(0, ((unit * old_weight[t]) >> SHARE_BITS) - dearest[t])
                if over > limit:
                    lost = True
                    continue
            if not first_pass or depth == 0:  # else the weights are those that the node above has ended with
                whole = 0
                for j in range(k):
                    whole += weight[types[pattern, j]]
                unit = (((threshold - loads[pattern]) >> round_off) << SHARE_BITS) // whole
            lists[target + kept], state.unit[target + kept] = pattern, unit
            kept += 1
            for j in range(k):
                t = types[pattern, j]
                share = (unit * weight[t]) >> SHARE_BITS
                if supply[t] < room[t] or share < shares[t, room[t] - 1]:
                    supply[t] = _insert(shares, t, supply[t], room[t], share, uses)
        shrunk = (kept < length and lost) or (first_pass and shrunk)
        length, first_pass, looked_up = kept, False, False
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
        _reweigh(state, work, depth, least, experts)
    state.start[depth + 1] = target + length
    state.branch[depth] = _branching_expert(patterns, state, work, depth, limit)
    state.position[depth] = -1
    if depth < state.first.shape[0] - 1:
        _rank(patterns, state, depth)
    return visits + 2 * length


@kernel
def _reweigh(state: State, work: _Workspace, depth: int, least: int, experts: np.ndarray) -> None:
    """Let the weights follow what the experts pay."""
    if least > 0:
        scale = state.fixed.size << WEIGHT_BITS
        for q in range(state.num_alive[depth]):
            t = state.alive[depth, q]
            state.weight[depth, t] = max(WEIGHT_FLOOR, work.cost[experts[t]] * scale // least)


@kernel
def _complete(state: State) -> np.int64:
    """Return which of the first ``BITS`` experts have all their copies, as bits."""
    complete = np.int64(0)
    for e in range(min(BITS, state.fixed.size)):
        if state.placed[e] > 0 and state.placed[e] == state.fixed[e]:
            complete |= np.int64(1) << np.int64(e)
    return complete


@kernel
def _within(patterns: Patterns, state: State, depth: int, least_load: int) -> int:
    """Return how many patterns of the node above have at least this load."""
    source = state.start[depth - 1]
    low, high = 0, state.start[depth] - source
    while low < high:
        middle = (low + high) // 2
        if patterns.load[state.lists[source + middle]] < least_load:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def _loses(patterns: Patterns, state: State, depth: int, within: int, complete: np.int64) -> bool:
    """Whether it is plain that not all patterns of the node above remain: some are too light, or the chosen one is used up."""
    loses: bool = within < state.start[depth] - state.start[depth - 1] or (patterns.held[state.chosen[depth - 1]] & complete) != 0
    return loses


@kernel
def _candidates(patterns: Patterns, state: State, depth: int, within: int, complete: np.int64) -> int:
    """List what may remain of the patterns of the node above; return how many. Most go by a glance at the experts they hold."""
    source, target = state.start[depth - 1], state.start[depth]
    parent, siblings_done = state.branch[depth - 1], state.position[depth - 1]
    kept = 0
    for i in range(within):
        pattern = state.lists[source + i]
        # Of the patterns with the expert branched on above, those before the chosen one have been searched.
        tried = i < siblings_done and _holds(patterns, pattern, parent)
        state.lists[target + kept], state.unit[target + kept] = pattern, state.unit[source + i]
        kept += (patterns.held[pattern] & complete) == 0 and not tried
    return kept


@kernel
def _rank(patterns: Patterns, state: State, depth: int) -> None:
    """Sort, for every type, the patterns of a node that hold it by the share of their slack that it pays."""
    source, length, k = state.start[depth], state.start[depth + 1] - state.start[depth], patterns.types.shape[1]
    first, weight = state.first[depth], state.weight[depth]
    ranked = state.ranked[k * source :]
    first[:] = 0
    for i in range(length):
        for j in range(k):
            first[patterns.types[state.lists[source + i], j]] += 1
    total = 0
    for t in range(first.size):
        total += first[t]
        first[t] = total
    for i in range(length - 1, -1, -1):
        pattern, unit = state.lists[source + i], state.unit[source + i]
        for j in range(k):
            t = patterns.types[pattern, j]
            first[t] -= 1
            ranked[first[t]] = ((unit * weight[t]) >> SHARE_BITS) << PLACE_BITS | i
    for t in range(first.size - 1):
        _sort(ranked, first[t], first[t + 1])


@kernel
def _sort(values: np.ndarray, start: int, end: int) -> None:
    """Sort integers in place: passes of insertion over ever nearer neighbours."""
    gap = 1
    while 9 * gap < end - start:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(start + gap, end):
            value, at = values[i], i
            while at >= start + gap and values[at - gap] > value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value
        gap //= 3


@kernel
def _look_up(patterns: Patterns, state: State, work: _Workspace, depth: int, within: int, complete: np.int64, cap: int) -> int:
    """Find the cheapest shares of a new node's types among the ranked ones of the node above; return the visits.

    They are negative if the experts cannot be paid for.
    """
    source, room, alive, types = state.start[depth - 1], state.room[depth], state.alive[depth], patterns.types
    k = types.shape[1]
    ranked, first = state.ranked[k * source :], state.first[depth - 1]
    parent, siblings_done = state.branch[depth - 1], state.position[depth - 1]
    visits, least, q = 1, 0, 0
    while q < state.num_alive[depth]:
        expert, cheapest = patterns.expert[alive[q]], NEVER
        while q < state.num_alive[depth] and patterns.expert[alive[q]] == expert:
            t = alive[q]
            q += 1
            supply = cost = 0
            at = first[t]
            while at < first[t + 1] and supply < room[t]:
                cheap = ranked[at]
                at += 1
                i = cheap & ((1 << PLACE_BITS) - 1)
                pattern = state.lists[source + i]
                if i >= within or (patterns.held[pattern] & complete) != 0:
                    continue
                if i < siblings_done and _holds(patterns, pattern, parent):
                    continue
                uses = room[t] - supply
                for j in range(k):
                    other = types[pattern, j]
                    need = patterns.need[pattern, j]
                    uses = min(uses, room[other] if need == 1 else room[other] // need)
                share = cheap >> PLACE_BITS
                for _ in range(uses):
                    work.share[t, supply] = share
                    cost += share
                    supply += 1
            work.supply[t] = supply
            visits += (at - first[t]) // 2
            if supply == room[t]:
                cheapest = min(cheapest, cost)
        least += cheapest
        if least > cap:
            return -visits
    return visits


@kernel
def _usable(patterns: Patterns, room: np.ndarray, pattern: int) -> bool:
    """Whether a pattern needs no more copies of any type than are missing."""
    for j in range(patterns.types.shape[1]):  # noqa: SIM110 - all() over a generator does not compile
        if room[patterns.types[pattern, j]] < patterns.need[pattern, j]:
            return False
    return True


@kernel
def _holds(patterns: Patterns, pattern: int, expert: int) -> bool:
    if expert < BITS:
        held: bool = (patterns.held[pattern] >> np.int64(expert)) & np.int64(1) == 1
        return held
    return _covers(patterns.types, patterns.expert, pattern, expert)


@kernel
def _inherit(patterns: Patterns, state: State, depth: int) -> None:
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


@kernel
def _insert(shares: np.ndarray, t: int, length: int, most: int, share: int, times: int) -> int:
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


@kernel
def _drop_types(patterns: Patterns, state: State, work: _Workspace, depth: int, cap: int, slots_left: int) -> int:
    """Drop the types that no cover can use; return the least slack that the experts pay together, ``NEVER`` without a cover."""
    room, alive = state.room[depth], state.alive[depth]
    num_alive = state.num_alive[depth]
    least = kept = fewest_slots = most_slots = 0
    work.cost[:] = 0
    q = 0
    while q < num_alive:
        expert = patterns.expert[alive[q]]
        first, cheapest = kept, NEVER
        fewest, most = slots_left + 1, 0
        while q < num_alive and patterns.expert[alive[q]] == expert:
            t = alive[q]
            q += 1
            cost = NEVER
            if work.supply[t] == room[t]:
                cost = 0
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
            return NEVER
        for i in range(first, kept):
            work.extra[alive[i]] -= cheapest
        work.cost[expert] = cheapest
        least += cheapest
        fewest_slots += fewest
        most_slots += most
    if fewest_slots > slots_left or most_slots < slots_left:
        return NEVER
    num_alive, kept, q = kept, 0, 0
    while q < num_alive:
        first = q
        expert = patterns.expert[alive[q]]
        fewest, most = slots_left + 1, 0
        while q < num_alive and patterns.expert[alive[q]] == expert:
            fewest, most = min(fewest, room[alive[q]]), max(most, room[alive[q]])
            q += 1
        left = 0
        for i in range(first, q):
            t = alive[i]
            too_many = room[t] > fewest + slots_left - fewest_slots
            too_few = room[t] < most - (most_slots - slots_left)
            if too_many or too_few or least + work.extra[t] > cap:
                room[t] = 0
            else:
                alive[kept] = t
                kept += 1
                left += 1
        if left == 0:
            return NEVER
    state.num_alive[depth] = kept
    return least


@kernel
def _branching_expert(patterns: Patterns, state: State, work: _Workspace, depth: int, limit: int) -> int:
    """Return the expert in the fewest patterns, each counted by the share of the budget that it leaves."""
    work.score[:] = 0.0
    for i in range(state.start[depth], state.start[depth + 1]):
        pattern = state.lists[i]
        over = 0.0
        for j in range(patterns.types.shape[1]):
            if patterns.need[pattern, j] == 1:
                over += work.extra[patterns.types[pattern, j]]
        left = 1.0 - over / limit if limit > 0 else 1.0
        for j in range(patterns.types.shape[1]):
            if patterns.need[pattern, j] == 1:
                work.score[patterns.expert[patterns.types[pattern, j]]] += left
    fewest, chosen = np.inf, 0
    for q in range(state.num_alive[depth]):
        expert = patterns.expert[state.alive[depth, q]]
        if work.score[expert] < fewest:
            fewest, chosen = work.score[expert], expert
    return chosen
