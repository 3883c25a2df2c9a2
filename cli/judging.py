"""``evaluate`` and ``explain``: how good a map is on the loads it serves, and where its balance is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from eplb_gap.cli.asking import Question, may_ask
from eplb_gap.cli.decoding import BatchOption, DecodeFlag, check_decode, explain_decode, tiled
from eplb_gap.cli.maps import planned_map, planning_tokens
from eplb_gap.cli.options import (
    DispatchOption,
    JsonFlag,
    MapFormat,
    PlanWindow,
    ProfileOption,
    ReplicasOption,
    RoutingFile,
    ServeWindow,
    out,
    spinner,
)
from eplb_gap.cli.outputs import Force, check_outputs, existing
from eplb_gap.cli.outputs import figure as figure_at
from eplb_gap.cli.outputs import page as page_at
from eplb_gap.cli.times import Clock, print_chain_times, print_times
from eplb_gap.cli.traffic import counted_traffic, global_maps, print_traffic
from eplb_gap.problem import Deployment, InputError, LoadTrace
from eplb_gap.problem.atomic import write_atomically

if TYPE_CHECKING:  # these load the solvers, which `--help` need not wait for
    from eplb_gap.analysis.asked import Asked
    from eplb_gap.analysis.evaluate import Evaluation
    from eplb_gap.analysis.explain import Explanation
    from eplb_gap.analysis.network.served import Counted
    from eplb_gap.analysis.per_step import PerStep
    from eplb_gap.analysis.windows import Windows
    from eplb_gap.cli.maps import PlannedMap

FIGURES = (".pdf", ".png", ".svg")
COMPILES = "a first run compiles for a minute or two"


@may_ask
def evaluate(
    question: Question,
    maps: Annotated[list[str], typer.Option("--map", help="A map file or the name of a method; can be repeated.")],
    plan_window: PlanWindow = None,
    serve_window: ServeWindow = None,
    map_format: MapFormat = None,
    previous: Annotated[
        str | None, typer.Option(help="Map file or method that served before: moved replicas are counted against it.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Score by a published protocol instead: seed, gpu or leaderboard; --map may be a Python file."),
    ] = None,
    routing: RoutingFile = None,
    dispatch: DispatchOption = None,
    replicas: ReplicasOption = None,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove-visits", help="Up to a minute a layer for a bound on node visits, without redundant slots; global policy."
        ),
    ] = False,
    profile: ProfileOption = None,
    call_seconds: Annotated[float, typer.Option(help="Time limit of one call of a program in a Python file.")] = 60.0,
    per_step: Annotated[
        bool, typer.Option("--per-step", help="Score the recorded steps of the serving window too; needs --window.")
    ] = False,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Print every layer too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Score maps and methods on the window they are planned on and on the one they serve."""
    from eplb_gap.analysis.evaluate import certified_bounds, evaluate_map, summary
    from eplb_gap.analysis.network.report import summary as traffic_summary
    from eplb_gap.analysis.windows import Windows

    if not 0 < call_seconds < math.inf:
        raise InputError(f"--call-seconds is {call_seconds}; a positive number of seconds is needed")
    if protocol is not None:
        unread = {
            "--plan-window": plan_window is not None,
            "--serve-window": serve_window is not None,
            "--map-format": map_format is not None,
            "--previous": previous is not None,
            "--per-step": per_step,
            "--per-layer": per_layer,
            "--routing": routing is not None,
            "--dispatch": dispatch is not None,
            "--replicas": replicas is not None,
            "--prove-visits": prove,
            "--profile": profile is not None,
        }
        for option, given in unread.items():
            if given:
                raise InputError(f"{option} is given with --protocol {protocol}, which does not use it; leave it out")
    clock = Clock.of(profile)
    asked = question.read(routing)
    trace, shape, identifiers = asked.trace, asked.deployment, asked.layer_ids
    if protocol is not None:
        _print_scores(protocol, trace, shape, maps, call_seconds, as_json)
        return
    chosen = Windows.of(trace, plan_window, serve_window)
    past = chosen.history[:-1] if len(chosen.history) > 1 else chosen.history
    before = None if previous is None else planned_map(previous, past, shape, map_format, identifiers).regular("--previous")
    tokens = planning_tokens(asked, chosen.plan_window)
    planned = [planned_map(name, chosen.history, shape, map_format, identifiers, before, tokens) for name in maps]
    dispatch = clock.dispatch(asked, dispatch)
    counted = counted_traffic(asked, chosen, planned, dispatch, replicas, prove)
    with spinner(f"certifying bounds of both windows ({COMPILES})"):
        bounds = certified_bounds(chosen, shape)
    results = [evaluate_map(one.name, one.placed, chosen, shape, bounds, before) for one in planned]
    times = clock.maps(results, planned, chosen, asked, counted)
    steps = {}
    if per_step:
        steps = _by_step(asked, chosen, planned)
    if as_json:
        print(
            json.dumps(
                {
                    "plan_window": chosen.plan_window,
                    "serve_window": chosen.serve_window,
                    "policy": shape.policy,
                    "maps": [
                        {**summary(result, identifiers), **({"time": times[row].as_dict()} if times else {})}
                        for row, result in enumerate(results)
                    ],
                    "steps": {
                        name: {"balancedness": one.balancedness, "of_window": one.of_window, "by_step": one.by_step.tolist()}
                        for name, one in steps.items()
                    },
                    **({} if counted is None else {"traffic": traffic_summary(counted, identifiers)}),
                }
            )
        )
        return
    out.print(_totals(results, shape, chosen.plan_window, chosen.serve_window))
    if counted is not None:
        print_traffic(counted, identifiers if per_layer else None)
    if times:
        print_times(times, clock.notes(asked, counted))
    if steps:
        out.print(_steps(steps, chosen.serve_window))
    for result in results:
        if result.note:
            out.print(f"{result.name}: {result.note}", markup=False, highlight=False, soft_wrap=True)
        if per_layer:
            out.print(_layers(result, identifiers))


