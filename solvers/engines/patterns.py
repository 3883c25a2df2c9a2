"""Three or four slots per GPU: annealing and exact-cover neighbourhoods from above, the pattern relaxation from below.

Within a threshold T, a GPU holds a *pattern*: k replicas whose loads sum to at most T. The relaxation covers all experts by
G patterns, fractions allowed. Its dual has a price for every replica load, nondecreasing, and is solved by generating
patterns: the dearest ones at the prices found so far. Prices that refute T are rounded to integers and go through the exact
check of :mod:`eplb_gap.problem.bounds.pattern_dual`, so nothing rests on the linear solver.

Where the relaxation does not refute T because it mixes two counts of an expert, the search branches on that count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.bounds.pattern_dual import (
    Branch,
    CountRanges,
    Prices,
    Proof,
    counts_within,
    pattern_refutes,
    pattern_witness,
    previous_pattern_load,
    prices_refute,
)
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.native import checked_highspy, new_highs, run_highs
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits
from eplb_gap.solvers.engines.improvement import Improvement

PATIENCE = 300
"""Rounds without improvement after which the search ends."""
FIRST_ROUNDS = 3
"""Rounds from above before the relaxation is set up: often the map is then so near the bound that it is not needed."""
WORTHWHILE = Fraction(1, 10**4)
"""A relaxation that is feasible this close to the bound is not looked at further: nothing better can come from it."""
RESOLUTION = Fraction(1, 10**5)
"""A bisection ends at an interval of this length, relative to the bound."""
EXTRA_COUNTS = 6
"""Prices rise at the loads of so many counts beyond the least; replicas of larger counts cost as the next smaller load does."""
MERGED = 3e-5
"""Loads this close, relative to the makespan, share a price."""
PRICE_UNIT = 10**7
MAX_ITERATIONS = 80
PASSES = (0, 60, 300)
"""Branches that a refutation may use, pass after pass."""


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps and stronger bounds until the deadline, or until nothing has improved for long.

    Parameters
    ----------
    instance : Instance
        With three or four slots per GPU.
    incumbent : Incumbent
        Its map starts the search, its bound limits it.
    limits : Limits

    Raises
    ------
    InputError
        If a GPU has not three or four slots.
    RuntimeError
        If highspy is older than 1.15.1.
    KeyboardInterrupt
        On Ctrl-C.
    """
    if instance.slots_per_gpu not in (3, 4):
        raise InputError(f"a GPU has {instance.slots_per_gpu} slots; the pattern search needs 3 or 4")
    above = Improvement(instance, incumbent.slots or greedy_map(instance), limits.seed)
    yield above.best
    bound = best_joint_bound(instance)
    yield bound
    lower = max(bound.value, incumbent.bound.value)
    below: _Below | None = None
    rounds = idle = 0
    while limits.seconds_left > 0 and above.upper > lower and idle < PATIENCE:
        rounds, idle = rounds + 1, idle + 1
        if above.round(lower):
            idle = 0
            yield above.best
        if below is None and rounds == FIRST_ROUNDS and above.upper > lower * (1 + WORTHWHILE):
            below = _Below(instance, lower, above.upper)
        if below is not None and not below.finished and limits.seconds_left > 0:
            idle = 0
            stronger = below.probe(above.upper, limits)
            if stronger is not None:
                lower = stronger.value
                yield stronger


