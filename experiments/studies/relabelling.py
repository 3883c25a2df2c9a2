"""Weights that a rebalance moves: replicas copied from window to window, with and without renaming GPUs, nodes and slots."""

from __future__ import annotations

from itertools import pairwise

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.problem.validation import verify

SUITE = "relabelling"
METHODS = ("initial_program", "fast")


def instance(trace_name: str, policy: str, **_: object) -> Instance:
    """Return the windows of a trace under a policy."""
    return trace(trace_name).loads, POLICIES[policy]


def relabelling_cell(trace_name: str, policy: str, method: str) -> Fields:
    """Plan every window of a trace and count the replicas that move to reach each map from the one before.

    Both maps of a window are verified and have the same makespans. With relabelling, the map in use is the relabelled one.
    """
    loads, deployment = instance(trace_name, policy)
    planned = [heuristics.rebalance(window, deployment, method) for window in loads]
    in_use, renamed = planned[0], []
    for placement, window in zip(planned[1:], loads[1:], strict=True):
        before, in_use = in_use, relabel(placement, in_use, deployment)
        renamed.append(int(moved(in_use, before, deployment).sum()))
        if verify(in_use, window, deployment) != verify(placement, window, deployment):
            raise AssertionError(f"{trace_name}, {policy}, {method}: relabelling changed a makespan")
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {},
        "status": "legal",
        "replicas": int(planned[0].phy2log.size),
        "slots_changed": [int((new.phy2log != old.phy2log).sum()) for old, new in pairwise(planned)],
        "moved": [int(moved(new, old, deployment).sum()) for old, new in pairwise(planned)],
        "moved_relabelled": renamed,
    }


def cells() -> list[Cell]:
    """Return the cells: both traces, both policies, DeepSeek's algorithm and the project's."""
    return [
        Cell(SUITE, f"{name} {policy}", method, relabelling_cell, {"trace_name": name, "policy": policy, "method": method})
        for name in TRACES
        for policy in POLICIES
        for method in METHODS
    ]


def table(measured: Rows) -> str:
    """Return the replicas moved over all transitions of both traces as Markdown."""
    body = []
    for cell in cells():
        row = measured.one(**cell.key._asdict())
        slots, plain, renamed = (sum(row[key]) for key in ("slots_changed", "moved", "moved_relabelled"))
        held = row["replicas"] * len(row["moved"])
        fewer = [100 * (1 - after / before) for before, after in zip(row["moved"], row["moved_relabelled"], strict=True)]
        body.append(
            [
                f"{cell.instance}, `{cell.method}`",
                *(f"{count} ({100 * count / held:.1f} %)" for count in (slots, plain, renamed)),
                f"{100 * (1 - renamed / slots):.1f} %",
                f"{100 * (1 - renamed / plain):.1f} % ({min(fewer):.1f} to {max(fewer):.1f} %)",
            ]
        )
    header = [
        "trace, policy, method",
        "slots that change as planned",
        "replicas that move as planned",
        "replicas that move relabelled",
        "fewer than slots",
        "fewer than replicas (least and most of a transition)",
    ]
    traces = "; ".join(f"{name}, {title}" for name, title in TRACE_TITLES.items())
    return (
        "## Replicas that move\n\nEvery window planned anew, every layer replaced. Slots whose expert changes are what a system "
        "copies that looks at slots alone; replicas that move, onto a GPU that did not hold their expert, what one copies that "
        "reorders the slots of a GPU. Relabelled, GPUs (under the hierarchical policy within their node) and whole nodes are "
        "renamed by an exact assignment, and slots too, so that both are the same number. Sums over the "
        f"{WINDOWS - 1} transitions between windows, in % of all replicas. No makespan changes. Traces: {traces}.\n\n"
        + markdown(header, body)
        + "\n"
    )


STUDY = Study(
    SUITE,
    job="heuristics",
    about="replicas moved from window to window, with and without relabelling",
    cells=cells,
    shapes=(
        finding(
            {
                "moved": "list of integer",
                "moved_relabelled": "list of integer",
                "slots_changed": "list of integer",
                "replicas": "integer",
            }
        ),
    ),
    instance=instance,
    table=table,
)
