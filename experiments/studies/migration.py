"""Serving balance against the share of replicas that may move: a budget of moves, window after window, against full re-plans."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.studies.numbers import Number, percent, span
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.problem import metrics
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.validation import verify

SUITE = "migration"
SHARES = (0, 1, 2, 5, 10, 20, 50, 100)
"""Percent of all replicas that may move at a rebalance, together."""
FULL = "full re-plan"
SLOW_STEPS = (0.11, 0.14, 0.12, 0.13, 0.11, 0.14, 0.12, 0.13, 0.11, 0.14, 0.12)
SLOW_SEED = 1
SLOW = {"recorded": (5, 8), "calibrated": (1, 4), "slow": (0, len(SLOW_STEPS))}
"""First and last window of the slowly drifting part of each trace; on the first the first map is planned, without limits."""
TITLES = {**TRACE_TITLES, "slow": f"synthetic, the calibrated recursion with steps of sd .11 to .14 alone, seed {SLOW_SEED}"}
ASKED_SHARE, ASKED_KEPT = 10, 0.8


@cache
def drifting(name: str) -> LoadTrace:
    """Return the windows of a trace that drift slowly."""
    if name == "slow":
        return calibrated_trace(SLOW_SEED, SLOW_STEPS)
    whole, (first, last) = trace(name), SLOW[name]
    return LoadTrace(whole.loads[first : last + 1], whole.provenance)


def instance(trace_name: str, policy: str, **_: object) -> Instance:
    """Return the slowly drifting windows of a trace under a policy."""
    return drifting(trace_name).loads, POLICIES[policy]


def migration_cell(trace_name: str, policy: str, share: int | None) -> Fields:
    """Re-plan window after window within a share of the replicas, in percent, or fully, and serve the next window each time.

    The map in use is the one that the same method made a window earlier; the first was planned without limits. Beside each map
    are served the one in use, kept, and an unlimited re-plan.
    """
    loads, deployment = instance(trace_name, policy)
    in_use = heuristics.rebalance(loads[0], deployment, "fast")
    total = int(in_use.phy2log.size)
    served: dict[str, list[float]] = {"kept": [], "new": [], "full": [], "planned": []}
    moves = []
    for planning, serving in pairwise(loads[1:]):
        full = relabel(heuristics.rebalance(planning, deployment, "fast"), in_use, deployment)
        new = full if share is None else replan(planning, deployment, in_use, total_moves=total * share // 100)
        verify(new, planning, deployment)
        for name, placement in (("kept", in_use), ("new", new), ("full", full)):
            served[name].append(metrics.balancedness_gpu(placement, serving, deployment.num_gpus))
        served["planned"].append(metrics.balancedness_gpu(new, planning, deployment.num_gpus))
        moves.append(int(moved(new, in_use, deployment).sum()))
        in_use = new
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"share": share},
        "status": "legal",
        "replicas": total,
        "moved": moves,
        **served,
    }


def cells() -> list[Cell]:
    """Return the cells: slowly drifting windows of three traces, both policies, every share and the full re-plan."""
    return [
        Cell(
            SUITE,
            f"{name} {policy}",
            FULL if share is None else f"{share} %",
            migration_cell,
            {"trace_name": name, "policy": policy, "share": share},
        )
        for name in SLOW
        for policy in POLICIES
        for share in (*SHARES, None)
    ]


def find(measured: Rows, name: str, policy: str, method: str) -> Row:
    """Return the row of one cell."""
    return measured.one(suite=SUITE, trace=name, policy=policy, method=method)


def kept_part(row: Row) -> float:
    """Return what a row's maps add to the serving balance of those in use, as a part of what full re-plans add."""
    kept, new, full = (float(np.mean(row[key])) for key in ("kept", "new", "full"))
    return (new - kept) / (full - kept)


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured at the share that is asked about, one line per trace and policy."""
    body = []
    for name in SLOW:
        for policy in POLICIES:
            kept = kept_part(find(measured, name, policy, f"{ASKED_SHARE} %"))
            body.append(
                [
                    f"migration, {ASKED_SHARE} % of the replicas may move, {name}, {policy}",
                    f"keeps >= {100 * ASKED_KEPT:.0f} % of the full re-plan's gain on slow drift",
                    f"{100 * kept:.0f} %",
                    yes_or_no(kept >= ASKED_KEPT),
                ]
            )
    return body


def table(measured: Rows) -> str:
    """Return the fronts as Markdown."""
    body = []
    for cell in cells():
        row = measured.one(**cell.key._asdict())
        body.append(
            [
                cell.instance,
                cell.method,
                f"{100 * sum(row['moved']) / row['replicas'] / len(row['moved']):.1f} %",
                *(f"{np.mean(row[key]):.4f}" for key in ("planned", "new", "kept", "full")),
                f"{100 * kept_part(row):.0f} %",
            ]
        )
    header = [
        "trace, policy",
        "may move",
        "moves",
        "planned balancedness",
        "served",
        "served by the map in use",
        "served by a full re-plan",
        "of the re-plan's gain kept",
    ]
    titles = "; ".join(f"{name}, windows {first} to {last}, {TITLES[name]}" for name, (first, last) in SLOW.items())
    asked = [find(measured, name, policy, f"{ASKED_SHARE} %") for name in SLOW for policy in POLICIES]
    least = min(kept_part(row) for row in asked)
    return (
        "## Moves against balance\n\nSlowly drifting windows, re-planned one after the other while at most a share of all "
        "replicas is copied to a GPU that did not hold its expert, counted over all layers together; each map starts from the "
        "one that the same share allowed a window before. Balancedness of the GPUs, mean over the windows. The gain kept is "
        "what the map adds to the one in use on the next window, as a part of what a full re-plan adds there. Asked: with "
        f"{ASKED_SHARE} % at least {100 * ASKED_KEPT:.0f} %; measured: {100 * least:.0f} % or more. Traces: {titles}.\n\n"
        + markdown(header, body)
        + "\n"
    )


STUDY = Study(
    SUITE,
    job="serving",
    about="serving balance against the share of replicas that may move, slowly drifting windows",
    cells=cells,
    shapes=(
        finding(
            {
                "full": NUMBERS,
                "kept": NUMBERS,
                "new": NUMBERS,
                "planned": NUMBERS,
                "moved": "list of integer",
                "replicas": "integer",
            }
        ),
    ),
    instance=instance,
    table=table,
    levels=levels,
    figures=("migration_front",),
    numbers={
        "migration-kept": Number(
            ((SUITE, "*", f"{ASKED_SHARE} %"),), lambda rows: percent(min(kept_part(row) for row in rows), 0)
        ),
        "migration-windows": Number(
            ((SUITE, "calibrated *", f"{ASKED_SHARE} %"), (SUITE, "recorded *", f"{ASKED_SHARE} %")),
            lambda rows: span(len(row["new"]) for row in rows),
        ),
    },
)
