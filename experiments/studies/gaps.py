"""Which instances are measured, and what one cell of each suite computes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.experiments.loads.synthetic import calibrated_trace, family_loads
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.rows import Row
from eplb_gap.experiments.measuring.runner import Cell
from eplb_gap.experiments.studies.defective_snake import defective_map, published_score
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.problem import metrics
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify
from eplb_gap.solvers import Progress

RECORDED_TRACE = rows.RESULTS / "traces" / "recorded-windows.npz"
TRACES = ("recorded", "calibrated")
FLAGSHIP = Deployment.preset("dsv3-prefill-ep32")
WINDOWS = 12
DRAWN_CASE = "hot-recorded"  # the maps that the figure of one layer shows are kept in the rows
HOTTEST_WINDOW = 9  # of the recorded trace: text of languages the model was never trained on
README_LOADS = (
    (90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86),
    (20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27),
)
FLASHLB_LOADS = (600, 560, 120, 120, 20, 10, 10, 10)
EXACT_SECONDS = 40.0
CERTIFIED_GAP = 1e-4


@cache
def trace(name: str) -> LoadTrace:
    """Return the recorded trace that the project ships, or the synthetic calibrated one of seed 0."""
    return LoadTrace.load(RECORDED_TRACE) if name == "recorded" else calibrated_trace(0)


@dataclass(frozen=True)
class Case:
    """A named instance of the gap table: loads of one or more layers and their deployment."""

    name: str
    family: str
    loads: np.ndarray
    deployment: Deployment

    @property
    def limits(self) -> tuple[float, float]:
        """Target gap and seconds of a solve: small instances are solved to the end."""
        exact = self.deployment.num_slots <= 16
        return (0.0, EXACT_SECONDS * len(self.loads)) if exact else (CERTIFIED_GAP, EXACT_SECONDS)


@cache
def gap_cases() -> dict[str, Case]:
    """Return the instances of the gap table by name."""
    readme = Deployment.preset("deepseek-readme")
    cases = [
        Case("deepseek-readme", "DeepSeek's README example", np.array(README_LOADS), readme),
        Case("deepseek-readme-global", "DeepSeek's README example, global", np.array(README_LOADS), readme.as_global()),
        Case("flashlb", "FlashLB's example", np.array([FLASHLB_LOADS]), Deployment(8, 16, 8)),
    ]
    small = Deployment(6, 9, 3), Deployment(8, 12, 4)
    for deployment in small:
        loads = np.array([family_loads("ln1.0", deployment.num_experts, 10_000, seed) for seed in range(6)])
        name = f"small-{deployment.num_experts}-{deployment.num_slots}-{deployment.num_gpus}"
        cases.append(
            Case(
                name,
                f"lognormal (synthetic) {deployment.num_experts}/{deployment.num_slots}/{deployment.num_gpus}",
                loads,
                deployment,
            )
        )
    node = Deployment(64, 72, 8)
    for name in TRACES:
        window = trace(name).window(-2)
        cases.append(Case(f"node-{name}", f"one node of the flagship, {name}", window[:, :64], node))
        cases.append(Case(f"flagship-{name}", f"flagship hierarchical, {name}", window, FLAGSHIP))
        if name == "recorded":
            cases.append(
                Case(DRAWN_CASE, "flagship hierarchical, recorded, hottest window", trace(name).window(HOTTEST_WINDOW), FLAGSHIP)
            )
        cases.append(Case(f"flagship-global-{name}", f"flagship global, {name}", window, FLAGSHIP.as_global()))
    return {case.name: case for case in cases}


def _deployment_fields(deployment: Deployment, loads: np.ndarray) -> Row:
    return {"deployment": deployment.as_dict(), "policy": deployment.policy, "hash": rows.instance_hash(loads, deployment)}


def _digest(placement: Placement) -> str:
    return hashlib.sha256(np.ascontiguousarray(placement.phy2log, dtype="<i8").tobytes()).hexdigest()[:16]


def plan(method: str, loads: np.ndarray, deployment: Deployment) -> tuple[Placement, Row]:
    """Plan with a heuristic, verify, and return the placement and what a row says of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    placement = heuristics.rebalance(loads, deployment, method)
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    fields = {
        **_deployment_fields(deployment, loads),
        **seconds,
        "parameters": {},
        "kind": "heuristic",
        "placement": _digest(placement),
        "duplicates": int(metrics.duplicates(placement, deployment.num_gpus).sum()),
    }
    try:
        return placement, {**fields, "status": "legal", "upper": rows.fractions(verify(placement, loads, deployment))}
    except PlacementError as error:
        return placement, {**fields, "status": f"illegal: {error}", "upper": None}


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
        **_deployment_fields(FLAGSHIP, loads[window]),
        "kind": "negative control",
        "parameters": {},
        "status": status,
        "upper": None,
        "planning": {"expert": published_score(loads[window], log2phy, logcnt, FLAGSHIP.num_slots)},
        "serving": {"expert": published_score(loads[window + 1], log2phy, logcnt, FLAGSHIP.num_slots)},
    }


def solver_cell(
    loads: np.ndarray,
    deployment: Deployment,
    method: str,
    target_gap: float,
    time_limit: float,
    keep_map: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Row:
    """Solve all layers of one instance and return bounds, proofs and times."""
    cpu = time.process_time()
    solution = solvers.solve(loads, deployment, method, target_gap, time_limit, progress=progress)
    verify(solution.placement, loads, deployment)
    fields: dict[str, Any] = {
        **_deployment_fields(deployment, loads),
        "kind": "solver",
        "wall_seconds": solution.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "parameters": {"target_gap": target_gap, "time_limit": time_limit, "workers": 1},
        "status": solution.status,
        "upper": rows.fractions(solution.upper),
        "lower": rows.fractions(solution.lower),
        "proof": solution.proof,
        "gap": solution.gap,
        "placement": _digest(solution.placement),
    }
    if keep_map:
        fields["phy2log"] = solution.placement.phy2log.tolist()
    return fields


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
