"""Two slots per GPU: linear inequalities that the counts of every placement within a threshold satisfy, in integers.

All are of one form, separable over the experts, which have c_e replicas::

    sum_e r_e(c_e) + constant >= 0

* **Slots.** The counts fill no more than S slots: ``r_e(c) = -c``, constant S.
* **Breakpoints.** For every b above T/2 the replicas of at least b are no more than those of at most T - b, which
  :mod:`eplb_gap.problem.bounds.pairing_dual` proves: ``r_e(c) = -c`` where ``w_e/c`` is big and at least b, ``c`` where it is
  small and at most T - b, else 0; constant 0.
* **Rounded rows.** Add other rows with whole weights of at least 0 to one row with values a_e(c) and constant a_0, choose a whole
  number s_e for every expert and put ``d = -a_0 - sum_e s_e``: then ``sum_e (a_e(c_e) - s_e) >= d``. For a modulus q let
  ``p = d mod q`` and ::

      F(x) = p floor(x/q) + min(x mod q, p)

  F does not fall, and ``F(x + y) <= F(x) + F(y)`` for all whole numbers, also negative ones: let s and t be the remainders of x
  and y. If s + t < q, the claim is ``min(s + t, p) <= min(s, p) + min(t, p)``. Otherwise it is
  ``p + min(s + t - q, p) <= min(s, p) + min(t, p)``: for s, t >= p the right side is 2p; for s < p <= t it is s + p, and
  s + t - q < s; for s, t < p it is s + t, and p <= q. Therefore ::

      sum_e F(a_e(c_e) - s_e)  >=  F(sum_e (a_e(c_e) - s_e))  >=  F(d)

  is a row as well, with the constant -F(d). It is the mixed-integer rounding of the sum (Nemhauser and Wolsey, 1990), with the
  numbers s_e free because an expert has exactly one count. Only whole counts satisfy it, so it can cut off fractional ones.

Rows are added up with weights and compared with 0 in 64-bit integers; whatever could exceed them is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.problem.bounds.pairing_dual import count_table, replica_keys
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

KEY_BITS = 60
SUM_LIMIT = 1 << 61
"""Sums of a row's largest values over all experts stay below it."""
MAX_CELLS = 1 << 24
"""Rows times columns that are held; weights times columns that are added."""
MAX_MODULUS = 64

Weights = Sequence[tuple[int, int]]
"""Pairs (row, weight); weights are at least 0."""


@dataclass(frozen=True)
class Columns:
    """Counts that the experts may have at a threshold, one column per expert and count.

    Parameters
    ----------
    expert, count : ndarray
        int64 [columns], experts ascending, counts ascending within an expert; every expert has at least one.
    keys : ndarray
        The replica's load where it is big, else the threshold minus it, in whole multiples of ``1 / scale``, rounded down.
    small : ndarray
        bool [columns], whether the replica is at most half the threshold.
    half : int
        The largest key that is no breakpoint.
    scale, num_slots : int
    """

    expert: np.ndarray
    count: np.ndarray
    keys: np.ndarray
    small: np.ndarray
    half: int
    scale: int
    num_slots: int

    @property
    def starts(self) -> np.ndarray:
        """First column of every expert."""
        return np.flatnonzero(np.concatenate([[True], self.expert[1:] != self.expert[:-1]]))

    @property
    def num_experts(self) -> int:
        """Number of experts."""
        return int(self.expert[-1]) + 1

    def kept(self, keep: np.ndarray) -> Columns:
        """Return the columns where ``keep`` is true; every expert needs one."""
        return Columns(
            self.expert[keep], self.count[keep], self.keys[keep], self.small[keep], self.half, self.scale, self.num_slots
        )

    def find(self, expert: int, count: int) -> int:
        """Return the column of an expert's count; InputError if there is none."""
        first, end = np.searchsorted(self.expert, [expert, expert + 1])
        at = first + int(np.searchsorted(self.count[first:end], count))
        if at >= end or self.count[at] != count:
            raise InputError(f"expert {expert} has no count {count} among those possible at the threshold")
        return int(at)

    def point(self, expert: int, count: int) -> int:
        """Return the key of an expert's replica as a breakpoint; InputError if it is not above half the threshold."""
        key = int(self.keys[self.find(expert, count)])
        if key <= self.half:
            raise InputError(f"the key of expert {expert} with {count} replicas is not above half the threshold: no breakpoint")
        return key

    def signed(self) -> np.ndarray:
        """Return how many small companions a column brings (its count) or takes (minus its count)."""
        return np.where(self.small, self.count, -self.count)


