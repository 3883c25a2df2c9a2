"""Controllers on real decode traffic of a public model, for who has its file (part of ``eplb-gap bench control``)."""

from __future__ import annotations

import os
from pathlib import Path

from eplb_gap.analysis.replay.replay import replay
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.public_counts import VARIABLE
from eplb_gap.experiments.loads.public_series import public_series
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import finding
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.control.controllers_file import parse_controller
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256

SUITE = "public_control"
MODEL = "GPT-OSS-20B"
DEPLOYMENTS = {"40/8": Deployment(32, 40, 8), "48/16": Deployment(32, 48, 16)}
CONTROLLERS = {
    "none": "none",
    "static": "static:interval=1",
    "DeepSeek, last window": "periodic:interval=1,window=1,method=initial_program",
    "full, last window": "periodic:interval=1,window=1",
    "average of 8": "periodic:interval=1,window=8,method=sample-average",
    "5 %, last window": "budgeted:interval=1,window=1,moves=0.05",
    "5 %, last 8": "budgeted:interval=1,window=8,moves=0.05",
    "adaptive 5 %": "adaptive:interval=1,moves=0.05",
    "adaptive": "adaptive:interval=1",
    "clairvoyant": "clairvoyant:interval=1",
}
FIRST = 9
"""The first map of every controller serves from an earlier window on, so that it is not counted as a move."""
NOT_GIVEN = "not given"


def public_cell(shape: str, folder: str | None) -> Fields:
    """Replay every controller on the windows from ``FIRST`` on; without a folder say that there is none."""
    fields: Fields = {
        "kind": "finding",
        "hash": "",
        "sha256": "",
        "parameters": {"first": FIRST, "controllers": CONTROLLERS},
        "status": NOT_GIVEN,
        "served": {},
        "moves": {},
    }
    if folder is None:
        return fields
    trace, deployment = public_series(MODEL, Path(folder)), DEPLOYMENTS[shape]
    runs = replay(trace, deployment, [parse_controller(text) for text in CONTROLLERS.values()], warm_up=FIRST).runs
    return fields | {
        "hash": rows.instance_hash(trace.loads, deployment),
        "sha256": array_sha256(trace.loads),
        "status": "legal",
        "served": {name: run.balancedness for name, run in zip(CONTROLLERS, runs, strict=True)},
        "moves": {name: run.moves_per_step for name, run in zip(CONTROLLERS, runs, strict=True)},
    }


def cells() -> list[Cell]:
    """Return a cell per deployment; the folder is the one that the environment names."""
    folder = os.environ.get(VARIABLE)
    return [Cell(SUITE, f"{MODEL} {shape}", "all", public_cell, {"shape": shape, "folder": folder}) for shape in DEPLOYMENTS]


def table(measured: Rows) -> str:
    """Return what every controller serves as Markdown."""
    found = [measured.one(suite=SUITE, instance=f"{MODEL} {shape}") for shape in DEPLOYMENTS]
    given = all(row["status"] != NOT_GIVEN for row in found)
    text = (
        "## Controllers on a public model\n\n"
        f"Decode traffic of {MODEL}: tokens per expert of 32 windows of 8 steps, 344 requests decoded together, 24 layers of 32 "
        f"experts, windows from {FIRST} on, global policy; interval and window of a controller count such windows. Measured "
        f"where `{VARIABLE}` names a folder with the file; the project does not ship it"
    )
    if not given:
        return f"{text}: {NOT_GIVEN}.\n"
    columns = [(row[key], digits) for row in found for key, digits in (("served", 4), ("moves", 2))]
    body = [
        [f"{name}: `{controller}`", *(f"{values[name]:.{digits}f}" for values, digits in columns)]
        for name, controller in CONTROLLERS.items()
    ]
    header = ["controller", *(f"{shape}: {what}" for shape in DEPLOYMENTS for what in ("served", "moves per window and layer"))]
    return f"{text} (sha256 of the array {found[0]['sha256'][:16]}).\n\n{markdown(header, body)}\n"


STUDY = Study(
    SUITE,
    job="control",
    about="controllers on decode traffic of a public model, which is not shipped",
    cells=cells,
    shapes=(finding({"sha256": "text", "served": "object of number", "moves": "object of number"}),),
    table=table,
)
