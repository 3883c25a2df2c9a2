"""``replay``: what controllers would have served on recorded steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eplb_gap.cli.asking import Question, asks
from eplb_gap.cli.options import INTERRUPTED, JsonFlag, log, writable_file
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.errors import InputError

if TYPE_CHECKING:  # these load the planner, which `--help` need not wait for
    from eplb_gap.analysis.replay.replay import Replay
    from eplb_gap.heuristics.control.controller import Controller
    from eplb_gap.problem import LoadTrace

USUAL = (
    "none",
    "periodic:interval=100",
    "budgeted:interval=10,window=20,moves=0.02",
    "adaptive:interval=10,moves=0.02",
    "clairvoyant:interval=10",
)
CONTROLLERS = (
    "A controller: a kind with settings (budgeted:interval=10,window=20,moves=0.02), the name of a serving system's default "
    "(vllm-default, ...), or a TOML file; can be repeated. By default five, from none at all to a clairvoyant."
)


@asks
def replay(
    question: Question,
    controllers: Annotated[
        list[str] | None, typer.Option("--controller", metavar="KIND:KEY=VALUE,...|FILE", help=CONTROLLERS)
    ] = None,
    lag: Annotated[int | None, typer.Option(help="Steps from a decision until its map serves, for all controllers.")] = None,
    warm_up: Annotated[int | None, typer.Option(help="Steps not judged; by default until every controller serves a map.")] = None,
    costs: Annotated[
        Path | None, typer.Option(help="TOML profile of what moving costs: [costs] expert_bytes, bandwidth, ...")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Certify what no controller can exceed that changes its maps every so many steps.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Write the figure over time: .pdf, .png or .svg.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Step through recorded loads with controllers that see the past alone: what each serves, moves and takes to plan."""
    from eplb_gap.analysis.replay.costs import read_costs
    from eplb_gap.analysis.replay.replay import LIMIT
    from eplb_gap.analysis.replay.replay import replay as run
    from eplb_gap.analysis.replay.report import as_dict, report

    chosen = [one for text in controllers or USUAL for one in _read(text)]
    if lag is not None:
        chosen = [replace(one, lag=lag) if one.kind != "none" else one for one in chosen]
    if figure is not None and figure.suffix not in (".pdf", ".png", ".svg"):
        raise InputError(f"--figure is {figure}; a name that ends in .pdf, .png or .svg is needed")
    for path, option in ((figure, "--figure"), (page, "--page")):
        if path is not None:
            writable_file(path, option)
    profile = None if costs is None else read_costs(costs)
    asked = question.read()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True) as bar:
        labels = [*(one.label for one in chosen), *([] if limit is None else [LIMIT])]
        tasks = {label: bar.add_task(label, total=None) for label in labels}
        result = run(
            asked.trace,
            asked.deployment,
            chosen,
            warm_up=warm_up,
            costs=profile,
            limit=limit,
            tick=lambda label, done, total: bar.update(tasks[label], completed=done, total=total),
        )
    written = _draw(result, asked.trace, question.loads_name, figure, page) if result.runs else []
    if as_json:
        print(json.dumps({**as_dict(result), "files": [str(path) for path in written]}))
    else:
        print(report(result))
        if written:
            print("written: " + ", ".join(map(str, written)))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _draw(result: Replay, trace: LoadTrace, name: str, figure: Path | None, page: Path | None) -> list[Path]:
    written = []
    if figure is not None:
        from eplb_gap.analysis.figures.replay_timeline import write

        write(result, trace, figure)
        written.append(figure)
    if page is not None:
        from eplb_gap.analysis.replay_page import render

        write_atomically(page, render(result, trace, name).encode())
        written.append(page)
    return written


def _read(text: str) -> list[Controller]:
    from eplb_gap.heuristics.control.controllers_file import parse_controller, read_controllers

    return read_controllers(text) if text.endswith(".toml") else [parse_controller(text)]