class _Below:
    """Thresholds refuted by the relaxation: a bisection at the root, then with branches, more of them in every pass.

    A pass with branches begins just below the best map, at the largest load that any GPU could have there: to refute that is to
    prove the map optimal.
    """

    def __init__(self, instance: Instance, lower: Fraction, upper: Fraction) -> None:
        self.instance = instance
        self.finished = False
        self.lower = lower
        self._relaxation = _Relaxation(instance, lower, upper)
        self._started = False
        self._pass = 0
        self._high: Fraction | None = None
        self._tried: Fraction | None = None
        self._refuted: tuple[Fraction, Proof] | None = None

    def probe(self, upper: Fraction, limits: Limits) -> Bound | None:
        """Try to refute one threshold; return the bound if that succeeds."""
        high = upper if self._high is None else min(self._high, upper)
        if not self._started:
            self._started = True
            bound = self._bisect(self.lower * (1 + WORTHWHILE), high, limits)
            self.finished = bound is None
            return bound
        if self._pass and self._tried != upper:
            self._tried = upper
            return self._prove(upper, limits)
        if high - self.lower > RESOLUTION * self.lower:
            return self._bisect(_short((self.lower + high) / 2), high, limits)
        self._pass += 1
        self._high = self._tried = None
        self.finished = self._pass == len(PASSES)
        return None

    def _bisect(self, threshold: Fraction, high: Fraction, limits: Limits) -> Bound | None:
        proof = self._relaxation.refute(threshold, PASSES[self._pass], limits)
        if proof is None:
            self._high = threshold
            return None
        self.lower = threshold if isinstance(proof, Branch) else self._furthest(threshold, high, proof)
        self._refuted = self.lower, proof
        return Bound(self.lower, "pattern dual", pattern_witness(self.lower, proof))

    def _prove(self, upper: Fraction, limits: Limits) -> Bound | None:
        try:
            previous = previous_pattern_load(self.instance, upper)
        except InputError:  # too many counts are possible for this proof; the bisection goes on
            return None
        if previous is None:
            return None
        if self._refuted is not None and previous <= self._refuted[0]:
            threshold, proof = self._refuted
            return Bound(upper, "pattern dual", pattern_witness(threshold, proof, upper))
        found = self._relaxation.refute(previous, PASSES[self._pass], limits)
        return None if found is None else Bound(upper, "pattern dual", pattern_witness(previous, found, upper))

    def _furthest(self, low: Fraction, high: Fraction, prices: Prices) -> Fraction:
        """Return a threshold as large as possible that the same prices refute."""
        for _ in range(20):
            middle = _short((low + high) / 2)
            if not low < middle < high or high - low < RESOLUTION / 10 * low:
                break
            if pattern_refutes(self.instance, middle, prices):
                low = middle
            else:
                high = middle
        return low


def _short(value: Fraction) -> Fraction:
    """Return nearly the same value with a short denominator, which keeps fractions small."""
    return Fraction(math.floor(value * 2**30), 2**30)


@dataclass(frozen=True)
class _Solved:
    refuted: bool
    prices: list[tuple[Fraction, int]]
    weights: np.ndarray  # of every type (expert, count): how much of the expert has that count
    experts: np.ndarray
    counts: np.ndarray


