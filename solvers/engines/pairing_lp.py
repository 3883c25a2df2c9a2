"""The linear relaxation of a need-model with rounded rows, kept in HiGHS between the nodes of a search: an untrusted oracle.

The rows of breakpoints are in the inventory form of :mod:`eplb_gap.solvers.engines.pairing`, rounded rows are added as they are.
What the duals prove is recounted by :class:`eplb_gap.problem.bounds.pairing_rows.Rows` in integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eplb_gap.problem.bounds.pairing_rows import Columns, Rows
from eplb_gap.solvers.compact.native import new_highs
from eplb_gap.solvers.engine import Limits
from eplb_gap.solvers.engines.need_model import WIDE_LP, Inventory, run

WEIGHT_UNITS = (10**6, 10**9)
"""Weights of the slots' row: duals are rounded to their inverse; the finer one where the coarser one proves nothing."""
FEASIBILITY = 1e-6
WORTH_RELOADING = 0.6
"""HiGHS gets the relaxation anew if fewer than this part of its columns are alive."""
NO_LIMIT = 2**31 - 1


class NodeLP:
    """The relaxation over some columns of some rows: its bounds, its rounded rows and its last solution.

    Parameters
    ----------
    rows : Rows
    points : sequence of int
        The rows whose breakpoints are those of :func:`breakpoints` over all columns, in that order.
    """

    def __init__(self, rows: Rows, points: Sequence[int]) -> None:
        import highspy

        self.rows, self.points = rows, points
        self.first_point = rows.columns.num_experts
        self.model = inventory(rows.columns)
        self.optimal, self.infinity = highspy.HighsModelStatus.kOptimal, highspy.kHighsInf
        self.objective = 0.0
        self.values, self.duals = np.zeros(rows.columns.expert.size), np.zeros(len(points))
        self.cuts: list[int] = []
        self.idle: list[int] = []
        self._load(np.ones(rows.columns.expert.size, dtype=bool))

    def _load(self, held: np.ndarray) -> None:
        """Give HiGHS the relaxation over these columns, with the rounded rows."""
        self.held = np.flatnonzero(held)
        self.alive = held
        self.highs = new_highs({"threads": 1, "presolve": "off", "solver": "simplex"})
        self.highs.passModel(self.model.restricted(held).lp(integer=False))
        cuts, self.cuts = self.cuts, []
        self.add(cuts)

    def allow(self, alive: np.ndarray) -> None:
        """Let the columns be used that are alive, and no others; all of them must be held (:meth:`relieve`)."""
        changed = np.flatnonzero(alive[self.held] != self.alive[self.held])
        if changed.size:
            upper = alive[self.held[changed]].astype(float)
            self.highs.changeColsBounds(changed.size, changed.astype(np.int32), np.zeros(changed.size), upper)
        self.alive = alive

    def relieve(self) -> None:
        """Forget the columns that are not alive if they are many; they can't come back."""
        if self.alive.sum() < WORTH_RELOADING * self.held.size:
            self._load(self.alive)

    def add(self, cuts: Sequence[int]) -> None:
        """Add rounded rows."""
        if not cuts:
            return
        values = self.rows.values[np.ix_(np.array(cuts), self.held)]
        expert = self.rows.columns.expert[self.held]
        least = np.minimum.reduceat(values, np.flatnonzero(np.concatenate([[True], expert[1:] != expert[:-1]])), axis=1)
        lifted = values - least[:, expert]
        needed = -np.array([self.rows.constants[row] for row in cuts]) - least.sum(axis=1)
        row, column = np.nonzero(lifted)
        starts = np.searchsorted(row, np.arange(len(cuts)))
        # The shortfall, the last column, keeps the relaxation feasible.
        index = np.insert(column, starts, self.held.size + len(self.points)).astype(np.int32)
        factor = np.insert(lifted[row, column].astype(float), starts, 1.0)
        starts = (starts + np.arange(len(cuts))).astype(np.int32)
        upper = np.full(len(cuts), self.infinity)
        self.highs.addRows(len(cuts), needed.astype(float), upper, index.size, starts, index, factor)
        self.cuts += cuts
        self.idle += [0] * (len(self.cuts) - len(self.idle))

    def solve(self, limits: Limits, iterations: int = NO_LIMIT) -> bool:
        """Solve from the last basis; return whether it ended with an optimum before the time did."""
        self.highs.setOptionValue("simplex_iteration_limit", iterations)
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + max(limits.seconds_left, 0.01))
        run(self.highs, interruptible=self.held.size > WIDE_LP)
        self.objective = self.highs.getInfo().objective_function_value
        if self.highs.getModelStatus() != self.optimal:
            return False
        solution = self.highs.getSolution()
        self.values = np.zeros(self.alive.size)
        self.values[self.held] = np.array(solution.col_value)[: self.held.size]
        self.duals = np.array(solution.row_dual)[self.first_point :]
        return True

    def weights(self, unit: int) -> list[tuple[int, int]]:
        """Return the duals as whole weights of the rows, the slots' row with ``unit``."""
        whole = np.rint(np.maximum(self.duals, 0.0) * unit).astype(np.int64)
        points, cuts = whole[: len(self.points)], whole[len(self.points) :]
        points = np.maximum.accumulate(points[::-1])[::-1]
        steps = points - np.concatenate([points[1:], [0]])
        return [
            (0, unit),
            *((row, int(step)) for row, step in zip(self.points, steps, strict=True) if step),
            *((row, int(weight)) for row, weight in zip(self.cuts, cuts, strict=True) if weight),
        ]

    def drop_idle(self, limit: int) -> None:
        """Remove rounded rows whose dual was 0 in the last ``limit`` calls."""
        gone = []
        for j, dual in enumerate(self.duals[len(self.points) :]):
            self.idle[j] = 0 if dual > FEASIBILITY else self.idle[j] + 1
            if self.idle[j] >= limit:
                gone.append(j)
        if gone:
            first = self.first_point + len(self.points)
            self.highs.deleteRows(len(gone), np.array([first + j for j in gone], dtype=np.int32))
            keep = sorted(set(range(len(self.cuts))) - set(gone))
            self.cuts, self.idle = [self.cuts[j] for j in keep], [self.idle[j] for j in keep]


def inventory(among: Columns) -> Inventory:
    """Return the inventory rows over some columns."""
    return Inventory(among.expert, among.count, among.keys, among.small, among.num_experts)


def breakpoints(among: Columns) -> list[tuple[int, int]]:
    """Return expert and count of the replicas whose keys are the breakpoints of the inventory rows, in their order."""
    found = []
    big = np.flatnonzero(~among.small)
    order = big[np.argsort(among.keys[big], kind="stable")]
    keys = among.keys[order]
    for point in inventory(among).points:
        column = order[np.searchsorted(keys, point)]
        found.append((int(among.expert[column]), int(among.count[column])))
    return found
