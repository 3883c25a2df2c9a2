"""Plan on every window of a trace; score on that window and on the next."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eplb_gap import solvers
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.studies.gaps import plan
from eplb_gap.problem import metrics
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.validation import verify


def planned_row(loads: np.ndarray, deployment: Deployment, method: str) -> Row:
    """Return a row's fields of a method that plans on one window: makespans, duplicates, GPU balancedness on both windows.

    Parameters
    ----------
    loads : ndarray
        int64 [windows, layers, experts]; the last window is served only.
    deployment : Deployment
    method : str
        A key of :data:`heuristics.METHODS`.
    """
    pairs = len(loads) - 1
    planned, served, upper, duplicates = [], [], [], []
    status, fields = "legal", {}
    for window in range(pairs):
        placement, fields = plan(method, loads[window], deployment)
        status = fields["status"] if fields["status"] != "legal" else status
        upper.append(fields["upper"])
        duplicates.append(fields["duplicates"])
        planned.append(metrics.balancedness_gpu(placement, loads[window], deployment.num_gpus))
        served.append(metrics.balancedness_gpu(placement, loads[window + 1], deployment.num_gpus))
    return {
        "kind": "heuristic",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": pairs},
        "status": status,
        "upper": upper,
        "duplicates": duplicates,
        "planning": planned,
        "serving": served,
    }


def bounded_row(loads: np.ndarray, deployment: Deployment, target_gap: float, seconds: float) -> Row:
    """Return a row's fields of the solver: bounds per window and layer, the limit they set, and what its maps reach.

    ``limit`` is the GPU balancedness on the planning window that no map exceeds. The status is "certified" where every layer of
    every window is within the target gap, "bounded" otherwise.

    Parameters
    ----------
    loads : ndarray
        int64 [windows, layers, experts]; the last window is served only.
    deployment : Deployment
    target_gap : float
    seconds : float
        Time limit of one window.
    """
    upper, lower, limit, planned, served, furthest = [], [], [], [], [], 0.0
    for planning, serving in pairwise(loads):
        solution = solvers.solve(planning, deployment, "auto", target_gap, seconds)
        verify(solution.placement, planning, deployment)
        upper.append(rows.fractions(solution.upper))
        lower.append(rows.fractions(solution.lower))
        bound = float(sum(solution.lower)) * deployment.num_gpus
        limit.append(min(int(planning.sum()) / bound, 1.0) if bound else 1.0)
        planned.append(metrics.balancedness_gpu(solution.placement, planning, deployment.num_gpus))
        served.append(metrics.balancedness_gpu(solution.placement, serving, deployment.num_gpus))
        furthest = max(furthest, *solution.gap)
    return {
        "kind": "solver",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": len(loads) - 1, "target_gap": target_gap, "time_limit": seconds},
        "status": "certified" if furthest <= target_gap else "bounded",
        "upper": upper,
        "lower": lower,
        "limit": limit,
        "planning": planned,
        "serving": served,
    }
