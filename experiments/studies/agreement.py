"""Every engine against brute force on random small instances: part of ``eplb-gap bench solvers``."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.random_instances import SHAPES_OF_KINDS, cases_of_kind, flat_instances, hierarchical_cases
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Rows
from eplb_gap.experiments.studies.numbers import Number
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem import certificate
from eplb_gap.problem.bounds.partition import partitions
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import TRUSTS, described_trust
from eplb_gap.solvers.engine import Engine
from eplb_gap.solvers.engines.oracle import best_map
from eplb_gap.solvers.solution import Solution

SUITE = "agreement"
TWELVE_SLOTS = [(8, 12, 4), (9, 12, 3), (10, 12, 4), (9, 12, 6), (10, 12, 6), (11, 12, 12)]
SEEDS = (0, 1)
INSTANCES = {"flat": 200, "twelve slots": 36, "hierarchical": 63, **dict.fromkeys(SHAPES_OF_KINDS, 24)}
"""Instances per seed. Flat ones have 4 to 9 slots, 1 to 5 of them on a GPU; duplicates are allowed and forbidden in turn."""
SWEPT = sorted((engine for engine in solvers.ENGINES.values() if engine.swept), key=lambda engine: not engine.exact)
"""Exact engines first; the others need not end with a proof, but their bounds and maps must enclose the optimum."""
SECONDS, BOUNDING_SECONDS = 60.0, 0.3
RELATIVE_TOLERANCE = {"milp": Fraction(1, 10**6)}
"""Engines that compare in floats leave gaps open that are no larger; counted apart."""
Case = tuple[np.ndarray, Deployment]
"""One layer, int64 [1, experts], and its deployment."""


def agreement_cell(kind: str, seed: int) -> Fields:
    """Solve random instances with every engine and compare with brute force; write and check a certificate of every solution."""
    started = time.perf_counter()
    fields = compared(_cases(kind, seed), SWEPT)
    return {
        "kind": "agreement",
        "hash": "",
        "parameters": {"time_limit": SECONDS},
        "status": "DISAGREE" if fields["disagreements"] else "agree",
        **fields,
        "wall_seconds": time.perf_counter() - started,
    }


def compared(cases: list[Case], engines: Iterable[Engine]) -> Fields:
    """Return what engines say of instances beside brute force: comparisons and proofs by kind, counted, and what is wrong."""
    numbers: Counter[str] = Counter()
    proofs: Counter[str] = Counter()
    left_open: Counter[str] = Counter()
    disagreements = []
    for loads, deployment in cases:
        best = optimum(loads[0], deployment)
        for engine in (engine for engine in engines if takes(engine, deployment)):
            numbers[engine.name] += 1
            limit = SECONDS if engine.exact else BOUNDING_SECONDS
            try:
                solution = solvers.solve(loads, deployment, engine.name, time_limit=limit)
            except Exception as error:  # whatever an engine fails with on a legal instance is a finding
                wrong = [f"it raised {error!r}"]
            else:
                proofs[solution.proof[0]] += 1
                tolerance = RELATIVE_TOLERANCE.get(engine.name, Fraction(0)) if engine.exact else None
                wrong = contradictions(solution, best, tolerance)
                left_open[engine.name] += engine.exact and solution.lower != solution.upper
            instance = {"engine": engine.name, "loads": loads.tolist(), "deployment": str(deployment)}
            disagreements += [{**instance, "found": text} for text in wrong]
    return {
        "instances": len(cases),
        "compared": dict(numbers),
        "proofs": dict(proofs),
        "left_open": dict(+left_open),
        "disagreements": disagreements,
    }


def takes(engine: Engine, deployment: Deployment) -> bool:
    """Return whether an engine is for a deployment's shape."""
    live = deployment.live
    return live.slots_per_gpu in engine.slots_per_gpu if live.is_regular else engine.unequal


