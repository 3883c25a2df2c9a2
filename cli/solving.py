"""``solve`` and ``verify``: placements with their proofs, and the exact re-check of a proof."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperOption

from eplb_gap.cli.asking import Question, changed, may_ask, refuse_sizes
from eplb_gap.cli.options import INTERRUPTED, JsonFlag, log, out, spinner
from eplb_gap.cli.outputs import CERTIFICATE, Force, Output, check_outputs, marked
from eplb_gap.cli.words import LoadsCommand
from eplb_gap.problem import Deployment, InputError
from eplb_gap.problem.examples import EXAMPLES

FORBIDDEN_CLAIM = 1
"""Exit code of ``verify --no-claims`` where all holds, but something rests on a claim."""


class Example(StrEnum):
    """Published worked examples."""

    readme = "deepseek-readme"
    flashlb = "flashlb"


class SolveCommand(LoadsCommand):
    """``solve``: its help lists the engines, which are looked up when it is printed, since loading them takes a second."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        from eplb_gap.solvers import METHODS

        for option in self.params:
            if isinstance(option, TyperOption) and option.name == "method":
                option.help = f"{option.help} The engines: {', '.join(METHODS)}."
        super().format_help(ctx, formatter)


@may_ask
def solve(
    question: Question,
    example: Annotated[Example | None, typer.Option(help="A published example instead of a file.")] = None,
    plan_window: Annotated[
        int | None, typer.Option(help="Window to plan on; by default the last but one, or the only one.")
    ] = None,
    method: Annotated[str, typer.Option(help="Engine; auto takes the one that suits the deployment.")] = "auto",
    target_gap: Annotated[float, typer.Option(help="Stop within this optimality gap.")] = 0.0,
    time_limit: Annotated[float, typer.Option(help="Wall seconds for all layers.")] = 60.0,
    workers: Annotated[int, typer.Option(help="Threads a solver may use.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the solvers.")] = 0,
    certificate: Annotated[Path | None, typer.Option(help="File to write the certificate to (JSON).")] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Find optimal placements, or the best ones within the time limit with a proven bound."""

    from eplb_gap import solvers

    if (example is None) == (question.loads is None):
        raise InputError("solve takes either --example or --loads with --deployment; exactly one of the two is needed")
    proof = Output("--certificate", certificate, "certificate", marked(CERTIFICATE))
    check_outputs([proof], [("--loads", question.loads)], force)
    if example is not None:
        refuse_sizes(question, f"--example {example.value}")
        if plan_window is not None:
            raise InputError(f"--plan-window is given with --example {example.value}, which has one window; leave it out")
        matrix, published = EXAMPLES[example.value]
        shape = changed(published, question)
    else:
        asked = question.read()
        shape = asked.deployment
        matrix = asked.trace.window(max(-2, -len(asked.trace.loads)) if plan_window is None else plan_window)
    interrupted = False
    with spinner("solving") as update:

        def show(p: solvers.Progress) -> None:
            update(
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
    certificate: Annotated[Path | None, typer.Argument(help="Certificate that solve wrote.")] = None,
    best_known: Annotated[
        bool, typer.Option("--best-known", help="Check a list of best known values instead, by default the published one.")
    ] = False,
    no_claims: Annotated[
        bool, typer.Option("--no-claims", help="Make it an error, exit code 1, if a bound rests on a claim.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Re-check a certificate exactly, without any solver, and say what in it rests on a claim.

    Maps, makespans and every bound with a witness are recomputed in integers and fractions; nothing in the file is trusted. A
    claim, which is the word of a solver or of a search that left no log, is only held against the makespan: it is listed, and its
    layer is counted apart, never as proven.

    Exit codes: 0 if all holds, 1 if it holds but rests on a claim that --no-claims forbids, 2 if the file is refused: the message
    names the layer and what is wrong.
    """
    if best_known:
        if no_claims:
            raise InputError("--no-claims is given with --best-known, whose lower bounds rest on no claim; leave it out")
        _verify_best_known(certificate, as_json)
        return
    if certificate is None:
        raise InputError("verify takes a certificate; --best-known checks the published values instead")
    from eplb_gap.problem.certificate import CertificateError, check, summary

    verdict = check(certificate)
    if as_json:
        print(json.dumps(summary(verdict)))
    else:
        out.print(str(verdict), markup=False, highlight=False, soft_wrap=True)
        for claim in verdict.claims:
            out.print(f"rests on a claim: {claim}", markup=False, highlight=False, soft_wrap=True)
    if no_claims:
        try:
            verdict.refuse_claims()
        except CertificateError as error:
            log.print(f"eplb-gap: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(FORBIDDEN_CLAIM) from None


def _verify_best_known(path: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from eplb_gap.experiments.measuring.rows import RESULTS
    from eplb_gap.experiments.published import best_known

    found = best_known.check(path or RESULTS / best_known.FILE)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    for line in found.open:
        out.print(f"open: {line}", markup=False, highlight=False, soft_wrap=True)
    out.print(str(found), markup=False, highlight=False, soft_wrap=True)
