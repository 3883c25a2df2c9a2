"""Balancers at two slots per GPU, where the pairing structure binds, against proven optima and simple bounds."""

from __future__ import annotations

from functools import cache
from statistics import fmean

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.loads.traces import TRACES, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.proven import closed, count, proofs
from eplb_gap.experiments.measuring.row_schema import PROVEN, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies.numbers import Number, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem.bounds.bounds import adams_counts, best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.instance import Instance as Layer
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.engines.pairing import fold

SUITE = "findings"
PAIRED = Deployment(256, 288, 144)
FAMILIES = ("ln.6", "ln1.0", "zipf.8", *TRACES)
"""Synthetic families, four layers each, and the last planning window of both traces."""
SECONDS = 20.0
"""Of a solve, per layer."""
GAPS = ("mean", "simple", "lower")
"""Bounds that the programs are held against: mean load, closed forms, the engine's."""


@cache
def instance(family: str) -> Instance:
    """Return the layers of a family."""
    if family in TRACES:
        return trace(family).window(-2)[:8], PAIRED
    return np.array([family_loads(family, PAIRED.num_experts, 10**6, seed) for seed in range(4)]), PAIRED


def paired_cell(family: str) -> Fields:
    """Judge the programs and Adams' counts at two slots per GPU by proven optima and by the simple bounds."""
    loads, _ = instance(family)
    layers = [Layer.of_layer(row, PAIRED) for row in loads]
    solution = solvers.solve(loads, PAIRED, "auto", 0.0, SECONDS * len(loads))
    simple = [best_joint_bound(layer).value for layer in layers]
    folded = [i.makespan(fold(i, adams_counts(i.loads, i.num_slots, i.max_count))) for i in layers]
    found = {"Adams, best pairing of its counts": folded}
    found |= {m: verify(heuristics.rebalance(loads, PAIRED, m), loads, PAIRED) for m in SEED_PROGRAMS}
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, PAIRED),
        "parameters": {"time_limit": SECONDS * len(loads)},
        "status": solution.status,
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        **proof_fields(solution.proof),
        "mean": fractions(layer.mean for layer in layers),
        "simple": fractions(simple),
        "programs": {name: fractions(values) for name, values in found.items()},
    }


def cells() -> list[Cell]:
    """Return one cell per family."""
    return [Cell(SUITE, _named(family), "auto", paired_cell, {"family": family}) for family in FAMILIES]


def _named(family: str) -> str:
    return f"256/288/144 {family}"


def on_family(measured: Rows, family: str) -> Row:
    """Return the row of a family."""
    return measured.one(suite=SUITE, instance=_named(family))


def program_gaps(row: Row, program: str, side: str) -> list[float]:
    """Return the gap of every layer of a program's maps to one of the bounds: mean, simple or lower."""
    upper, bound = (rows.fractions_in(values) for values in (row["programs"][program], row[side]))
    return [optimality_gap(up, low) for up, low in zip(upper, bound, strict=True)]


def table(measured: Rows) -> str:
    """Mean gap of every program to three bounds, and where it is proven optimal."""
    at = {family: on_family(measured, family) for family in FAMILIES}
    body = []
    for name in next(iter(at.values()))["programs"]:
        cells = []
        for row in at.values():
            upper = rows.fractions_in(row["programs"][name])
            optimal = count((proof, up == low) for proof, up, low in zip(proofs(row), upper, row.lower, strict=True))
            means = " / ".join(f"{100 * fmean(program_gaps(row, name, side)):.2f}" for side in GAPS)
            cells.append(f"{means} %, {optimal}")
        body.append([f"`{name}`" if name in SEED_PROGRAMS else name, *cells])
    proven = "; ".join(f"{family} {closed([row])}" for family, row in at.items())
    return (
        "## Balancers at two slots per GPU\n\n256 experts, 288 slots, 144 GPUs, global. Mean gap to the mean load / to the "
        "best closed-form bound / to the engine's bound, and layers in which the program is proven optimal. "
        f"Layers with a proven optimum: {proven}.\n\n" + markdown(["program", *FAMILIES], body)
    )


def _gap(family: str, program: str, side: str) -> Number:
    """The mean gap to the mean load or to the proven bound."""
    return Number(((SUITE, _named(family), "auto"),), lambda found: percent(fmean(program_gaps(found[0], program, side))))


STUDY = Study(
    SUITE,
    job="solvers",
    about="programs at two slots per GPU",
    cells=cells,
    shapes=(
        finding(
            {
                "upper": "list of p/q",
                "lower": "list of p/q",
                **PROVEN,
                "mean": "list of p/q",
                "simple": "list of p/q",
                "programs": "object of list of p/q",
            },
            "upper",
            "lower",
            *PROVEN,
            "status",
        ),
    ),
    instance=instance,
    table=table,
    numbers={
        "paired-ln06": _gap("ln.6", "initial_program", "lower"),
        "paired-ln06-mean": _gap("ln.6", "initial_program", "mean"),
        "paired-zipf-mean": _gap("zipf.8", "initial_program", "mean"),
        "paired-zipf": _gap("zipf.8", "initial_program", "lower"),
        "paired-recorded": _gap("recorded", "initial_program", "lower"),
        "paired-hamilton": _gap("zipf.8", "proportional_quota_replication", "lower"),
    },
)
