"""How far window sums flatter a map: balancedness step by step on the recorded trace (part of ``eplb-gap bench serving``)."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.per_step import per_step
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import POLICIES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NESTED, NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.numbers import Number, span
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.registry import planning_loads
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.validation import verify

SUITE = "steps"
STEPS_TRACE = rows.RESULTS / "traces" / "recorded-steps.npz"
METHODS = ("initial_program", "fast", "sample-average")


def instance(policy: str, **_: object) -> Instance:
    """Return the windows of the recorded trace under a policy."""
    return trace("recorded").loads, POLICIES[policy]


def steps_cell(policy: str, method: str) -> Fields:
    """Serve every window step by step with the map of the window before; ``sample-average`` plans on up to eight."""
    windows, deployment = instance(policy)
    recorded = LoadTrace.load(STEPS_TRACE).loads
    per_window = len(recorded) // len(windows)
    by_step, of_window, quantiles = [], [], []
    for serve in range(1, len(windows)):
        placement = heuristics.rebalance(planning_loads(method, windows[:serve]), deployment, method)
        verify(placement, windows[serve], deployment)
        found = per_step(placement, recorded[serve * per_window : (serve + 1) * per_window], deployment)
        by_step.append(found.balancedness)
        of_window.append(found.of_window)
        quantiles.append(found.quantiles())
    return {
        "kind": "finding",
        "hash": rows.instance_hash(windows, deployment),
        "parameters": {"steps_per_window": per_window},
        "status": "legal",
        "by_step": by_step,
        "of_window": of_window,
        "quantiles": quantiles,
    }


def cells() -> list[Cell]:
    """Return the cells: both policies, three methods."""
    return [
        Cell(SUITE, f"recorded {policy}", method, steps_cell, {"policy": policy, "method": method})
        for policy in POLICIES
        for method in METHODS
    ]


def table(measured: Rows) -> str:
    """Return balancedness of windows and of their steps as Markdown."""
    body = []
    for row in measured.where(suite=SUITE):
        window, steps = fmean(row["of_window"]), fmean(row["by_step"])
        spread = [f"{fmean(values[at] for values in row['quantiles']):.4f}" for at in (1, 2, 3)]
        body.append(
            [f"{row['instance']}, `{row['method']}`", f"{window:.4f}", f"{steps:.4f}", f"{100 * (window - steps):.1f}", *spread]
        )
    return (
        "## Step by step\n\nLatency follows the fullest GPU of every step. GPU balancedness on the serving window: of the "
        "window's sum and of its 100 steps (sum of means over sum of maxima), by how many points the sum flatters, and the "
        f"tenth, median and ninetieth percentile of the steps; means over {WINDOWS - 1} windows. Recorded trace only: a step has "
        "2048 tokens, so small batches make part of the difference.\n\n"
        + markdown(["trace, policy, method", "window's sum", "steps", "flattered by, points", "10 %", "50 %", "90 %"], body)
        + "\n"
    )


def _flattered(rows: Rows) -> str:
    """Return by how many points of balancedness windows flatter, least to most."""
    return span((100 * fmean(np.array(row["of_window"]) - np.array(row["by_step"])) for row in rows), 1)


STUDY = Study(
    SUITE,
    job="serving",
    about="windows and their steps: how far sums flatter a map",
    cells=cells,
    shapes=(finding({"by_step": NUMBERS, "of_window": NUMBERS, "quantiles": NESTED}),),
    instance=instance,
    table=table,
    numbers={"flattered": Number(((SUITE, "*", "*"),), _flattered)},
)