class _Relaxation:
    """The linear programme of prices, with the patterns generated so far."""

    def __init__(self, instance: Instance, lower: Fraction, upper: Fraction) -> None:
        checked_highspy()
        self.instance = instance
        self._bits = max(0, min(30, 50 - max(instance.loads).bit_length()))
        self._steps = self._price_steps(lower, upper)
        self._pool = np.empty((0, instance.slots_per_gpu), dtype=np.int64)
        self._known: set[tuple[int, ...]] = set()
        i, j = np.triu_indices(self._steps.size) if instance.slots_per_gpu == 4 else (np.empty(0, dtype=np.int64),) * 2
        order = np.argsort(self._steps[i] + self._steps[j], kind="stable")
        self._pairs = i[order], j[order]

    def _price_steps(self, lower: Fraction, upper: Fraction) -> np.ndarray:
        """Return the loads at which prices may rise: those of the few smallest counts of every expert, near ones merged."""
        ranges = counts_within(self.instance, upper)
        assert ranges is not None, "a threshold is refuted although a map within it is known"
        steps = {0.0}
        for w, least, most in zip(self.instance.loads, ranges.least, ranges.most, strict=True):
            enough = int(max(least, math.ceil(w / lower) if lower else 1)) + EXTRA_COUNTS
            steps |= {
                math.floor(w * 2**self._bits / count) / 2**self._bits for count in range(int(least), min(int(most), enough) + 1)
            }
        kept = [0.0]
        for load in sorted(steps):
            if load - kept[-1] > MERGED * float(upper):
                kept.append(load)
        return np.array(kept)

    def refute(self, threshold: Fraction, nodes: int, limits: Limits) -> Proof | None:
        """Return a proof that no placement is within the threshold, with branches at no more than so many nodes, or None."""
        ranges = counts_within(self.instance, threshold)
        if ranges is None:
            return _nothing()
        budget = [nodes]
        return self._refute(threshold, ranges, budget, limits)

    def _refute(self, threshold: Fraction, ranges: CountRanges, budget: list[int], limits: Limits) -> Proof | None:
        solved = self._solve(threshold, ranges, limits)
        if solved.refuted:
            return solved.prices
        if budget[0] <= 0 or limits.seconds_left <= 0:
            return None
        branch = _most_mixed(self.instance, solved)
        if branch is None:
            return None
        expert, count, upper_first = branch
        parts = [part.narrowed(self.instance.num_slots) for part in ranges.divided(expert, count)]
        proofs: list[Proof | None] = [None, None]
        for side in (1, 0) if upper_first else (0, 1):
            budget[0] -= 1
            part = parts[side]
            found = _nothing() if part is None else self._refute(threshold, part, budget, limits)
            if found is None:
                return None
            proofs[side] = found
        assert proofs[0] is not None and proofs[1] is not None
        return Branch(expert, count, proofs[0], proofs[1])

    def _solve(self, threshold: Fraction, ranges: CountRanges, limits: Limits) -> _Solved:
        import highspy

        instance, n = self.instance, self._steps.size
        experts, counts, starts = ranges.types()
        step = np.searchsorted(self._steps, np.array(instance.loads, dtype=np.float64)[experts] / counts, side="right") - 1
        # Of the counts of an expert at one price, only the least can bind.
        _, rows = np.unique(experts * n + step, return_index=True)
        highs = new_highs({"threads": 1, "presolve": "off", "random_seed": limits.seed})
        highs.HandleUserInterrupt = True
        highs.passModel(_price_model(highspy, experts[rows], counts[rows], step[rows], n, instance.num_experts))
        limit = float(threshold)
        pool = self._pool[self._steps[self._pool].sum(axis=1) <= limit]
        if not pool.size:
            pool = self._add(*self._dearest(self._steps / limit, limit)[:2], -1.0)
        refuted, prices = False, _nothing()
        weights = np.zeros(rows.size)
        for _ in range(MAX_ITERATIONS):
            if pool.size:
                _add_patterns(highs, highspy.kHighsInf, pool)
            highs.setOptionValue("time_limit", highs.getRunTime() + limits.seconds_left)
            run_highs(highs, highs.cancelSolve)
            if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                break
            solution = highs.getSolution()
            weights = np.abs(np.array(solution.row_dual[: rows.size]))
            found = np.maximum.accumulate(np.maximum(np.array(solution.col_value[:n]), 0.0))
            patterns, values, dearest = self._dearest(found, limit)
            worth = float(np.minimum.reduceat(counts * found[step], starts).sum())
            if worth > instance.num_gpus * dearest * (1 + 1e-6):
                prices = self._rounded(found)
                refuted = prices_refute(instance, threshold, prices, ranges)
                if refuted:
                    break
            if -highs.getInfo().objective_function_value <= instance.num_gpus * (1 + 1e-9) or limits.seconds_left <= 0:
                break
            pool = self._add(patterns, values, 1 + 1e-7)
            if not pool.size:
                break
        return _Solved(refuted, prices, weights, experts[rows], counts[rows])

    def _dearest(self, prices: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Return for every step the dearest pattern with it, their prices (-1 where nothing fits), and the largest price."""
        patterns = np.zeros((prices.size, self.instance.slots_per_gpu), dtype=np.int64)
        values = np.full(prices.size, -1.0)
        if self.instance.slots_per_gpu == 3:
            _dearest_triples(self._steps, prices, limit, patterns, values)
        else:
            _dearest_quadruples(self._steps, prices, limit, *self._pairs, patterns, values)
        return patterns, values, float(values.max())

    def _add(self, patterns: np.ndarray, values: np.ndarray, least: float) -> np.ndarray:
        """Put the patterns with a price above ``least`` into the pool; return the new ones."""
        fresh = {tuple(sorted(row)) for row in patterns[values > least].tolist()} - self._known
        self._known |= fresh
        new = np.array(sorted(fresh), dtype=np.int64).reshape(-1, self.instance.slots_per_gpu)
        self._pool = np.concatenate([self._pool, new])
        return new

    def _rounded(self, prices: np.ndarray) -> list[tuple[Fraction, int]]:
        rounded: list[tuple[Fraction, int]] = []
        for load, price in zip(self._steps.tolist(), np.rint(prices * PRICE_UNIT).astype(np.int64).tolist(), strict=True):
            if price > (rounded[-1][1] if rounded else 0):
                rounded.append((Fraction(load), price))
        return rounded or _nothing()


def _nothing() -> list[tuple[Fraction, int]]:
    """Prices where none are needed: the slots alone refute the case."""
    return [(Fraction(0), 0)]


def _most_mixed(instance: Instance, solved: _Solved) -> tuple[int, int, bool] | None:
    """Return the expert and count to branch on, and whether more replicas are likelier; None if no expert mixes counts."""
    best, choice = 1e-4, None
    for expert in np.unique(solved.experts[(solved.weights > 1e-6) & (solved.weights < 1 - 1e-6)]).tolist():
        own = solved.experts == expert
        counts, weights = solved.counts[own], solved.weights[own]
        count = math.floor(float((counts * weights).sum() / max(float(weights.sum()), 1e-9)))
        above = float(weights[counts > count].sum())
        score = (
            min(above, float(weights[counts <= count].sum())) * instance.loads[expert] / (count * (count + 1)) if count else 0.0
        )
        if score > best:
            best, choice = score, (int(expert), count, above > 0.5)
    return choice


def _price_model(
    highspy: Any, experts: np.ndarray, counts: np.ndarray, steps: np.ndarray, num_steps: int, num_experts: int
) -> Any:
    """Prices and worths of experts: maximise the worths, each at most ``c`` prices, prices nondecreasing."""
    model = highspy.HighsLp()
    rows = experts.size + num_steps - 1
    model.num_col_, model.num_row_ = num_steps + num_experts, rows
    model.col_cost_ = np.repeat([0.0, -1.0], [num_steps, num_experts])
    model.col_lower_ = np.zeros(model.num_col_)
    model.col_upper_ = np.repeat([1.0, highspy.kHighsInf], [num_steps, num_experts])
    model.row_lower_, model.row_upper_ = np.zeros(rows), np.full(rows, highspy.kHighsInf)
    index, value = np.empty((rows, 2), dtype=np.int32), np.empty((rows, 2))
    index[: experts.size] = np.stack([steps, num_steps + experts], axis=1)
    value[: experts.size] = np.stack([counts, np.full(experts.size, -1)], axis=1)
    index[experts.size :] = np.stack([np.arange(num_steps - 1), np.arange(1, num_steps)], axis=1)
    value[experts.size :] = [-1.0, 1.0]
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.arange(0, 2 * rows + 1, 2)
    model.a_matrix_.index_, model.a_matrix_.value_ = index.ravel(), value.ravel()
    return model


def _add_patterns(highs: Any, infinity: float, patterns: np.ndarray) -> None:
    """Add a row per pattern: its price is at most 1."""
    starts: list[int] = []
    index: list[int] = []
    value: list[float] = []
    for row in patterns.tolist():
        starts.append(len(index))
        for step, group in itertools.groupby(row):
            index.append(step)
            value.append(float(len(list(group))))
    number = len(starts)
    highs.addRows(
        number,
        np.full(number, -infinity),
        np.ones(number),
        len(index),
        np.array(starts, dtype=np.int32),
        np.array(index, dtype=np.int32),
        np.array(value),
    )


@entry
def _dearest_triples(loads: np.ndarray, prices: np.ndarray, limit: float, patterns: np.ndarray, values: np.ndarray) -> None:
    n = loads.size
    for i in range(n):
        third = n - 1
        for j in range(i, n):
            while third >= j and loads[i] + loads[j] + loads[third] > limit:
                third -= 1
            if third < j:
                break
            value = prices[i] + prices[j] + prices[third]
            if value > values[i]:
                values[i] = value
                patterns[i, 0], patterns[i, 1], patterns[i, 2] = i, j, third


@entry
def _dearest_quadruples(
    loads: np.ndarray,
    prices: np.ndarray,
    limit: float,
    one: np.ndarray,
    two: np.ndarray,
    patterns: np.ndarray,
    values: np.ndarray,
) -> None:
    """As for triples; the pairs ``(one, two)`` come in ascending order of their loads."""
    number = one.size
    dearest = np.empty(number, dtype=np.int64)
    top = 0
    for pair in range(number):
        if prices[one[pair]] + prices[two[pair]] > prices[one[top]] + prices[two[top]]:
            top = pair
        dearest[pair] = top
    last = number - 1
    for pair in range(number):
        i, j = one[pair], two[pair]
        while last >= 0 and loads[i] + loads[j] + loads[one[last]] + loads[two[last]] > limit:
            last -= 1
        if last < 0:
            break
        partner = dearest[last]
        value = prices[i] + prices[j] + prices[one[partner]] + prices[two[partner]]
        if value > values[i]:
            values[i] = value
            patterns[i, 0], patterns[i, 1], patterns[i, 2], patterns[i, 3] = i, j, one[partner], two[partner]


ENGINE = Engine("patterns", search, range(3, 5), exact=False)
