"""HiGHS's branch and bound on a need-model: counts, a claim that there are none, or nothing in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eplb_gap.solvers.compact.native import check_status, new_highs, run_highs
from eplb_gap.solvers.engines.need_model import Inventory

BOUND_TOLERANCE = 1e-3
"""By how much the bound of a MIP must exceed S: the objective is integral, HiGHS's feasibility tolerance is 1e-6 per row."""


@dataclass(frozen=True)
class Verdict:
    """What HiGHS says of a probe: a solution's counts, that there is none, or nothing."""

    outcome: Literal["feasible", "infeasible", "unknown"]
    counts: list[int] | None = None


def decide(model: Inventory, num_slots: int, parameters: dict[str, Any], seconds: float) -> Verdict:
    """Let HiGHS look for counts with at most ``num_slots`` as their sum; KeyboardInterrupt on Ctrl-C."""
    import highspy

    highs = new_highs({"threads": 1, "time_limit": max(seconds, 0.01), **parameters})
    highs.passModel(model.lp(integer=True))
    _run(highs, num_slots + BOUND_TOLERANCE)
    info = highs.getInfo()
    if info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible):
        chosen = np.flatnonzero(np.array(highs.getSolution().col_value)[: model.expert.size] > 0.5)
        if info.objective_function_value <= num_slots + 0.5 and np.array_equal(
            model.expert[chosen], np.arange(model.num_experts)
        ):
            return Verdict("feasible", model.count[chosen].tolist())
    if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible or info.mip_dual_bound > num_slots + BOUND_TOLERANCE:
        return Verdict("infeasible")
    return Verdict("unknown")


def _run(highs: Any, enough: float) -> None:
    """Run branch and bound until it ends, Ctrl-C is pressed or its bound exceeds ``enough``."""

    def look(event: Any) -> None:
        if event.data_out.mip_dual_bound > enough:
            event.interrupt()

    def stop() -> None:
        # Not from the start: it calls back from every simplex iteration, a third of the time.
        highs.HandleUserInterrupt = True
        highs.cancelSolve()

    highs.cbMipInterrupt += look
    check_status(highs, run_highs(highs, stop))
