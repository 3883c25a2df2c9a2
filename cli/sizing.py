"""``capacity``: how many slots a target balancedness needs, and how to divide a number of them over the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eplb_gap.cli.asking import Question, may_ask
from eplb_gap.cli.decoding import BatchOption, DecodeFlag, check_decode, decode_capacity, tiled
from eplb_gap.cli.options import JsonFlag, PlanWindow, ProfileOption, log
from eplb_gap.cli.outputs import Force, check_folder, check_outputs, existing, writable_folder
from eplb_gap.cli.outputs import figure as figure_at
from eplb_gap.cli.times import Clock
from eplb_gap.problem import InputError

TARGET, SECONDS = 0.95, 10.0


@may_ask
def capacity(
    question: Question,
    target: Annotated[
        float | None, typer.Option(help="Balancedness of the GPUs to reach, between 0 and 1; 0.95 by default.")
    ] = None,
    most_slots: Annotated[int | None, typer.Option(help="Most slots to look at; by default up to twice the experts.")] = None,
    plan_window: PlanWindow = None,
    seconds: Annotated[float | None, typer.Option(help="Wall seconds of the solver per number of slots, 10 by default.")] = None,
    budget: Annotated[int | None, typer.Option(help="Slots of all layers together: how to divide them over the layers.")] = None,
    routing: Annotated[
        Path | None, typer.Option("--routing", help="The experts of every token; without --loads they are the loads too.")
    ] = None,
    decode: DecodeFlag = False,
    batch: BatchOption = None,
    profile: ProfileOption = None,
    serve_window: Annotated[int | None, typer.Option(help="Window that --decode serves; the one after by default.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for the figure.")] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the fewest slots for a target balancedness, planned and served, and what the next ones buy."""
    from rich.progress import Progress

    from eplb_gap.analysis import capacity as module
    from eplb_gap.analysis.figures.capacity_curve import NAME, draw
    from eplb_gap.analysis.windows import Windows

    unread = {"--target": target, "--seconds": seconds, "--budget": budget, "--out": folder}
    tokens = check_decode(decode, routing, batch, {option: value is not None for option, value in unread.items()})
    if serve_window is not None and not decode:
        raise InputError(f"--serve-window is {serve_window} without --decode; leave it out")
    clock = Clock.of(profile, None if decode else "capacity")
    timed = tiled(clock.profile) if decode else None
    if folder is not None:
        check_folder(folder, "--out")
        figures = [figure_at("--out", folder / f"{NAME}{suffix}") for suffix in (".pdf", ".png")]
        check_outputs(figures, [("--loads", question.loads), ("--routing", routing), *existing([("--profile", profile)])], force)
        writable_folder(folder, "--out")
    asked = question.read(routing)
    if decode:
        decode_capacity(asked, Windows.of(asked.trace, plan_window, serve_window), most_slots, tokens, timed, as_json)
        return
    with Progress(console=log, transient=True, disable=not log.is_terminal) as bar:
        task = bar.add_task("sizing", total=None)
        result = module.capacity(
            asked.trace,
            asked.deployment,
            TARGET if target is None else target,
            most_slots,
            plan_window,
            seconds=SECONDS if seconds is None else seconds,
            budget=budget,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    written = [] if folder is None else draw(result, f"{question.name(routing)}, {asked.deployment.policy}", folder)
    times = clock.sizes(result)
    if as_json:
        told = {} if times is None else {"time": times.as_dict()}
        print(json.dumps({**module.as_dict(result), **told, "files": [str(path) for path in written]}))
    else:
        print(module.report(result))
        if times is not None:
            print("\n".join(["", *times.lines(), *clock.notes(asked, None)]))
        if written:
            print("written: " + ", ".join(map(str, written)))
