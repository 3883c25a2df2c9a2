"""``convert``: recorded loads and maps from one format to another, and a better map into the format of a serving system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from eplb_gap.cli.asking import Question, may_ask
from eplb_gap.cli.maps import FEWEST_VISITS, PlannedMap, planned_map, planning_tokens
from eplb_gap.cli.options import JsonFlag, MapFormat, log, out
from eplb_gap.cli.outputs import Force, Output, check_outputs, existing, trace
from eplb_gap.problem import Deployment, InputError, Placement
from eplb_gap.problem.routing.trace import COLUMNS


@may_ask
def convert(
    question: Question,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: a trace (.npz) for loads, else a map.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="Map file, certificate, or a method that plans on the last window of --loads; fewest-visits plans on --routing, "
            "all of it without --window.",
        ),
    ] = None,
    routing: Annotated[
        Path | None,
        typer.Option(
            "--routing",
            help="Routing of tokens, in any format that is read, to be written as a trace; with --map fewest-visits to plan on.",
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Format of the map to write.")] = None,
    previous: Annotated[
        str | None, typer.Option(help="Map in use: the new one is renamed so that as few replicas as possible move.")
    ] = None,
    max_moves: Annotated[
        int | None, typer.Option(help="With --previous and --map fast: most replicas that may move, over all layers.")
    ] = None,
    move_cost: Annotated[
        float | None,
        typer.Option(
            help="With --previous and --map fast: tokens that a copied replica costs; each layer moves what pays in a window."
        ),
    ] = None,
    map_format: MapFormat = None,
    model_layers: Annotated[
        int | None, typer.Option(help="Decoder layers of the model, dense ones included, where the loads do not say it.")
    ] = None,
    force: Force = False,
    as_json: JsonFlag = False,
) -> None:
    """Write recorded loads or routing as a trace, or a map in the format of a serving system.

    OUT stands behind another option or in front; where only --loads is given, its last word is OUT.
    """
    from eplb_gap.problem import formats
    from eplb_gap.problem.formats.maps.maps import check_target, holds_map

    if routing is not None and source != FEWEST_VISITS:
        if source is not None or question.loads is not None:
            raise InputError(f"--routing and {'--loads' if source is None else '--map'} are given; one of them is converted")
        _say(_routing(question, routing, target, force, as_json), as_json)
        return
    if source is None:
        if question.loads is None:
            raise InputError("--loads IN, --routing IN or --map IN is missing; what to convert is needed")
        if target.suffix != ".npz":
            raise InputError(f"OUT is {target}; loads are written as a trace, a name ending in .npz is needed")
        check_outputs([trace("OUT", target)], [("--loads", question.loads)], force)
        read = question.read_loads()
        read.save(target)
        shape = dict(zip(("windows", "layers", "experts"), read.loads.shape, strict=True))
        found = read.provenance
        _say(
            {"written": str(target), **shape, **({"provenance": found} if as_json else {"format": found.get("format")})}, as_json
        )
        return
    if (previous is not None and question.loads is None) or (max_moves is not None and previous is None):
        raise InputError("--previous needs --loads, and --max-moves needs --previous; a map in use is kept as far as loads allow")
    if move_cost is not None and (previous is None or max_moves is not None):
        raise InputError("--move-cost needs --previous, without --max-moves; only one of the two can say how many replicas move")
    if to not in formats.MAP_FORMATS:
        raise InputError(f"--to is {to!r}; the map formats are {', '.join(formats.MAP_FORMATS)}")
    check_target(target, to)
    maps = existing([("--map", source), ("--previous", previous)])
    check_outputs(
        [Output("OUT", target, f"map of format {to!r}", lambda path: holds_map(path, to))],
        [("--loads", question.loads), ("--routing", routing), *maps],
        force,
    )
    said: dict[str, Any] = {}
    if question.loads is None and routing is None:
        chosen = question.deployment_alone()
        name, placed = Path(source).name, formats.read_map(Path(source), chosen, map_format)
        identifiers: list[int] | None = None
    else:
        asked = question.read(routing)
        loads, chosen, identifiers = asked.trace.loads, asked.deployment, asked.layer_ids
        model_layers = model_layers or asked.trace.provenance.get("num_model_layers")
        if model_layers is None and identifiers == list(range(len(identifiers))):
            model_layers = len(identifiers)
        in_use = None
        if previous is not None:
            in_use = planned_map(previous, loads[:-1], chosen, map_format, identifiers).regular("--previous")
        tokens = planning_tokens(asked, len(loads) - 1 if question.window is not None else None)
        planned = planned_map(source, loads, chosen, map_format, identifiers, in_use, tokens)
        name, placed = planned.name, planned.placed
        if in_use is not None:
            placed = _keeping(planned, in_use, loads[-1], chosen, max_moves, move_cost)
            said = _moves(placed, in_use, chosen, identifiers)
    if not isinstance(placed, Placement):
        raise InputError(f"--map {name}: {placed.describe()}; no other format can hold such a map")
    if to == "tensorrt-llm" and identifiers is None:
        raise InputError(f"--loads is missing; {to} names layers by their index in the model, which the loads say")
    if to == "sglang" and identifiers is not None and model_layers is None:
        raise InputError(
            f"--model-layers is missing; {to} lists all decoder layers of the model, of which the loads name {identifiers[0]} to "
            f"{identifiers[-1]}"
        )
    formats.write_map(target, placed, chosen, to, identifiers, model_layers)
    _say({"written": str(target), "format": to, "layers": placed.num_layers, "slots": placed.num_slots, **said}, as_json)


def _routing(question: Question, source: Path, target: Path, force: bool, as_json: bool) -> dict[str, Any]:
    """Write a routing trace, and return what was written."""
    from eplb_gap.problem.formats.routing.reading import read_routing

    if target.suffix != ".npz":
        raise InputError(f"OUT is {target}; routing is written as a trace, a name ending in .npz is needed")
    check_outputs([trace("OUT", target)], [("--routing", source)], force)
    read = read_routing(source, question.format, experts=question.experts)
    for notice in read.provenance.get("notices", ()):
        log.print(f"{source.name}: {notice}", markup=False, highlight=False, soft_wrap=True)
    read.save(target)
    tokens, layers, topk = read.experts.shape
    columns = [name for name in COLUMNS if getattr(read, name) is not None]
    shape = {"written": str(target), "tokens": tokens, "layers": layers, "topk": topk, "experts": read.num_experts}
    if as_json:
        return {**shape, "columns": columns, "provenance": read.provenance}
    return {**shape, "columns": " ".join(columns) or "none", "format": read.provenance.get("format")}


def _keeping(
    planned: PlannedMap,
    in_use: Placement,
    loads: np.ndarray,
    deployment: Deployment,
    max_moves: int | None,
    move_cost: float | None,
) -> Placement:
    """Return the planned map renamed after the one in use, or the best one within a number of moves or for their cost."""
    from eplb_gap.heuristics.moves.migration import break_even, front, replan
    from eplb_gap.heuristics.moves.relabel import relabel
    from eplb_gap.heuristics.registry import DEFAULT_METHOD

    if max_moves is None and move_cost is None:
        return relabel(planned.regular("--map"), in_use, deployment)
    if planned.method != DEFAULT_METHOD:
        option = "--max-moves" if move_cost is None else "--move-cost"
        raise InputError(f"{option} is given with --map {planned.name}; within a budget {DEFAULT_METHOD!r} plans")
    if move_cost is not None:
        points = break_even(front(loads, deployment, in_use), move_cost)
        return replan(loads, deployment, in_use, max_moves=[moves for moves, _ in points])
    return replan(loads, deployment, in_use, total_moves=max_moves)


def _moves(placed: Placement, in_use: Placement, deployment: Deployment, layer_ids: list[int]) -> dict[str, Any]:
    """Return how many replicas move and, where GPUs are dead, which experts were on dead ones alone, by layer of the model."""
    from eplb_gap.heuristics.moves.lost_experts import lost_experts
    from eplb_gap.heuristics.moves.relabel import moved

    lost = {layer: gone for layer, gone in zip(layer_ids, lost_experts(in_use, deployment), strict=True) if gone}
    found: dict[str, Any] = {"moved": int(moved(placed, in_use, deployment).sum())}
    return {**found, "lost_experts": lost} if deployment.dead_gpus else found


def _say(written: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(written))
    else:
        out.print(", ".join(f"{key} {value}" for key, value in written.items()), markup=False, highlight=False, soft_wrap=True)
