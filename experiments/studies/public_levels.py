"""The exact engines on counts of public models, for who has their files (part of ``eplb-gap bench solvers``)."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.public_counts import SOURCES, VARIABLE, public_counts
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, PROVEN, Shape
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.proofs import described_trust
from eplb_gap.problem.validation import verify

SUITE = "public_levels"
DEPLOYMENTS = {
    "OLMoE-1B-7B": Deployment(64, 96, 32),
    "Mixtral-8x7B": Deployment.preset("mixtral-ep8"),
    "GPT-OSS-20B": Deployment(32, 48, 16),
}
GAP, SECONDS, WARM_SECONDS = 1e-3, 10.0, 0.5
NOT_GIVEN = "not given"


def public_cell(model: str, folder: str | None) -> Fields:
    """Solve every layer of a model's counts in a call of its own; without a folder say that there is none."""
    deployment = DEPLOYMENTS[model]
    fields: Fields = {
        "kind": "level",
        "hash": "",
        "source": SOURCES[model],
        "sha256": "",
        "deployment": deployment.as_dict(),
        "parameters": {"target_gap": GAP, "time_limit": SECONDS, "workers": 1},
        "status": NOT_GIVEN,
        **{name: [] for name in ("upper", "lower", "gap", "seconds", "cpu_seconds")},
        **proof_fields([]),
    }
    if folder is None:
        return fields
    loads = public_counts(model, Path(folder))
    solvers.solve(loads[:1], deployment, "auto", GAP, WARM_SECONDS)
    fields |= {"hash": rows.instance_hash(loads, deployment), "sha256": array_sha256(loads), "status": []}
    proofs: list[str] = []
    for layer in loads[:, None]:
        started = time.process_time()
        solution = solvers.solve(layer, deployment, "auto", GAP, SECONDS)
        fields["cpu_seconds"].append(time.process_time() - started)
        verify(solution.placement, layer, deployment)
        fields["seconds"].append(solution.seconds)
        fields["upper"] += fractions(solution.upper)
        fields["lower"] += fractions(solution.lower)
        proofs += solution.proof
        for name in ("status", "gap"):
            fields[name] += getattr(solution, name)
    return fields | proof_fields(proofs)


def cells() -> list[Cell]:
    """Return a cell per model; the folder is the one that the environment names."""
    folder = os.environ.get(VARIABLE)
    return [Cell(SUITE, _instance(model), "auto", public_cell, {"model": model, "folder": folder}) for model in DEPLOYMENTS]


def _instance(model: str) -> str:
    shape = DEPLOYMENTS[model]
    return f"{model} {shape.num_experts}/{shape.num_slots}/{shape.num_gpus}"


def table(measured: Rows) -> str:
    """Return asked and measured levels side by side."""
    body = []
    for model in DEPLOYMENTS:
        row = measured.one(suite=SUITE, instance=_instance(model))
        text, met = NOT_GIVEN, "-"
        if row["status"] != NOT_GIVEN:
            gaps, cpu = row["gap"], row["cpu_seconds"]
            reached = sum(gap <= GAP for gap in gaps)
            claims = sum(described_trust(proof) != "recomputed" for proof in row["proof"])
            text = (
                f"{reached}/{len(gaps)} layers, {claims} on a claim, worst gap {100 * max(gaps):.4f} %; "
                f"CPU median {statistics.median(cpu):.2f} s, worst {max(cpu):.2f} s"
            )
            met = yes_or_no(reached == len(gaps) and max(row["seconds"]) <= 1.1 * SECONDS + 1)
        asked = f"all within {100 * GAP:g} %, {SECONDS:g} s a layer"
        body.append([row["instance"], row["source"], row["sha256"][:16] or "-", asked, text, met])
    return (
        "## Levels on counts of public models\n\n"
        f"Measured where `{VARIABLE}` names a folder with the files; the project ships none of them. The digest is the start of "
        "the sha256 of the array that was solved, int64 [layers, experts].\n\n"
        + markdown(["model and deployment", "source", "sha256", "asked", "measured", "met"], body)
        + "\n"
    )


STUDY = Study(
    SUITE,
    job="solvers",
    about="the exact engines on counts of public models, which are not shipped",
    cells=cells,
    shapes=(
        Shape(
            "level",
            CELL
            | {
                "deployment": "object of anything",
                "source": "text",
                "sha256": "text",
                "upper": "list of p/q",
                "lower": "list of p/q",
                "gap": NUMBERS,
                **PROVEN,
                "seconds": NUMBERS,
                "cpu_seconds": NUMBERS,
            },
            searched=frozenset({"upper", "lower", "gap", "status", *PROVEN}),
        ),
    ),
    table=table,
    timed=True,
)
