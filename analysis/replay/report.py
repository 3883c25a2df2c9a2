"""A replay in words and as data."""

from __future__ import annotations

from dataclasses import asdict, fields
from fractions import Fraction
from statistics import median
from typing import Any

from eplb_gap.analysis.replay.chain import chain_as_dict, chain_lines, chain_of
from eplb_gap.analysis.replay.limits import Limit
from eplb_gap.analysis.replay.replay import Replay, Replayed
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.problem.fractions import fraction


def report(result: Replay) -> str:
    """Return the table of all controllers and what its columns mean."""
    notes = remarks(result)
    if not result.runs:
        return "\n".join(notes)
    body = [[cells[0].replace("|", r"\|"), *cells[1:]] for cells in lines(result)]
    return "\n".join([setting(result), "", markdown(header(result), body), *(["", *notes] if notes else [])])


def unit(result: Replay) -> str:
    """Return what the loads are recorded by, and intervals and lags counted in: ``"step"``, or ``"window"`` of several."""
    return "step" if result.window_steps == 1 else "window"


def setting(result: Replay) -> str:
    """Return what was replayed, in one sentence."""
    shape, each = result.deployment, unit(result)
    of_steps = "" if result.window_steps == 1 else f", each the sum of {result.window_steps} steps"
    before = f"; the {each}s before are warm-up and not counted" if result.first else ""
    return (
        f"{shape.num_experts} experts / {shape.num_slots} slots / {shape.num_gpus} GPUs, {shape.policy} policy, {each}s "
        f"{result.first} to {result.steps - 1} of {result.steps}{of_steps}{before}"
    )


def header(result: Replay) -> list[str]:
    """Return the heads of the columns of :func:`lines`."""
    each = unit(result)
    more = ["seconds waited"] if result.costs is not None else []
    always = [
        "controller",
        "served balancedness",
        f"worst {each}",
        f"moves per {each} and layer",
        "re-plans",
        "ms per re-plan, median",
    ]
    return [*always, *more, *(["certified regret, points"] if result.limit is not None else [])]


def lines(result: Replay) -> list[list[str]]:
    """Return one line of the table for every controller."""
    found = []
    for run in result.runs:
        cells = _line(run, result.costs is not None)
        if result.limit is not None:
            regret = result.regret(run)
            cells.append("-" if regret is None else _between(100 * regret[0], 100 * regret[1]))
        found.append(cells)
    return found


def remarks(result: Replay) -> list[str]:
    """Return what must be known beside the numbers."""
    notes = [
        f"{run.controller.label}: looked at the steps it served, a limit and no choice" for run in result.runs if run.foresees
    ]
    notes += [
        f"{run.controller.label}: {100 * run.regret:+.2f} points of excess against its best single adviser in hindsight"
        for run in result.runs
        if run.regret is not None
    ]
    if result.limit is not None:
        notes += [*chain(result.limit), *chain_lines(result)]
    if result.window_steps > 1:
        notes.append(
            f"intervals, windows and lags count windows of {result.window_steps} steps; single steps are served no more evenly "
            "than their sums"
        )
    if result.costs is not None:
        told = result.costs
        notes.append(
            f"costs: {told.expert_bytes / 1e6:g} MB an expert, {told.bandwidth / 1e9:g} GB/s a GPU, {100 * told.overlap:g} % of "
            f"the transfer hidden, {told.stall:g} s a re-plan and {told.stall_per_layer:g} s a layer that moves"
        )
    if result.interrupted:
        notes.append(f"interrupted; not finished: {', '.join(result.missing)}")
    return notes


def _between(low: float, high: float) -> str:
    """Return a certified interval to two digits; one number where both ends print alike."""
    least, most = f"{low:.2f}", f"{high:.2f}"
    return most if least == most else f"{least} to {most}"


def chain(limit: Limit) -> list[str]:
    """Return the certified chain from the mean to the best maps of the intervals, in words."""
    mean = limit.mean
    if not mean:
        return ["the judged steps have no load: nothing can be lost"]

    def excess(lower: Fraction, upper: Fraction) -> str:
        low, high = (100 * float(value / mean - 1) for value in (lower, upper))
        return f"{_between(low, high)} points"

    least, most = limit.balancedness
    return [
        f"no controller that changes its maps at {_steps_of(limit)} alone serves more than {most:.4f}; maps made for the very "
        f"steps they serve reach {least:.4f}",
        f"excess over the mean: {excess(limit.step_lower, limit.step_upper)} with a map of its own for every step (integrality, "
        f"hierarchy), {excess(limit.interval_lower, limit.interval_upper)} with the best map of every interval (price of the "
        "interval); the certified regret is what a controller loses beyond that",
    ]


def _steps_of(limit: Limit) -> str:
    """Return at which steps maps may change for the limit to hold, in words."""
    behind = f", {limit.offset} behind each" if limit.offset else ""
    return f"every multiple of {limit.interval} steps{behind}"


def _line(run: Replayed, timed: bool) -> list[str]:
    step, least = run.worst
    replanning = f"{1000 * median(change.planning for change in run.changes):.1f}" if run.changes else "-"
    cells = [
        run.controller.label,
        f"{run.balancedness:.4f}",
        f"{least:.4f} (at {step})",
        f"{run.moves_per_step:.3f}",
        str(len(run.changes)),
        replanning,
    ]
    return [*cells, f"{run.waiting:.2f}"] if timed and run.waiting is not None else cells


def as_dict(result: Replay) -> dict[str, Any]:
    """Return a replay as JSON-serialisable data."""
    return {
        "deployment": result.deployment.as_dict(),
        "steps": result.steps,
        "window_steps": result.window_steps,
        "first_judged": result.first,
        "interrupted": result.interrupted,
        "missing": list(result.missing),
        "limit": None if result.limit is None else _limit_as_dict(result.limit),
        "costs": None if result.costs is None else asdict(result.costs),
        "controllers": [
            {**_run_as_dict(run), "certified_regret": result.regret(run), "chain": chain_as_dict(chain_of(result, run))}
            for run in result.runs
        ],
    }


def _limit_as_dict(limit: Limit) -> dict[str, Any]:
    found = {field.name: getattr(limit, field.name) for field in fields(limit)}
    return {name: fraction(value) if isinstance(value, Fraction) else value for name, value in found.items()}


def _run_as_dict(run: Replayed) -> dict[str, Any]:
    step, least = run.worst
    return {
        "controller": {
            "kind": run.controller.kind,
            "name": run.controller.label,
            **{key: getattr(run.controller, key) for key in sorted({"lag", *KINDS[run.controller.kind].reads})},
        },
        "foresees": run.foresees,
        "balancedness": run.balancedness,
        "mean": fraction(run.mean),
        "served": fraction(run.served),
        "warm_up": run.warm_up,
        "worst_step": step,
        "worst": least,
        "moves": run.moves,
        "moves_per_step_and_layer": run.moves_per_step,
        "planning_seconds": run.planning,
        "decisions": run.decisions,
        "waiting_seconds": run.waiting,
        "regret": run.regret,
        "changes": [
            {key: getattr(change, key) for key in ("decided", "serves", "moves", "planning", "waiting")} for change in run.changes
        ],
        "by_step": run.by_step.tolist(),
    }
