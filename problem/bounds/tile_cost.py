"""A lower bound on what the busiest GPU of any map spends on replicas that share evenly, where a replica's cost is not its load.

A replica with m rows costs ``max(read, tile ceil(m / rows))``: its weights are read, and rows are multiplied in tiles. Without
rows it costs nothing. Replicas of an expert share its load evenly, and all of them are read; where the replica that serves is
chosen token by token, as few tokens of a decode step allow, a map may cost less than this bound.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.instance import Instance

MOST_BITS = 900
"""Of a cost's numerator and denominator, also over the common denominator: sums over replicas stay within a float's range."""


@dataclass(frozen=True)
class TileCost:
    """Cost of a replica by its rows, in any unit of time.

    Parameters
    ----------
    read : Fraction or int
        Cost of reading an expert's weights, at least 0.
    tile : Fraction or int
        Cost of one started tile, at least 0.
    rows : int
        Rows of a tile, at least 1.

    Raises
    ------
    InputError
        If a cost is negative, no fraction, or one of more than 900 bits, or a tile has no rows.
    """

    read: Fraction | int
    tile: Fraction | int
    rows: int

    def __post_init__(self) -> None:
        for name in ("read", "tile"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | Fraction):
                raise InputError(f"{name} is {shown(value)}; a Fraction or an int is needed")
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            if bits > MOST_BITS:
                raise InputError(f"{name} has a numerator or denominator of {bits} bits; at most {MOST_BITS} are allowed")
            if value < 0:
                raise InputError(f"{name} is {value}; a cost of at least 0 is needed")
        if isinstance(self.rows, bool) or not isinstance(self.rows, int):
            raise InputError(f"rows is {shown(self.rows)}; a whole number of at least 1 is needed")
        if self.rows < 1:
            raise InputError("rows is less than 1; a whole number of at least 1 is needed")

    def of(self, load: int, count: int) -> Fraction | int:
        """Return the cost of one of ``count`` replicas of an expert."""
        # A rounded-up share that is cut into tiles is the share cut into tiles: both round up.
        return max(self.read, self.tile * -(-load // (count * self.rows))) if load else 0


def tile_cost_bound(instance: Instance, cost: TileCost) -> Fraction:
    """Return a bound on the cost of the busiest GPU that holds for every map whose replicas share evenly.

    The larger of two.

    * Some GPU has at least the mean, and all GPUs together cost ``sum_e c_e cost(w_e / c_e)`` with counts that sum to the slots
      S. For any price p of a slot that is at least ``p S + sum_e min_c (c cost(w_e / c) - p c)``, c from 1 to the largest
      possible count; with p = 0, what the experts cost at least.
    * Some GPU has the dearest replica, and as many others as it has slots beside it. No share's cost grows with the count, so
      that the dearest is least where every spare slot goes to the expert whose replicas are dearest; none of the others costs
      less than the cheapest expert's replica with as many of it as there can be.

    Parameters
    ----------
    instance : Instance
    cost : TileCost

    Returns
    -------
    Fraction

    Raises
    ------
    InputError
        If a cost has more than 900 bits over the common denominator of both.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from eplb_gap.problem import Instance
    >>> from eplb_gap.problem.bounds.tile_cost import TileCost, tile_cost_bound
    >>> tile_cost_bound(Instance((8, 8, 8, 8), 6, 2), TileCost(Fraction(3), Fraction(1), 4))  # six reads on two GPUs
    Fraction(9, 1)
    """
    unit = math.lcm(cost.read.denominator, cost.tile.denominator)
    whole = TileCost(int(cost.read * unit), int(cost.tile * unit), cost.rows)
    mean = Fraction(_least_total(instance, whole), instance.num_gpus)
    return max(mean, Fraction(_dearest(instance, whole))) / unit


def _dearest(instance: Instance, cost: TileCost) -> int:
    """Return what the GPU with the dearest replica costs at least."""
    most, loads = instance.max_count, instance.loads
    queue = [(-cost.of(load, 1), load, 1) for load in loads]
    heapq.heapify(queue)
    for _ in range(instance.num_slots - instance.num_experts):
        _, load, count = queue[0]
        if count == most:
            break
        heapq.heapreplace(queue, (-cost.of(load, count + 1), load, count + 1))
    beside = min(instance.slots_by_gpu) - 1
    return int(-queue[0][0] + beside * min(cost.of(load, most) for load in loads))


def _least_total(instance: Instance, cost: TileCost) -> int:
    """Return a bound on what all replicas cost together; any price proves one, the best is looked for in floats."""
    numbers = Counter(instance.loads)
    totals: dict[int, list[tuple[int, int]]] = {}
    for load in numbers:
        # From one tile on a share's cost stays: the total is a line in the count, least at one of its ends.
        last = min(instance.max_count, -(-load // cost.rows) or 1)
        counts = sorted({*range(1, last + 1), instance.max_count})
        totals[load] = [(count, int(count * cost.of(load, count))) for count in counts]
    floats = [(n, np.array(totals[load], dtype=np.float64).T) for load, n in numbers.items()]

    def at(price: float) -> float:
        return price * instance.num_slots + float(sum(n * (spent - price * count).min() for n, (count, spent) in floats))

    slopes = [np.diff(spent) / np.diff(count) for _, (count, spent) in floats if count.size > 1]
    prices = np.unique(np.concatenate([[0.0], *slopes]))
    low, high = 0, len(prices) - 1
    while low < high:  # concave in the price
        middle = (low + high) // 2
        low, high = (middle + 1, high) if at(prices[middle + 1]) > at(prices[middle]) else (low, middle)
    return max(_at_price(instance, numbers, totals, price) for price in (0, round(float(prices[low]))))


def _at_price(instance: Instance, numbers: Counter[int], totals: dict[int, list[tuple[int, int]]], price: int) -> int:
    return price * instance.num_slots + sum(
        n * min(spent - price * count for count, spent in totals[load]) for load, n in numbers.items()
    )