def contradictions(solution: Solution, best: Fraction, tolerance: Fraction | None) -> list[str]:
    """Return what is wrong with a solution of one layer whose optimum is known, and with its certificate; a line each.

    Parameters
    ----------
    solution : Solution
    best : Fraction
        The optimum.
    tolerance : Fraction or None
        Largest gap between makespan and bound, as a part of the bound; None allows any.
    """
    (upper,), (lower,), (proof,) = solution.upper, solution.lower, solution.proof
    found = []
    if not lower <= best <= upper:
        found.append(f"{lower} <= {best} <= {upper} expected")
    elif tolerance is not None and upper > lower * (1 + tolerance):
        found.append(f"the optimum {best} is not proven: {lower} to {upper}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificate.json"
        solution.save(path)
        try:
            verdict = certificate.check(path)
        except (certificate.CertificateError, InputError, PlacementError) as error:
            return [*found, f"its certificate is refused: {error}"]
    if verdict.upper != [upper] or bool(verdict.claims) != (described_trust(proof) != "recomputed"):
        found.append(f"its certificate says {verdict.upper}, {verdict.claims}; the solution {upper}, {proof}")
    return found


def _cases(kind: str, seed: int) -> list[Case]:
    if kind in SHAPES_OF_KINDS:
        return cases_of_kind(kind, INSTANCES[kind], 300 + seed)
    if kind == "hierarchical":
        return hierarchical_cases(INSTANCES[kind], 100 + seed)
    shapes = {"shapes": TWELVE_SLOTS} if kind == "twelve slots" else {}
    flat = flat_instances(INSTANCES[kind], 200 + seed, **shapes)
    return [(np.array([i.loads]), Deployment(i.num_experts, i.num_slots, i.num_gpus, duplicates=i.duplicates)) for i in flat]


def optimum(loads: np.ndarray, deployment: Deployment) -> Fraction:
    """Return the optimum of one layer, int64 [experts], on the GPUs that are alive, by brute force."""
    if deployment.policy == "hierarchical":
        return hierarchical_optimum(loads, deployment)
    instance = Instance.of_layer(loads, deployment)
    return instance.makespan(best_map(instance))


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
    """How many instances every engine was compared on, what its bounds rest on, and how many disagreements there were."""
    swept = rows.where(suite=SUITE)
    body = []
    for kind in INSTANCES:
        of_kind = [swept.one(instance=kind, seed=seed) for seed in SEEDS]
        compared = {engine.name: sum(row["compared"].get(engine.name, 0) for row in of_kind) for engine in SWEPT}
        left_open = sum((Counter(row["left_open"]) for row in of_kind), Counter())
        trusts: Counter[str] = Counter()
        for row in of_kind:
            for proof, number in row["proofs"].items():
                trusts[described_trust(proof)] += number
        body.append(
            [
                kind,
                str(sum(row["instances"] for row in of_kind)),
                ", ".join(f"{name} {number}" for name, number in compared.items() if number),
                " / ".join(str(trusts[trust]) for trust in TRUSTS),
                ", ".join(f"{name} {number}" for name, number in sorted(left_open.items())) or "-",
                str(sum(len(row["disagreements"]) for row in of_kind)),
            ]
        )
    total, wrong = sum(row["instances"] for row in swept), sum(len(row["disagreements"]) for row in swept)
    return (
        f"## Engines against brute force\n\n{total} random instances, one to six slots per GPU, duplicates allowed and "
        f"forbidden: {wrong} disagreements. A certificate of every solution was written, read and checked; a refused one is a "
        "disagreement. Bounds rest on a witness that is recomputed / on an exhausted search / on a solver's word. What HiGHS "
        "leaves open is within its tolerance, 1e-6 of the makespan; every other exact engine proves every optimum.\n\n"
        + markdown(["instances", "number", "comparisons", "bounds rest on", "left open", "disagreements"], body)
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
                "proofs": "object of integer",
                "left_open": "object of integer",
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
