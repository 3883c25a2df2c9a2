"""``calibrate``: which configuration of the heuristics to run, which controller, or how long a step takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eplb_gap.cli.asking import NUMBERS, Question, may_ask
from eplb_gap.cli.options import JsonFlag, log
from eplb_gap.cli.outputs import CONFIGURATION, CONTROLLER, Force, Output, check_folder, check_outputs, marked, writable_folder
from eplb_gap.cli.outputs import figure as figure_at
from eplb_gap.cli.timing import fit_profile
from eplb_gap.problem import InputError

if TYPE_CHECKING:  # these load the planner, which `--help` need not wait for
    from eplb_gap.analysis.online.calibrate import OnlineCalibration

FOLDER = Path("runs/calibration")
ONLINE = "With --online"
HOST = "Serving system whose default is compared: vllm, sglang, tensorrt-llm or vllm-ascend."


@may_ask
def calibrate(
    question: Question,
    budget_ms: Annotated[
        float | None, typer.Option(help="CPU ms that planning a window may take; by default what the default method takes.")
    ] = None,
    written: Annotated[
        Path | None,
        typer.Option("--out", help=f"Folder for config.toml and the figure, {FOLDER} by default; else a TOML file."),
    ] = None,
    force: Force = False,
    as_json: JsonFlag = False,
    timed_maps: Annotated[
        Path | None,
        typer.Option(help="Fit a step-time profile to maps that were timed: CSV or JSON of imbalance (or map) and seconds."),
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Choose interval, window, moves, threshold and method of a controller instead.")
    ] = False,
    split: Annotated[
        float | None, typer.Option(help="Part of the steps that is chosen on, the first ones; 0.5.", rich_help_panel=ONLINE)
    ] = None,
    host: Annotated[str | None, typer.Option(help=HOST, rich_help_panel=ONLINE)] = None,
    most_moves: Annotated[
        float | None, typer.Option(help="Most replicas that may move per step and layer.", rich_help_panel=ONLINE)
    ] = None,
    costs: Annotated[
        Path | None, typer.Option(help="TOML profile of what moving costs; needs --step-ms.", rich_help_panel=ONLINE)
    ] = None,
    step_ms: Annotated[
        float | None, typer.Option(help="Milliseconds of a server's step at perfect balance.", rich_help_panel=ONLINE)
    ] = None,
    slot_options: Annotated[
        str | None,
        typer.Option(metavar="256,288,320", help="Numbers of slots to choose from.", rich_help_panel=ONLINE),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Write served balance against moves: .pdf, .png or .svg.", rich_help_panel=ONLINE)
    ] = None,
) -> None:
    """Choose on the first windows or steps, report on the others: a configuration for `rebalance`, or a controller."""
    given: dict[str, Any] = {
        "--split": split, "--host": host, "--most-moves": most_moves, "--costs": costs, "--step-ms": step_ms,
        "--slot-options": slot_options, "--figure": figure,
    }  # fmt: skip
    if timed_maps is not None:
        for option, value in {"--online": online or None, "--budget-ms": budget_ms, **given}.items():
            if value is not None:
                raise InputError(f"{option} is given with --timed-maps, which does not use it; leave it out")
        fit_profile(question, timed_maps, written, force, as_json)
        return
    if question.loads is None:
        raise InputError("--loads is missing; recorded loads, or --timed-maps FILE, are needed")
    if not online:
        for option, value in given.items():
            if value is not None:
                raise InputError(f"{option} is given without --online")
        _configuration(question, budget_ms, FOLDER if written is None else written, force, as_json)
        return
    if budget_ms is not None:
        raise InputError("--budget-ms is given with --online; it is for configurations")
    _controller(question, written, force, as_json, split, host, most_moves, costs, step_ms, slot_options, figure)


def _configuration(question: Question, budget_ms: float | None, folder: Path, force: bool, as_json: bool) -> None:
    from eplb_gap.analysis import calibration
    from eplb_gap.analysis.figures import calibration_front

    if budget_ms is not None and not budget_ms >= 0:
        raise InputError(f"--budget-ms is {budget_ms}; a number of at least 0 is needed")
    check_folder(folder, "--out")
    figures = [figure_at("--out", folder / f"{calibration_front.NAME}{suffix}") for suffix in (".pdf", ".png")]
    chosen = Output("--out", folder / "config.toml", "configuration that eplb-gap calibrate chose", marked(CONFIGURATION))
    check_outputs([chosen, *figures], [("--loads", question.loads)], force)
    asked = question.read()
    shape = asked.deployment
    writable_folder(folder, "--out")
    name = question.deployment or f"{shape.num_experts}/{shape.num_slots}/{shape.num_gpus}"
    with Progress(console=log) as bar:
        task = bar.add_task("calibrating", total=None)
        result = calibration.calibrate(
            asked.trace,
            shape,
            budget_ms=budget_ms,
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
        bar.update(task, description="done", completed=1, total=1)
    written = [
        calibration.save(result, folder, question.loads_name, f"{name} ({shape.policy})"),
        *calibration_front.draw(result, f"{name}, {shape.policy}", folder),
    ]
    if as_json:
        print(json.dumps({**calibration.summary(result), "files": [str(path) for path in written]}))
    else:
        print(calibration.report(result))
        print("written: " + ", ".join(map(str, written)))


def _controller(
    question: Question,
    file: Path | None,
    force: bool,
    as_json: bool,
    split: float | None,
    host: str | None,
    most_moves: float | None,
    costs: Path | None,
    step_ms: float | None,
    slot_options: str | None,
    figure: Path | None,
) -> None:
    from eplb_gap.analysis.online.calibrate import calibrate_online
    from eplb_gap.analysis.online.report import as_dict, report
    from eplb_gap.analysis.replay.costs import read_costs

    if slot_options is not None and NUMBERS.fullmatch(slot_options) is None:
        raise InputError(f"--slot-options is {slot_options!r}; numbers of slots, as in 256,288,320, are needed")
    for path, option, endings in ((file, "--out", (".toml",)), (figure, "--figure", (".pdf", ".png", ".svg"))):
        if path is not None and path.suffix not in endings:
            raise InputError(f"{option} is {path}; a name that ends in {' or '.join(endings)} is needed with --online")
    chosen = Output("--out", file, "controller that eplb-gap calibrate --online chose", marked(CONTROLLER))
    check_outputs([chosen, figure_at("--figure", figure)], [("--loads", question.loads), ("--costs", costs)], force)
    profile = None if costs is None else read_costs(costs)
    asked = question.read()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=log, transient=True) as bar:
        task = bar.add_task("calibrating", total=None)
        result = calibrate_online(
            asked.trace,
            asked.deployment,
            split=0.5 if split is None else split,
            host=host or "vllm",
            most_moves=most_moves,
            costs=profile,
            step_seconds=None if step_ms is None else step_ms / 1000,
            slots=[] if slot_options is None else [int(number) for number in slot_options.split(",")],
            tick=lambda what, done, total: bar.update(task, completed=done, total=total, description=what),
        )
    written = _write(result, question.loads_name, file, figure)
    if as_json:
        print(json.dumps({**as_dict(result), "files": [str(path) for path in written]}))
    else:
        print(report(result))
        if written:
            print("written: " + ", ".join(map(str, written)))


def _write(result: OnlineCalibration, name: str, file: Path | None, figure: Path | None) -> list[Path]:
    written = []
    if file is not None:
        from eplb_gap.analysis.online.report import save

        save(result, file, name)
        written.append(file)
    if figure is not None:
        from eplb_gap.analysis.figures.online_front import write

        write(result, figure)
        written.append(figure)
    return written
