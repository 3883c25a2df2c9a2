"""Annealing towards a threshold at two slots per GPU, compiled: replica counts move until no row of breakpoints is short.

The counts of the experts are a choice of one column each of the need-model's inventory (:mod:`eplb_gap.solvers.engines.pairing`).
The energy is the weighted shortage of small replicas over its rows. A move gives one expert a replica that another loses; it
adds a constant to the stocks between two of the four rows at which the two experts enter or leave, so that sums of the shortage
for every possible change, up to every row, price it with a few look-ups. Rows that stay short become dearer: the temperature
need not fall. A move takes a third of the time that annealing the makespan
of a fold takes, and a shortage tells apart counts whose makespans are equal.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import below, entry, kernel, random, seed_random
from eplb_gap.solvers.engines.need_model import Inventory

TEMPERATURE = 0.3
"""In replicas that one row is short of."""
PATIENCE, STEP = 20_000, 0.1
"""Moves after which rows that are short become dearer, and by how much."""
NEAR, SPAN = 0.5, 10
"""Share of the moves between experts of similar loads, and how far apart these are in the order of loads."""
CHANGE = 6
WIDTH = 2 * CHANGE + 1
"""Changes of a stock for which sums are kept are at most CHANGE."""


def annealed(model: Inventory, loads: np.ndarray, counts: np.ndarray, num_slots: int, moves: int, seed: int) -> np.ndarray | None:
    """Return counts with ``num_slots`` as their sum, near the given ones and as close to satisfying all rows as annealing gets.

    Parameters
    ----------
    model : Inventory
        Its columns are the counts that are allowed.
    loads : ndarray
        [experts]; experts of similar loads exchange replicas more often.
    counts : ndarray
        int64 [experts]; those that are not allowed are replaced by the nearest below, or above where there is none.
    num_slots, moves, seed : int

    Returns
    -------
    ndarray or None
        int64 [experts]; None if no counts of this sum were found.
    """
    order = np.argsort(-loads, kind="stable")
    starts = np.searchsorted(model.expert, np.arange(loads.size + 1))
    if (np.diff(starts) == 0).any():
        return None
    columns = np.concatenate([np.arange(starts[e], starts[e + 1]) for e in order])
    first = np.concatenate([[0], np.cumsum(np.diff(starts)[order])])
    count, expert = model.count[columns], np.repeat(np.arange(order.size), np.diff(first))
    chosen = first[:-1] + np.maximum(0, np.bincount(expert[count <= counts[order][expert]], minlength=order.size) - 1)
    generator = np.random.default_rng(seed)
    while (change := num_slots - int(count[chosen].sum())) != 0:
        step = 1 if change > 0 else -1
        moved = np.clip(chosen + step, first[:-1], first[1:] - 1)
        by = (count[moved] - count[chosen]) * step
        possible = np.flatnonzero((by > 0) & (by <= change * step))
        if not possible.size:
            return None
        some = generator.choice(possible)
        chosen[some] = moved[some]
    row = np.where(model.row < 0, model.num_rows, model.row)[columns]
    value = np.where(model.small, model.count, -model.count)[columns]
    anneal_need(first, count, row, value, model.num_rows, chosen, moves, seed)
    found = np.empty(order.size, dtype=np.int64)
    found[order] = count[chosen]
    return found


@entry
def anneal_need(
    first: np.ndarray, count: np.ndarray, row: np.ndarray, value: np.ndarray, num_rows: int, chosen: np.ndarray, moves: int,
    seed: int,
) -> int:  # fmt: skip
    """Move replicas between experts until the chosen columns satisfy all rows; return by how much the best ones miss that.

    Parameters
    ----------
    first : ndarray
        First column of every expert and, last, the number of columns, int64 [experts + 1]; experts by descending loads.
    count, row, value : ndarray
        Replicas, row in which the stock changes (``num_rows``: none), and by how much, int64 [columns]; counts ascending.
    num_rows : int
    chosen : ndarray
        Column of every expert, int64 [experts]; replaced by the best ones met, of as many replicas.
    moves : int
        Moves that are tried at most.
    seed : int

    Returns
    -------
    int
        Sum of the best columns' shortages over the rows; 0 if they satisfy all.
    """
    seed_random(seed)
    free, places, lower, place = _free_experts(first, chosen)
    num_free, num_lower = free.size, 0
    for expert in free:
        if chosen[expert] > first[expert]:
            place[expert] = num_lower
            lower[num_lower] = expert
            num_lower += 1
    stock, weights = np.zeros(num_rows, np.int64), np.ones(num_rows)
    for expert in range(chosen.size):
        _change(stock, row[chosen[expert]], num_rows, value[chosen[expert]])
    sums = np.zeros((num_rows + 1, WIDTH))
    missing = _sum_up(stock, weights, sums, 0)
    least, best = missing, chosen.copy()
    rows, changes = np.empty(5, np.int64), np.empty(4, np.int64)
    rows[4] = num_rows
    for move in range(1, moves + 1):
        if least == 0 or num_lower == 0:
            break
        if move % PATIENCE == 0:
            for j in range(num_rows):
                if stock[j] < 0:
                    weights[j] += STEP
            _sum_up(stock, weights, sums, 0)
        take = lower[below(num_lower)]
        at = below(num_free)
        if random() < NEAR:
            at = places[take] + below(2 * SPAN + 1) - SPAN
            if at < 0 or at >= num_free:
                continue
        give = free[at]
        more, fewer = chosen[give] + 1, chosen[take] - 1
        if give == take or more >= first[give + 1] or count[more] - count[more - 1] != count[fewer + 1] - count[fewer]:
            continue
        rows[0], changes[0] = row[more - 1], -value[more - 1]
        rows[1], changes[1] = row[more], value[more]
        rows[2], changes[2] = row[fewer + 1], -value[fewer + 1]
        rows[3], changes[3] = row[fewer], value[fewer]
        _sort(rows, changes)
        total, change = 0.0, 0
        for i in range(4):
            change += changes[i]
            total += _gain(stock, weights, sums, rows[i], rows[i + 1], change)
        if total > 0.0 and total > -TEMPERATURE * np.log(1.0 - random()):
            continue
        change = 0
        for i in range(4):
            change += changes[i]
            _change(stock, rows[i], rows[i + 1], change)
        missing = _sum_up(stock, weights, sums, rows[0])
        chosen[give], chosen[take] = more, fewer
        if more - 1 == first[give]:
            place[give] = num_lower
            lower[num_lower] = give
            num_lower += 1
        if fewer == first[take]:
            num_lower -= 1
            moved = lower[num_lower]
            lower[place[take]] = moved
            place[moved] = place[take]
        if missing < least:
            least = missing
            for expert in range(chosen.size):
                best[expert] = chosen[expert]
    for expert in range(chosen.size):
        chosen[expert] = best[expert]
    return least


@kernel
def _free_experts(first: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the experts with a choice, everyone's place among them, and room for those that can lose a replica."""
    num_experts, num_free = chosen.size, 0
    places = np.empty(num_experts, np.int64)
    for expert in range(num_experts):
        places[expert] = num_free
        if first[expert + 1] - first[expert] > 1:
            num_free += 1
    free = np.empty(num_free, np.int64)
    for expert in range(num_experts):
        if first[expert + 1] - first[expert] > 1:
            free[places[expert]] = expert
    return free, places, np.empty(num_free, np.int64), np.empty(num_experts, np.int64)