def _print_scores(
    protocol: str, trace: LoadTrace, shape: Deployment, names: list[str], call_seconds: float, as_json: bool
) -> None:
    """Run a published scoring for methods and Python files; what fails or is illegal is said, and the others go on."""
    from dataclasses import asdict

    from eplb_gap.analysis.protocol_runs import score_all

    with spinner("scoring") as update:
        scores = score_all(protocol, trace.loads, shape, names, call_seconds, lambda name: update(f"scoring {name}"))
    if as_json:
        print(json.dumps({name: asdict(score) for name, score in scores.items()}))
        return
    table = Table(title=f"protocol {protocol}: {shape.policy} policy, a map planned on one window is scored on the next")
    table.add_column("program", overflow="fold")
    for column in ("pairs", "balancedness", "slot", "GPU", "ms", "score"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        if score.seconds is not None:  # legal
            cells = [
                str(len(score.pairs)),
                *(f"{value:.4f}" for value in (score.balancedness, score.balancedness_expert, score.balancedness_gpu)),
            ]
            table.add_row(name, *cells, f"{1000 * score.seconds:.2f}", " / ".join(f"{each.score:.4g}" for each in score.combined))
        else:
            table.add_row(name, "-", "-", "-", "-", "-", "refused")
    table.caption = "; ".join(each.rule for each in next((s.combined for s in scores.values() if s.legal), ()))
    out.print(table)
    for name, score in scores.items():
        if not score.legal:
            out.print(f"{name}: {score.status}", markup=False, highlight=False, soft_wrap=True)


def _totals(results: list[Evaluation], shape: Deployment, plan: int, serve: int) -> Table:
    size = f"{shape.num_experts} experts / {shape.num_slots} slots / {shape.num_gpus} GPUs"
    table = Table(title=f"planned on window {plan}, serving window {serve}: {shape.policy} policy, {size}")
    table.add_column("map", overflow="fold")
    table.add_column("window")
    for column in ("GPU", "slot", "mean gap", "worst", "same-GPU", "moved"):
        table.add_column(column, justify="right")
    for result in results:
        moved = "-" if result.moved is None else str(sum(result.moved))
        for name, score in (("planning", result.planning), ("serving", result.serving)):
            first = name == "planning"
            table.add_row(
                result.name if first else "",
                name,
                f"{score.balancedness_gpu:.4f}",
                f"{score.balancedness_expert:.4f}",
                f"{100 * fmean(score.gaps):.3f} %",
                f"{100 * max(score.gaps):.2f} %",
                str(sum(result.duplicates)) if first else "",
                moved if first else "",
                end_section=not first,
            )
    table.caption = (
        "GPU, slot: balancedness, mean over maximum, 1 is perfect; gap: to the certified bound of that window; "
        "same-GPU: replicas beside another of their expert"
    )
    return table


def _by_step(asked: Asked, chosen: Windows, planned: list[PlannedMap]) -> dict[str, PerStep]:
    from eplb_gap.analysis.per_step import per_step, serving_steps

    steps = serving_steps(asked.recorded, asked.trace, chosen)
    return {one.name: per_step(one.regular("--map"), steps, asked.deployment) for one in planned}


def _steps(steps: dict[str, PerStep], window: int) -> Table:
    table = Table(title=f"the recorded steps of serving window {window}")
    table.add_column("map", overflow="fold")
    for column in ("window's sum", "steps", "flattered by", "worst step", "10 %", "median", "90 %"):
        table.add_column(column, justify="right")
    for name, one in steps.items():
        cells = [f"{one.of_window:.4f}", f"{one.balancedness:.4f}", f"{100 * one.flattery:.2f} points"]
        table.add_row(name, *cells, *(f"{value:.4f}" for value in one.quantiles()[:4]))
    table.caption = "GPU balancedness; steps: sum of means over sum of maxima, which latency follows"
    return table


def _layers(result: Evaluation, identifiers: list[int]) -> Table:
    table = Table(title=result.name)
    for column in ("layer", "planning", "bound", "gap, %", "serving", "bound", "gap, %", "duplicates", "moved"):
        table.add_column(column, justify="right")
    for row, identifier in enumerate(identifiers):
        cells = [str(identifier)]
        for score in (result.planning, result.serving):
            cells += [f"{float(score.makespans[row]):.1f}", f"{float(score.bounds[row]):.1f}", f"{100 * score.gaps[row]:.3f}"]
        moved = "-" if result.moved is None else str(result.moved[row])
        table.add_row(*cells, str(result.duplicates[row]), moved)
    return table


@may_ask
def explain(
    question: Question,
    served: Annotated[str, typer.Option("--map", help="The map that serves: a file, or a method that plans it.")] = "fast",
    method: Annotated[
        str | None, typer.Option(help="Method that is replanned on the serving window; by default --map's, or fast.")
    ] = None,
    plan_window: PlanWindow = None,
    serve_window: ServeWindow = None,
    map_format: MapFormat = None,
    routing: RoutingFile = None,
    dispatch: DispatchOption = None,
    replicas: ReplicasOption = None,
    profile: ProfileOption = None,
    figure: Annotated[Path | None, typer.Option(help="Write the waterfall: .png, .pdf or .svg.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page.")] = None,
    decode: DecodeFlag = False,
    batch: BatchOption = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Say where the balance of the serving window is lost, step by step, and what would help most."""
    from eplb_gap.analysis import page as html_page
    from eplb_gap.analysis.explain import explain_map, summary
    from eplb_gap.analysis.network.report import summary as traffic_summary
    from eplb_gap.analysis.verdict import verdict
    from eplb_gap.analysis.windows import Windows
    from eplb_gap.heuristics.registry import DEFAULT_METHOD

    unread = {"--figure": figure, "--html": page, "--dispatch": dispatch, "--replicas": replicas}
    tokens = check_decode(decode, routing, batch, {option: value is not None for option, value in unread.items()})
    if figure is not None and figure.suffix not in FIGURES:
        raise InputError(f"--figure is {figure}; a name ending in {', '.join(FIGURES)} is needed")
    read = [("--loads", question.loads), ("--routing", routing), *existing([("--map", served), ("--profile", profile)])]
    check_outputs([figure_at("--figure", figure), page_at("--html", page)], read, force)
    clock = Clock.of(profile)
    timed = tiled(clock.profile) if decode else None
    asked = question.read(routing)
    shape, identifiers = asked.deployment, asked.layer_ids
    chosen = Windows.of(asked.trace, plan_window, serve_window)
    routed = planning_tokens(asked, chosen.plan_window)
    one = planned_map(served, chosen.history, shape, map_format, identifiers, tokens=routed)
    replan = method or one.method or DEFAULT_METHOD
    if decode:
        explain_decode(asked, chosen, one, replan, tokens, timed, as_json)
        return
    dispatch = clock.dispatch(asked, dispatch)
    beside = [] if routing is None else global_maps(replan, chosen.history, shape)
    counted = counted_traffic(asked, chosen, [one, *beside], dispatch, replicas)
    with spinner(f"explaining ({COMPILES})") as update:
        result = explain_map(
            chosen,
            shape,
            one.regular("--map"),
            one.name,
            replan,
            lambda what: update(f"explaining ({COMPILES}): {what}"),
        )
    times = clock.chain(result, one, chosen, asked, counted)
    if page is not None:
        sections = [*clock.section(times, asked, counted), *_traffic_section(counted, identifiers)]
        write_atomically(page, html_page.render(result, question.name(routing), identifiers, sections).encode())
    if figure is not None:
        from eplb_gap.analysis.figures import waterfall

        waterfall.write(result, figure)
    if as_json:
        found = {**summary(result, identifiers), "verdict": verdict(result).lines()}
        if times is not None:
            found["time"] = times.as_dict()
        print(json.dumps(found if counted is None else {**found, "traffic": traffic_summary(counted, identifiers)}))
        return
    first, *lines = verdict(result).lines()
    out.print(first, markup=False, highlight=False, soft_wrap=True)
    out.print(_chain(result))
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if times is not None:
        print_chain_times(times, clock.notes(asked, counted))
    if counted is not None:
        print_traffic(counted)


def _traffic_section(counted: Counted | None, identifiers: list[int]) -> list[str]:
    if counted is None:
        return []
    from eplb_gap.analysis.network.section import section

    return [section(counted, identifiers)]


def _chain(result: Explanation) -> Table:
    from eplb_gap.analysis.explain import STEPS
    from eplb_gap.analysis.verdict import points

    table = Table(title=f"{result.map_name}, planned on window {result.plan_window}, serving window {result.serve_window}")
    table.add_column("step")
    for column in ("points", "excess reached, %", "layers: least", "median", "most"):
        table.add_column(column, justify="right")
    layers = [result.layer_steps(layer) for layer in range(len(result.mean))]
    steps = result.steps()
    for level, step in zip(result.levels[1:], STEPS, strict=True):
        low, high = points(result.total(level.lower)), points(result.total(level.upper))
        known = high if low == high else f"{low} to {high}"
        spread = [points(of(added[step.key] for added in layers)) for of in (min, median, max)]
        table.add_row(step.label, f"{100 * float(steps[step.key]):+.2f}", known, *spread)
    table.caption = "excess: load of the fullest GPUs above the mean; steps add up exactly; an interval is an optimum's"
    return table
