"""Plan or solve an instance and say in a row what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Fields
from eplb_gap.problem import metrics
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.proofs import TRUSTS, described_trust
from eplb_gap.problem.validation import verify
from eplb_gap.solvers import Progress


def deployment_fields(deployment: Deployment, loads: np.ndarray) -> Fields:
    """Return what a row says of its instance."""
    return {"deployment": deployment.as_dict(), "policy": deployment.policy, "hash": rows.instance_hash(loads, deployment)}


def proof_fields(proof: list[str] | list[list[str]]) -> Fields:
    """Return what a row says of the proofs of its bounds.

    Parameters
    ----------
    proof : list of str, or list of list of str
        Kind of proof of every layer (:attr:`eplb_gap.solvers.Solution.proof`), or the same for several windows.

    Returns
    -------
    dict
        ``proof``, as given, and ``trust``: the number of bounds by what must be believed
        (:data:`eplb_gap.problem.proofs.TRUSTS`).
    """
    found = Counter(described_trust(text) for text in rows.leaves(proof))
    return {"proof": proof, "trust": {name: found[name] for name in TRUSTS}}


def certified_status(reached: bool, proof: list[list[str]]) -> str:
    """Return "certified" where a target gap is reached and no bound is a claim, "claimed" where one is, "bounded" otherwise."""
    if not reached:
        return "bounded"
    return "certified" if all(described_trust(text) == "recomputed" for text in rows.leaves(proof)) else "claimed"


def _digest(placement: Placement) -> str:
    return array_sha256(placement.phy2log)[:16]


def plan(method: str, loads: np.ndarray, deployment: Deployment) -> tuple[Placement, Fields]:
    """Plan with a heuristic, verify, and return the placement and what a row says of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    placement = heuristics.rebalance(loads, deployment, method)
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    fields = {
        **deployment_fields(deployment, loads),
        **seconds,
        "parameters": {},
        "kind": "heuristic",
        "placement": _digest(placement),
        "duplicates": int(metrics.duplicates(placement, deployment.num_gpus).sum()),
    }
    try:
        return placement, {**fields, "status": "legal", "upper": fractions(verify(placement, loads, deployment))}
    except PlacementError as error:
        return placement, {**fields, "status": f"illegal: {error}", "upper": None}


def solver_cell(
    loads: np.ndarray,
    deployment: Deployment,
    method: str,
    target_gap: float,
    time_limit: float,
    keep_map: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Fields:
    """Solve all layers of one instance and return bounds, proofs and times."""
    cpu = time.process_time()
    solution = solvers.solve(loads, deployment, method, target_gap, time_limit, progress=progress)
    verify(solution.placement, loads, deployment)
    fields: dict[str, Any] = {
        **deployment_fields(deployment, loads),
        "kind": "solver",
        "wall_seconds": solution.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "parameters": {"target_gap": target_gap, "time_limit": time_limit, "workers": 1},
        "status": solution.status,
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        **proof_fields(solution.proof),
        "gap": solution.gap,
        "placement": _digest(solution.placement),
    }
    if keep_map:
        fields["phy2log"] = solution.placement.phy2log.tolist()
    return fields


def planned_row(loads: np.ndarray, deployment: Deployment, method: str) -> Fields:
    """Return a row's fields of a method that plans on one window: makespans, duplicates, GPU balancedness on both windows.

    Parameters
    ----------
    loads : ndarray
        int64 [windows, layers, experts]; the last window is served only.
    deployment : Deployment
    method : str
        A key of :data:`eplb_gap.heuristics.METHODS`.
    """
    pairs = len(loads) - 1
    planned, served, upper, duplicates = [], [], [], []
    status = "legal"
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


def bounded_row(loads: np.ndarray, deployment: Deployment, target_gap: float, seconds: float) -> Fields:
    """Return a row's fields of the solver: bounds per window and layer, the limit they set, and what its maps reach.

    ``limit`` is the GPU balancedness on the planning window that no map exceeds. The status is "certified" where every layer of
    every window is within the target gap and no bound is a claim, "claimed" where one is, "bounded" otherwise.

    Parameters
    ----------
    loads : ndarray
        int64 [windows, layers, experts]; the last window is served only.
    deployment : Deployment
    target_gap : float
    seconds : float
        Time limit of one window.
    """
    upper, lower, proof, limit, planned, served, furthest = [], [], [], [], [], [], 0.0
    for planning, serving in pairwise(loads):
        solution = solvers.solve(planning, deployment, "auto", target_gap, seconds)
        verify(solution.placement, planning, deployment)
        upper.append(fractions(solution.upper))
        lower.append(fractions(solution.lower))
        proof.append(solution.proof)
        bound = float(sum(solution.lower)) * deployment.num_gpus
        limit.append(min(int(planning.sum()) / bound, 1.0) if bound else 1.0)
        planned.append(metrics.balancedness_gpu(solution.placement, planning, deployment.num_gpus))
        served.append(metrics.balancedness_gpu(solution.placement, serving, deployment.num_gpus))
        furthest = max(furthest, *solution.gap)
    return {
        "kind": "solver",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": len(loads) - 1, "target_gap": target_gap, "time_limit": seconds},
        "status": certified_status(furthest <= target_gap, proof),
        "upper": upper,
        "lower": lower,
        **proof_fields(proof),
        "limit": limit,
        "planning": planned,
        "serving": served,
    }
