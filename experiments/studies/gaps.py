"""Which instances are measured, and what one cell of each suite computes."""

from __future__ import annotations

import numpy as np

from eplb_gap.experiments.loads.traces import (
    CERTIFIED_GAP,
    DRAWN_CASE,
    EXACT_SECONDS,
    FLAGSHIP,
    TRACES,
    WINDOWS,
    gap_cases,
    trace,
)
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.solve_cells import deployment_fields, plan, solver_cell
from eplb_gap.experiments.studies.defective_snake import defective_map, published_score
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem import metrics
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.placement import Placement


def protocol_cell(trace_name: str, window: int, method: str) -> Row:
    """Plan on one window of a trace and score on that window and on the next."""
    loads = trace(trace_name).loads
    placement, fields = plan(method, loads[window], FLAGSHIP)
    fields["planning"] = _balance(placement, loads[window], FLAGSHIP)
    fields["serving"] = _balance(placement, loads[window + 1], FLAGSHIP) if window + 1 < WINDOWS else None
    return fields


def _balance(placement: Placement, loads: np.ndarray, deployment: Deployment) -> dict[str, float]:
    return {
        "gpu": metrics.balancedness_gpu(placement, loads, deployment.num_gpus),
        "expert": metrics.balancedness_expert(placement, loads),
    }


def control_cell(trace_name: str, window: int) -> Row:
    """Score the defective snake map as the published scorer does, and record what the judge says of it."""
    loads = trace(trace_name).loads
    phy2log, log2phy, logcnt = defective_map(loads[window], FLAGSHIP)
    try:
        Placement.from_tensors(phy2log, log2phy, logcnt)
        status = "legal"
    except PlacementError as error:
        status = f"illegal: {error}"
    return {
        **deployment_fields(FLAGSHIP, loads[window]),
        "kind": "negative control",
        "parameters": {},
        "status": status,
        "upper": None,
        "planning": {"expert": published_score(loads[window], log2phy, logcnt, FLAGSHIP.num_slots)},
        "serving": {"expert": published_score(loads[window + 1], log2phy, logcnt, FLAGSHIP.num_slots)},
    }


def gap_heuristic_cell(case: str, method: str) -> Row:
    """Plan one instance of the gap table with a heuristic."""
    chosen = gap_cases()[case]
    placement, fields = plan(method, chosen.loads, chosen.deployment)
    return {**fields, "phy2log": placement.phy2log.tolist()} if (case, method) == (DRAWN_CASE, "initial_program") else fields


def gap_solver_cell(case: str, method: str) -> Row:
    """Solve one instance of the gap table."""
    chosen = gap_cases()[case]
    return solver_cell(chosen.loads, chosen.deployment, method, *chosen.limits, keep_map=chosen.name == DRAWN_CASE)


def window_solver_cell(trace_name: str, window: int) -> Row:
    """Certify the hierarchical optimum of one window of a trace."""
    return solver_cell(trace(trace_name).window(window), FLAGSHIP, "auto", CERTIFIED_GAP, EXACT_SECONDS)


def protocol_cells() -> list[Cell]:
    """Return the cells of the seed table: programs, negative control and certified optima on every window of both traces."""
    cells = []
    for name in TRACES:
        for window in range(WINDOWS):
            at = {"trace_name": name, "window": window}
            instance = f"{name}-{window:02d}"
            cells += [Cell("protocol", instance, m, protocol_cell, {**at, "method": m}) for m in SEED_PROGRAMS]
            cells.append(Cell("protocol", instance, "auto", window_solver_cell, at))
            if window + 1 < WINDOWS:
                cells.append(Cell("protocol", instance, "defective_snake", control_cell, at))
    return cells


def gap_cells() -> list[Cell]:
    """Return the cells of the gap table: programs and solvers on small, node and flagship instances."""
    cells = []
    for case in gap_cases().values():
        # Second opinions where they end within the limit: every proof by exhausted search is repeated by a solver.
        methods = ["auto"]
        methods += ["milp"] if case.name in {"deepseek-readme", "flashlb", "small-6-9-3"} else []
        methods += ["cpsat"] if case.name in {"deepseek-readme-global", "flashlb"} else []
        cells += [Cell("gap", case.name, m, gap_solver_cell, {"case": case.name, "method": m}) for m in methods]
        cells += [Cell("gap", case.name, m, gap_heuristic_cell, {"case": case.name, "method": m}) for m in SEED_PROGRAMS]
    return cells
