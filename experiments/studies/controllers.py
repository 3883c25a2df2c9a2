"""What controllers serve over time: every kind, on recordings and synthetic controls (part of ``eplb-gap bench control``)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np

from eplb_gap.analysis.replay.replay import replay
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.series import RECORDED, SERIES, series
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import NUMBERS, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval, served_gain
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Drawn, Study
from eplb_gap.heuristics.control.controllers_file import parse_controller

SUITE = "control"
INTERVAL = 10
WINDOWS = (10, 20, 40, 80, 160)
AVERAGED = (20, 40, 80)
MOVES = 0.02
NONE, RARE, FULL, SMALL = "none", "full 100", f"full {INTERVAL}/20", f"2 % {INTERVAL}/20"
SAVED = f"saved {INTERVAL}/20"
ADAPTIVE, ADAPTIVE_STRICT, ADAPTIVE_SMALL = "adaptive", "adaptive 2 %", "adaptive saved"
FORESEEING, FORESEEING_SMALL = "clairvoyant", "clairvoyant 2 %"
FULL_WINDOWS = {f"full {INTERVAL}/{window}": f"periodic:interval={INTERVAL},window={window}" for window in WINDOWS}
AVERAGE_WINDOWS = {
    f"average {INTERVAL}/{window}": f"periodic:interval={INTERVAL},window={window},method=sample-average" for window in AVERAGED
}
SMALL_WINDOWS = {f"2 % {INTERVAL}/{window}": f"budgeted:interval={INTERVAL},window={window},moves={MOVES}" for window in WINDOWS}
SAVED_WINDOWS = {
    f"saved {INTERVAL}/{window}": f"budgeted:interval={INTERVAL},window={window},moves=0.018,burst=0.1" for window in WINDOWS
}
CONTROLLERS = {
    NONE: "none",
    "static": "static:interval=100",
    RARE: "periodic:interval=100",
    **FULL_WINDOWS,
    **AVERAGE_WINDOWS,
    **SMALL_WINDOWS,
    **SAVED_WINDOWS,
    "threshold .8": f"threshold:interval={INTERVAL},window=20,below=0.8",
    "in turn": "round-robin:interval=2,window=20,layers=1,decay=0.95",
    ADAPTIVE_STRICT: f"adaptive:interval={INTERVAL},moves={MOVES}",
    ADAPTIVE_SMALL: f"adaptive:interval={INTERVAL},moves=0.018,burst=0.1",
    ADAPTIVE: f"adaptive:interval={INTERVAL}",
    FORESEEING_SMALL: f"clairvoyant:interval={INTERVAL},moves={MOVES}",
    FORESEEING: f"clairvoyant:interval={INTERVAL}",
}
"""By the method that rows call them: what ``eplb-gap replay --controller`` takes."""
STRETCH = 10
"""Steps whose sums a row keeps together."""
BLOCK = 40
"""Steps that are resampled together: longer than anything that two controllers remember apart."""
ASKED_POINTS = {"hierarchical": 5.0, "global": 7.0}
ASKED_MOVES, ASKED_POINT, ASKED_STATIONARY = 0.25, 1.0, 0.3


def instance(name: str, policy: str, seed: int, **_: object) -> Instance:
    """Return the steps of a series under a policy."""
    return series(name, seed).loads, POLICIES[policy]


def control_cell(name: str, policy: str, seed: int, controller: str) -> Fields:
    """Replay one controller."""
    loads, deployment = instance(name, policy, seed)
    first = SERIES[name].first
    (run,) = replay(series(name, seed), deployment, [parse_controller(controller)], warm_up=first).runs
    means = loads.sum(axis=(1, 2)) / deployment.num_gpus
    starts = np.arange(0, len(loads), STRETCH)
    moves = np.zeros(len(starts), dtype=np.int64)
    for change in run.changes:
        if change.serves < len(loads):
            moves[change.serves // STRETCH] += change.moves
    return {
        "kind": "finding",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"controller": controller, "first": first},
        "status": "legal",
        "mean": rows.fraction(run.mean),
        "served": rows.fraction(run.served),
        "balancedness": run.balancedness,
        "worst": run.worst[1],
        "moves": moves.tolist(),
        "layers": run.layers,
        "stretch_mean": np.add.reduceat(means, starts).round(3).tolist(),
        "stretch_served": np.add.reduceat(means / run.by_step, starts).round(3).tolist(),
        "seconds": [run.planning / max(1, run.decisions)],
    }


def cells() -> list[Cell]:
    """Return the cells: every series and seed, both policies, every controller."""
    return [
        Cell(
            SUITE,
            f"{name} {policy}",
            method,
            control_cell,
            {"name": name, "policy": policy, "seed": seed, "controller": controller},
            seed=seed,
        )
        for name, found in SERIES.items()
        for seed in found.seeds
        for policy in POLICIES
        for method, controller in CONTROLLERS.items()
    ]


def find(measured: Rows, name: str, policy: str, method: str, seed: int | None = None) -> Row:
    """Return the row of one cell, of the first seed by default."""
    return measured.one(
        suite=SUITE, trace=name, policy=policy, method=method, seed=SERIES[name].seeds[0] if seed is None else seed
    )


def moves_per_step(row: Row) -> float:
    """Return replicas moved per judged step and layer."""
    first = row["parameters"]["first"]
    return float(sum(row["moves"][first // STRETCH :]) / (len(row["moves"]) * STRETCH - first) / row["layers"])


def gain(measured: Rows, name: str, policy: str, ours: str, base: str) -> Interval:
    """Return by how many points one controller serves more than another on all seeds of a series, with its interval."""
    pairs = [[find(measured, name, policy, method, seed) for method in (ours, base)] for seed in SERIES[name].seeds]
    mean, one, other = (
        np.concatenate([_blocks(pair[of][key][SERIES[name].first // STRETCH :]) for pair in pairs])
        for of, key in ((0, "stretch_mean"), (0, "stretch_served"), (1, "stretch_served"))
    )
    return served_gain(mean, one, other).scaled(100)


def part_of_moves(measured: Rows, name: str, policy: str, ours: str, base: str) -> float:
    """Return what one controller moves as a part of what another does, on all seeds of a series."""
    moved = [sum(moves_per_step(find(measured, name, policy, one, seed)) for seed in SERIES[name].seeds) for one in (ours, base)]
    return moved[0] / moved[1]


def _blocks(values: list[float]) -> np.ndarray:
    return np.add.reduceat(np.array(values), np.arange(0, len(values), BLOCK // STRETCH))


def behind(measured: Rows, name: str, policy: str, seed: int, method: str, fixed: Iterable[str]) -> float:
    """Return by how many points a controller serves less than the best of some fixed ones, as only hindsight knows it."""
    served = [float(find(measured, name, policy, one, seed)["balancedness"]) for one in (method, *fixed)]
    return 100 * (max(served[1:]) - served[0])


FIXED = {
    ADAPTIVE_STRICT: tuple(SMALL_WINDOWS),
    ADAPTIVE_SMALL: (*SMALL_WINDOWS, *SAVED_WINDOWS),
    ADAPTIVE: (*FULL_WINDOWS, *AVERAGE_WINDOWS, *SMALL_WINDOWS, *SAVED_WINDOWS),
}
"""Fixed controllers that an adaptive one is held against: its interval, and no more moves than it may make."""


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of controllers."""
    body = []
    for policy, asked in ASKED_POINTS.items():
        for name, (method, what) in product(RECORDED, ((SMALL, "2 %"), (SAVED, "1.8 %, moves saved,"))):
            found = gain(measured, name, policy, method, RARE)
            part = part_of_moves(measured, name, policy, method, RARE)
            held_out = name != "steps"
            body.append(
                [
                    f"{what} every {INTERVAL} steps against a full re-plan every 100, {name}, {policy}",
                    f"{'more' if held_out else f'>= {asked:+g} points'} at <= {ASKED_MOVES:g} of the moves",
                    f"{interval_text(found, 2, sign=True)} points at {part:.3f} of the moves",
                    yes_or_no((found.low > 0 if held_out else found.mean >= asked) and part <= ASKED_MOVES),
                ]
            )
    for method, fixed in FIXED.items():
        losses = {
            (name, policy, seed): behind(measured, name, policy, seed, method, fixed)
            for name, found in SERIES.items()
            for policy in POLICIES
            for seed in found.seeds
        }
        average = np.mean(list(losses.values()))
        (name, policy, seed), worst = max(losses.items(), key=lambda item: item[1])
        body.append(
            [
                f"{method} against the best of {len(fixed)} fixed controllers in hindsight, {len(losses)} series and policies",
                f"within {ASKED_POINT:g} point",
                f"{worst:.2f} points behind at worst ({name}, {policy}, seed {seed}), {average:.2f} on average",
                yes_or_no(worst <= ASKED_POINT),
            ]
        )
    strict = f"2 % {INTERVAL}/{WINDOWS[-1]}"
    for method, longest in ((ADAPTIVE_STRICT, strict), (ADAPTIVE_SMALL, strict), (ADAPTIVE, f"full {INTERVAL}/{WINDOWS[-1]}")):
        worst = max(
            behind(measured, "stationary", policy, seed, method, (longest,))
            for policy in POLICIES
            for seed in SERIES["stationary"].seeds
        )
        body.append(
            [
                f"{method} on stationary loads against the longest window",
                f"no more than {ASKED_STATIONARY:g} points behind",
                f"{worst:.2f} points behind at worst",
                yes_or_no(worst <= ASKED_STATIONARY),
            ]
        )
    return body


