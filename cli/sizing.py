"""``capacity``: how many slots a target balancedness needs, and how to divide a number of them over the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eplb_gap.cli.asking import Question, asks
from eplb_gap.cli.options import JsonFlag, PlanWindow, log
from eplb_gap.cli.outputs import Force, check_folder, check_outputs, writable_folder
from eplb_gap.cli.outputs import figure as figure_at


@asks
def capacity(
    question: Question,
    target: Annotated[float, typer.Option(help="Balancedness of the GPUs to reach, between 0 and 1.")] = 0.95,
    most_slots: Annotated[int | None, typer.Option(help="Most slots to look at; by default up to twice the experts.")] = None,
    plan_window: PlanWindow = None,
    seconds: Annotated[float, typer.Option(help="Wall seconds of the solver per number of slots.")] = 10.0,
    budget: Annotated[int | None, typer.Option(help="Slots of all layers together: how to divide them over the layers.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for the figure.")] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the fewest slots for a target balancedness, planned and served, and what the next ones buy."""
    from rich.progress import Progress

    from eplb_gap.analysis import capacity as module
    from eplb_gap.analysis.figures.capacity_curve import NAME, draw

    if folder is not None:
        check_folder(folder, "--out")
        figures = [figure_at("--out", folder / f"{NAME}{suffix}") for suffix in (".pdf", ".png")]
        check_outputs(figures, [("--loads", question.loads)], force)
        writable_folder(folder, "--out")
    asked = question.read()
    with Progress(console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("sizing", total=None)
        result = module.capacity(
            asked.trace,
            asked.deployment,
            target,
            most_slots,
            plan_window,
            seconds=seconds,
            budget=budget,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    written = [] if folder is None else draw(result, f"{question.loads_name}, {asked.deployment.policy}", folder)
    if as_json:
        print(json.dumps({**module.as_dict(result), "files": [str(path) for path in written]}))
    else:
        print(module.report(result))
        if written:
            print("written: " + ", ".join(map(str, written)))
