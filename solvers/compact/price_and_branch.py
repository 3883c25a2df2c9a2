"""The textbook pattern model, solved by column generation and a restricted master MILP (price and branch).

A pattern p is what one GPU holds: exactly k replicas (e, c), expert e in c equal parts, of a load of at most T. For a given T::

    minimise sum_p x[p]
    sum_p n[p, e, c] x[p] >= c y[e, c]     enough patterns hold the c replicas of e
    sum_c y[e, c] = 1                      every expert has one count
    sum_{e, c} c y[e, c] = G k             and the counts fill all slots

The value is at least G, and more than G only where no map has a makespan of T: the relaxation by which dual feasibility decides
``P||Cmax`` and bin packing alike. T is bisected between the bounds known. Every count that a map within the known makespan can
have is a variable. A new pattern is the best knapsack of k items; for k <= 3 it is enumerated, beyond that a MILP finds it. Maps
come from the master over the patterns generated, solved as a MILP that leaves as little load uncovered as it can; what it leaves
is put on the free GPUs by LPT. There is no branching on original variables: it is price and branch, not branch and price.

Bounds are floating point and labelled claims. The formulation, not an engine: it is there to compare the engines with.

References
----------
M. Dell'Amico, M. Iori, S. Martello, M. Monaci: Heuristic and exact algorithms for the identical parallel machine scheduling
problem. INFORMS Journal on Computing 20(3), 2008. A. A. Farley: A note on bounding a class of linear programming problems,
including cutting stock problems. Operations Research 38(5), 1990.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact import native
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.compact.milp import round_claim
from eplb_gap.solvers.engine import Finding, Incumbent, Limits

RESOLUTION = 1e-6
"""Width of the bisection on T, relative to the mean load: the tolerance of the claims."""
TOLERANCE = 1e-7
PRICING_SHARE = 0.6
"""Part of the time after which the bisection stops and the restricted master is solved."""
MOST_COLUMNS = 400
"""Patterns that one pricing adds."""
ENUMERATED = 3
"""Slots per GPU up to which patterns are enumerated."""

Pattern = tuple[int, ...]


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield bounds on T, each a claim, and the maps of the restricted master.

    Parameters
    ----------
    instance : Instance
        All GPUs have equally many slots.
    incumbent : Incumbent
        Holds a map: its makespan limits T and the counts, its patterns are the first columns.
    limits : Limits

    Examples
    --------
    >>> import time
    >>> from eplb_gap.problem.instance import Instance
    >>> from eplb_gap.solvers.engine import Incumbent, Limits, drive
    >>> known = Incumbent(Instance((90, 50, 30, 10), 6, 3), bound=Bound(Fraction(50), "claim"))
    >>> known.offer_map((0, 1, 0, 2, 0, 3))
    True
    >>> drive(search, known, Limits(time.monotonic() + 5.0), lambda: None)
    >>> known.upper, known.bound.value
    (Fraction(60, 1), Fraction(60, 1))
    """
    assert incumbent.upper is not None and incumbent.slots is not None  # whoever compares gives every method a first map
    started = time.monotonic()
    pricing = replace(limits, deadline=started + PRICING_SHARE * limits.seconds_left)
    upper, slots = incumbent.upper, incumbent.slots
    items = Items.of(instance, upper)
    unit, multiple = items.unit, denominator(count_ranges(instance, upper))
    pool = _patterns(slots, items, instance)
    lowest = float(max(incumbent.bound.value, best_joint_bound(instance).value) / unit)
    highest = reached = float(upper / unit)
    while highest - lowest > RESOLUTION and pricing.seconds_left > 0:
        middle = (lowest + highest) / 2
        infeasible = _Master(items, instance, middle, pool).too_small(pricing)
        if infeasible is None:
            break
        if infeasible:
            lowest = middle
            claim = round_claim(lowest, unit, multiple, upper)
            yield Bound(claim, "claim", {"solver": "price and branch over HiGHS", "version": native.checked_highspy()})
        else:
            highest = middle
    for part in (0.0, 0.1, 0.3, 1.0):
        if limits.seconds_left <= 0 or reached - lowest <= RESOLUTION:
            return
        limit = highest + part * (reached - highest)
        found = _restricted(items, instance, limit, pool, limits)
        if found is not None:
            yield found
            if instance.makespan(found) < upper:
                return


@dataclass(frozen=True)
class Items:
    """The replicas that a GPU may hold, smallest first: expert, count, load relative to the mean, most copies on one GPU."""

    expert: np.ndarray
    count: np.ndarray
    size: np.ndarray
    most: np.ndarray
    unit: Fraction

    @classmethod
    def of(cls, instance: Instance, upper: Fraction) -> Items:
        """Return all replicas of maps within a makespan."""
        unit = instance.mean or Fraction(1)
        pairs = [(e, c) for e, counts in enumerate(count_ranges(instance, upper)) for c in counts]
        size = np.array([float(instance.loads[e] / unit / c) for e, c in pairs])
        order = np.argsort(size, kind="stable")
        expert, count = np.array(pairs, dtype=np.int64)[order].T
        most = np.minimum(count, instance.slots_per_gpu) if instance.duplicates == "allowed" else np.ones_like(count)
        return cls(expert, count, size[order], most, unit)