def table(measured: Rows) -> str:
    """Return what every controller serves and moves as Markdown."""
    texts = []
    for name, found in SERIES.items():
        body = []
        for method in CONTROLLERS:
            line = [f"`{method}`"]
            for policy in POLICIES:
                of = [find(measured, name, policy, method, seed) for seed in found.seeds]
                line += [
                    " / ".join(f"{row['balancedness']:.4f}" for row in of),
                    " / ".join(f"{row['worst']:.3f}" for row in of),
                    f"{np.mean([moves_per_step(row) for row in of]):.2f}",
                    f"{1000 * np.mean([row['seconds'][0] for row in of]):.1f}",
                ]
            body.append(line)
        seeds = f", seeds {', '.join(map(str, found.seeds))}" if found.seeds != (0,) else ""
        header = ["controller", *(f"{policy}: {what}" for policy in POLICIES for what in ("served", "worst step", "moves", "ms"))]
        texts.append(f"*{name}* ({found.title}{seeds}), steps from {found.first} on\n\n{markdown(header, body)}\n")
    meaning = "; ".join(f"`{method}`: `{controller}`" for method, controller in CONTROLLERS.items())
    return (
        "## Controllers\n\nBalancedness of the GPUs step by step (sum of the mean loads over the sum of the largest), served "
        "with maps made of earlier steps alone, flagship. Moves: replicas copied to a GPU that did not hold them, per step and "
        f"layer; ms what a decision takes. {meaning}. `clairvoyant` plans on what it will serve: nobody can.\n\n"
    ) + "\n".join(texts)


