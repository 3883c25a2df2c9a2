"""What the optimal token split is worth on the serving window (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

import itertools
from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.heuristics.serving import split_placement
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.shares import balancedness_with_shares
from eplb_gap.problem.validation import verify, verify_split
from eplb_gap.solvers.serving.split_lp import lp_split

SUITE = "token_split"
MAPS = ("initial_program", "fast", "ring")
"""``ring`` is :func:`eplb_gap.heuristics.serving.split_placement.plan`, whose map is made to be shared."""
LP_LAYERS = 8


def split_cell(trace_name: str, policy: str, planner: str) -> Row:
    """Serve every window with the map of the window before: even shares, shares of the past, best shares; and the oracle map.

    The oracle map is planned by ``fast`` on the serving window itself, with even shares.
    """
    deployment, loads = POLICIES[policy], trace(trace_name).loads
    served: dict[str, list[float]] = {name: [] for name in ("even", "past", "best", "oracle")}
    furthest, from_lp = 0.0, 0.0
    for planning, serving in itertools.pairwise(loads):
        placement = _planned(planner, planning, deployment)
        verify(placement, serving, deployment)
        past, best = (optimal_split(placement, window, deployment) for window in (planning, serving))
        upper, lower = verify_split(placement, best, serving, deployment)
        furthest = max(furthest, *(float(up / low - 1) for up, low in zip(upper, lower, strict=True) if low))
        served["even"].append(balancedness_gpu(placement, serving, deployment.num_gpus))
        served["past"].append(balancedness_with_shares(placement, past.shares, serving, deployment.num_gpus))
        served["best"].append(balancedness_with_shares(placement, best.shares, serving, deployment.num_gpus))
        served["oracle"].append(balancedness_gpu(heuristics.rebalance(serving, deployment), serving, deployment.num_gpus))
        few = Placement(placement.phy2log[:LP_LAYERS], deployment.num_experts)
        by_lp, _ = verify_split(few, lp_split(few, serving[:LP_LAYERS], deployment), serving[:LP_LAYERS], deployment)
        from_lp = max(from_lp, *(abs(float(up / ours - 1)) for up, ours in zip(by_lp, upper, strict=False)))
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {},
        "status": "legal",
        "served": served,
        "gap_to_certificate": furthest,
        "difference_to_lp": from_lp,
    }


def _planned(planner: str, planning: object, deployment: Deployment) -> Placement:
    if planner == "ring":
        return split_placement.plan(planning, deployment)
    return heuristics.rebalance(planning, deployment, planner)


def cells() -> list[Cell]:
    """Return the cells: both traces, both policies, three kinds of maps."""
    return [
        Cell(SUITE, f"{name} {policy}", planner, split_cell, {"trace_name": name, "policy": policy, "planner": planner})
        for name in TRACES
        for policy in POLICIES
        for planner in MAPS
    ]


def closed(measured: list[Row], trace_name: str, policy: str, planner: str) -> float:
    """Return the share of the distance from ``fast`` with even shares to the oracle map that the best shares close."""
    found = {
        row["method"]: row["served"] for row in measured if row["suite"] == SUITE and row["instance"] == f"{trace_name} {policy}"
    }
    even, oracle = fmean(found["fast"]["even"]), fmean(found["fast"]["oracle"])
    return (fmean(found[planner]["best"]) - even) / (oracle - even)


def table(measured: list[Row]) -> str:
    """Return balancedness with even, past and best shares as Markdown."""
    body = []
    for cell in cells():
        row = next(r for r in measured if (r["suite"], r["instance"], r["method"]) == (SUITE, cell.instance, cell.method))
        name, policy = cell.instance.split(" ", 1)
        means = [f"{fmean(row['served'][key]):.4f}" for key in ("even", "past", "best", "oracle")]
        exact = [f"{row['gap_to_certificate']:.1e}", f"{row['difference_to_lp']:.1e}"]
        body.append(
            [f"{cell.instance}, `{cell.method}`", *means, f"{100 * closed(measured, name, policy, cell.method):.1f} %", *exact]
        )
    traces = "; ".join(f"{name}, {title}" for name, title in TRACE_TITLES.items())
    return (
        "## Optimal token split\n\nGPU balancedness on the serving window, mean over "
        f"{WINDOWS - 1} pairs of windows: even shares, shares planned on the past, the best shares (a dispatcher that sees the "
        "loads), and the map that `fast` plans on the serving window itself. *Closed*: part of the distance from `fast` with "
        "even shares to that map. Distances of the split from its certificate (exact) and from the linear programme "
        f"({LP_LAYERS} layers a window) are the largest. Traces: {traces}.\n\n"
        + markdown(
            ["trace, policy, map", "even", "past shares", "best shares", "oracle map", "closed", "from certificate", "from LP"],
            body,
        )
        + "\n"
    )
