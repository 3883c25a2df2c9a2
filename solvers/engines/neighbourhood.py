"""Exact-cover neighbourhood search: re-partition the fullest GPU and some others, exactly, below the makespan.

The experts whose replicas all lie on the chosen GPUs may change their counts there; the others keep theirs. Within a target T
the n chosen GPUs, whose loads sum to a constant W, carry at least ``W - (n - 1) T`` each. The *patterns* in that band, the
possible contents of one GPU, are few; a new placement is an exact cover of the replicas by n of them whose slacks ``T - load``
add up to ``n T - W``. A depth-first search with a limit looks for one.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, kernel, random, seed_random

MAX_PATTERNS = 6000
MAX_LOOKED = 200_000
"""Patterns that one depth-first search may look at: most covers are found early or not at all."""
MAX_STEPS = 1_000_000
"""Steps that one enumeration may take, some 30 ms."""
DRAWS = 64
"""Draws per GPU for the choice of a neighbourhood; what they leave open is filled in order."""
SETUP = 2000
"""Patterns whose inspection takes as long as setting up one search."""
COUNT_STEP = 1
"""Counts of an expert differ by at most this from those it had."""


@entry
def improve(
    loads: np.ndarray,
    slots: np.ndarray,
    num_gpus: int,
    max_count: int,
    distinct: bool,
    bound: float,
    size: int,
    work: int,
    seed: int,
) -> float:
    """Improve a map by re-partitioning neighbourhoods of its fullest GPU.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    slots : ndarray
        Expert of every slot, int64 [slots], GPU-major: a legal map; changed in place, always legal.
    num_gpus, max_count : int
        Most replicas that an expert may have.
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    bound : float
        A lower bound on the makespan, in tokens: at or below it the search stops.
    size : int
        GPUs of a neighbourhood.
    work : int
        Patterns to look at, all told: some 30 ns each. A caller that may be interrupted asks for as many as it can wait for.
    seed : int

    Returns
    -------
    float
        Makespan of the map, in tokens.
    """
    seed_random(seed)
    k = slots.size // num_gpus
    n = min(size, num_gpus)
    counts = np.zeros(loads.size, dtype=np.int64)
    for expert in slots:
        counts[expert] += 1
    gpus = np.zeros(num_gpus)
    for slot in range(slots.size):
        gpus[slot // k] += loads[slots[slot]] / counts[slots[slot]]
    while work > 0:
        full = int(np.argmax(gpus))
        makespan = gpus[full]
        if makespan <= bound:
            break
        chosen = _choose(slots, gpus, full, n, k)
        total = 0.0
        for g in chosen:
            total += gpus[g]
        mean = max(total / n, bound)
        target = mean + (makespan - mean) * (0.5 + 0.49 * random())
        work -= SETUP
        if target >= makespan * (1.0 - 1e-12):
            continue
        held = np.empty(n * k, dtype=np.int64)
        for i in range(n):
            for j in range(k):
                held[i * k + j] = slots[chosen[i] * k + j]
        found, spent = _cover(loads, counts, held, n, k, max_count, distinct, target)
        work -= spent
        if found:
            for i in range(n):
                g = chosen[i]
                for j in range(k):
                    counts[slots[g * k + j]] -= 1
            for i in range(n):
                for j in range(k):
                    counts[held[i * k + j]] += 1
            for i in range(n):
                g = chosen[i]
                gpus[g] = 0.0
                for j in range(k):
                    slots[g * k + j] = held[i * k + j]
                    gpus[g] += loads[held[i * k + j]] / counts[held[i * k + j]]
    return float(gpus.max())


@kernel
def _choose(slots: np.ndarray, gpus: np.ndarray, full: int, n: int, k: int) -> np.ndarray:
    """Return the fullest GPU and others: half the time any, else preferably such that share an expert with one chosen."""
    num_gpus = gpus.size
    chosen = np.empty(n, dtype=np.int64)
    taken = np.zeros(num_gpus, dtype=np.bool_)
    chosen[0] = full
    taken[full] = True
    number = 1
    kin = random() < 0.5
    for draw in range((DRAWS + 1) * num_gpus):
        if number == n:
            break
        g = below(num_gpus) if draw < DRAWS * num_gpus else draw - DRAWS * num_gpus
        if kin and draw < DRAWS * num_gpus and random() < 0.7:
            expert = slots[chosen[below(number)] * k + below(k)]
            start = below(slots.size)
            for i in range(slots.size):
                slot = (start + i) % slots.size
                if slots[slot] == expert and not taken[slot // k]:
                    g = slot // k
                    break
        if not taken[g]:
            taken[g] = True
            chosen[number] = g
            number += 1
    return chosen


@kernel
def _cover(
    loads: np.ndarray, counts: np.ndarray, held: np.ndarray, n: int, k: int, max_count: int, distinct: bool, target: float
) -> tuple[bool, int]:
    """Look for a partition of the replicas held by n GPUs within the target and write it to ``held``.

    Return whether there is one, as far as the search went, and the patterns looked at.
    """
    experts = np.empty(held.size, dtype=np.int64)
    inside = np.zeros(held.size, dtype=np.int64)
    m = 0
    for expert in np.sort(held):
        if m == 0 or experts[m - 1] != expert:
            experts[m] = expert
            m += 1
        inside[m - 1] += 1
    # A type is an expert with a count: its size, and the copies that must be placed here.
    owner = np.empty(m * (2 * COUNT_STEP + 1), dtype=np.int64)
    copies = np.empty(owner.size, dtype=np.int64)
    sizes = np.empty(owner.size)
    types = 0
    least, most = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.int64)
    total = 0.0
    for i in range(m):
        w, c = loads[experts[i]], counts[experts[i]]
        total += w * inside[i] / c
        free = inside[i] == c
        least[i], most[i] = n * k, 0
        for count in range(max(1, c - COUNT_STEP), min(max_count, c + COUNT_STEP) + 1):
            if (free or count == c) and w / count <= target:
                number = count if free else inside[i]
                owner[types], copies[types], sizes[types] = i, number, w / count
                least[i], most[i] = min(least[i], number), max(most[i], number)
                types += 1
    order = np.argsort(-sizes[:types])
    owner, copies, sizes = owner[order], copies[order], sizes[order]
    unsorted = np.empty((MAX_PATTERNS, k), dtype=np.int64)
    number, spent = _enumerate(owner, copies, sizes, k, distinct, total - (n - 1) * target, target, unsorted)
    if number == 0:
        return False, spent
    slack = np.empty(number)
    for p in range(number):
        slack[p] = target
        for j in range(k):
            slack[p] -= sizes[unsorted[p, j]]
    order = np.argsort(slack)
    slack = slack[order]
    patterns = np.empty((number, k), dtype=np.int64)
    for p in range(number):
        for j in range(k):
            patterns[p, j] = unsorted[order[p], j]
    picked = np.empty(n, dtype=np.int64)
    found, looked = _search(owner, copies, patterns, slack, least, most, n, k, n * target - total, picked)
    if found:
        for i in range(n):
            for j in range(k):
                held[i * k + j] = experts[owner[patterns[picked[i], j]]]
    return found, spent + looked


@kernel
def _enumerate(
    owner: np.ndarray,
    copies: np.ndarray,
    sizes: np.ndarray,
    k: int,
    distinct: bool,
    low: float,
    high: float,
    patterns: np.ndarray,
) -> tuple[int, int]:
    """Write the k-multisets of types with a load in the band, sizes descending, one count per expert.

    Return their number and the steps taken.
    """
    types = sizes.size
    number = 0
    item = np.zeros(k, dtype=np.int64)
    sums = np.zeros(k + 1)
    smallest = sizes[types - 1]
    depth = steps = 0
    while depth >= 0 and steps < MAX_STEPS:
        steps += 1
        i = item[depth]
        left = k - depth
        if i == types or sums[depth] + left * sizes[i] < low:
            depth -= 1
            if depth >= 0:
                item[depth] += 1
            continue
        rest = high - sums[depth] - (left - 1) * smallest
        if sizes[i] > rest:
            # Jump to the first type that leaves room for the smallest ones.
            first, last = i, types
            while first < last:
                middle = (first + last) // 2
                if sizes[middle] > rest:
                    first = middle + 1
                else:
                    last = middle
            item[depth] = first
            continue
        same = 1
        clash = False
        for j in range(depth):
            if item[j] == i:
                same += 1
            elif owner[item[j]] == owner[i]:
                clash = True
        if clash or same > copies[i] or (distinct and same > 1):
            item[depth] += 1
            continue
        if depth == k - 1:
            for j in range(k):
                patterns[number, j] = item[j]
            number += 1
            if number == patterns.shape[0]:
                return number, steps
            item[depth] += 1
            continue
        sums[depth + 1] = sums[depth] + sizes[i]
        depth += 1
        item[depth] = i
    return number, steps


@kernel
def _search(
    owner: np.ndarray,
    copies: np.ndarray,
    patterns: np.ndarray,
    slack: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    n: int,
    k: int,
    budget: float,
    picked: np.ndarray,
) -> tuple[bool, int]:
    """Depth-first search for n patterns that cover every expert by as many copies as its count says.

    Return whether it found them, and the patterns it looked at.
    """
    m = least.size
    number = slack.size
    lists = np.empty((n + 1, number), dtype=np.int64)
    lengths = np.zeros(n + 1, dtype=np.int64)
    lists[0, :number] = np.arange(number)
    lengths[0] = number
    room = np.zeros(n + 1)
    room[0] = budget
    # fixed[e] is the type that expert e has been given, left[e] its copies still to be placed.
    fixed = np.full(m, -1, dtype=np.int64)
    left = np.zeros(m, dtype=np.int64)
    need, most_left = least.sum(), most.sum()
    branch = np.full(n + 1, -1, dtype=np.int64)
    position = np.zeros(n + 1, dtype=np.int64)
    seen = np.zeros(m, dtype=np.int64)
    depth = looked = 0
    while depth >= 0:
        if branch[depth] < 0:
            looked += lengths[depth]
            if looked > MAX_LOOKED:
                return False, looked
            seen[:] = 0
            for i in range(lengths[depth]):
                p = lists[depth, i]
                for j in range(k):
                    seen[owner[patterns[p, j]]] += 1
            fewest = number * k + 1
            for e in range(m):
                if (fixed[e] < 0 or left[e] > 0) and seen[e] < fewest:
                    fewest = seen[e]
                    branch[depth] = e
            position[depth] = 0 if fewest > 0 else lengths[depth]
        e = branch[depth]
        found = -1
        i = position[depth]
        while i < lengths[depth]:
            p = lists[depth, i]
            if slack[p] > room[depth]:
                break
            for j in range(k):
                if owner[patterns[p, j]] == e:
                    found = p
                    break
            if found >= 0:
                break
            i += 1
        if found < 0:
            branch[depth] = -1
            depth -= 1
            if depth >= 0:
                need, most_left = _undo(owner, copies, patterns[picked[depth]], k, least, most, fixed, left, need, most_left)
            continue
        position[depth] = i + 1
        picked[depth] = found
        for j in range(k):
            t = patterns[found, j]
            o = owner[t]
            if fixed[o] < 0:
                fixed[o] = t
                left[o] = copies[t]
                need += copies[t] - least[o]
                most_left += copies[t] - most[o]
            left[o] -= 1
            need -= 1
            most_left -= 1
        slots_left = (n - depth - 1) * k
        if depth + 1 == n and need == 0 and most_left == 0:
            return True, looked
        if need > slots_left or most_left < slots_left or depth + 1 == n:
            need, most_left = _undo(owner, copies, patterns[found], k, least, most, fixed, left, need, most_left)
            continue
        room[depth + 1] = room[depth] - slack[found]
        length = 0
        looked += lengths[depth]
        for q in range(lengths[depth]):
            p = lists[depth, q]
            if slack[p] > room[depth + 1]:
                break
            fits = True
            extra = 0
            branched = False
            for j in range(k):
                t = patterns[p, j]
                o = owner[t]
                branched |= o == e
                if fixed[o] >= 0:
                    if fixed[o] != t:
                        fits = False
                        break
                    same = 1
                    for h in range(j):
                        if patterns[p, h] == t:
                            same += 1
                    if same > left[o]:
                        fits = False
                        break
                elif j == 0 or patterns[p, j - 1] != t:
                    extra += copies[t] - least[o]
            # Patterns with the branching expert that were tried before this one are not tried again below it.
            if fits and need + extra <= slots_left and not (branched and q < i):
                lists[depth + 1, length] = p
                length += 1
        depth += 1
        lengths[depth] = length
        branch[depth] = -1
    return False, looked


@kernel
def _undo(
    owner: np.ndarray,
    copies: np.ndarray,
    pattern: np.ndarray,
    k: int,
    least: np.ndarray,
    most: np.ndarray,
    fixed: np.ndarray,
    left: np.ndarray,
    need: int,
    most_left: int,
) -> tuple[int, int]:
    for j in range(k - 1, -1, -1):
        t = pattern[j]
        o = owner[t]
        left[o] += 1
        need += 1
        most_left += 1
        if left[o] == copies[t]:
            fixed[o] = -1
            left[o] = 0
            need -= copies[t] - least[o]
            most_left -= copies[t] - most[o]
    return need, most_left
