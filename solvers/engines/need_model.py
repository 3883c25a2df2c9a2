"""The need-model of one threshold at two slots per GPU: its inventory rows, its linear relaxation, and what the duals prove.

See :mod:`eplb_gap.solvers.engines.pairing` for the model itself.
"""

from __future__ import annotations

import copy
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.pairing_dual import count_table, pairing_costs, replica_keys
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.native import check_status, new_highs, run_highs
from eplb_gap.solvers.engine import Limits

MULTIPLIER_UNIT = 10**6
SHORTFALL_COST = 100.0
"""Cost of a missing small replica in the relaxation: keeps it feasible, so that it always has duals."""
KEY_BITS = 60
WIDE_LP = 20_000
"""Columns from which a relaxation takes long enough for Ctrl-C to matter; the callback for it costs more than a small one."""


class Relaxation:
    """The linear relaxation at one threshold: what it refutes, and what its reduced costs leave."""

    def __init__(self, instance: Instance, threshold: Fraction, limits: Limits) -> None:
        self.instance, self.threshold, self.limits = instance, threshold, limits
        self.multipliers: list[tuple[Fraction, Fraction]] = []
        self.refuted = True
        self.solved = True
        table = count_table(instance, threshold)
        if table is None:
            return
        self.table = table
        bits = KEY_BITS - (2 * max(instance.loads) * int(table.count.max())).bit_length()
        # Fine enough to tell apart keys that differ; a multiple of the threshold's denominator.
        self.scale = threshold.denominator << max(0, bits - threshold.denominator.bit_length())
        self.keys, self.small = replica_keys(instance, threshold, table, self.scale)
        model = Inventory(table.expert, table.count, self.keys, self.small, instance.num_experts)
        options = {"threads": 1, "time_limit": max(limits.seconds_left, 0.01), "presolve": "off", "solver": "simplex"}
        highs = new_highs(options)
        highs.passModel(model.lp(integer=False))
        run(highs, interruptible=table.expert.size > WIDE_LP)
        import highspy

        self.solved = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        if not self.solved:
            self.refuted = False
            return
        self.multipliers = self._rounded(np.array(highs.getSolution().row_dual)[instance.num_experts :], model.points)
        self.refuted = self._least > instance.num_slots * self._unit

    def _rounded(self, duals: np.ndarray, points: np.ndarray) -> list[tuple[Fraction, Fraction]]:
        """Round to multiples of 1e-6, make them nonincreasing, keep one breakpoint per value."""
        whole = np.rint(np.maximum(duals, 0.0) * MULTIPLIER_UNIT).astype(np.int64)
        whole = np.maximum.accumulate(whole[::-1])[::-1]
        last = [j for j in range(whole.size) if whole[j] > 0 and (j + 1 == whole.size or whole[j + 1] != whole[j])]
        return [(Fraction(int(points[j]), self.scale), Fraction(int(whole[j]), MULTIPLIER_UNIT)) for j in last]

    @cached_property
    def _priced(self) -> tuple[np.ndarray, int]:
        return pairing_costs(self.instance, self.threshold, self.multipliers, self.table)

    @cached_property
    def _cheapest(self) -> np.ndarray:
        return np.minimum.reduceat(self._priced[0], self.table.starts)

    @property
    def _unit(self) -> int:
        return self._priced[1]

    @property
    def _least(self) -> int:
        return int(self._cheapest.sum())

    def remaining(self, share: float = 1.0) -> Inventory:
        """Return the model of the counts that a solution with at most S replicas can have, by exact reduced costs.

        A share below 1 keeps only counts that cost at most this part of what S allows above the relaxation: such a model
        is quickly decided and often feasible if the whole one is, but proves nothing.
        """
        costs, table = self._priced[0], self.table
        allowed = self.instance.num_slots * self._unit - self._least
        keep = costs - self._cheapest[table.expert] <= (allowed if share == 1.0 else int(share * allowed))
        return Inventory(table.expert[keep], table.count[keep], self.keys[keep], self.small[keep], self.instance.num_experts)


class Inventory:
    """Rows of the inventory form over some columns ``z[e, c]``, and its HiGHS model."""

    def __init__(self, expert: np.ndarray, count: np.ndarray, keys: np.ndarray, small: np.ndarray, num_experts: int) -> None:
        self.expert, self.count, self.small, self.num_experts = expert, count, small, num_experts
        # Among equal keys the small ones come first: a pair of exactly T is allowed.
        order = np.lexsort((~small, -keys))
        entering = small[order]
        run = np.cumsum(np.concatenate([[False], entering[1:] & ~entering[:-1]]))
        leaving = np.flatnonzero(~entering)
        self.num_rows = int(run[leaving[-1]]) + 1 if leaving.size else 0
        self.row = np.empty(order.size, dtype=np.int64)
        # Behind the last big replica the stock only grows: no row.
        self.row[order] = np.where(run < self.num_rows, run, -1)
        self.points = np.empty(self.num_rows, dtype=keys.dtype)
        self.points[run[leaving]] = keys[order][leaving]  # the last, smallest key of every run stays

    def restricted(self, keep: np.ndarray) -> Inventory:
        """Return the same rows over some of the columns."""
        fewer = copy.copy(self)
        fewer.expert, fewer.count, fewer.small, fewer.row = (
            part[keep] for part in (self.expert, self.count, self.small, self.row)
        )
        return fewer

    def lp(self, integer: bool) -> Any:
        """Return the HighsLp: columns z, then stocks, then the shortfall that feeds the first row."""
        import highspy

        n, m = self.expert.size, self.num_rows
        in_row = self.row >= 0
        lengths = np.concatenate([1 + in_row, np.full(m, 2), [1 if m else 0]])
        if m:
            lengths[n + m - 1] = 1
        start = np.concatenate([[0], np.cumsum(lengths)])
        index, value = np.empty(start[-1], dtype=np.int32), np.empty(start[-1])
        index[start[:n]], value[start[:n]] = self.expert, 1.0
        at = start[:n][in_row] + 1
        index[at] = self.num_experts + self.row[in_row]
        value[at] = np.where(self.small, self.count, -self.count)[in_row]
        stocks = self.num_experts + np.arange(m)
        index[start[n : n + m]], value[start[n : n + m]] = stocks, -1.0
        index[start[n : n + m - 1] + 1], value[start[n : n + m - 1] + 1] = stocks[1:], 1.0
        if m:
            index[start[n + m]], value[start[n + m]] = self.num_experts, 1.0
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = n + m + 1, self.num_experts + m
        lp.col_cost_ = np.concatenate([self.count.astype(float), np.zeros(m), [SHORTFALL_COST]])
        lp.col_lower_ = np.zeros(n + m + 1)
        lp.col_upper_ = np.concatenate([np.ones(n), np.full(m + 1, highspy.kHighsInf)])
        lp.row_lower_ = lp.row_upper_ = np.concatenate([np.ones(self.num_experts), np.zeros(m)])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = start.astype(np.int32), index, value
        if integer:
            lp.integrality_ = [highspy.HighsVarType.kInteger] * n + [highspy.HighsVarType.kContinuous] * (m + 1)
        return lp


def run(highs: Any, interruptible: bool) -> None:
    """Run HiGHS; a long run in a thread, so that Ctrl-C gets through."""
    if interruptible:
        highs.HandleUserInterrupt = True
        check_status(highs, run_highs(highs, highs.cancelSolve))
    else:
        check_status(highs, highs.run())