def _patterns(slots: Sequence[int], items: Items, instance: Instance) -> dict[Pattern, float]:
    """Return the GPUs of a map as patterns with their loads."""
    counted = Counter(slots)
    number = {(e, c): i for i, (e, c) in enumerate(zip(items.expert.tolist(), items.count.tolist(), strict=True))}
    k = instance.slots_per_gpu
    gpus = [slots[start : start + k] for start in range(0, len(slots), k)]
    held = [tuple(sorted(number[e, counted[e]] for e in gpu)) for gpu in gpus]
    return {pattern: float(items.size[list(pattern)].sum()) for pattern in held}


@dataclass
class _Master:
    """The linear relaxation for one T; what pricing finds is added to it and to the pool."""

    items: Items
    instance: Instance
    limit: float
    pool: dict[Pattern, float]
    highs: Any = field(init=False)

    def __post_init__(self) -> None:
        import highspy

        items, experts = self.items, self.instance.num_experts
        n, infinity = len(items.size), highspy.kHighsInf
        self.highs = native.new_highs({"threads": 1})
        for _ in range(n):
            self.highs.addRow(0.0, infinity, 0, [], [])
        for _ in range(experts):
            self.highs.addRow(1.0, 1.0, 0, [], [])
        slots = float(self.instance.num_slots)
        self.highs.addRow(slots, slots, 0, [], [])
        for i in range(n):
            fits = items.size[i] <= self.limit
            rows = np.array([i, n + items.expert[i], n + experts], dtype=np.int32)
            self.highs.addCol(0.0, 0.0, 1.0 if fits else 0.0, 3, rows, np.array([-items.count[i], 1.0, items.count[i]]))
            # A GPU for one replica alone keeps the first masters feasible; as part of a pattern it costs no more.
            self.highs.addCol(1.0, 0.0, infinity, 1, np.array([i], dtype=np.int32), np.array([1.0]))
        for i in range(n - 1):
            # Where a pattern holds the larger of two it can hold the smaller: prices ascend with the size, which steadies them.
            self.highs.addCol(0.0, 0.0, infinity, 2, np.array([i, i + 1], dtype=np.int32), np.array([1.0, -1.0]))
        for pattern, load in self.pool.items():
            if load <= self.limit:
                self._add(pattern)

    def _add(self, pattern: Pattern) -> None:
        held = Counter(pattern)
        rows, copies = np.array(list(held), dtype=np.int32), np.array(list(held.values()), dtype=float)
        self.highs.addCol(1.0, 0.0, float(self.instance.num_gpus), len(held), rows, copies)

    def too_small(self, limits: Limits) -> bool | None:
        """Whether no map has a makespan of T, by the relaxation; None where time ran out."""
        items, gpus, k = self.items, self.instance.num_gpus, self.instance.slots_per_gpu
        n = len(items.size)
        while limits.seconds_left > 0:
            self.highs.setOptionValue("time_limit", self.highs.getRunTime() + limits.seconds_left)
            native.check_status(self.highs, self.highs.run())
            if self.highs.modelStatusToString(self.highs.getModelStatus()) != "Optimal":
                return None
            value = self.highs.getInfo().objective_function_value
            if value <= gpus * (1 + TOLERANCE):
                return False
            prices = np.maximum(np.array(self.highs.getSolution().row_dual)[:n], 0.0)
            found = price(items, prices, self.limit, k, limits)
            if found is None:
                return None
            best, patterns = found
            # Farley's bound: prices divided by the best pattern's value are dual feasible.
            if value / max(best, 1.0) > gpus * (1 + TOLERANCE):
                return True
            fresh = [pattern for pattern in patterns if pattern not in self.pool]
            if not fresh:
                return None  # only rounding is left between the two
            for pattern in fresh:
                self.pool[pattern] = float(items.size[list(pattern)].sum())
                self._add(pattern)
        return None


def price(items: Items, prices: np.ndarray, limit: float, k: int, limits: Limits) -> tuple[float, list[Pattern]] | None:
    """Return the largest value of a pattern and patterns of a value above 1, best first; None where time ran out.

    Parameters
    ----------
    items : Items
        n of them.
    prices : ndarray
        float64 [n], non-negative.
    limit : float
        Largest load of a pattern.
    k : int
        Replicas of a pattern.
    limits : Limits
    """
    kept = _undominated(items.size, prices, k)
    kept = kept[items.size[kept] <= limit]
    copies = np.repeat(kept, items.most[kept])
    if k > ENUMERATED:
        return _priced_by_milp(items, prices, limit, k, kept, limits)
    if k == 1:
        best = int(kept[np.argmax(prices[kept])])
        return float(prices[best]), [(best,)]
    found = _enumerated(copies, items.size[copies], prices[copies], limit, k)
    if not found:
        return 0.0, []
    found.sort(reverse=True)
    return found[0][0], [pattern for value, pattern in found[:MOST_COLUMNS] if value > 1 + TOLERANCE]


