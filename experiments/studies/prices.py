"""What a policy costs: certified optima of both policies on every window, with duplicates and without."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, FLAGSHIP, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, PROVEN, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.solve_cells import proof_fields
from eplb_gap.experiments.studies.numbers import Number, span
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.fractions import fractions

SUITE = "findings"
POLICIES = {
    "hierarchical": FLAGSHIP,
    "global": FLAGSHIP.as_global(),
    "hierarchical, no duplicates": replace(FLAGSHIP, duplicates="forbidden"),
    "global, no duplicates": replace(FLAGSHIP.as_global(), duplicates="forbidden"),
}
SECONDS = 40.0


def instance(trace_name: str, window: int, policy: str) -> Instance:
    """Return one window of a trace under a policy."""
    return trace(trace_name).window(window), POLICIES[policy]


def policy_cell(trace_name: str, window: int, policy: str) -> Fields:
    """Certify the optimum of one window under a policy."""
    loads, deployment = instance(trace_name, window, policy)
    solution = solvers.solve(loads, deployment, "auto", CERTIFIED_GAP, SECONDS)
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"target_gap": CERTIFIED_GAP, "time_limit": SECONDS},
        "status": solution.status,
        "upper": fractions(solution.upper),
        "lower": fractions(solution.lower),
        "gap": solution.gap,
        **proof_fields(solution.proof),
    }


def cells() -> list[Cell]:
    """Return the cells: every window of both traces, every policy."""
    return [
        Cell(SUITE, f"{name}-{window:02d}", policy, policy_cell, {"trace_name": name, "window": window, "policy": policy})
        for name in TRACES
        for window in range(WINDOWS)
        for policy in POLICIES
    ]


def table(measured: Rows) -> str:
    """Prices of the hierarchy and of forbidding duplicates, as intervals of proven bounds."""
    body = []
    for name in TRACES:
        at = {policy: measured.where(suite=SUITE, trace=name, method=policy) for policy in POLICIES}
        price = [_price(at["hierarchical"], at["global"]), _price(at["hierarchical, no duplicates"], at["hierarchical"])]
        price.append(_price(at["global, no duplicates"], at["global"]))
        price.append(_above_mean(at["global"], name))
        body.append([name, *price])
    header = [
        "trace",
        "hierarchy",
        "forbidding duplicates, hierarchical",
        "forbidding duplicates, global",
        "integrality: global optimum over the mean",
    ]
    return (
        "## Prices\n\nSummed makespans of the optimum over all windows and layers, in % above those of the reference; "
        f"as an interval, from bounds certified within {100 * CERTIFIED_GAP:g} %.\n\n" + markdown(header, body)
    )


def _price(dear: Rows, cheap: Rows) -> str:
    least = _total(dear, "lower") / _total(cheap, "upper") - 1
    most = _total(dear, "upper") / _total(cheap, "lower") - 1
    return f"{100 * max(0.0, float(least)):.3f} to {100 * float(most):.3f} %"


def _above_mean(solved: Rows, name: str) -> str:
    mean = Fraction(int(trace(name).loads.sum()), FLAGSHIP.num_gpus)
    return f"{100 * float(_total(solved, 'lower') / mean - 1):.3f} to {100 * float(_total(solved, 'upper') / mean - 1):.3f} %"


def _total(solved: Rows, side: str) -> Fraction:
    return sum((value for row in solved for value in (row.lower if side == "lower" else row.upper)), Fraction(0))


def _hierarchy(trace_name: str) -> Number:
    """What the hierarchy costs; both ends of the interval that the certified bounds leave print alike."""

    def compute(measured: Rows) -> str:
        dear, cheap = (measured.where(method=policy) for policy in ("hierarchical", "global"))
        sides = ("lower", "upper"), ("upper", "lower")
        return span((100 * float(_total(dear, one) / _total(cheap, other) - 1) for one, other in sides), 1)

    return Number(tuple((SUITE, f"{trace_name}-*", policy) for policy in ("hierarchical", "global")), compute)


STUDY = Study(
    SUITE,
    job="solvers",
    about="optima under four policies on every window",
    cells=cells,
    shapes=(
        finding(
            {"upper": "list of p/q", "lower": "list of p/q", "gap": NUMBERS, **PROVEN}, "upper", "lower", "gap", *PROVEN, "status"
        ),
    ),
    instance=instance,
    table=table,
    numbers={f"price-{name}": _hierarchy(name) for name in TRACES},
)
