"""The project's planner away from the flagship: hot loads and few slots per GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from statistics import fmean, median

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.loads.traces import HOTTEST_WINDOW, name_of, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, PROVEN, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies import head_to_head
from eplb_gap.experiments.studies.numbers import Number, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.own import FAST
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.instance import Instance as Layer
from eplb_gap.problem.metrics import duplicates, optimality_gap
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.engines.pairing import fold

SUITE = "shapes"
LAYERS = 8
CALLS = 5
"""Calls of a method, of whose times the median counts."""
TOTAL = 10**6
METHODS = ("fast-lpt", "fast", "fast-counts")
FOLDED = "Adams + fold"
BOUND_SECONDS = 40.0
"""For the certified bound of all layers of a cell."""
BOUND_GAP = 1e-4
HOTTEST, HOT = "recorded, hottest window", "zipf1.2"
SHAPES: tuple[tuple[Deployment, tuple[str, ...]], ...] = (
    (Deployment(128, 160, 32), ("ln1.0", "zipf.8", HOT)),
    (Deployment(64, 96, 32), ("ln1.0", "zipf.8", HOT)),
    (Deployment(64, 80, 16), (HOT,)),
    (Deployment(256, 288, 32, 4, 8), (HOT, HOTTEST)),
    (Deployment(256, 288, 32), (HOT, HOTTEST)),
    (Deployment(256, 288, 144), ("ln.6", "ln1.0", "zipf.8")),
)


@cache
def instance(number: int, family: str) -> Instance:
    """Return the loads of a family on one of the shapes."""
    deployment = SHAPES[number][0]
    if family == HOTTEST:
        return trace("recorded").window(HOTTEST_WINDOW), deployment
    return np.array([family_loads(family, deployment.num_experts, TOTAL, seed) for seed in range(LAYERS)]), deployment


def shape_cell(number: int, family: str) -> Fields:
    """Plan some layers with every effort, warm, and compare with the certified bound."""
    loads, deployment = instance(number, family)
    solution = solvers.solve(loads, deployment, "auto", 0.0 if deployment.slots_per_gpu == 2 else BOUND_GAP, BOUND_SECONDS)
    found: dict[str, Fields] = {}
    for method in METHODS:
        seconds = []
        for _ in range(CALLS):
            start = time.perf_counter()
            placement = heuristics.rebalance(loads, deployment, method)
            seconds.append(time.perf_counter() - start)
        found[method] = {
            "ms_per_layer": 1000 * median(seconds) / len(loads),
            "upper": fractions(verify(placement, loads, deployment)),
            "duplicates": int(duplicates(placement, deployment.num_gpus).sum()),
        }
    if deployment.slots_per_gpu == 2:
        layers = [Layer.of_layer(row, deployment) for row in loads]
        folded = [i.makespan(fold(i, adams_counts(i.loads, i.num_slots, i.max_count))) for i in layers]
        found[FOLDED] = {"ms_per_layer": None, "upper": fractions(folded), "duplicates": None}
    return {
        "kind": "heuristic",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"layers": len(loads), "target_gap": BOUND_GAP, "time_limit": BOUND_SECONDS},
        "status": solution.status,
        "lower": fractions(solution.lower),
        "solved": fractions(solution.upper),
        **proof_fields(solution.proof),
        "methods": found,
    }


def cells() -> list[Cell]:
    """Return one cell per shape and family."""
    return [
        Cell(SUITE, f"{name_of(deployment)} {family}", "fast", shape_cell, {"number": number, "family": family})
        for number, (deployment, families) in enumerate(SHAPES)
        for family in families
    ]


def gaps(row: Row, method: str) -> list[float]:
    """Return the gap of every layer of a row to the certified bound."""
    upper = rows.fractions_in(row["methods"][method]["upper"])
    return [optimality_gap(up, low) for up, low in zip(upper, row.lower, strict=True)]


def table(measured: Rows) -> str:
    """Gap, time and duplicates of every effort on every shape."""
    body = []
    for row in measured.where(suite=SUITE):
        for method, found in row["methods"].items():
            of = gaps(row, method)
            body.append(
                [
                    row["instance"],
                    f"`{method}`" if method in METHODS else method,
                    "-" if found["ms_per_layer"] is None else f"{found['ms_per_layer']:.2f}",
                    f"{100 * fmean(of):.3f} / {100 * max(of):.3f} %",
                    "-" if found["duplicates"] is None else str(found["duplicates"]),
                ]
            )
    return (
        "## Other shapes and hot loads\n\n"
        f"Experts/slots/GPUs; {LAYERS} layers each, synthetic unless named; gap to the bound certified by `solve` in "
        f"{BOUND_SECONDS:.0f} s for all layers.\n\n"
        + markdown(["instances", "method", "ms a layer", "gap mean / worst", "duplicates"], body)
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured on the shapes, and of duplicates on them and in the head to head."""
    shapes = {row["instance"]: row for row in measured.where(suite=SUITE)}
    of = {f"{name_of(deployment)} {family}": (deployment, family) for deployment, families in SHAPES for family in families}
    asked: list[tuple[str, str, float, float | None, float]] = [
        (f"128/160/32 {f}", "fast-counts", 4e-4, None, 50.0) for f in ("ln1.0", "zipf.8")
    ]
    asked += [(f"64/96/32 {f}", "fast-counts", 3e-3, None, 50.0) for f in ("ln1.0", "zipf.8")]
    asked += [(name, "fast", 2e-3, 2e-2, 5.0) for name in shapes if of[name][1] in (HOT, HOTTEST)]
    asked += [(name, "fast", 1e-2, None, 20.0) for name in shapes if of[name][0].slots_per_gpu == 2]
    body = []
    for name, method, mean, worst, milliseconds in asked:
        row = shapes[name]
        found, took = gaps(row, method), row["methods"][method]["ms_per_layer"]
        met = fmean(found) <= mean and took <= milliseconds and (worst is None or max(found) <= worst)
        if FOLDED in row["methods"]:
            met &= fmean(found) <= fmean(gaps(row, FOLDED))
        limit = f"mean <= {100 * mean:g} %" + (f", worst <= {100 * worst:g} %" if worst else "")
        said = f"{100 * fmean(found):.3f} / {100 * max(found):.3f} %, {took:.2f} ms"
        body.append([f"{name}, `{method}`", f"{limit}, {milliseconds:g} ms a layer", said, yes_or_no(met)])
    return [*body, _duplicates_level(measured)]