ADVICE = (
    ("steady or slowly drifting", "drifting", SAVED, RARE, "move little and often"),
    ("changing abruptly, in phases", "rhythm", ADAPTIVE_SMALL, RARE, "choose by what each way of planning would have served"),
    (
        "alternating within an interval",
        "recurring",
        ADAPTIVE_SMALL,
        FULL,
        "plan for the steps, not for their sum, and stay",
    ),
    ("stationary", "stationary", f"2 % {INTERVAL}/160", FULL, "look back far, move little"),
)
"""Kind of traffic, the series it was measured on, what to choose, against what, why."""


def advice(measured: Rows) -> str:
    """Return which controller to choose for which traffic, with its measured gain, as Markdown list items."""
    lines = []
    for kind, name, method, base, why in ADVICE:
        gains = []
        for policy in POLICIES:
            text = interval_text(gain(measured, name, policy, method, base), 1, sign=True)
            part = part_of_moves(measured, name, policy, method, base)
            gains.append(f"{policy} {text} points at {part:.2f} of the moves")
        lines.append(
            f"* *{kind}* ({name}, {SERIES[name].title.split(':')[0].split(' from')[0]}): {why}, `{CONTROLLERS[method]}`; against "
            f"`{CONTROLLERS[base]}` {'; '.join(gains)}."
        )
    return "\n".join(lines)


def _gain(policy: str, name: str, method: str, base: str) -> Number:
    patterns = tuple((SUITE, f"{name} {policy}", of) for of in (method, base))
    return Number(
        patterns,
        lambda rows: interval_text(gain(rows, name, policy, method, base), 1, sign=True),
    )


def _served(policy: str, name: str, method: str) -> Number:
    return Number(((SUITE, f"{name} {policy}", method),), lambda rows: f"{find(rows, name, policy, method)['balancedness']:.3f}")


def _part(policy: str, name: str) -> Number:
    patterns = tuple((SUITE, f"{name} {policy}", of) for of in (SAVED, RARE))
    return Number(
        patterns,
        lambda rows: f"{part_of_moves(rows, name, policy, SAVED, RARE):.2f}",
    )


STATED = {
    "none": NONE,
    "rare": RARE,
    "full": FULL,
    "small": SMALL,
    "saved": SAVED,
    "adaptive-small": ADAPTIVE_SMALL,
    "adaptive": ADAPTIVE,
    "seen": FORESEEING,
}
"""Controllers whose served balancedness the paper states."""


def _numbers() -> dict[str, Number]:
    found = {}
    for policy in POLICIES:
        for name in RECORDED:
            found[f"control-saved-{name}-{policy}"] = _gain(policy, name, SAVED, RARE)
            found[f"control-part-{name}-{policy}"] = _part(policy, name)
        for key, method in STATED.items():
            found[f"control-{key}-{policy}"] = _served(policy, "steps", method)
        found[f"control-recurring-{policy}"] = _gain(policy, "recurring", f"average {INTERVAL}/40", FULL)
        found[f"control-stationary-{policy}"] = _gain(policy, "stationary", f"2 % {INTERVAL}/160", FULL)
    return found


STUDY = Study(
    SUITE,
    job="control",
    about="controllers over time: what each serves and moves on two recordings and four synthetic controls",
    cells=cells,
    shapes=(
        finding(
            {
                "mean": "p/q",
                "served": "p/q",
                "balancedness": "number",
                "worst": "number",
                "moves": "list of integer",
                "layers": "integer",
                "stretch_mean": NUMBERS,
                "stretch_served": NUMBERS,
                "seconds": NUMBERS,
            }
        ),
    ),
    instance=instance,
    table=table,
    levels=levels,
    figures=("control_timeline", "control_front"),
    numbers=_numbers(),
    blocks={"control advice": Drawn((SUITE,), advice)},
)
