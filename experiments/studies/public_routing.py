"""Node visits and activated experts on real routing of a public model, for who has its file (``eplb-gap bench network``)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.decode.activation import CHOICES, activation
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.loads.public_routing import MODEL, OTHERS, PLANNED, SOURCE, in_lock_step, public_parts
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape, finding
from eplb_gap.experiments.measuring.rows import Fields, Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.measuring.visit_figures import fullest, per_token
from eplb_gap.experiments.measuring.visit_planners import BALANCE, EPS, PLANNER, PLANNERS, TITLES
from eplb_gap.experiments.measuring.visits import ASKED_GAP, SERVED, best_bound, served
from eplb_gap.experiments.studies.numbers import interval_text, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions

SUITE = "public_routing"
DEPLOYMENTS = {
    "32/32/8, 4 nodes": Deployment(32, 32, 8, 4),
    "32/40/8, 4 nodes": Deployment(32, 40, 8, 4),
}
DECODED = {
    "32/32/8": Deployment(32, 32, 8),
    "32/40/8": Deployment(32, 40, 8),
    "32/48/8": Deployment(32, 48, 8),
    "32/64/8": Deployment(32, 64, 8),
}
NOT_GIVEN = "not given"
ACTIVATED, BOUND = "activated", "bound"


def _fields(kind: str, deployment: Deployment, folder: str | None) -> Fields:
    fields: Fields = {"kind": kind, "hash": "", "sha256": "", "parameters": {"eps": EPS, "source": SOURCE}, "status": NOT_GIVEN}
    if folder is not None:
        planned = public_parts(Path(folder))[PLANNED]
        fields |= {"hash": rows.instance_hash(planned.loads(), deployment), "sha256": planned.provenance["sha256"]}
    return fields


def planned_cell(shape: str, method: str, folder: str | None) -> Fields:
    """Plan on half of the requests and count visits and loads of both halves; without a folder say that there is none."""
    deployment = DEPLOYMENTS[shape]
    fields = _fields("finding", deployment, folder)
    if folder is None:
        return fields | {"seconds_per_layer": 0.0, **{name: {} for name in SERVED}}
    parts = public_parts(Path(folder))
    started = time.process_time()
    placement = PLANNERS[method](parts[PLANNED], deployment)
    seconds = (time.process_time() - started) / placement.num_layers
    return fields | {"status": "legal", "seconds_per_layer": seconds, **served(placement, parts, deployment)}


def bound_cell(shape: str, folder: str | None) -> Fields:
    """Bound the visits of the tokens planned on in every layer."""
    deployment = DEPLOYMENTS[shape]
    fields = _fields("bound", deployment, folder)
    if folder is None:
        return fields | {"visit_bound": [], "proven_by": []}
    planned = public_parts(Path(folder))[PLANNED]
    found = [best_bound(planned, layer, deployment, EPS) for layer in range(planned.num_layers)]
    return fields | {"status": "bounded", "visit_bound": fractions(b for b, _ in found), "proven_by": [p for _, p in found]}


def activated_cell(shape: str, folder: str | None) -> Fields:
    """Count what the fullest GPU reads in decode steps of the other half, a token of each request a step."""
    deployment = DECODED[shape]
    fields = _fields("activated", deployment, folder)
    if folder is None:
        return fields | {"proven": 0.0, "active": [], "bound": [], "read": {}}
    parts = public_parts(Path(folder))
    found = activation(in_lock_step(parts[OTHERS]), heuristics.rebalance(parts[PLANNED].loads(), deployment), deployment, None)
    return fields | {
        "status": "proven" if found.proven == 1 else "not proven",
        "proven": found.proven,
        "active": found.active.mean(axis=1).tolist(),
        "bound": found.bound.mean(axis=1).tolist(),
        "read": {choice: found.read[choice].mean(axis=1).tolist() for choice in CHOICES},
    }


def cells() -> list[Cell]:
    """Return the cells; the folder is the one that the environment names."""
    folder = os.environ.get(VARIABLE)
    return [
        *(
            Cell(SUITE, f"{MODEL} {shape}", method, planned_cell, {"shape": shape, "method": method, "folder": folder})
            for shape in DEPLOYMENTS
            for method in PLANNERS
        ),
        *(Cell(SUITE, f"{MODEL} {shape}", BOUND, bound_cell, {"shape": shape, "folder": folder}) for shape in DEPLOYMENTS),
        *(Cell(SUITE, f"{MODEL} {shape}", ACTIVATED, activated_cell, {"shape": shape, "folder": folder}) for shape in DECODED),
    ]


def find(measured: Rows, shape: str, method: str) -> Row:
    """Return the row of a deployment."""
    return measured.one(suite=SUITE, instance=f"{MODEL} {shape}", method=method)


def fewer(measured: Rows, shape: str, method: str) -> Interval:
    """Return by what part visits on the other requests are below those of balance alone, with an interval over layers."""
    ours, base = (per_token(find(measured, shape, who), OTHERS) for who in (method, BALANCE))
    return mean_interval([1 - one / other for one, other in zip(ours, base, strict=True)])


def gaps(measured: Rows, shape: str, method: str) -> list[float]:
    """Return by how much a planner's visits exceed the bound, layer by layer, on the requests planned on."""
    row, least = find(measured, shape, method), rows.fractions_in(find(measured, shape, BOUND)["visit_bound"])
    tokens = row["tokens"][PLANNED]
    return [up * tokens / float(low) - 1 for up, low in zip(per_token(row, PLANNED), least, strict=True)]