def columns(instance: Instance, threshold: Fraction) -> Columns | None:
    """Return all counts that are possible within a threshold; None if counting slots alone refutes it."""
    table = count_table(instance, threshold)
    if table is None:
        return None
    bits = KEY_BITS - (2 * max(instance.loads) * int(table.count.max())).bit_length()
    # Fine enough to tell apart keys that differ; a multiple of the threshold's denominator.
    scale = threshold.denominator << max(0, bits - threshold.denominator.bit_length())
    keys, small = replica_keys(instance, threshold, table, scale)
    return Columns(table.expert, table.count, keys, small, int(threshold * scale) // 2, scale, instance.num_slots)


class Rows:
    """Rows over some columns: the slots' first, then those of breakpoints, then rounded ones.

    Parameters
    ----------
    among : Columns
    points : sequence of int
        Breakpoints (:meth:`Columns.point`).
    capacity : int
        Rounded rows that may be added.

    Raises
    ------
    InputError
        If the rows are too many to be held.
    """

    def __init__(self, among: Columns, points: Sequence[int], capacity: int) -> None:
        most, width = 1 + len(points) + capacity, among.expert.size
        if most * width > MAX_CELLS:
            raise InputError(f"{most} rows over {width} counts are more than {MAX_CELLS} numbers")
        self.columns, self.starts = among, among.starts
        self.values = np.empty((most, width), dtype=np.int64)
        self.constants = [among.num_slots] + [0] * len(points)
        self.largest: list[int] = []
        self.values[0] = -among.count
        signed = among.signed()
        for row, point in enumerate(points, start=1):
            self.values[row] = np.where(among.keys >= point, signed, 0)
        for row in range(1 + len(points)):
            self.largest.append(int(np.abs(self.values[row]).max()))

    def add(self, weights: Weights) -> tuple[np.ndarray, int]:
        """Return values and constant of a sum of rows.

        Raises
        ------
        InputError
            If there is no such row, a weight is negative, or the numbers do not fit.
        """
        for row, weight in weights:
            if not 0 <= row < len(self.constants) or weight < 0:
                raise InputError(
                    f"row {row} with weight {weight}; rows 0 to {len(self.constants) - 1} with weights >= 0 are needed"
                )
        if len(weights) * self.columns.expert.size > MAX_CELLS:
            raise InputError(f"{len(weights)} weights over {self.columns.expert.size} counts are more than {MAX_CELLS} numbers")
        bound = sum(weight * max(self.largest[row], abs(self.constants[row])) for row, weight in weights)
        if bound * (self.columns.num_experts + 1) >= SUM_LIMIT:
            raise InputError(
                f"the weighted rows may reach {bound} in one of {self.columns.num_experts} experts; that is too large"
            )
        rows = [row for row, _ in weights]
        factors = np.array([weight for _, weight in weights], dtype=np.int64)
        constant = sum(weight * self.constants[row] for row, weight in weights)
        return factors @ self.values[rows] if rows else np.zeros(self.columns.expert.size, dtype=np.int64), constant

    def rounded(self, weights: Weights, base: np.ndarray, modulus: int) -> tuple[np.ndarray, int]:
        """Return values and constant of the rounded row of a sum.

        Parameters
        ----------
        weights : sequence of (int, int)
        base : ndarray
            One column per expert; the number s_e is the sum's value there.
        modulus : int
            From 2 to 64.
        """
        if not 2 <= modulus <= MAX_MODULUS:
            raise InputError(f"modulus is {modulus}; 2 to {MAX_MODULUS} are allowed")
        values, constant = self.add(weights)
        shift = values[base]
        demand = -constant - int(shift.sum())
        rest = demand % modulus
        moved = values - shift[self.columns.expert]
        moved = moved // modulus * rest + np.minimum(moved % modulus, rest)
        return moved, -(demand // modulus * rest + min(demand % modulus, rest))

    def append(self, values: np.ndarray, constant: int) -> int:
        """Keep a rounded row; return its number."""
        row = len(self.constants)
        if row >= len(self.values):
            raise InputError(f"{row} rows are kept; there is room for no more")
        self.values[row] = values
        self.constants.append(constant)
        self.largest.append(int(np.abs(values).max()))
        return row

    def possible(self, weights: Weights, alive: np.ndarray) -> np.ndarray:
        """Return which of the columns that are alive a placement within the threshold can still have.

        The sum of rows is at least 0. With the largest value of every other expert, a column that leaves it below 0 is in no
        placement; none is possible if the largest values of all experts leave it there.

        Parameters
        ----------
        weights : sequence of (int, int)
        alive : ndarray
            bool [columns].
        """
        values, constant = self.add(weights)
        lowest = np.iinfo(np.int64).min
        best = np.maximum.reduceat(np.where(alive, values, lowest), self.starts)
        if best.size == 0 or best.min() == lowest:
            return np.zeros_like(alive)  # an expert has no count left
        slack = int(best.sum()) + constant
        possible: np.ndarray = alive & (values - best[self.columns.expert] + slack >= 0)
        return possible
