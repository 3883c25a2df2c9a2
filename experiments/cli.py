"""The command line ``eplb-gap``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from problem import Deployment, InputError, LoadTrace, PlacementError
from problem.certificate import CertificateError

app = typer.Typer(
    name="eplb-gap",
    help="Optimal placements, certified bounds and optimality gaps for expert-parallel load balancing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, log = Console(), Console(stderr=True)

INTERRUPTED = 130
"""Exit code after Ctrl-C; typer turns the interrupt into it."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Example(StrEnum):
    """Published worked examples."""

    readme = "deepseek-readme"
    flashlb = "flashlb"


class PolicyChoice(StrEnum):
    """Placement policies."""

    as_deployed = "as-deployed"
    global_ = "global"


class DuplicatesChoice(StrEnum):
    """Whether a GPU may hold two replicas of one expert."""

    allowed = "allowed"
    forbidden = "forbidden"


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2, Ctrl-C with exit code 130."""
    try:
        app(standalone_mode=True)
    except (InputError, PlacementError, CertificateError) as error:
        log.print(f"eplb-gap: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            log.print("eplb-gap: interrupted; what was finished is kept")
        raise


@app.command()
def solve(
    example: Annotated[Example | None, typer.Option(help="A published example instead of a file.")] = None,
    loads: Annotated[Path | None, typer.Option(help="Load trace (.npz).")] = None,
    deployment: Annotated[str | None, typer.Option(help="Name of a preset deployment.")] = None,
    plan_window: Annotated[int, typer.Option(help="Window to plan on; the last but one by default.")] = -2,
    policy: Annotated[
        PolicyChoice, typer.Option(help="Plan as deployed, or ignore nodes and groups.")
    ] = PolicyChoice.as_deployed,
    duplicates: Annotated[DuplicatesChoice, typer.Option(help="Two replicas of one expert on a GPU.")] = DuplicatesChoice.allowed,
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
    from dataclasses import replace

    from rich.status import Status

    import solvers
    from problem.certificate import write as write_certificate

    matrix, shape = _solve_input(example, loads, deployment, plan_window)
    if policy is PolicyChoice.global_:
        shape = shape.as_global()
    shape = replace(shape, duplicates=duplicates.value)
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
        write_certificate(certificate, matrix, shape, solution.placement, solution.bounds)
    _print_solution(solution, shape, as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _solve_input(example: Example | None, path: Path | None, name: str | None, window: int) -> tuple[np.ndarray, Deployment]:
    from experiments.suites import gap_cases

    if (example is None) == (path is None):
        raise InputError("solve takes either --example or --loads with --deployment; exactly one of the two is needed")
    if example is not None:
        case = gap_cases()[example.value]
        return case.loads, case.deployment
    if name is None:
        raise InputError("--deployment is missing; --loads needs the name of a preset deployment")
    assert path is not None
    shape = Deployment.preset(name)
    return LoadTrace.load(path).window(window), shape


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


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="Certificate that solve wrote.")],
    as_json: JsonFlag = False,
) -> None:
    """Re-check a certificate exactly, without any solver, and say what in it rests on a claim."""
    from problem.certificate import check, summary

    verdict = check(certificate)
    if as_json:
        print(json.dumps(summary(verdict)))
        return
    out.print(f"{len(verdict.upper)} layers: every makespan and bound holds, {verdict.optimal} proven optimal")
    for claim in verdict.claims:
        out.print(f"rests on a claim: {claim}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def record(
    corpus: Annotated[Path, typer.Option(help="Folder with one sub-folder of UTF-8 text files per domain.")],
    trace: Annotated[Path, typer.Option("--out", help="Per-step trace to write (.npz).")],
    checkpoint: Annotated[Path, typer.Option(help="Model file; training goes on from it.")] = Path("runs/moe.pt"),
    tiny: Annotated[bool, typer.Option("--tiny", help="A seconds-long recording over any domains.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Train the small mixture-of-experts model on a folder of text, serve shifting traffic, record the expert loads."""
    import torch
    from rich.progress import Progress

    from experiments import rows
    from experiments.moe_trace.config import RecordConfig, tiny_config
    from experiments.moe_trace.recorder import record as run

    if threads < 1:
        raise InputError(f"--threads is {threads}; at least 1 is needed")
    if not corpus.is_dir():
        raise InputError(f"--corpus is {corpus}; a folder with a sub-folder of text files per domain is needed")
    torch.set_num_threads(threads)
    domains = tuple(sorted(p.name for p in corpus.iterdir() if p.is_dir()))
    if not domains:
        raise InputError(f"--corpus {corpus} has no sub-folder; one per domain is needed")
    config = tiny_config(domains) if tiny else RecordConfig()
    with Progress(console=log) as bar:
        task = bar.add_task("training", total=None)
        steps = run(
            corpus, checkpoint, config, lambda done, total, text: bar.update(task, completed=done, total=total, description=text)
        )
    steps.provenance["revision"] = rows.environment()["revision"]
    steps.save(trace)
    windows = steps.windowed(config.serve.window_steps)
    windowed = trace.with_name(f"{trace.stem}-windows.npz")
    windows.save(windowed)
    summary = {
        "steps": str(trace),
        "windows": str(windowed),
        "shape": list(windows.loads.shape),
        "skew": {name: values.round(4).tolist() for name, values in windows.skew(config.model.groups).items()},
        "drift": windows.drift().round(4).tolist(),
        "training": steps.provenance["training"],
    }
    if as_json:
        print(json.dumps(summary))
    else:
        out.print_json(data=summary)


