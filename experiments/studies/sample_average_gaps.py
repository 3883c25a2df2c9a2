"""The sample-average heuristic against proven optima on small instances (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.random_instances import FLAT_SHAPES, HIERARCHICAL_SHAPES
from eplb_gap.experiments.loads.random_instances import loads as draw
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.serving.sample_average import plan
from eplb_gap.problem.bounds.sample_average import sample_average_bound, sample_average_makespan
from eplb_gap.problem.deployment import Deployment
from eplb_gap.solvers.serving.sample_average_exact import solve_sample_average
from eplb_gap.solvers.serving.sample_average_oracle import least_sample_average

SUITE = "sample_average"
BATCHES, INSTANCES = 10, 22
MODELS = ("cpsat", "milp")
SECONDS = 60.0
MOST_WINDOWS = 4
SMALL_GAP = 0.01


def gaps_cell(batch: int) -> Fields:
    """Plan small instances, duplicates forbidden, and compare with brute force and both exact models."""
    generator = np.random.default_rng(1000 + batch)
    gaps, bound_gaps, proven, wrong = [], [], {name: 0 for name in MODELS}, []
    for number in range(INSTANCES):
        deployment, history = _instance(number, generator)
        optimum = least_sample_average(history[:, 0], deployment)
        reached = sample_average_makespan(plan(history, deployment), history, deployment)[0]
        bound = sample_average_bound(history[:, 0], deployment).value
        gaps.append(float(reached / optimum - 1) if optimum else 0.0)
        bound_gaps.append(float(optimum / bound - 1) if bound else 0.0)
        for name in MODELS:
            solution = solve_sample_average(history, deployment, name, SECONDS)
            proven[name] += solution.status[0] == "optimal"
            if not solution.lower[0] <= optimum <= solution.upper[0] or bound > optimum or reached < optimum:
                wrong.append(f"{name}, instance {number}")
    return {
        "kind": "finding",
        "hash": f"batch {batch}",
        "parameters": {"seed": 1000 + batch, "time_limit": SECONDS},
        "status": "legal",
        "gaps": gaps,
        "bound_gaps": bound_gaps,
        "proven": proven,
        "contradictions": wrong,
    }


def _instance(number: int, generator: np.random.Generator) -> tuple[Deployment, np.ndarray]:
    """Return a deployment of at most ten slots and one to four windows of one layer."""
    flat = [(*shape, 1, 1) for shape in FLAT_SHAPES if shape[1] // shape[2] <= shape[0]]
    nodes = [shape for shape in HIERARCHICAL_SHAPES if shape[1] // shape[2] <= shape[0] // shape[3]]
    shapes = flat if number % 2 else nodes
    deployment = Deployment(*shapes[number // 2 % len(shapes)], "forbidden")
    windows = int(generator.integers(1, MOST_WINDOWS + 1))
    return deployment, np.array([[draw(deployment.num_experts, generator)] for _ in range(windows)])


def cells() -> list[Cell]:
    """Return the batches."""
    return [Cell(SUITE, f"small {batch:02d}", "sample-average", gaps_cell, {"batch": batch}) for batch in range(BATCHES)]


def gathered(measured: Rows, key: str) -> list[float]:
    """Return the gaps of all batches."""
    return [gap for row in measured.where(suite=SUITE) for gap in row[key]]


def table(measured: Rows) -> str:
    """Return the gaps as Markdown."""
    found = measured.where(suite=SUITE)
    gaps, bounds = gathered(measured, "gaps"), gathered(measured, "bound_gaps")
    wrong = [text for row in found for text in row["contradictions"]]
    proven = ", ".join(f"{name} {sum(row['proven'][name] for row in found)}" for name in MODELS)
    body = [
        [
            str(len(gaps)),
            f"{100 * fmean(gaps):.3f} / {100 * max(gaps):.2f} %",
            f"{sum(gap == 0 for gap in gaps)}",
            f"{100 * fmean(bounds):.1f} / {100 * max(bounds):.1f} %",
            proven,
            str(len(wrong)),
        ]
    ]
    return (
        "## Sample average against proven optima\n\nRandom instances of at most ten slots and one to four windows, duplicates "
        "forbidden; the optimum by brute force, repeated by CP-SAT and MILP.\n\n"
        + markdown(
            [
                "instances",
                "heuristic's gap, mean / worst",
                "optimal",
                "optimum over the bound, maps listed where they are few, mean / worst",
                "proven by",
                "contradictions",
            ],
            body,
        )
        + "\n"
    )


def level(measured: Rows) -> list[str]:
    """Return what is asked and measured on small instances; a line of the levels of histories."""
    gaps = gathered(measured, "gaps")
    proven = min(sum(row["proven"][model] for row in measured.where(suite=SUITE)) for model in MODELS)
    return [
        f"sample-average, {len(gaps)} instances of <= 10 slots",
        f"all proven, mean gap <= {100 * SMALL_GAP:g} %",
        f"{proven} proven by every model, mean {100 * fmean(gaps):.3f} %, worst {100 * max(gaps):.2f} %",
        yes_or_no(proven == len(gaps) and fmean(gaps) <= SMALL_GAP),
    ]


STUDY = Study(
    SUITE,
    job="serving",
    about="the sample-average heuristic against proven optima on small instances",
    cells=cells,
    shapes=(
        finding(
            {"gaps": NUMBERS, "bound_gaps": NUMBERS, "proven": "object of integer", "contradictions": "list of text"}, "proven"
        ),
    ),
    table=table,
    numbers={
        "sample-instances": Number(((SUITE, "*", "*"),), lambda rows: str(len(gathered(rows, "gaps")))),
        "sample-optimal": Number(((SUITE, "*", "*"),), lambda rows: str(sum(gap == 0 for gap in gathered(rows, "gaps")))),
    },
)
