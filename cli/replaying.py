"""``replay``: what controllers would have served on recorded steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from eplb_gap.cli.asking import Question, asks
from eplb_gap.cli.options import INTERRUPTED, JsonFlag, ProfileOption, log
from eplb_gap.cli.outputs import Force, check_outputs, existing
from eplb_gap.cli.outputs import figure as figure_at
from eplb_gap.cli.outputs import page as page_at
from eplb_gap.cli.times import Clock
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
FIGURES = (".pdf", ".png", ".svg")
TABLES = ".toml"
"""Ending of a controller that is a file."""
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
    profile: ProfileOption = None,
    figure: Annotated[Path | None, typer.Option(help="Write the figure over time: .pdf, .png or .svg.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Step through recorded loads with controllers that see the past alone: what each serves, moves and takes to plan."""
    from eplb_gap.analysis.replay.costs import read_costs
    from eplb_gap.analysis.replay.replay import LIMIT, told_apart
    from eplb_gap.analysis.replay.replay import replay as run
    from eplb_gap.analysis.replay.report import as_dict, report

    chosen = [one for text in controllers or USUAL for one in _read(text)]
    if lag is not None:
        chosen = [_lagging(one, lag) for one in chosen]
    if figure is not None and figure.suffix not in FIGURES:
        raise InputError(f"--figure is {figure}; a name that ends in {', '.join(FIGURES)} is needed")
    tables = [("--controller", Path(text)) for text in controllers or () if text.endswith(TABLES)]
    read = [("--loads", question.loads), ("--costs", costs), *existing([("--profile", profile)]), *tables]
    check_outputs([figure_at("--figure", figure), page_at("--page", page)], read, force)
    clock = Clock.of(profile, "replay")
    moving = None if costs is None else read_costs(costs)
    asked = question.read()
    names = Column(no_wrap=True, overflow="ellipsis", max_width=60)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=names),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as bar:
        labels = [*(one.label for one in told_apart(chosen)), *([] if limit is None else [LIMIT])]
        tasks = {label: bar.add_task(label, start=False, total=len(asked.trace.loads)) for label in labels}

        def tick(label: str, done: int, total: int) -> None:
            bar.start_task(tasks[label])  # one that has started goes on
            bar.update(tasks[label], completed=done, total=total)

        result = run(asked.trace, asked.deployment, chosen, warm_up=warm_up, costs=moving, limit=limit, tick=tick)
    written = _draw(result, asked.trace, question.loads_name, figure, page) if result.runs else []
    times = clock.runs(result)
    if as_json:
        told = {} if times is None else {"time": times.as_dict()}
        print(json.dumps({**as_dict(result), **told, "files": [str(path) for path in written]}))
    else:
        print(report(result))
        if times is not None:
            print("\n".join(["", *times.lines()]))
        if written:
            print("written: " + ", ".join(map(str, written)))
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _lagging(controller: Controller, lag: int) -> Controller:
    """Return a controller with another lag; a name that meant its own lag says so."""
    if controller.kind == "none" or controller.lag == lag:
        return controller
    return replace(controller, lag=lag, name=controller.name and f"{controller.name} (lag {lag})")


def _draw(result: Replay, trace: LoadTrace, name: str, figure: Path | None, page: Path | None) -> list[Path]:
    """Write what was asked for, once all of it is drawn; return the files."""
    drawn: dict[Path, bytes] = {}
    if figure is not None:
        from eplb_gap.analysis.figures.replay_timeline import timeline
        from eplb_gap.analysis.figures.style import drawn as as_file

        drawn[figure] = as_file(timeline(result, trace), figure.suffix, signed=True)
    if page is not None:
        from eplb_gap.analysis.replay_page import render

        drawn[page] = render(result, trace, name).encode()
    for path, content in drawn.items():
        write_atomically(path, content)
    return list(drawn)


def _read(text: str) -> list[Controller]:
    from eplb_gap.heuristics.control.controllers_file import parse_controller, read_controllers

    return read_controllers(text) if text.endswith(TABLES) else [parse_controller(text)]
