"""Dead GPUs: the project's planner against SGLang's ``elasticity_aware`` (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from statistics import fmean

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import TRACE_TITLES, TRACES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance as Layer
from eplb_gap.problem.metrics import balancedness_gpu, optimality_gap
from eplb_gap.problem.validation import verify

SUITE = "elastic"
METHODS = ("sglang-elastic", "fast")
GPUS, SLOTS = 32, 10
DEAD = (0, 1, 2, 4)
PLAN = (3, 7, 10)
"""Windows that are planned on; the next one is served."""


def instance(trace_name: str, dead: int, **_: object) -> Instance:
    """Return the windows of a trace, and GPUs of which some are dead: one of each of the first nodes of eight."""
    active = [gpu % 8 != 3 or gpu // 8 >= dead for gpu in range(GPUS)]
    return trace(trace_name).loads, Deployment(256, slots_per_gpu=[SLOTS] * GPUS, active=active)


def elastic_cell(trace_name: str, dead: int, method: str) -> Fields:
    """Plan with some GPUs dead, verify, and score on both windows."""
    loads, deployment = instance(trace_name, dead)
    gaps, served = [], []
    for window in PLAN:
        placement = heuristics.rebalance(loads[window], deployment, method)
        makespans = verify(placement, loads[window], deployment)
        means = [Layer.of_layer(row, deployment).mean for row in loads[window]]
        gaps += [optimality_gap(up, low) for up, low in zip(makespans, means, strict=True)]
        served.append(balancedness_gpu(placement, loads[window + 1], deployment))
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, hashed_text(deployment)),
        "parameters": {"dead": dead, "slots_per_gpu": SLOTS},
        "status": "legal",
        "gaps": gaps,
        "served": served,
    }


def hashed_text(deployment: Deployment) -> str:
    """Return the text of a deployment that the published hashes are made of: a former name, every GPU listed even if all live."""
    listed = {**deployment.as_dict(), "slots_per_gpu": deployment.slots_by_gpu, "active": deployment.active}
    return f"UnevenDeployment({', '.join(f'{name}={value!r}' for name, value in listed.items())})"


def cells() -> list[Cell]:
    """Return the cells: both traces, none to four dead GPUs, both methods."""
    return [
        Cell(SUITE, f"{name} {dead} dead", method, elastic_cell, {"trace_name": name, "dead": dead, "method": method})
        for name in TRACES
        for dead in DEAD
        for method in METHODS
    ]


def table(measured: Rows) -> str:
    """Return planning gaps and serving balancedness as Markdown."""
    body = []
    for name in TRACES:
        for dead in DEAD:
            cells_of_row = [f"{name}, {dead} of {GPUS}"]
            for method in METHODS:
                row = measured.one(suite=SUITE, instance=f"{name} {dead} dead", method=method)
                cells_of_row += [
                    f"{100 * fmean(row['gaps']):.3f} / {100 * max(row['gaps']):.2f} %",
                    f"{fmean(row['served']):.4f}",
                ]
            body.append(cells_of_row)
    traces = "; ".join(f"{name}, {title}" for name, title in TRACE_TITLES.items())
    return (
        f"## Dead GPUs\n\n256 experts, {GPUS} GPUs of {SLOTS} slots, global policy; gap to the mean of the live GPUs, mean / "
        f"worst over all layers of {len(PLAN)} windows, and their balancedness on the next window. Traces: {traces}.\n\n"
        + markdown(["trace, dead GPUs", *(f"`{m}` {what}" for m in METHODS for what in ("planning gap", "serving"))], body)
        + "\n"
    )


STUDY = Study(
    SUITE,
    job="serving",
    about="dead GPUs: the planner against SGLang's `elasticity_aware`",
    cells=cells,
    shapes=(finding({"gaps": NUMBERS, "served": NUMBERS}),),
    instance=instance,
    hashed=hashed_text,
    table=table,
)
