"""Where serving balance is lost, over all pairs of windows of both traces (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from statistics import fmean, stdev

from eplb_gap import heuristics
from eplb_gap.analysis.explain import STEPS, decompose
from eplb_gap.analysis.text import markdown
from eplb_gap.analysis.windows import Windows
from eplb_gap.experiments.loads.traces import POLICIES, TRACE_TITLES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import TRUST, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies.numbers import Number, Pattern
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.fractions import fraction

SUITE = "decomposition"
METHODS = ("initial_program", "fast")


def instance(trace_name: str, policy: str, plan_window: int, **_: object) -> Instance:
    """Return the window that is served and its policy."""
    return Windows.of(trace(trace_name), plan_window).serving, POLICIES[policy]


def decomposition_cell(trace_name: str, policy: str, plan_window: int, method: str) -> Fields:
    """Take the excess of one pair of windows apart."""
    deployment, windows = POLICIES[policy], Windows.of(trace(trace_name), plan_window)
    planned = heuristics.rebalance(windows.planning, deployment, method)
    result = decompose(windows, deployment, planned, method, method)
    found = result.steps()
    solved = {level.key: level.proof for level in result.levels if level.proof}
    return {
        "kind": "finding",
        "hash": rows.instance_hash(windows.serving, deployment),
        "parameters": {"plan_window": plan_window},
        "status": "legal",
        "excess": fraction(result.excess()),
        "steps": {step.end: fraction(found[step.key]) for step in STEPS},
        "lower": {level.key: float(result.total(level.lower)) for level in result.levels},
        "upper": {level.key: float(result.total(level.upper)) for level in result.levels},
        **proof_fields(list(solved.values())),
        "proof": {key: dict(Counter(proof)) for key, proof in solved.items()},
    }


def cells() -> list[Cell]:
    """Return the cells: both traces, both policies, every pair of consecutive windows, DeepSeek's algorithm and the project's."""
    return [
        Cell(
            SUITE,
            f"{name} {policy} {window:02d}",
            method,
            decomposition_cell,
            {"trace_name": name, "policy": policy, "plan_window": window, "method": method},
        )
        for name in TRACES
        for policy in POLICIES
        for window in range(WINDOWS - 1)
        for method in METHODS
    ]


def steps(measured: Rows, trace_name: str, policy: str, method: str) -> dict[str, list[float]]:
    """Return the points of excess that each step adds, one number per pair of windows."""
    chosen = measured.where(suite=SUITE, trace=trace_name, policy=policy, method=method)
    # Rows name a step by the makespan at its end.
    return {step.key: [100 * float(Fraction(row["steps"][step.end])) for row in chosen] for step in STEPS}


def table(measured: Rows) -> str:
    """Return mean and standard deviation of every step over the pairs of windows as Markdown."""
    body = []
    for name in TRACES:
        for policy in POLICIES:
            for method in METHODS:
                found = steps(measured, name, policy, method)
                totals = [sum(values) for values in zip(*found.values(), strict=True)]
                cells_of_row = [f"{fmean(values):.2f} ± {stdev(values):.2f}" for values in (*found.values(), totals)]
                body.append([f"{name}, {policy}, `{method}`", *cells_of_row])
    traces = "; ".join(f"{name}, {title}" for name, title in TRACE_TITLES.items())
    return (
        "## Where serving balance is lost\n\nExcess of the planned map's makespan over the mean load on the window it serves, in "
        "percent, and the steps of the chain that it is the exact sum of (`eplb-gap explain`). Mean and standard deviation over "
        f"{WINDOWS - 1} pairs of windows. Traces: {traces}.\n\n"
        + markdown(["trace, policy, method", *(step.label for step in STEPS), "excess"], body)
        + "\n"
    )


def _step(name: str, policy: str, key: str, of: Callable[[list[float]], float] = fmean) -> Number:
    """A step of DeepSeek's excess."""
    return Number(_patterns(name, policy), lambda rows: f"{of(steps(rows, name, policy, METHODS[0])[key]):.1f}")


def _even_throughout(name: str, policy: str) -> Number:
    """What an assignment that is out of date costs where shares are even before and after: the last three steps."""

    def compute(rows: Rows) -> str:
        found = steps(rows, name, policy, METHODS[0])
        return f"{sum(fmean(found[key]) for key in ('assignment', 'history', 'sharing')):.1f}"

    return Number(_patterns(name, policy), compute)


def _excess(name: str, policy: str) -> Number:
    """DeepSeek's excess itself: all steps."""

    def compute(rows: Rows) -> str:
        found = steps(rows, name, policy, METHODS[0])
        return f"{fmean([sum(values) for values in zip(*found.values(), strict=True)]):.1f}"

    return Number(_patterns(name, policy), compute)


def _patterns(name: str, policy: str) -> tuple[Pattern, ...]:
    return ((SUITE, f"{name} {policy} *", METHODS[0]),)


STUDY = Study(
    SUITE,
    job="serving",
    about="the steps of `eplb-gap explain` on every pair of consecutive windows of both traces",
    cells=cells,
    shapes=(
        finding(
            {
                "excess": "p/q",
                "steps": "object of p/q",
                "lower": "object of number",
                "upper": "object of number",
                "proof": "object of object of integer",
                **TRUST,
            },
            "proof",
            "trust",
            "steps",
            "lower",
            "upper",
        ),
    ),
    instance=instance,
    table=table,
    figures=("decomposition",),
    numbers={
        **{f"excess-{name}-{policy}": _excess(name, policy) for name in TRACES for policy in POLICIES},
        "step-hierarchy": _step("calibrated", "hierarchical", "hierarchy"),
        "step-packing": _step("calibrated", "hierarchical", "packing"),
        "step-assignment": _step("calibrated", "hierarchical", "assignment"),
        "step-assignment-even": _even_throughout("calibrated", "hierarchical"),
        "step-assignment-sd": _step("calibrated", "hierarchical", "assignment", stdev),
        "step-misled": _step("calibrated", "hierarchical", "history", lambda values: abs(fmean(values))),
    },
)
