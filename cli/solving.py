"""``solve`` and ``verify``: placements with their proofs, and the exact re-check of a proof."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from eplb_gap.cli.options import (
    INTERRUPTED,
    DeadGpus,
    DeploymentName,
    DuplicatesChoice,
    DuplicatesOption,
    Format,
    Gpus,
    Groups,
    JsonFlag,
    MaybeLoads,
    Nodes,
    Policy,
    PolicyChoice,
    Slots,
    SlotsPerGpu,
    Window,
    log,
    out,
    read_problem,
    writable_file,
)
from eplb_gap.problem import Deployment, InputError


class Example(StrEnum):
    """Published worked examples."""

    readme = "deepseek-readme"
    flashlb = "flashlb"


def solve(
    example: Annotated[Example | None, typer.Option(help="A published example instead of a file.")] = None,
    loads: MaybeLoads = None,
    format: Format = None,
    window: Window = None,
    deployment: DeploymentName = None,
    slots: Slots = None,
    gpus: Gpus = None,
    slots_per_gpu: SlotsPerGpu = None,
    dead_gpus: DeadGpus = None,
    nodes: Nodes = None,
    groups: Groups = None,
    plan_window: Annotated[
        int | None, typer.Option(help="Window to plan on; by default the last but one, or the only one.")
    ] = None,
    policy: Policy = PolicyChoice.as_deployed,
    duplicates: DuplicatesOption = DuplicatesChoice.allowed,
    method: Annotated[
        str, typer.Option(help="auto, bounds, milp, milp-cbc, cpsat, oracle, exact-cover, pairing, patterns or splitting.")
    ] = "auto",
    target_gap: Annotated[float, typer.Option(help="Stop within this optimality gap.")] = 0.0,
    time_limit: Annotated[float, typer.Option(help="Wall seconds for all layers.")] = 60.0,
    workers: Annotated[int, typer.Option(help="Threads a solver may use.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the solvers.")] = 0,
    certificate: Annotated[Path | None, typer.Option(help="File to write the certificate to (JSON).")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find optimal placements, or the best ones within the time limit with a proven bound."""
    from rich.status import Status

    from eplb_gap import solvers

    if (example is None) == (loads is None):
        raise InputError("solve takes either --example or --loads with --deployment; exactly one of the two is needed")
    if certificate is not None:
        writable_file(certificate, "--certificate")
    if example is not None:
        matrix, shape = _published(example, policy, duplicates)
    else:
        assert loads is not None
        trace, shape = read_problem(
            loads, format, window, deployment, slots, gpus, nodes, groups, policy, duplicates, slots_per_gpu, dead_gpus
        )
        matrix = trace.window(max(-2, -len(trace.loads)) if plan_window is None else plan_window)
    interrupted = False
    with Status("solving", console=log) as status:

        def show(p: solvers.Progress) -> None:
            status.update(
                f"{p.elapsed:6.1f} s  layer {p.layer + 1}/{p.num_layers}  upper {p.upper:.6g}  lower {p.lower:.6g}  "
                f"gap {p.gap:.2e}  {p.engine}"
            )

        try:
            solution = solvers.solve(matrix, shape, method, target_gap, time_limit, workers, seed, progress=show)
        except solvers.Interrupted as stop:
            solution, interrupted = stop.solution, True
    if certificate is not None:
        solution.save(certificate)
    _print_solution(solution, shape, as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _published(example: Example, policy: PolicyChoice, duplicates: DuplicatesChoice) -> tuple[np.ndarray, Deployment]:
    from dataclasses import replace

    from eplb_gap.experiments.loads.traces import gap_cases

    case = gap_cases()[example.value]
    shape = replace(case.deployment, duplicates=duplicates.value)
    return case.loads, shape.as_global() if policy is PolicyChoice.global_ else shape


def _print_solution(solution: Any, shape: Deployment, as_json: bool) -> None:
    if as_json:
        layers = [
            {
                "upper": f"{u.numerator}/{u.denominator}",
                "lower": f"{b.numerator}/{b.denominator}",
                "status": s,
                "proof": p,
                "gap": g,
            }
            for u, b, s, p, g in zip(solution.upper, solution.lower, solution.status, solution.proof, solution.gap, strict=True)
        ]
        print(
            json.dumps(
                {
                    "method": solution.method,
                    "policy": shape.policy,
                    "seconds": solution.seconds,
                    "layers": layers,
                    "phy2log": solution.placement.phy2log.tolist(),
                }
            )
        )
        return
    size = f"{shape.num_experts} experts / {shape.num_slots} slots / {shape.num_gpus} GPUs"
    table = Table(title=f"{shape.policy} policy, duplicates {shape.duplicates}, {size}")
    for column in ("layer", "makespan", "lower bound", "gap", "status", "proof"):
        table.add_column(column, justify="left" if column in {"status", "proof"} else "right")
    for layer, values in enumerate(
        zip(solution.upper, solution.lower, solution.gap, solution.status, solution.proof, strict=True)
    ):
        upper, lower, gap, status, proof = values
        table.add_row(str(layer), _readable(upper), _readable(lower), f"{gap:.2e}" if gap else "0", status, proof)
    out.print(table)
    out.print(
        f"{solution.method}: {solution.status.count('optimal')} of {len(solution.status)} layers optimal, "
        f"largest gap {max(solution.gap):.2e}, {solution.seconds:.2f} s"
    )


def _readable(value: Any) -> str:
    return str(value) if value.denominator < 1000 else f"{float(value):.6f}"


def verify(
    certificate: Annotated[Path, typer.Argument(help="Certificate that solve wrote.")],
    as_json: JsonFlag = False,
) -> None:
    """Re-check a certificate exactly, without any solver, and say what in it rests on a claim."""
    from eplb_gap.problem.certificate import check, summary

    verdict = check(certificate)
    if as_json:
        print(json.dumps(summary(verdict)))
        return
    out.print(f"{len(verdict.upper)} layers: every makespan and bound holds, {verdict.optimal} proven optimal")
    for claim in verdict.claims:
        out.print(f"rests on a claim: {claim}", markup=False, highlight=False, soft_wrap=True)
