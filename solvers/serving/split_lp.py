"""The best token split of a given map as a linear program: the reference for :mod:`eplb_gap.heuristics.serving.token_split`.

    minimise T
    sum_g x[e, g] = w_e                          every expert with replicas on several GPUs
    T - sum_e x[e, g] >= load of g's other experts

Loads are divided by the mean GPU load, so that HiGHS's absolute tolerances are relative ones. The duals of the GPUs' rows point
to the set that bounds the split: an extreme one is constant on that set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.shares import TokenSplit, even_shares, split_bound
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.compact.native import check_status, checked_highspy, new_highs, run_highs

FEASIBILITY = 1e-10
"""Smallest tolerance that HiGHS takes."""


def lp_split(placement: Placement, loads: Any, deployment: Deployment) -> TokenSplit:
    """Return optimal shares of every layer by HiGHS, and the GPUs that its duals point to.

    Parameters
    ----------
    placement : Placement
    loads : array_like of int [layers, experts]
    deployment : Deployment
        The slots of dead GPUs take nothing.

    Returns
    -------
    TokenSplit

    Raises
    ------
    InputError, PlacementError
        As :func:`eplb_gap.problem.verify`.
    RuntimeError
        If highspy is older than 1.15.1 or HiGHS fails.
    KeyboardInterrupt
        On Ctrl-C.
    """
    checked_highspy()
    verify(placement, loads, deployment)
    live, names, gpus = deployment.live, live_slots(deployment), np.flatnonzero(deployment.active)
    shares, critical = even_shares(placement, deployment), []
    judged = without_dead(placement, deployment).phy2log
    for layer, (slots, of_layer) in enumerate(zip(judged, as_loads(loads, "loads", 2), strict=True)):
        row = shares[layer, names]
        critical.append(tuple(gpus[list(_solve_layer(slots, of_layer, live, row))].tolist()))
        shares[layer, names] = row
    return TokenSplit(shares, critical)


def _solve_layer(slots: np.ndarray, loads: np.ndarray, live: Deployment, shares: np.ndarray) -> tuple[int, ...]:
    """Write the shares of one layer over the even ones; return its critical GPUs, numbered among the live ones."""
    num_gpus = live.num_gpus
    gpu_of_slot = np.repeat(np.arange(num_gpus), live.slots_by_gpu)
    cells, column_of_slot, twins = np.unique(slots * num_gpus + gpu_of_slot, return_inverse=True, return_counts=True)
    expert, gpu = cells // num_gpus, cells % num_gpus
    scale = max(int(loads.sum()) / num_gpus, 1.0)
    highs = new_highs({"threads": 1, "primal_feasibility_tolerance": FEASIBILITY, "dual_feasibility_tolerance": FEASIBILITY})
    highs.passModel(_model(expert, gpu, loads / scale, num_gpus))
    check_status(highs, run_highs(highs, highs.cancelSolve))
    import highspy

    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS failed with model status {highs.modelStatusToString(highs.getModelStatus())}")
    solution = highs.getSolution()
    flow = np.maximum(np.array(solution.col_value)[:-1], 0.0)
    whole = np.bincount(expert, weights=flow, minlength=loads.size)[expert]
    part = np.divide(flow, whole * twins, out=np.zeros_like(flow), where=whole > 0)[column_of_slot]
    shares[:] = np.where(loads[slots] > 0, part, shares)
    return _best_level_set(slots, loads, live, np.array(solution.row_dual)[-num_gpus:])


def _model(expert: np.ndarray, gpu: np.ndarray, loads: np.ndarray, num_gpus: int) -> Any:
    """Return the HighsLp: a column for every expert on every GPU that holds it, then T; rows of experts, then of GPUs."""
    import highspy

    n, experts = expert.size, loads.size
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = n + 1, experts + num_gpus
    lp.col_cost_ = np.concatenate([np.zeros(n), [1.0]])
    lp.col_lower_, lp.col_upper_ = np.zeros(n + 1), np.full(n + 1, highspy.kHighsInf)
    lp.row_lower_ = np.concatenate([loads, np.zeros(num_gpus)])
    lp.row_upper_ = np.concatenate([loads, np.full(num_gpus, highspy.kHighsInf)])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.concatenate([2 * np.arange(n + 1), [2 * n + num_gpus]]).astype(np.int32)
    pairs = np.stack([expert, experts + gpu], axis=1).ravel()
    lp.a_matrix_.index_ = np.concatenate([pairs, experts + np.arange(num_gpus)]).astype(np.int32)
    lp.a_matrix_.value_ = np.concatenate([np.tile([1.0, -1.0], n), np.ones(num_gpus)])
    return lp


def _best_level_set(slots: np.ndarray, loads: np.ndarray, live: Deployment, duals: np.ndarray) -> tuple[int, ...]:
    """Return the set of GPUs with the largest duals that bounds most."""
    order = np.argsort(-duals, kind="stable").tolist()
    sets = [tuple(sorted(order[: size + 1])) for size in range(len(order))]
    return max(sets, key=lambda gpus: split_bound(slots, loads, live, gpus))
