"""Prices, numbers and vectors that prove few node visits to be out of reach, by a relaxation and its dual.

Relaxed, a map is a matrix Z, ``Z_ij`` the part of i and j that shares a node: no eigenvalue negative, no entry negative, one on
the diagonal, rows that sum to the experts of a node. Every token is in a mixture of partitions of its experts, whose pairs meet
in Z. Davis and Yin's splitting (2017) moves Z between the two sets that hold its conditions, while every token raises the
prices on which its mixture and Z disagree. Whatever the prices are when the steps are spent,
:func:`eplb_gap.problem.bounds.visit_dual.visit_dual_value` counts what they prove.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel
from eplb_gap.problem.bounds.visit_dual import (
    LARGEST_NUMBER,
    LARGEST_PRICE,
    LARGEST_VECTOR,
    PRICE_BITS,
    VECTOR_BITS,
    VisitDual,
    loads_of,
    visit_dual_value,
)
from eplb_gap.problem.errors import InputError

UNIT_TOKENS = 1 << 17
"""Tokens whose numbers and vectors are well within what the kernel takes."""
SAMPLE = 3000
"""Sets of experts that Z is made for first: it is the same for many more, within a little."""
PriceStep: TypeAlias = tuple[float, float, float]
"""Temperature of the mixtures, what a price costs, and how far it moves in a step."""
STAGES = ((250, (0.01, 0.05, 0.03)), (150, (0.01, 0.05, 0.015)))
"""Steps on the sample, and how prices move in them."""
CATCHING_UP = ((40, (0.01, 0.05, 0.03)), (20, (0.01, 0.05, 0.015)))
"""The same for the prices of all sets, Z being kept."""
ALL_STEPS, LAST_STEPS = 100, 800
"""Steps with all sets, and steps of Z alone that end it."""
STEP, RENT_STEP = 100.0, 3e-4
"""Of Z, against prices by token, and of what room on a node costs, against loads in units of their mean."""


@dataclass(frozen=True)
class VisitBound:
    """A proven limit.

    Parameters
    ----------
    value : Fraction
        Node visits of all tokens, summed: no map without replicas, within the limit if there was one, has fewer.
    dual : VisitDual
        What proves it.
    """

    value: Fraction
    dual: VisitDual


def visit_bound(
    sets: np.ndarray,
    weights: np.ndarray,
    num_experts: int,
    num_nodes: int,
    most_load: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> VisitBound:
    """Return a bound on the node visits of all tokens, for maps without replicas and equally many experts on each node.

    Parameters
    ----------
    sets : array_like of int [sets, topk]
        Experts of the tokens: :meth:`eplb_gap.problem.routing.trace.RoutingTrace.bundles`.
    weights : array_like of int [sets]
        Tokens of every set.
    num_experts, num_nodes : int
    most_load : int, optional
        As of :func:`eplb_gap.problem.bounds.visit_dual.visit_dual_value`.
    progress : callable, optional
        Called with the part that is done, 0 to 1.

    Raises
    ------
    InputError
        As :func:`eplb_gap.problem.bounds.visit_dual.visit_dual_value`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap.solvers.locality.visit_bound import visit_bound
    >>> triangle = np.array([[0, 1], [1, 2], [0, 2]])  # two nodes hold two experts each: 2 of the 3 tokens visit both
    >>> 4 < visit_bound(triangle, np.array([1, 1, 1]), num_experts=4, num_nodes=2).value <= 5
    True
    """
    sets, weights = np.asarray(sets), np.asarray(weights)
    if sets.ndim != 2 or type(num_experts) is not int or num_experts < 1:
        raise InputError(
            f"sets has shape {sets.shape} and num_experts is {num_experts!r}; integers [sets, topk] and a count are needed"
        )
    nothing = VisitDual(
        np.zeros((len(sets), sets.shape[1] * (sets.shape[1] - 1) // 2), dtype=np.int64),
        np.zeros(num_experts, dtype=np.int64),
        np.zeros((num_experts, 1), dtype=np.int64),
    )
    trivial = VisitBound(visit_dual_value(sets, weights, num_experts, num_nodes, nothing), nothing)
    if num_nodes == num_experts:
        return _everyone_alone(sets, weights, num_experts)
    if num_nodes == 1 or sets.shape[1] == 1 or not weights.any():
        return trivial
    loads = loads_of(sets, weights, num_experts)
    search = _Relaxation(num_experts, num_nodes, loads, most_load)
    sample, sampled = _sample(weights)
    total_steps = sum(steps for steps, _ in STAGES) * len(sample) + (ALL_STEPS + sum(steps for steps, _ in CATCHING_UP)) * len(
        sets
    )
    done = 0.0

    def tick(sets_seen: int) -> None:
        nonlocal done
        done += sets_seen / total_steps
        progress(min(1.0, done))

    rows, parts = sets.astype(np.int64), weights / weights.sum()
    prices = np.full((len(sample), nothing.prices.shape[1]), 0.1)
    for steps, kind in STAGES:
        search.steps(rows[sample], sampled, prices, steps, kind, tick)
    prices = np.full(nothing.prices.shape, 0.1)
    for steps, kind in CATCHING_UP:
        search.catch_up(rows, parts, prices, steps, kind, tick)
    search.steps(rows, parts, prices, ALL_STEPS, CATCHING_UP[-1][1], tick)
    units = np.clip(np.rint(prices * (1 << PRICE_BITS)), -LARGEST_PRICE, LARGEST_PRICE).astype(np.int64)
    dual = search.dual(rows, parts, units, int(weights.sum()))
    found = VisitBound(visit_dual_value(sets, weights, num_experts, num_nodes, dual, most_load), dual)
    return max(found, trivial, key=lambda bound: bound.value)


def _everyone_alone(sets: np.ndarray, weights: np.ndarray, num_experts: int) -> VisitBound:
    """Return the bound where every expert has a node to itself: pairs cost a visit, and numbers outweigh all of them."""
    tokens = int(weights.sum())
    prices = np.full((len(sets), sets.shape[1] * (sets.shape[1] - 1) // 2), 1 << PRICE_BITS)
    unit = _unit(tokens)
    numbers = np.full(num_experts, -tokens // unit << 2 * VECTOR_BITS, dtype=np.int64)
    dual = VisitDual(prices, numbers, np.zeros((num_experts, 1), dtype=np.int64), unit=unit)
    return VisitBound(visit_dual_value(sets, weights, num_experts, num_experts, dual), dual)


def _unit(tokens: int) -> int:
    """Return the tokens that a witness is made for, so that its numbers stay within what the kernel counts with."""
    return -(-tokens // UNIT_TOKENS) or 1


def _sample(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return sets that stand for all, and the part of the tokens that each stands for: those of every n-th token."""
    ends = np.cumsum(weights)
    tokens = (np.arange(SAMPLE) * int(ends[-1])) // SAMPLE
    sample, times = np.unique(np.searchsorted(ends, tokens, side="right"), return_counts=True)
    return sample, times / times.sum()


