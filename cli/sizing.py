"""``capacity``: how many slots a target balancedness needs, and how to divide a number of them over the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eplb_gap.cli.options import (
    DeadGpus,
    DeploymentName,
    DuplicatesChoice,
    DuplicatesOption,
    Format,
    Gpus,
    Groups,
    JsonFlag,
    Loads,
    Nodes,
    Policy,
    PolicyChoice,
    Slots,
    SlotsPerGpu,
    Window,
    log,
    read_problem,
    writable_folder,
)


def capacity(
    loads: Loads,
    format: Format = None,
    window: Window = None,
    deployment: DeploymentName = None,
    slots: Slots = None,
    gpus: Gpus = None,
    slots_per_gpu: SlotsPerGpu = None,
    dead_gpus: DeadGpus = None,
    nodes: Nodes = None,
    groups: Groups = None,
    policy: Policy = PolicyChoice.as_deployed,
    duplicates: DuplicatesOption = DuplicatesChoice.allowed,
    target: Annotated[float, typer.Option(help="Balancedness of the GPUs to reach, between 0 and 1.")] = 0.95,
    most_slots: Annotated[int | None, typer.Option(help="Most slots to look at; by default up to twice the experts.")] = None,
    plan_window: Annotated[int | None, typer.Option(help="Window to plan on; the last but one by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Wall seconds of the solver per number of slots.")] = 10.0,
    budget: Annotated[int | None, typer.Option(help="Slots of all layers together: how to divide them over the layers.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for the figure.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the fewest slots for a target balancedness, planned and served, and what the next ones buy."""
    from rich.progress import Progress

    from eplb_gap.analysis import capacity as module
    from eplb_gap.analysis.figures.capacity_curve import draw

    if folder is not None:
        writable_folder(folder, "--out")
    trace, shape = read_problem(
        loads, format, window, deployment, slots, gpus, nodes, groups, policy, duplicates, slots_per_gpu, dead_gpus
    )
    with Progress(console=log, transient=True) as bar:
        task = bar.add_task("sizing", total=None)
        result = module.capacity(
            trace,
            shape,
            target,
            most_slots,
            plan_window,
            seconds=seconds,
            budget=budget,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    written = [] if folder is None else draw(result, f"{loads.name}, {shape.policy}", folder)
    if as_json:
        print(json.dumps({**module.as_dict(result), "files": [str(path) for path in written]}))
    else:
        print(module.report(result))
        if written:
            print("written: " + ", ".join(map(str, written)))