@kernel
def _change(stock: np.ndarray, start: int, end: int, change: int) -> None:
    """Change the stocks of some rows."""
    if change != 0:
        for j in range(start, end):
            stock[j] += change


@kernel
def _sum_up(stock: np.ndarray, weights: np.ndarray, sums: np.ndarray, start: int) -> int:
    """Write for every change the weighted shortages before every row behind ``start``; return the plain one of all rows."""
    missing = 0
    for j in range(start):
        missing += max(0, -stock[j])
    for j in range(start, stock.size):
        missing += max(0, -stock[j])
        short = -stock[j] + CHANGE
        for d in range(WIDTH):
            sums[j + 1, d] = sums[j, d] + weights[j] * max(0, short - d)
    return missing


@kernel
def _gain(stock: np.ndarray, weights: np.ndarray, sums: np.ndarray, start: int, end: int, change: int) -> float:
    """Return by how much a change of the stocks of some rows changes their weighted shortage."""
    if change == 0 or start >= end:
        return 0.0
    if -CHANGE <= change <= CHANGE:
        at = change + CHANGE
        return float((sums[end, at] - sums[start, at]) - (sums[end, CHANGE] - sums[start, CHANGE]))
    total = 0.0
    for j in range(start, end):
        total += weights[j] * (max(0, -stock[j] - change) - max(0, -stock[j]))
    return total


@kernel
def _sort(rows: np.ndarray, changes: np.ndarray) -> None:
    """Sort four changes by their rows."""
    for i in range(1, 4):
        row, change, at = rows[i], changes[i], i
        while at > 0 and rows[at - 1] > row:
            rows[at], changes[at] = rows[at - 1], changes[at - 1]
            at -= 1
        rows[at], changes[at] = row, change
