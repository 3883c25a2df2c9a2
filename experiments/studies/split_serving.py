"""What the optimal token split is worth on the serving window (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

import itertools
from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import SERVED, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies import history_seeds, serving_times
from eplb_gap.experiments.studies.numbers import Number, percent, span
from eplb_gap.experiments.studies.study import Drawn, Study
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
SPLIT_US, LP_DIFFERENCE, CLOSED = 50.0, 1e-7, 0.25


def instance(trace_name: str, policy: str, **_: object) -> Instance:
    """Return the windows of a trace under a policy."""
    return trace(trace_name).loads, POLICIES[policy]


def split_cell(trace_name: str, policy: str, planner: str) -> Fields:
    """Serve every window with the map of the window before: even shares, shares of the past, best shares; and the oracle map.

    The oracle map is planned by ``fast`` on the serving window itself, with even shares.
    """
    loads, deployment = instance(trace_name, policy)
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


def closed(measured: Rows, trace_name: str, policy: str, planner: str, shares: str = "best") -> float:
    """Return the part of the distance from ``fast`` with even shares to the oracle map that shares of a map close."""
    found = {row["method"]: row["served"] for row in measured.where(suite=SUITE, trace=trace_name, policy=policy)}
    even, oracle = fmean(found["fast"]["even"]), fmean(found["fast"]["oracle"])
    return (fmean(found[planner][shares]) - even) / (oracle - even)


def table(measured: Rows) -> str:
    """Return balancedness with even, past and best shares as Markdown."""
    body = []
    for cell in cells():
        row = measured.one(**cell.key._asdict())
        name, policy = cell.arguments["trace_name"], cell.arguments["policy"]
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


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of the split's exactness, time and worth."""
    body = []
    difference = max(row["difference_to_lp"] for row in measured.where(suite=SUITE))
    for policy in POLICIES:
        took = 1e6 * serving_times.seconds(measured, policy, "token split") / 58
        body.append(
            [
                f"token split, {policy}",
                f"within {LP_DIFFERENCE:g} of the LP, <= {SPLIT_US:g} us a layer",
                f"{difference:.1e}, {took:.1f} us",
                yes_or_no(difference <= LP_DIFFERENCE and took <= SPLIT_US),
            ]
        )
    for name in TRACES:
        for policy in POLICIES:
            shares = {planner: closed(measured, name, policy, planner) for planner in ("fast", "ring")}
            body.append(
                [
                    f"token split on the serving window, {name}, {policy}",
                    f"closes >= {100 * CLOSED:g} % of the distance to the oracle map",
                    ", ".join(f"`{planner}` map {100 * share:.1f} %" for planner, share in shares.items()),
                    yes_or_no(max(shares.values()) >= CLOSED),
                ]
            )
    return body


def advice(measured: Rows) -> str:
    """Return what to do about serving, with its measured gain, as Markdown list items."""
    found = {
        planner: [100 * closed(measured, name, policy, planner) for name in TRACES for policy in POLICIES]
        for planner in ("fast", "ring")
    }
    part = {planner: f"{min(values):.0f} to {max(values):.0f} %" for planner, values in found.items()}
    return (
        history_seeds.advice(measured)
        + "\n* *any* (both traces): tokens divided over replicas by the loads that are served (`eplb_gap.optimal_split`) close "
        + f"{part['fast']} of the distance to a map planned on those very loads, with maps made for it "
        + f"(`eplb_gap.plan_for_split`) {part['ring']}; shares planned on the past at most {_past_closed(measured)} %."
    )


SETTINGS = [(name, policy) for name in TRACES for policy in POLICIES]


def _closed(planner: str) -> Number:
    """Least and largest part of the distance that best shares close."""
    patterns = [(SUITE, f"{name} {policy}", method) for name, policy in SETTINGS for method in {planner, "fast"}]
    return Number(tuple(sorted(patterns)), lambda rows: span(100 * closed(rows, *at, planner) for at in SETTINGS))


def _past_closed(rows: Rows) -> str:
    """Return the largest part that shares planned on the past close, of the distance that all parts are of."""
    return percent(max(closed(rows, *at, planner, "past") for at in SETTINGS for planner in MAPS), 1)


STUDY = Study(
    SUITE,
    job="serving",
    about="the optimal token split on the serving window, its certificate and the linear programme",
    cells=cells,
    shapes=(finding({"served": SERVED, "gap_to_certificate": "number", "difference_to_lp": "number"}),),
    instance=instance,
    table=table,
    levels=levels,
    numbers={
        "closed-fast": _closed("fast"),
        "closed-ring": _closed("ring"),
        "closed-past": Number(tuple((SUITE, f"{name} {policy}", "*") for name, policy in SETTINGS), _past_closed),
    },
    blocks={"serving advice": Drawn((history_seeds.SUITE, SUITE), advice)},
)