class _Relaxation:
    """The matrix Z on its way, and what room on a node costs every expert."""

    def __init__(self, num_experts: int, num_nodes: int, loads: np.ndarray, most_load: int | None) -> None:
        self.size, self.per_node = num_experts, num_experts // num_nodes
        self.limited, self.mean = most_load is not None, float(loads.mean())
        self.loads, self.most = loads / self.mean, (most_load or 0) / self.mean
        self.rents = np.zeros(num_experts)
        self.moving = np.full((num_experts, num_experts), (self.per_node - 1) / (num_experts - 1))
        np.fill_diagonal(self.moving, 1.0)

    def steps(
        self,
        rows: np.ndarray,
        parts: np.ndarray,
        prices: np.ndarray,
        steps: int,
        kind: PriceStep,
        tick: Callable[[int], None],
    ) -> None:
        """Move Z and the prices; ``kind`` holds temperature, cost and step of the prices."""
        slope = np.empty_like(self.moving)
        for _ in range(steps):
            met = _within_bounds(self.moving)
            _raise_prices(rows, parts, met, prices, *kind, 1, slope)
            if self.limited:
                self.rents = np.maximum(0.0, self.rents + RENT_STEP * (met @ self.loads - self.most))
            self._move(met, slope + self._rented())
            tick(len(rows))

    def catch_up(
        self,
        rows: np.ndarray,
        parts: np.ndarray,
        prices: np.ndarray,
        turns: int,
        kind: PriceStep,
        tick: Callable[[int], None],
    ) -> None:
        """Bring the prices to where Z is."""
        met, slope = _within_bounds(self.moving), np.empty_like(self.moving)
        _raise_prices(rows, parts, met, prices, *kind, turns, slope)
        tick(turns * len(rows))

    def dual(self, rows: np.ndarray, parts: np.ndarray, units: np.ndarray, tokens: int) -> VisitDual:
        """Move Z to where these prices have it, and return what they prove."""
        slope = np.empty_like(self.moving)
        _summed_slopes(rows, parts, units / (1 << PRICE_BITS), slope)
        slope += self._rented()
        for _ in range(LAST_STEPS):
            self._move(_within_bounds(self.moving), slope)
        pressed = (self.moving - _within_bounds(self.moving)) / STEP
        rest = slope + pressed
        sums = rest.sum(axis=1)
        numbers = (sums - sums.sum() / (2 * self.size)) / self.size
        values, basis = np.linalg.eigh(rest - numbers[:, None] - numbers[None, :])
        vectors = basis * np.sqrt(np.maximum(values, 0.0))
        # A pair is counted twice in a product of matrices, once in the sum over pairs.
        unit = _unit(tokens)
        scale = 2.0 * tokens / unit
        return VisitDual(
            units,
            _whole(numbers * scale, 2 * VECTOR_BITS, LARGEST_NUMBER),
            _whole(vectors * math.sqrt(scale), VECTOR_BITS, LARGEST_VECTOR),
            _whole(self.rents * (tokens / unit / self.mean), 2 * VECTOR_BITS, LARGEST_NUMBER) if self.limited else None,
            unit,
        )

    def _rented(self) -> np.ndarray:
        """Return what rents add to the slope."""
        half = np.outer(self.rents, self.loads) / 2.0
        return np.asarray(half + half.T)

    def _move(self, met: np.ndarray, slope: np.ndarray) -> None:
        self.moving += self._without_negative(2.0 * met - self.moving - STEP * slope) - met

    def _without_negative(self, matrix: np.ndarray) -> np.ndarray:
        """Return the nearest matrix whose rows sum to the experts of a node and which has no negative eigenvalue."""
        matrix = (matrix + matrix.T) / 2.0
        means = matrix.mean(axis=1)
        values, basis = np.linalg.eigh(matrix - means[:, None] - means[None, :] + means.mean())
        kept = basis[:, values > 0.0]
        return np.asarray((kept * values[values > 0.0]) @ kept.T + self.per_node / self.size)


