"""The project's planner against every other balancer on the flagship: time, planning gap, serving balance, duplicates."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from statistics import fmean, median

import numpy as np
from rich.console import Console

from eplb_gap import solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.traces import CERTIFIED_GAP, EXACT_SECONDS, POLICIES, TRACES, WINDOWS, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row, layer_gaps, pick
from eplb_gap.experiments.measuring.runtime import timed
from eplb_gap.experiments.measuring.solve_cells import planned_row
from eplb_gap.heuristics.own import FAST
from eplb_gap.heuristics.programs.peers import PEERS
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions

PAIRS = WINDOWS - 1
ROUNDS, CALLS = 11, 3
"""Turns of the timing; in each a method is called three times and the third call, with warm caches, is timed."""
SECONDS_SUITE = "heuristic_seconds"
BASE = "initial_program"


def applicable(policy: str) -> tuple[str, ...]:
    """Return the methods that plan under a policy: some balancers of others know no nodes and say so."""
    return (BASE, *planning_peers(POLICIES[policy]), *FAST)


def planning_peers(deployment: Deployment) -> list[str]:
    """Return the balancers of others that plan on a deployment whatever the loads are."""
    return [name for name, peer in PEERS.items() if peer.plans(deployment)]


def quality_cell(trace_name: str, policy: str, method: str) -> Row:
    """Plan on every window of a trace, verify, and score on that window and on the next."""
    return planned_row(trace(trace_name).loads, POLICIES[policy], method)


def bound_cell(trace_name: str, policy: str) -> Row:
    """Certify the optimum of every window of a trace."""
    deployment, loads = POLICIES[policy], trace(trace_name).loads
    solved = [solvers.solve(loads[w], deployment, "auto", CERTIFIED_GAP, EXACT_SECONDS) for w in range(PAIRS)]
    return {
        "kind": "solver",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"windows": PAIRS, "target_gap": CERTIFIED_GAP},
        "status": "certified",
        "upper": [fractions(solution.upper) for solution in solved],
        "lower": [fractions(solution.lower) for solution in solved],
    }


def cells() -> list[Cell]:
    """Return the cells of quality; times are measured apart, all methods in one invocation."""
    found = []
    for name in TRACES:
        for policy in POLICIES:
            at = {"trace_name": name, "policy": policy}
            found.append(Cell("heuristics", f"{name} {policy}", "auto", bound_cell, at))
            found += [Cell("heuristics", f"{name} {policy}", m, quality_cell, {**at, "method": m}) for m in applicable(policy)]
    return found


def times(folder: Path, console: Console) -> list[Row]:
    """Time all methods on window 0 of the calibrated trace, interleaved, unless the rows are there."""
    path, loads = folder / f"{SECONDS_SUITE}.ndjson", trace("calibrated").window(0)
    beside = {"argsort_seconds": _argsort_seconds(loads)}
    return [
        row
        for policy, deployment in POLICIES.items()
        for row in timed(path, policy, applicable(policy), loads, deployment, ROUNDS, console, CALLS, beside)
    ]


def _argsort_seconds(loads: np.ndarray) -> float:
    array, seconds = loads.astype(np.float32), []
    for _ in range(50):
        start = time.perf_counter()
        np.argsort(array)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _row(measured: list[Row], name: str, policy: str, method: str) -> Row:
    return pick(measured, "heuristics", f"{name} {policy}", method)


def mean_gaps(measured: list[Row], name: str, policy: str, method: str) -> list[float]:
    """Return the gap of every layer and window of a method to the certified bound."""
    windows = zip(_row(measured, name, policy, method)["upper"], _row(measured, name, policy, "auto")["lower"], strict=True)
    return [gap for up, low in windows for gap in layer_gaps({"upper": up}, [Fraction(value) for value in low])]


def seconds(measured: list[Row], policy: str) -> dict[str, Row]:
    """Return the time rows of a policy by method."""
    return {r["method"]: r for r in measured if r["suite"] == SECONDS_SUITE and r["instance"] == policy}


def table(measured: list[Row]) -> str:
    """One table per policy: time, and on both traces gap, balancedness and duplicates."""
    sections = []
    for policy in POLICIES:
        timed, body = seconds(measured, policy), []
        for method, row in timed.items():
            cells = [
                f"{1000 * row['median_seconds']:.2f}",
                f"{1000 * min(row['seconds']):.2f} to {1000 * max(row['seconds']):.2f}",
            ]
            cells.append(f"1/{1 / row['ratio']:.0f}" if row["ratio"] < 0.5 else f"{row['ratio']:.2f}")
            for name in TRACES:
                at = _row(measured, name, policy, method)
                gaps = mean_gaps(measured, name, policy, method)
                cells += [
                    f"{100 * fmean(gaps):.4f} / {100 * max(gaps):.3f} %",
                    f"{fmean(at['planning']):.4f}",
                    f"{fmean(at['serving']):.4f}",
                    str(sum(at["duplicates"])),
                ]
                legal = at["status"]
            body.append([f"`{method}`", *cells, legal])
        argsort = next(iter(timed.values()))["argsort_seconds"]
        header = ["method", "median ms", "spread ms", f"to `{BASE}`"]
        for name in TRACES:
            header += [f"{name}: gap mean / worst", "planning", "serving", "duplicates"]
        sections.append(
            f"### {policy}\n\n58 layers, 256 experts, 288 slots, 32 GPUs. `numpy.argsort` of the same 58 x 256 float32 array: "
            f"{1000 * argsort:.3f} ms.\n\n" + markdown([*header, "maps"], body)
        )
    return (
        "## Head to head\n\nTime of one call with the calibrated window 0, one thread, "
        f"{ROUNDS} interleaved turns in one invocation. Gap to the certified bound, GPU balancedness on the planning and on the "
        f"next window, and same-GPU duplicates: means, and sums, over {PAIRS} window pairs of each trace (recorded: 8 layers; "
        "calibrated: 58, synthetic).\n\n" + "\n\n".join(sections)
    )


def readme_table(measured: list[Row]) -> str:
    """The README's short form: both policies on the calibrated trace, fastest first."""
    body = []
    for policy in POLICIES:
        timed = seconds(measured, policy)
        for method in sorted(timed, key=lambda m: timed[m]["median_seconds"]):
            gaps = mean_gaps(measured, "calibrated", policy, method)
            at = _row(measured, "calibrated", policy, method)
            per_hundred = 100 * sum(at["duplicates"]) / (PAIRS * len(at["upper"][0]))
            body.append(
                [
                    policy,
                    f"`{method}`",
                    f"{1000 * timed[method]['median_seconds']:.2f}",
                    f"{100 * fmean(gaps):.3f} / {100 * max(gaps):.2f}",
                    f"{fmean(at['planning']):.4f}",
                    f"{fmean(at['serving']):.4f}",
                    f"{per_hundred:.0f}",
                ]
            )
    header = ["policy", "method", "ms", "gap mean / worst, %", "planning", "serving", "duplicates per 100 layers"]
    return markdown(header, body)
