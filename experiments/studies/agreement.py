"""Every engine against brute force on random small instances: part of ``eplb-gap bench solvers``."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from fractions import Fraction

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.random_instances import flat_instances, hierarchical_cases
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.bounds.partition import partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engines.oracle import best_map

SUITE = "agreement"
TWELVE_SLOTS = [(8, 12, 4), (9, 12, 3), (10, 12, 4), (9, 12, 6), (10, 12, 6), (11, 12, 12)]
SEEDS = (0, 1)
INSTANCES = {"flat": 200, "twelve slots": 36, "hierarchical": 63}
"""Instances per seed. Flat ones have 4 to 9 slots, 1 to 5 of them on a GPU; duplicates are allowed and forbidden in turn."""
SWEPT = sorted((engine for engine in solvers.ENGINES.values() if engine.swept), key=lambda engine: not engine.exact)
"""Exact engines first; the others need not end with a proof, but their bounds and maps must enclose the optimum."""
SECONDS, BOUNDING_SECONDS = 60.0, 0.3


def agreement_cell(kind: str, seed: int) -> Fields:
    """Solve random instances with every engine and compare with brute force."""
    started = time.perf_counter()
    compared: Counter[str] = Counter()
    disagreements = []
    cases = _cases(kind, seed)
    for loads, deployment in cases:
        best = hierarchical_optimum(loads[0], deployment)
        for engine in (engine for engine in SWEPT if deployment.slots_per_gpu in engine.slots_per_gpu):
            limit = SECONDS if engine.exact else BOUNDING_SECONDS
            solution = solvers.solve(loads, deployment, engine.name, time_limit=limit)
            (upper,), (lower,) = solution.upper, solution.lower
            compared[engine.name] += 1
            if not lower <= best <= upper or (engine.exact and lower != upper):
                found = f"{lower} <= {best} <= {upper} expected"
                disagreements.append(
                    {"engine": engine.name, "loads": loads.tolist(), "deployment": str(deployment), "found": found}
                )
    return {
        "kind": "agreement",
        "hash": "",
        "parameters": {"time_limit": SECONDS},
        "status": "agree" if not disagreements else "DISAGREE",
        "instances": len(cases),
        "compared": dict(compared),
        "disagreements": disagreements,
        "wall_seconds": time.perf_counter() - started,
    }


def _cases(kind: str, seed: int) -> list[tuple[np.ndarray, Deployment]]:
    if kind == "hierarchical":
        return hierarchical_cases(INSTANCES[kind], 100 + seed)
    shapes = {"shapes": TWELVE_SLOTS} if kind == "twelve slots" else {}
    flat = flat_instances(INSTANCES[kind], 200 + seed, **shapes)
    return [(np.array([i.loads]), Deployment(i.num_experts, i.num_slots, i.num_gpus, duplicates=i.duplicates)) for i in flat]


def hierarchical_optimum(loads: np.ndarray, deployment: Deployment) -> Fraction:
    """Return the optimum of one layer, int64 [experts], by brute force over partitions of the groups and over the nodes' maps."""
    size, per_node = deployment.experts_per_group, deployment.groups_per_node
    value = {}
    for groups in itertools.combinations(range(deployment.num_groups), per_node):
        experts = [e for g in groups for e in range(g * size, (g + 1) * size)]
        instance = Instance.of_node(loads[experts], deployment)
        value[groups] = instance.makespan(best_map(instance))
    return min(max(value[groups] for groups in sets) for sets in partitions(tuple(range(deployment.num_groups)), per_node))


def cells() -> list[Cell]:
    """Return the cells of the sweep."""
    return [
        Cell(SUITE, kind, "all engines", agreement_cell, {"kind": kind, "seed": seed}, seed)
        for kind in INSTANCES
        for seed in SEEDS
    ]


def table(rows: Rows) -> str:
    """How many instances every engine was compared on, and how many disagreements there were."""
    swept = rows.where(suite=SUITE)
    body = [
        [
            kind,
            str(sum(row["instances"] for row in swept if row["instance"] == kind)),
            ", ".join(
                f"{engine.name} {sum(row['compared'].get(engine.name, 0) for row in swept if row['instance'] == kind)}"
                for engine in SWEPT
            ),
            str(sum(len(row["disagreements"]) for row in swept if row["instance"] == kind)),
        ]
        for kind in INSTANCES
    ]
    total, wrong = sum(row["instances"] for row in swept), sum(len(row["disagreements"]) for row in swept)
    return (
        f"## Engines against brute force\n\n{total} random instances, one to six slots per GPU, duplicates allowed and "
        f"forbidden: {wrong} disagreements.\n\n" + markdown(["instances", "number", "comparisons", "disagreements"], body)
    )


STUDY = Study(
    SUITE,
    job="solvers",
    about="every engine against brute force on random small instances",
    cells=cells,
    shapes=(
        Shape(
            "agreement",
            CELL
            | {
                "wall_seconds": "number",
                "instances": "integer",
                "compared": "object of integer",
                "disagreements": "list of object of anything",
            },
        ),
    ),
    table=table,
    numbers={
        "agreement-instances": Number(((SUITE, "*", "*"),), lambda rows: str(sum(row["instances"] for row in rows))),
        "agreement-contradictions": Number(
            ((SUITE, "*", "*"),), lambda rows: str(sum(len(row["disagreements"]) for row in rows))
        ),
    },
)