@app.command()
def reproduce(
    runs: Annotated[Path, typer.Option(help="Folder for the rows of this run.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Measure the ten seed programs against proven optima, print the tables, compare with the published rows."""
    from experiments.reproduce import reproduce as run

    if workers < 1:
        raise InputError(f"--workers is {workers}; at least 1 is needed")
    report = run(runs, workers, log)
    comparison = report.comparison
    if as_json:
        print(
            json.dumps(
                {
                    "equal": comparison.equal,
                    "intersecting": comparison.intersecting,
                    "new": comparison.new,
                    "problems": comparison.problems,
                }
            )
        )
    else:
        print(report.tables)
        print(
            f"rows: {comparison.equal} equal to the published ones, {comparison.intersecting} solver intervals meet them, "
            f"{comparison.new} new; tables and figures in {runs}/"
        )
    for problem in comparison.problems:
        log.print(f"differs from the published row: {problem}", markup=False)
    if comparison.problems:
        raise typer.Exit(1)


@app.command()
def calibrate(
    loads: Annotated[Path, typer.Option(help="Load trace (.npz) of at least two windows.")],
    deployment: Annotated[str, typer.Option(help="Name of a preset deployment.")],
    budget_ms: Annotated[
        float | None, typer.Option(help="CPU ms that planning a window may take; by default what the default method takes.")
    ] = None,
    policy: Annotated[
        PolicyChoice, typer.Option(help="Plan as deployed, or ignore nodes and groups.")
    ] = PolicyChoice.as_deployed,
    duplicates: Annotated[DuplicatesChoice, typer.Option(help="Two replicas of one expert on a GPU.")] = DuplicatesChoice.allowed,
    folder: Annotated[Path, typer.Option("--out", help="Folder for config.toml and the figure.")] = Path("runs/calibration"),
    as_json: JsonFlag = False,
) -> None:
    """Choose a configuration on the first two thirds of the windows, report it on the others, write it for `rebalance`."""
    from dataclasses import replace

    from rich.progress import Progress

    from experiments import calibration
    from experiments.figures import calibration_front

    if budget_ms is not None and not budget_ms >= 0:
        raise InputError(f"--budget-ms is {budget_ms}; a number of at least 0 is needed")
    shape = replace(Deployment.preset(deployment), duplicates=duplicates.value)
    if policy is PolicyChoice.global_:
        shape = shape.as_global()
    trace = LoadTrace.load(loads)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out is {folder}; a folder that can be written to is needed ({error.strerror})") from None
    with Progress(console=log) as bar:
        task = bar.add_task("calibrating", total=None)
        result = calibration.calibrate(
            trace.loads,
            shape,
            calibration.candidates(),
            budget_ms,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
        bar.update(task, description="done", completed=1, total=1)
    written = [
        calibration.save(result, folder, loads.name, f"{deployment} ({shape.policy})"),
        *calibration_front.draw(result, f"{deployment}, {shape.policy}", folder),
    ]
    if as_json:
        print(json.dumps({**calibration.summary(result), "files": [str(path) for path in written]}))
    else:
        print(calibration.report(result))
        print("written: " + ", ".join(map(str, written)))


class Bench(StrEnum):
    """What a bench measures."""

    solvers = "solvers"
    heuristics = "heuristics"


@app.command()
def bench(
    what: Annotated[Bench, typer.Argument(help="What to measure.")],
    runs: Annotated[Path, typer.Option(help="Folder for the rows of this run.")] = Path("runs"),
    workers: Annotated[int, typer.Option(help="Processes for what is not timed against a level.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Measure the exact engines or the heuristics against their levels and against the others; can be stopped and run again."""
    from experiments import heuristic_bench, solver_bench

    if workers < 1:
        raise InputError(f"--workers is {workers}; at least 1 is needed")
    chosen = solver_bench if what is Bench.solvers else heuristic_bench
    measured = chosen.run(runs, workers, log)
    print(json.dumps(measured) if as_json else chosen.tables(measured))


@app.command()
def status(
    runs: Annotated[Path, typer.Option(help="Folder with rows.")] = Path("runs"),
    as_json: JsonFlag = False,
) -> None:
    """Say which cells of the main job are done in a folder of rows."""
    from experiments import rows, suites

    revision = rows.environment()["revision"]
    done = {rows.key(row) for row in rows.read_suites(runs) if row["revision"] == revision}
    counts = {
        suite: {"done": sum(cell.key in done for cell in cells), "cells": len(cells)}
        for suite, cells in (("protocol", suites.protocol_cells()), ("gap", suites.gap_cells()))
    }
    if as_json:
        print(json.dumps(counts))
        return
    for suite, count in counts.items():
        out.print(f"{suite}: {count['done']} of {count['cells']} cells done at this revision")
