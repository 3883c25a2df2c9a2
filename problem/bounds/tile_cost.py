"""A lower bound on what the busiest GPU of any map spends on its replicas, where a replica's cost is not its load.

A replica with m rows costs ``max(read, tile ceil(m / rows))``: its weights are read, and rows are multiplied in tiles. Without
rows it costs nothing. Replicas of an expert share its load evenly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance


@dataclass(frozen=True)
class TileCost:
    """Cost of a replica by its rows, in any unit of time.

    Parameters
    ----------
    read : Fraction
        Cost of reading an expert's weights, at least 0.
    tile : Fraction
        Cost of one started tile, at least 0.
    rows : int
        Rows of a tile, at least 1.

    Raises
    ------
    InputError
        If a cost is negative or a tile has no rows.
    """

    read: Fraction
    tile: Fraction
    rows: int

    def __post_init__(self) -> None:
        for name in ("read", "tile"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; a cost of at least 0 is needed")
        if not isinstance(self.rows, int) or self.rows < 1:
            raise InputError(f"rows is {self.rows!r}; a whole number of at least 1 is needed")

    def of(self, load: int, count: int) -> Fraction:
        """Return the cost of one of ``count`` replicas of an expert."""
        # A rounded-up share that is cut into tiles is the share cut into tiles: both round up.
        return max(self.read, self.tile * -(-load // (count * self.rows))) if load else Fraction(0)


def tile_cost_bound(instance: Instance, cost: TileCost) -> Fraction:
    """Return a bound on the cost of the busiest GPU that holds for every map.

    The larger of two. Some GPU has at least the mean, and all GPUs together cost ``sum_e c_e cost(w_e / c_e)`` with counts that
    sum to the slots; for any price p of a slot that is at least ``p S + sum_e min_c (c cost(w_e / c) - p c)``, c from 1 to the
    largest possible count (with p = 0, what experts cost at least). And some GPU has the dearest replica, which costs least with
    as many of its expert as there can be, as no share's cost grows with the count.

    Parameters
    ----------
    instance : Instance
    cost : TileCost

    Returns
    -------
    Fraction

    Examples
    --------
    >>> from fractions import Fraction
    >>> from eplb_gap.problem import Instance
    >>> from eplb_gap.problem.bounds.tile_cost import TileCost, tile_cost_bound
    >>> tile_cost_bound(Instance((8, 8, 8, 8), 6, 2), TileCost(Fraction(3), Fraction(1), 4))  # six reads on two GPUs
    Fraction(9, 1)
    """
    most = instance.max_count
    spent = {load: [count * cost.of(load, count) for count in range(1, most + 1)] for load in set(instance.loads)}
    dearest = max(cost.of(load, most) for load in instance.loads)
    # Any price proves a bound. They are concave in the price: the best of those at which a count changes by one is looked for.
    prices = sorted({Fraction(0), *(after - before for totals in spent.values() for before, after in itertools.pairwise(totals))})
    low, high = 0, len(prices) - 1
    best = max(_at_price(instance, spent, prices[end]) for end in (low, high, prices.index(Fraction(0))))
    while low <= high:
        middle = (low + high) // 2
        here = _at_price(instance, spent, prices[middle])
        best = max(best, here)
        after = _at_price(instance, spent, prices[middle + 1]) if middle < len(prices) - 1 else here
        low, high = (middle + 1, high) if after > here else (low, middle - 1)
    return max(best / instance.num_gpus, dearest)


def _at_price(instance: Instance, spent: dict[int, list[Fraction]], price: Fraction) -> Fraction:
    least = {load: min(total - price * count for count, total in enumerate(totals, start=1)) for load, totals in spent.items()}
    return price * instance.num_slots + sum((least[load] for load in instance.loads), Fraction(0))
