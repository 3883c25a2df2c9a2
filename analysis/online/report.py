"""A calibration of production settings in words, as data, and as the file that plug-ins run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from eplb_gap.analysis.online.bootstrap import LEVEL, Estimate
from eplb_gap.analysis.online.calibrate import OnlineCalibration
from eplb_gap.analysis.online.choice import Tried, rule
from eplb_gap.analysis.online.held_out import Judged
from eplb_gap.analysis.online.host_defaults import NAMES
from eplb_gap.analysis.online.host_flags import WRITERS, HostFlags, host_flags, in_host_steps
from eplb_gap.analysis.online.trial import copies, moves
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.control.controllers_file import write_controllers

FEW_BLOCKS = 10
"""With fewer blocks an interval is itself uncertain, which is said."""


def answer(result: OnlineCalibration) -> str:
    """Return in one line whether EPLB is worth it on these loads."""
    held, chosen = result.held_out, result.judged(result.chosen.controller)
    none, default = result.judged(Controller("none")), result.judged(held.default)
    net = ", net of costs" if result.price is not None else ""
    where = f"on steps {result.border} to {result.steps - 1}, held out, no EPLB serves {none.balancedness.value:.3f}{net}"
    usual = f"{NAMES[result.host]}'s default {default.balancedness.value:.3f} ({_points(default.gain)})"
    if result.chosen.controller.kind == "none":
        return f"Is EPLB worth it here? No: nothing that was tried served more than no EPLB; {where}, {usual}."
    verdict = "Yes" if chosen.gain.low > 0 else "No" if chosen.gain.high < 0 else "Not shown"
    return (
        f"Is EPLB worth it here? {verdict}: {where}, {usual}, {result.controller.label} {chosen.balancedness.value:.3f} "
        f"({_points(chosen.gain)}; against the default {_points(held.over_default)}){_rough(result)}."
    )


def _rough(result: OnlineCalibration) -> str:
    return "; the steps are few, so that intervals are too narrow" if result.held_out.short else ""


def report(result: OnlineCalibration) -> str:
    """Return the answer, the front on the held-out steps, how it was found, and the settings to copy.

    Parameters
    ----------
    result : OnlineCalibration
    """
    shape = result.deployment
    parts = [
        f"{shape.num_experts} experts / {shape.num_slots} slots / {shape.num_gpus} GPUs, {shape.policy} policy, {result.layers} "
        f"layers; {len(result.tried)} controllers tried on steps {result.first} to {result.border - 1}, reported on steps "
        f"{result.border} to {result.steps - 1}.",
        answer(result),
        markdown(_header(result), [_line(result, judged, controller) for controller, judged in lines(result)]),
    ]
    if result.by_slots:
        parts.append(
            markdown(["slots", "chosen", "served, chosen on", "served, held out", "moves, held out"], _slot_lines(result))
        )
    parts += ["\n".join(remarks(result)), "\n".join(_settings(result))]
    return "\n\n".join(parts)


def lines(result: OnlineCalibration) -> list[tuple[Controller, Judged]]:
    """Return what was judged with the chosen number of slots, fewest moves first, each once."""
    found = [(controller, one) for (controller, shape), one in result.held_out.judged.items() if shape == result.deployment]
    return sorted(found, key=lambda pair: (moves(pair[1].run), pair[1].balancedness.value))


def roles(result: OnlineCalibration, controller: Controller) -> list[str]:
    """Return what a controller of the report stands for."""
    named = {
        "no EPLB": controller.kind == "none",
        "planned once": controller.kind == "static",
        f"{NAMES[result.host]}'s default": controller == result.held_out.default,
        "chosen": controller == result.controller,
    }
    return [name for name, holds in named.items() if holds]


def trained(result: OnlineCalibration, controller: Controller) -> Tried | None:
    """Return a controller on the steps that were chosen on, or None if it was not tried there as it is."""
    return next((one for one in result.tried if one.controller == controller and one.slots == result.deployment.num_slots), None)


def remarks(result: OnlineCalibration) -> list[str]:
    """Return what must be known beside the numbers."""
    held, costs = result.held_out, result.price is not None
    count = -(-(result.steps - result.border) // held.block)
    found = [
        f"Chosen: {result.controller.label}; it {rule(costs, result.most_moves, bool(result.by_slots))}, on steps {result.first} "
        f"to {result.border - 1} alone. Beside it "
        "stand the front there of all it could have been, without points that hardly differ, and what served most.",
        f"Brackets: {100 * LEVEL:g} % intervals, moving-block bootstrap over the held-out steps, {count} blocks of {held.block} "
        "steps, the same for all controllers.",
    ]
    if held.short:
        found.append(
            "The held-out steps are too few: blocks are shorter than an interval or than loads stay alike, brackets too narrow."
        )
    elif count < FEW_BLOCKS:
        found.append(f"{count} blocks are few: the brackets are themselves uncertain.")
    found += [f"{NAMES[result.host]}'s default: {changed}." for changed in held.default_changed]
    found.append(
        "Moves: a controller's first map is not counted, a server loads it with the weights; the others are counted after GPUs "
        "are renamed to keep what they hold, a host that does not rename moves more."
    )
    if result.chosen.controller.kind != "none":
        before, after = result.chosen.moves, moves(result.judged(result.chosen.controller).run)
        if after > 2 * before + 0.01:
            found.append(
                f"The chosen controller moved {after:.2f} replicas per step and layer on the held-out steps, {before:.2f} "
                "on those it was chosen on: the traffic changed. --most-moves keeps to a limit whatever comes."
            )
    return found


def all_flags(result: OnlineCalibration) -> list[HostFlags]:
    """Return the configuration of every serving system that comes closest to the chosen controller.

    Parameters
    ----------
    result : OnlineCalibration
    """
    controller = in_host_steps(result.controller, result.recorded)
    return [host_flags(controller, result.deployment, result.layers, host) for host in WRITERS]


def save(result: OnlineCalibration, path: Path, loads_name: str) -> None:
    """Write the chosen controller as TOML, with what it served and the answer above it.

    Parameters
    ----------
    result : OnlineCalibration
    path : Path
    loads_name : str
    """
    shape = result.deployment
    comment = (
        f"Chosen by eplb-gap calibrate --online on {loads_name} for {shape.num_experts} experts, {shape.num_slots} slots, "
        f"{shape.num_gpus} GPUs, {shape.policy} policy\n{answer(result)}"
        + (f"\nBelow in steps of the server, {result.recorded} a step of the loads." if result.recorded > 1 else "")
    )
    write_controllers(path, [in_host_steps(result.controller, result.recorded)], comment)


def as_dict(result: OnlineCalibration) -> dict[str, Any]:
    """Return a calibration as JSON-serialisable data; settings and flags are in steps of the server."""
    held = result.held_out
    return {
        "answer": answer(result),
        "deployment": result.deployment.as_dict(),
        "host": result.host,
        "recorded": result.recorded,
        "steps": result.steps,
        "chosen_on": [result.first, result.border - 1],
        "held_out": [result.border, result.steps - 1],
        "rule": rule(result.price is not None, result.most_moves, bool(result.by_slots)),
        "chosen": _settings_of(in_host_steps(result.controller, result.recorded)),
        "default": _settings_of(held.default) | {"changed": held.default_changed},
        "over_default": asdict(held.over_default),
        "block": held.block,
        "blocks_too_short": held.short,
        "tried": [
            {
                "controller": _settings_of(one.controller),
                "slots": one.slots,
                "balancedness": one.balancedness,
                "net": one.net,
                "moves_per_step_and_layer": one.moves,
            }
            for one in result.tried
        ],
        "judged": [
            {
                "controller": _settings_of(controller),
                "roles": roles(result, controller),
                "balancedness": asdict(one.balancedness),
                "gain": asdict(one.gain),
                "moves_per_step_and_layer": moves(one.run),
                "bytes_per_step": _bytes(result, one),
                "waiting_seconds": None if result.price is None else sum(change.waiting or 0.0 for change in copies(one.run)),
            }
            for controller, one in lines(result)
        ],
        "by_slots": [
            {
                "slots": one.slots,
                "controller": _settings_of(one.controller),
                "balancedness": one.worth,
                "held_out": asdict(result.judged_choice(one).balancedness),
            }
            for one in result.by_slots
        ],
        "flags": [asdict(one) for one in all_flags(result)],
    }


def _header(result: OnlineCalibration) -> list[str]:
    moved = ["moves per step and layer", *(["MB per step"] if result.price is not None else [])]
    served = "served, net of costs" if result.price is not None else "served"
    return [
        "controller",
        "",
        f"{served} [95 %]",
        "over no EPLB, points [95 %]",
        *moved,
        "chosen on: served, moves",
        "ms per decision",
    ]


def _line(result: OnlineCalibration, judged: Judged, controller: Controller) -> list[str]:
    before, run = trained(result, controller), judged.run
    size = _bytes(result, judged)
    return [
        controller.label,
        ", ".join(roles(result, controller)),
        _bracketed(judged.balancedness, 1, 4),
        "-" if controller.kind == "none" else _bracketed(judged.gain, 100, 1, "+"),
        f"{moves(run):.3f}",
        *([] if size is None else [f"{size / 1e6:.3g}"]),
        "-" if before is None else f"{before.worth:.4f}, {before.moves:.3f}",
        f"{1000 * run.planning / run.decisions:.1f}" if run.decisions else "-",
    ]


def _slot_lines(result: OnlineCalibration) -> list[list[str]]:
    found = []
    for one in result.by_slots:
        judged = result.judged_choice(one)
        mark = " (chosen)" if one is result.chosen else ""
        row = [f"{one.slots}{mark}", one.controller.label, f"{one.worth:.4f}", _bracketed(judged.balancedness, 1, 4)]
        found.append([*row, f"{moves(judged.run):.3f}"])
    return found


def _settings(result: OnlineCalibration) -> list[str]:
    controller = in_host_steps(result.controller, result.recorded)
    said = [
        f"Settings for {controller.label}"
        + (f", in steps of the server ({result.recorded} a step of the loads):" if result.recorded > 1 else ":")
    ]
    for found in all_flags(result):
        written = found.flags.replace("\n", "\n    ")
        said.append(f"  {NAMES[found.host]}: {written or 'no flags come close'}")
        if found.cannot:
            said.append(f"    {'not said: ' if found.flags else ''}{'; '.join(found.cannot)}")
    return [
        *said,
        "  Our plug-ins run the controller itself: EPLB_GAP_CONTROLLER=FILE.toml, the file that --out writes. In vLLM its "
        "interval, window and lag count calls: divide them by vLLM's step_interval, and let window_size be as long.",
    ]


def _bytes(result: OnlineCalibration, judged: Judged) -> float | None:
    """Return the bytes that all GPUs receive in a step, over all layers."""
    if result.price is None:
        return None
    return moves(judged.run) * result.layers * result.price.costs.expert_bytes


def _settings_of(controller: Controller) -> dict[str, object]:
    return {"kind": controller.kind, "name": controller.label, **controller.changed()}


def _points(found: Estimate) -> str:
    return f"{_bracketed(found, 100, 1, '+')} points"


def _bracketed(found: Estimate, scale: int, digits: int, sign: str = "") -> str:
    form = f"{sign}.{digits}f"
    return f"{scale * found.value:{form}} [{scale * found.low:{form}}, {scale * found.high:{form}}]"