def _enumerated(copies: np.ndarray, size: np.ndarray, worth: np.ndarray, limit: float, k: int) -> list[tuple[float, Pattern]]:
    """Return for every largest item the best pattern of two or three, as value and pattern."""
    # The best item among the first so many: what completes a pattern best.
    first = np.maximum.accumulate(worth)
    which = np.maximum.accumulate(np.where(worth >= first, np.arange(len(worth)), 0))
    found = []
    for largest in range(k - 1, len(copies)):
        middle = np.arange(1, largest) if k == ENUMERATED else np.array([largest])
        taken = worth[largest] + (worth[middle] if k == ENUMERATED else 0.0)
        room = limit - size[largest] - (size[middle] if k == ENUMERATED else 0.0)
        end = np.minimum(middle, np.searchsorted(size, room, side="right")) - 1
        value = np.where(end >= 0, taken + first[end], -1.0)
        best = int(np.argmax(value))
        if end[best] >= 0:
            held = {2: (largest,), 3: (largest, int(middle[best]))}[k]
            found.append((float(value[best]), tuple(sorted(int(copies[i]) for i in (which[end[best]], *held)))))
    return found


def _undominated(size: np.ndarray, prices: np.ndarray, k: int) -> np.ndarray:
    """Return the items, in ascending order, that fewer than k others dominate: no larger and worth no less.

    A pattern with any other item has a dominating one that it does not hold yet, and may take that instead.
    """
    best: list[float] = []
    kept = []
    for i, worth in enumerate(prices.tolist()):
        if len(best) < k:
            heapq.heappush(best, worth)
        elif worth > best[0]:
            heapq.heapreplace(best, worth)
        else:
            continue
        kept.append(i)
    return np.array(kept, dtype=np.int64)


def _priced_by_milp(
    items: Items, prices: np.ndarray, limit: float, k: int, kept: np.ndarray, limits: Limits
) -> tuple[float, list[Pattern]] | None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = np.stack([np.ones(len(kept)), items.size[kept]])
    solved = milp(
        -prices[kept],
        integrality=np.ones(len(kept)),
        bounds=Bounds(0, items.most[kept]),
        constraints=LinearConstraint(rows, [k, 0.0], [k, limit]),
        options={"time_limit": max(limits.seconds_left, 1e-3), "mip_rel_gap": 0.0},
    )
    if solved.status != 0:
        return (0.0, []) if solved.status == 2 else None
    pattern = tuple(np.repeat(kept, np.rint(solved.x).astype(np.int64)).tolist())
    return float(-solved.mip_dual_bound), [pattern]


def _restricted(
    items: Items, instance: Instance, limit: float, pool: dict[Pattern, float], limits: Limits
) -> tuple[int, ...] | None:
    """Return the map of the master over the patterns within a limit, as a MILP; None if none was found in time."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix

    patterns = [pattern for pattern, load in pool.items() if load <= limit + RESOLUTION]
    n, m, experts, k = len(items.size), len(patterns), instance.num_experts, instance.slots_per_gpu
    # Columns: copies of every pattern, counts chosen, replicas left uncovered.
    entries = [(i, p, float(copies)) for p, pattern in enumerate(patterns) for i, copies in Counter(pattern).items()]
    for i in range(n):
        count = float(items.count[i])
        entries += [(i, m + i, -count), (i, m + n + i, 1.0), (n + int(items.expert[i]), m + i, 1.0), (n + experts, m + i, count)]
    entries += [(n + experts + 1, p, 1.0) for p in range(m)]
    row, column, value = zip(*entries, strict=True)
    matrix = coo_matrix((value, (row, column)), shape=(n + experts + 2, m + 2 * n)).tocsr()
    low = np.concatenate([np.zeros(n), np.ones(experts), [instance.num_slots, 0]])
    high = np.concatenate([np.zeros(n), np.ones(experts), [instance.num_slots, instance.num_gpus]])
    most = np.concatenate([np.full(m, instance.num_gpus), np.ones(n), items.count])
    solved = milp(
        np.concatenate([np.zeros(m + n), items.size]),
        integrality=np.ones(m + 2 * n),
        bounds=Bounds(0, most),
        constraints=LinearConstraint(matrix, low, high),
        options={"time_limit": max(limits.seconds_left, 1e-3), "mip_rel_gap": 0.0},
    )
    if solved.x is None:
        return None
    whole = np.rint(solved.x).astype(np.int64)
    gpus = [list(pattern) for pattern, copies in zip(patterns, whole[:m], strict=True) for _ in range(copies)]
    left = np.repeat(np.arange(n), whole[m + n :])[::-1].tolist()
    free: list[list[int]] = [[] for _ in range(instance.num_gpus - len(gpus))]
    for item in left:  # largest first
        room = [gpu for gpu in free if len(gpu) < k]
        if instance.duplicates == "forbidden":
            room = [gpu for gpu in room if item not in gpu]
        if not room:
            return None
        min(room, key=lambda gpu: float(items.size[gpu].sum())).append(item)
    return tuple(int(items.expert[i]) for gpu in gpus + free for i in gpu)