def levels(measured: Rows) -> list[list[str]]:
    """Return the certified gap without replicas, asked and measured, where the routing was given."""
    if any(row["status"] == NOT_GIVEN for row in measured.where(suite=SUITE)):
        return []
    shape = next(iter(DEPLOYMENTS))
    above = gaps(measured, shape, PLANNER)
    return [
        [
            f"certified gap of visits, {MODEL}, {shape}, global",
            f"<= {percent(ASKED_GAP, 0)} %",
            f"mean {percent(fmean(above), 1)} %, worst layer {percent(max(above), 1)} %",
            yes_or_no(fmean(above) <= ASKED_GAP),
        ]
    ]


def table(measured: Rows) -> str:
    """Return visits, loads and activated experts as Markdown."""
    text = (
        f"## Real routing: {MODEL}\n\nGenerated tokens of 60 requests, 24 layers of 32 experts, 4 a token ({SOURCE}); maps are "
        f"planned on every second request and serve the others. Measured where `{VARIABLE}` names a folder with the file; the "
        "project does not ship it, and averages none of these rows with its own"
    )
    if any(row["status"] == NOT_GIVEN for row in measured.where(suite=SUITE)):
        return f"{text}: {NOT_GIVEN}.\n"
    digest = measured.one(suite=SUITE)["sha256"][:16]
    return f"{text} (sha256 of the array {digest}).\n\n{_visits(measured)}\n\n{_activated(measured)}\n"


def _visits(measured: Rows) -> str:
    body = []
    for shape in DEPLOYMENTS:
        for method in PLANNERS:
            found = find(measured, shape, method)
            planned, others = (per_token(found, name) for name in (PLANNED, OTHERS))
            change = mean_interval([one / base - 1 for one, base in zip(others, planned, strict=True)])
            body.append(
                [
                    shape,
                    TITLES[method],
                    f"{fmean(planned):.3f}",
                    f"{fmean(others):.3f}",
                    percent(fmean(gaps(measured, shape, method)), 1),
                    interval_text(fewer(measured, shape, method).scaled(100), 1),
                    interval_text(change.scaled(100), 1, sign=True),
                    *(
                        " / ".join(f"{fullest(found, name, field=f'even_{which}_load'):.3f}" for name in (PLANNED, OTHERS))
                        for which in ("node", "gpu")
                    ),
                    f"{found['seconds_per_layer']:.2f}",
                ]
            )
    header = [
        "deployment",
        "map",
        "visits, planned",
        "visits, others",
        "above the bound, %",
        "fewer than balance, others, %",
        "others above planned, %",
        "node load, planned / others",
        "GPU load, planned / others",
        "s a layer",
    ]
    return (
        "Nodes that a token visits with a smallest cover, mean over layers; brackets: 95 % bootstrap interval over the 24 layers "
        f"of one model. Without replicas the bound is on maps whose node load is at most {1 + EPS:g} of the bound on it: maps "
        "with fuller nodes may be below it.\n\n" + markdown(header, body)
    )


def _activated(measured: Rows) -> str:
    body = []
    for shape in DECODED:
        row = find(measured, shape, ACTIVATED)
        read = {choice: fmean(row["read"][choice]) for choice in CHOICES}
        none = fmean(find(measured, next(iter(DECODED)), ACTIVATED)["read"]["hashed"])
        body.append(
            [
                shape,
                f"{fmean(row['active']):.1f}",
                *(f"{read[choice]:.2f}" for choice in CHOICES),
                f"{fmean(row['bound']):.2f}",
                f"{100 * row['proven']:.1f}",
                *(f"{100 * (read[choice] / none - 1):+z.1f}" for choice in CHOICES),
            ]
        )
    header = [
        "experts/slots/GPUs",
        "active experts",
        *CHOICES,
        "bound",
        "best equals its bound, % of steps",
        *(f"{choice}, against no redundant slot, %" for choice in CHOICES),
    ]
    return (
        "Experts whose weights the fullest GPU reads in a decode step, if the requests that are not planned on decode together "
        "(step i has the i-th token of each that is not done), maps for balance; mean over steps and layers.\n\n"
        + markdown(header, body)
    )


STUDY = Study(
    SUITE,
    job="network",
    about="node visits and activated experts on routing of a public model, which is not shipped",
    cells=cells,
    shapes=(
        finding({"sha256": "text", "seconds_per_layer": "number", **SERVED}),
        Shape("bound", CELL | {"sha256": "text", "visit_bound": "list of p/q", "proven_by": "list of text"}),
        Shape(
            "activated",
            CELL
            | {
                "sha256": "text",
                "proven": "number",
                "active": NUMBERS,
                "bound": NUMBERS,
                "read": "object of list of number",
            },
        ),
    ),
    table=table,
    levels=levels,
)
