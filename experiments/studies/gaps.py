"""The gap table: the ten programs and the solvers on small, node and flagship instances."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import DRAWN_CASE, gap_cases
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.proven import closed
from eplb_gap.experiments.measuring.row_schema import MAP, PLANNED, Shape, solver
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows, case_bounds, layer_gaps
from eplb_gap.experiments.measuring.solve_cells import plan, solver_cell
from eplb_gap.experiments.studies.numbers import Number, percent
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS

SUITE = "gap"
README_CASES = (
    "deepseek-readme",
    "flashlb",
    "flagship-recorded",
    "hot-recorded",
    "flagship-calibrated",
    "flagship-global-calibrated",
)
FLAGSHIP_CASE, EXAMPLE_CASE = "flagship-calibrated", "flashlb"


def instance(case: str, **_: object) -> Instance:
    """Return an instance of the gap table."""
    return gap_cases()[case].loads, gap_cases()[case].deployment


def gap_heuristic_cell(case: str, method: str) -> Fields:
    """Plan one instance of the gap table with a heuristic."""
    chosen = gap_cases()[case]
    placement, fields = plan(method, chosen.loads, chosen.deployment)
    return {**fields, "phy2log": placement.phy2log.tolist()} if (case, method) == (DRAWN_CASE, "initial_program") else fields


def gap_solver_cell(case: str, method: str) -> Fields:
    """Solve one instance of the gap table."""
    chosen = gap_cases()[case]
    return solver_cell(chosen.loads, chosen.deployment, method, *chosen.limits, keep_map=chosen.name == DRAWN_CASE)


def cells() -> list[Cell]:
    """Return the cells of the gap table: programs and solvers on small, node and flagship instances."""
    found = []
    for case in gap_cases().values():
        # Second opinions where they end within the limit: every proof by exhausted search is repeated by a solver.
        methods = ["auto"]
        methods += ["milp"] if case.name in {"deepseek-readme", "flashlb", "small-6-9-3"} else []
        methods += ["cpsat"] if case.name in {"deepseek-readme-global", "flashlb"} else []
        found += [Cell(SUITE, case.name, m, gap_solver_cell, {"case": case.name, "method": m}) for m in methods]
        found += [Cell(SUITE, case.name, m, gap_heuristic_cell, {"case": case.name, "method": m}) for m in SEED_PROGRAMS]
    return found


def gaps(measured: Rows, case: str, method: str) -> list[float]:
    """Return the gap of every layer of an instance to the best proven bound."""
    return layer_gaps(measured.one(suite=SUITE, instance=case, method=method), case_bounds(measured, case))


def table(measured: Rows) -> str:
    """Gaps of the programs, and what is proven."""
    return f"{gap_table(measured)}\n\n{proof_table(measured)}"


def gap_table(measured: Rows) -> str:
    """Mean and worst optimality gap of every program to the best proven lower bound, per family of instances."""
    cases = gap_cases()
    header = ["program", *(case.family for case in cases.values())]
    body = []
    for method in SEED_PROGRAMS:
        cells = []
        for name in cases:
            found = gaps(measured, name, method)
            cells.append(f"{100 * fmean(found):.2f} / {100 * max(found):.2f}")
        body.append([f"`{method}`", *cells])
    return (
        "## Optimality gap\n\nMean / worst gap in % over the layers, to the best proven lower bound (planning window).\n\n"
        + markdown(header, body)
    )


def proof_table(measured: Rows) -> str:
    """How far the solvers get on each instance of the gap table."""
    body = []
    for name, case in gap_cases().items():
        for row in measured.where(suite=SUITE, instance=name, kind="solver"):
            proofs = sorted(set(row["proof"]))
            body.append(
                [
                    case.family,
                    row["method"],
                    str(closed([row])),
                    f"{100 * fmean(row['gap']):.4f} / {100 * max(row['gap']):.4f}",
                    "; ".join(proofs),
                ]
            )
    return "## What is proven\n\n" + markdown(
        ["instance", "solver", "layers optimal", "solver's own gap in %, mean / worst", "proof of the lower bound"], body
    )


def readme_table(measured: Rows) -> str:
    """The gap table of the README: deterministic programs against bounds that do not depend on a time limit."""
    header = ["program", *(gap_cases()[name].family for name in README_CASES)]
    body = []
    for generation, method in enumerate(SEED_PROGRAMS):
        found = [gaps(measured, name, method) for name in README_CASES]
        body.append([f"{generation} `{method}`", *(f"{100 * fmean(of):.2f} / {100 * max(of):.2f}" for of in found)])
    return markdown(header, body)


def _example(method: str) -> Number:
    """Worst gap on FlashLB's example."""
    return Number(((SUITE, EXAMPLE_CASE, "*"),), lambda rows: percent(max(gaps(rows, EXAMPLE_CASE, method))))


def _unchecked(of: Callable[[list[float]], float]) -> Number:
    """Gap of a program whose swaps are not checked."""
    method = "local_swap_refine_in_packing"
    patterns = ((SUITE, FLAGSHIP_CASE, "auto"), (SUITE, FLAGSHIP_CASE, method))
    return Number(patterns, lambda rows: percent(of(gaps(rows, FLAGSHIP_CASE, method)), 1))


STUDY = Study(
    SUITE,
    job="reproduce",
    about="programs and solvers on the instances of the gap table",
    cells=cells,
    shapes=(solver(), Shape("heuristic", PLANNED, {"phy2log": MAP})),
    instance=instance,
    table=table,
    figures=("gap_runtime", "before_after"),
    numbers={
        "flashlb-gap": _example("initial_program"),
        "flashlb-hamilton": _example("proportional_quota_replication"),
        "unchecked-gap": _unchecked(fmean),
        "unchecked-worst": _unchecked(max),
    },
    blocks={"gap table": Drawn((SUITE,), readme_table)},
)
