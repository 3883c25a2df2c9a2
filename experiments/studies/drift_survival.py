"""How much of a planning gain survives to the next window, by the step size of the drift (part of ``eplb-gap bench regimes``)."""

from __future__ import annotations

from statistics import fmean

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import STEP_SDS, calibrated_trace
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.solve_cells import planned_row
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval, ratio_interval
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Study

SUITE = "drift_survival"
SEEDS = tuple(range(9301, 9309))
"""Of traces that nothing else has seen."""
STEPS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviation of a step of the log loads from one window to the next."""
PAIRS = 4
BASE, BETTER = "vllm-default", "fast-split"
"""DeepSeek's algorithm as vLLM has rewritten it, which makes equal makespans sooner, and maps next to the bound."""
FITTED = tuple(sorted(step for step in STEP_SDS if step is not None))


def instance(step: float, policy: str, seed: int) -> Instance:
    """Return the windows of a trace that drifts by one step size, under a policy."""
    return calibrated_trace(seed, (step,) * PAIRS).loads, POLICIES[policy]


def survival_cell(step: float, policy: str, seed: int) -> Fields:
    """Plan every window but the last with both methods and serve the next."""
    loads, deployment = instance(step, policy, seed)
    found = {method: planned_row(loads, deployment, method) for method in (BASE, BETTER)}
    gains = {
        side: [ours - base for ours, base in zip(found[BETTER][side], found[BASE][side], strict=True)]
        for side in ("planning", "serving")
    }
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"step": step},
        "status": "legal",
        **gains,
    }


def cells() -> list[Cell]:
    """Return a cell per step size, policy and seed."""
    return [
        Cell(SUITE, f"step {step:g} {policy}", BETTER, survival_cell, {"step": step, "policy": policy, "seed": seed}, seed)
        for step in STEPS
        for policy in POLICIES
        for seed in SEEDS
    ]


def _of(measured: Rows, step: float, policy: str) -> Rows:
    return measured.where(suite=SUITE, instance=f"step {step:g} {policy}")


def gains(measured: Rows, step: float, policy: str, side: str) -> Interval:
    """Return the mean gain in points of balancedness; the unit is the trace."""
    return mean_interval([100 * fmean(row[side]) for row in _of(measured, step, policy)])


def survival(measured: Rows, step: float, policy: str) -> Interval:
    """Return the serving gain over the planning gain, in %; the unit is the trace."""
    parts = [[fmean(row[side]) for row in _of(measured, step, policy)] for side in ("serving", "planning")]
    return ratio_interval(*parts).scaled(100)


def table(measured: Rows) -> str:
    """Return gains on both windows and what survives, by step size, as Markdown."""
    body = []
    for policy in POLICIES:
        for step in STEPS:
            both = [interval_text(gains(measured, step, policy, side), 2, sign=True) for side in ("planning", "serving")]
            body.append([f"{policy}, {step:g}", *both, interval_text(survival(measured, step, policy), 0)])
    return (
        "## What survives, by the size of the drift\n\nCalibrated generator (synthetic) with one step size of the log loads from "
        f"window to window, traces of seeds {SEEDS[0]} to {SEEDS[-1]}, which nothing else has seen, {PAIRS} pairs each: "
        f"gains of `{BETTER}` over DeepSeek's algorithm in points of GPU balancedness where planned and on the next window, and "
        f"the second over the first; 95 % intervals over traces. The fitted trace steps by {FITTED[0]:g} to {FITTED[-1]:g}.\n\n"
        + markdown(["policy, step size", "planned on", "next window", "survives, %"], body)
        + "\n"
    )


def _number(step: float, policy: str) -> Number:
    return Number(((SUITE, f"step {step:g} {policy}", "*"),), lambda found: f"{survival(found, step, policy).mean:.0f}")


STUDY = Study(
    SUITE,
    job="regimes",
    about="what survives of a planning gain by the step size of a synthetic drift, eight seeds each",
    cells=cells,
    shapes=(Shape("finding", CELL | {"planning": NUMBERS, "serving": NUMBERS}),),
    instance=instance,
    table=table,
    figures=("drift_survival",),
    numbers={
        f"drift-survives-{name}-{policy}": _number(step, policy)
        for name, step in (("none", 0.0), ("small", 0.02), ("fitted", 0.1))
        for policy in POLICIES
    },
)