def _duplicates_level(measured: Rows) -> list[str]:
    found = sum(at["duplicates"] or 0 for row in measured.where(suite=SUITE) for at in row["methods"].values())
    found += sum(sum(row["duplicates"]) for row in measured.where(suite=head_to_head.SUITE) if row["method"] in FAST)
    return ["same-GPU duplicates, all maps above", "0", str(found), yes_or_no(found == 0)]


def _gap(instance: str, method: str, of: Callable[[list[float]], float], digits: int = 1) -> Number:
    return Number(((SUITE, instance, "fast"),), lambda rows: percent(of(gaps(rows[0], method)), digits))


STUDY = Study(
    SUITE,
    job="heuristics",
    about="the planner on other shapes and hot loads, and up to 1024 GPUs",
    cells=cells,
    shapes=(
        Shape(
            "heuristic",
            CELL | {"lower": "list of p/q", "solved": "list of p/q", **PROVEN, "methods": "object of object of anything"},
            searched=frozenset({"lower", "solved", *PROVEN, "status"}),
        ),
    ),
    instance=instance,
    table=table,
    levels=levels,
    numbers={
        "hot-lpt": _gap("256/288/32 hierarchical zipf1.2", "fast-lpt", fmean),
        "hot-lpt-worst": _gap("256/288/32 hierarchical zipf1.2", "fast-lpt", max),
        "hot-fast-worst": _gap("256/288/32 hierarchical zipf1.2", "fast", max),
        "hot-three": _gap("64/96/32 zipf1.2", "fast", fmean, 2),
    },
    timed=True,
)
