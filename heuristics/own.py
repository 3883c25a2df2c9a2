"""The project's own heuristics by name: the planner by effort, and the plan for a whole history. Compiled when first used."""

from __future__ import annotations

from functools import partial

import numpy as np

from eplb_gap.heuristics.config import Effort
from eplb_gap.heuristics.methods import Heuristic, by_name
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement


def run_fast(effort: Effort, weight: np.ndarray, deployment: Deployment, tolerance: float | None = None) -> Placement:
    """Run the planner with an effort, and where it is given with a tolerance; see :mod:`eplb_gap.heuristics.planner.fast`."""
    from eplb_gap.heuristics.planner.fast import plan  # imports numba

    return plan(weight, deployment, effort=effort, tolerance=tolerance)


def _fast_or_uneven(weight: np.ndarray, deployment: Deployment) -> Placement:
    if deployment.live.is_regular:
        return run_fast("fast", weight, deployment)
    from eplb_gap.heuristics.planner import uneven  # imports numba

    return uneven.plan(weight, deployment)


def _sample_average(history: np.ndarray, deployment: Deployment) -> Placement:
    from eplb_gap.heuristics.serving.sample_average import plan  # imports numba

    return plan(history if history.ndim == 3 else history[None], deployment)


FAST = by_name(
    (
        Heuristic("fast-lpt", partial(run_fast, "lpt"), compiled=True),
        Heuristic("fast", _fast_or_uneven, unequal=True, compiled=True),
        Heuristic("fast-split", partial(run_fast, "split"), compiled=True),
        Heuristic("fast-counts", partial(run_fast, "counts"), compiled=True),
    )
)
"""The planner by effort; on GPUs with unequal slots "fast" is :mod:`eplb_gap.heuristics.planner.uneven`."""
SAMPLE_AVERAGE = Heuristic("sample-average", _sample_average, history=True, compiled=True)
"""Plans on the windows of a history; loads of two axes are one window."""