def _within_bounds(matrix: np.ndarray) -> np.ndarray:
    """Return the nearest matrix with entries from 0 to 1, and 1 on the diagonal."""
    bounded = np.clip(matrix, 0.0, 1.0)
    np.fill_diagonal(bounded, 1.0)
    return np.asarray(bounded)


def _whole(values: np.ndarray, bits: int, largest: int) -> np.ndarray:
    return np.asarray(np.clip(np.rint(values * float(1 << bits)), -largest, largest).astype(np.int64))


@kernel
def _block_costs(prices: np.ndarray, topk: int, cost: np.ndarray) -> None:
    """Write for every set of members, as bits, what it costs as a block."""
    first = 0
    for members in range(1, 1 << topk):
        others = members & (members - 1)
        if not others:
            cost[members] = 1.0
            continue
        for i in range(topk):
            if members >> i & 1:
                first = i
                break
        total = cost[others]
        start = first * (2 * topk - first - 1) // 2 - first - 1
        for other in range(first + 1, topk):
            if others >> other & 1:
                total += prices[start + other]
        cost[members] = total


@kernel
def _mixture(prices: np.ndarray, topk: int, temperature: float, sizes: np.ndarray, work: np.ndarray, met: np.ndarray) -> None:
    """Write how much of every pair shares a block where partitions are as likely as their costs make them (Boltzmann).

    ``sizes`` has the members of every set, ``work`` is room for three numbers of each.
    """
    cost, likely, ways = work[0], work[1], work[2]
    _block_costs(prices, topk, cost)
    everyone = (1 << topk) - 1
    least = 1.0  # a member's share of the cheapest block: taken off all, it changes no partition against another
    for members in range(1, everyone + 1):
        least = min(least, cost[members] / sizes[members])
    ways[0] = 1.0
    for members in range(1, everyone + 1):
        likely[members] = math.exp((least * sizes[members] - cost[members]) / temperature)
        others = members & (members - 1)
        total = likely[members]
        inside = others
        for _ in range(everyone):
            if not inside:
                break
            inside = (inside - 1) & others
            one = inside | (members ^ others)
            total += likely[one] * ways[members ^ one]
        ways[members] = total
    within = cost  # how likely a block is that holds the members, summed over the blocks from the largest down
    for members in range(1, everyone + 1):
        within[members] = likely[members] * ways[everyone ^ members] / ways[everyone]
    for i in range(topk):
        for members in range(1, everyone + 1):
            if not members >> i & 1:
                within[members] += within[members | 1 << i]
    pair = 0
    for a in range(topk):
        for b in range(a + 1, topk):
            met[pair] = within[1 << a | 1 << b]
            pair += 1


@entry
def _raise_prices(
    rows: np.ndarray,
    parts: np.ndarray,
    relaxed: np.ndarray,
    prices: np.ndarray,
    temperature: float,
    charge: float,
    step: float,
    turns: int,
    slope: np.ndarray,
) -> None:
    """Move every token's prices towards where its mixture agrees with Z, and write what Z pays for its entries then."""
    topk = rows.shape[1]
    work, sizes = np.empty((3, 1 << topk)), np.zeros(1 << topk)
    for members in range(1, 1 << topk):
        sizes[members] = sizes[members & (members - 1)] + 1.0
    met = np.empty(topk * (topk - 1) // 2)
    for t in range(rows.shape[0]):
        for _ in range(turns):
            _mixture(prices[t], topk, temperature, sizes, work, met)
            pair = 0
            for a in range(topk):
                for b in range(a + 1, topk):
                    prices[t, pair] += step * (met[pair] - relaxed[rows[t, a], rows[t, b]] - charge * prices[t, pair])
                    pair += 1
    _summed_slopes(rows, parts, prices, slope)


@entry
def _summed_slopes(rows: np.ndarray, parts: np.ndarray, prices: np.ndarray, slope: np.ndarray) -> None:
    """Write the slope of the dual in Z: half of the prices of both experts, which a symmetric matrix counts twice."""
    topk = rows.shape[1]
    slope[:] = 0.0
    for t in range(rows.shape[0]):
        pair = 0
        for a in range(topk):
            for b in range(a + 1, topk):
                half = parts[t] * prices[t, pair] / 2.0
                slope[rows[t, a], rows[t, b]] -= half
                slope[rows[t, b], rows[t, a]] -= half
                pair += 1
