"""How few nodes tokens can visit: the locality planner, other planners and the bound (part of ``eplb-gap bench network``).

Maps are planned on the first tokens of the recorded sample and serve the phases behind them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean

from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases, parts, same_phase
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape, finding
from eplb_gap.experiments.measuring.rows import Fields, Instance, Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.measuring.visit_figures import fullest, per_token
from eplb_gap.experiments.measuring.visit_planners import BALANCE, EPS, PLANNER, PLANNERS, TITLES
from eplb_gap.experiments.measuring.visits import ASKED_GAP, SERVED, best_bound, served
from eplb_gap.experiments.studies.numbers import Number, interval_text, percent
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.fractions import fraction

SUITE = "visits"
EXPERTS, GPUS, NODES, REDUNDANT = 256, 32, (4, 8), (0, 32)
Slots = tuple[int, int]
"""Nodes and redundant slots."""
SHAPES: tuple[Slots, ...] = tuple((nodes, redundant) for nodes in NODES for redundant in REDUNDANT)
LAYERS = 8
BOUND = "bound"
ASKED_FEWER, ASKED_APART, ASKED_LOAD, GAP_NODES = 0.20, 0.03, 1.05, 4


def deployment(nodes: int, redundant: int) -> Deployment:
    """Return the deployment under the global policy: an expert may be anywhere."""
    return Deployment(EXPERTS, EXPERTS + redundant, GPUS, nodes)


IN_PAPER: dict[Slots, tuple[str, ...]] = {
    (4, 0): ("balance", "planner", "fewer", "apart", "apart-same", "gap"),
    (4, 32): ("fewer", "gap"),
    (8, 0): ("fewer", "gap"),
    (8, 32): (),
}
"""Numbers of the paper by deployment."""


def name_of(nodes: int, redundant: int) -> str:
    """Return the name of the sample on a deployment."""
    return f"sample {EXPERTS}/{EXPERTS + redundant}/{GPUS}, {nodes} nodes"


def instance(nodes: int, redundant: int, layer: int | None = None, **_: object) -> Instance:
    """Return the loads of the tokens planned on, of all layers or of one, and the deployment."""
    loads = parts()[PLANNED].loads()
    return loads if layer is None else loads[layer : layer + 1], deployment(nodes, redundant)


def planned_cell(nodes: int, redundant: int, method: str) -> Fields:
    """Plan on the first tokens and count visits and loads of these and of every phase behind them."""
    shape, by_part = deployment(nodes, redundant), parts()
    started = time.process_time()
    placement = PLANNERS[method](by_part[PLANNED], shape)
    seconds = time.process_time() - started
    return {
        "kind": "finding",
        "hash": rows.instance_hash(*instance(nodes, redundant)),
        "parameters": {"eps": EPS, "tokens": len(by_part[PLANNED].experts)},
        "status": "legal",
        "placement": array_sha256(placement.phy2log)[:16],
        "seconds_per_layer": seconds / LAYERS,
        **served(placement, by_part, shape),
    }


def bound_cell(nodes: int, redundant: int, layer: int) -> Fields:
    """Bound the visits of the tokens planned on in one layer, whatever the map."""
    routing = parts()[PLANNED]
    started = time.process_time()
    value, proof = best_bound(routing, layer, deployment(nodes, redundant), EPS)
    return {
        "kind": "bound",
        "hash": rows.instance_hash(*instance(nodes, redundant, layer)),
        "parameters": {"tokens": len(routing.experts)},
        "status": proof,
        "visit_bound": fraction(value),
        "seconds_per_layer": time.process_time() - started,
    }


def cells() -> list[Cell]:
    """Return the cells: the bound layer by layer, and every planner, on all deployments."""
    named = [(name_of(*shape), {"nodes": shape[0], "redundant": shape[1]}) for shape in SHAPES]
    return [
        *(Cell(SUITE, f"{name}, layer {n}", BOUND, bound_cell, {**at, "layer": n}) for name, at in named for n in range(LAYERS)),
        *(Cell(SUITE, name, method, planned_cell, {**at, "method": method}) for name, at in named for method in PLANNERS),
    ]


def find(measured: Rows, shape: Slots, method: str) -> Row:
    """Return the row of a planner."""
    return measured.one(suite=SUITE, instance=name_of(*shape), method=method)


def of_layers(measured: Rows, shape: Slots) -> list[Row]:
    """Return the rows of the bounds, layer by layer."""
    return [measured.one(suite=SUITE, instance=f"{name_of(*shape)}, layer {layer}", method=BOUND) for layer in range(LAYERS)]


def bounds(measured: Rows, shape: Slots) -> list[float]:
    """Return the bound on the visits of a planned token, layer by layer."""
    found = of_layers(measured, shape)
    return [float(rows.fractions_in([row["visit_bound"]])[0]) / row["parameters"]["tokens"] for row in found]


def gap(measured: Rows, shape: Slots, method: str = PLANNER) -> list[float]:
    """Return by how much a planner's visits exceed the bound, layer by layer, on the tokens planned on."""
    visits = per_token(find(measured, shape, method), PLANNED)
    return [up / low - 1 for up, low in zip(visits, bounds(measured, shape), strict=True)]


def fewer(measured: Rows, shape: Slots, *names: str, method: str = PLANNER) -> Interval:
    """Return by what part a planner's visits are below those of balance alone, mean over layers, with an interval over them."""
    ours, base = (per_token(find(measured, shape, who), *names) for who in (method, BALANCE))
    return mean_interval([1 - one / other for one, other in zip(ours, base, strict=True)])


def apart(measured: Rows, shape: Slots, *names: str, method: str = PLANNER) -> Interval:
    """Return by what part visits are above those of the tokens planned on, mean over layers, with an interval over them."""
    row = find(measured, shape, method)
    pairs = zip(per_token(row, *names), per_token(row, PLANNED), strict=True)
    return mean_interval([one / planned - 1 for one, planned in pairs])


def farthest(measured: Rows, shape: Slots, *names: str) -> tuple[float, str]:
    """Return the mean over layers of how far visits are from planned ones, up or down, in the worst phase, and that phase."""
    row = find(measured, shape, PLANNER)
    planned = per_token(row, PLANNED)
    of_phases = ((name, zip(per_token(row, name), planned, strict=True)) for name in names)
    return max((fmean(abs(one / base - 1) for one, base in pairs), name) for name, pairs in of_phases)


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of visits."""
    return [line for shape in SHAPES for line in _levels(measured, shape)]


def _levels(measured: Rows, shape: Slots) -> list[list[str]]:
    row, at = find(measured, shape, PLANNER), f"{name_of(*shape).removeprefix('sample ')}, global"
    even, sent = (fullest(row, PLANNED, field=f"{kind}node_load") for kind in ("even_", ""))
    served_even, served_sent = (fullest(row, *other_phases(), field=f"{kind}node_load") for kind in ("even_", ""))
    gain = fewer(measured, shape, *other_phases())
    body = [
        [
            f"visits per token against balance only, tokens of other phases, {at}",
            f">= {percent(ASKED_FEWER, 0)} % fewer, planned node load <= {ASKED_LOAD:g}",
            f"{_percents(gain)} % fewer, planned node load {even:.3f} with even shares, {sent:.3f} as sent; "
            f"served {served_even:.3f}, {served_sent:.3f} as sent",
            yes_or_no(gain.mean >= ASKED_FEWER and max(even, sent) <= ASKED_LOAD),
        ]
    ]
    for what, names in ((f"later steps of the phase `{same_phase()}`", (same_phase(),)), ("other phases", other_phases())):
        found = apart(measured, shape, *names)
        worst, phase = farthest(measured, shape, *names)
        said = f"{percent(worst, 1)} % (`{phase}`); signed mean of all {_percents(found)} %"
        text = f"visits on tokens of {what} against planned, {at}"
        body.append(
            [
                text,
                f"within {percent(ASKED_APART, 0)} %, mean over layers of the absolute difference, worst phase",
                said,
                yes_or_no(worst <= ASKED_APART),
            ]
        )
    above = gap(measured, shape)
    asked, met = "printed", "-"
    if shape[0] == GAP_NODES:
        asked, met = f"<= {percent(ASKED_GAP, 0)} %", yes_or_no(fmean(above) <= ASKED_GAP)
    text = f"mean {percent(fmean(above), 1)} %, worst {percent(max(above), 1)} % ({_proofs(measured, shape)})"
    return [*body, [f"certified gap of visits, {at}", asked, text, met]]


def _percents(found: Interval) -> str:
    return interval_text(found.scaled(100), 1)


def table(measured: Rows) -> str:
    """Return visits, loads, gaps and times of every planner as Markdown."""
    phases = [name for name in parts() if name != PLANNED]
    sections = []
    for shape in SHAPES:
        low, body = bounds(measured, shape), []
        for method in PLANNERS:
            row = find(measured, shape, method)
            body.append(
                [
                    TITLES[method],
                    *(f"{fmean(per_token(row, name)):.3f}" for name in (PLANNED, *phases)),
                    f"{fmean(per_token(row, PLANNED, field='hashed_visits')):.3f}",
                    percent(fmean(gap(measured, shape, method)), 1),
                    _percents(fewer(measured, shape, *other_phases(), method=method)),
                    _percents(apart(measured, shape, *other_phases(), method=method)),
                    *(_loads(row, which) for which in ("node", "gpu")),
                    f"{row['seconds_per_layer']:.2f}",
                ]
            )
        header = [
            "map",
            "planned",
            *phases,
            "planned, hashed",
            "above the bound, %",
            "fewer than balance, other phases, %",
            "other phases above planned, %",
            "node load, planned / served",
            "GPU load, planned / served",
            "s a layer",
        ]
        sections.append(
            f"### {name_of(*shape)}\n\nBound: {fmean(low):.3f} visits a token ({_proofs(measured, shape)}).\n\n"
            + markdown(header, body)
        )
    tokens = {name: f"{len(routing.experts):,}" for name, routing in parts().items()}
    return (
        "## Node visits\n\nSample of the small model's routing (256 experts, 8 a token, 8 layers), global policy. "
        f"Maps are planned on the first tokens ({tokens[PLANNED]}) and serve those of later steps: "
        f"{', '.join(f'{name} {tokens[name]}' for name in phases)}; `{same_phase()}` goes on where planning ended, the others "
        "are phases of other text. Nodes that a token visits, mean over layers, if the dispatcher takes a smallest set of them; "
        "*hashed*: where it takes replicas in turn. Loads: fullest over mean, experts' tokens shared evenly, mean over layers "
        "[as the smallest cover sends them]. Without replicas the bound is on maps whose node load is at most "
        f"{1 + EPS:g} of the bound on it, as the last map's is: maps with fuller nodes may be below it. "
        "Brackets in columns of %: 95 % bootstrap interval over the 8 layers of one model; CPU seconds on one thread.\n\n"
        + "\n\n".join(sections)
        + "\n"
    )


def _loads(row: Row, which: str) -> str:
    texts = []
    for names in ((PLANNED,), other_phases()):
        even, sent = (fullest(row, *names, field=f"{kind}{which}_load") for kind in ("even_", ""))
        texts.append(f"{even:.3f} [{sent:.3f}]")
    return " / ".join(texts)


def _proofs(measured: Rows, shape: Slots) -> str:
    found = [row["status"] for row in of_layers(measured, shape)]
    return ", ".join(f"{proof} in {found.count(proof)} layers" for proof in dict.fromkeys(found))


def _numbers(shape: Slots) -> dict[str, Number]:
    """Return the numbers of a deployment: visits on tokens of other phases, what they gain and lose, the gap on planned ones."""
    name, others = name_of(*shape), other_phases()
    patterns = ((SUITE, name, PLANNER), (SUITE, name, BALANCE), (SUITE, f"{name}, layer *", BOUND))
    computed: dict[str, Callable[[Rows], str]] = {
        "balance": lambda m: f"{fmean(per_token(find(m, shape, BALANCE), *others)):.2f}",
        "planner": lambda m: f"{fmean(per_token(find(m, shape, PLANNER), *others)):.2f}",
        "fewer": lambda m: _percents(fewer(m, shape, *others)),
        "apart": lambda m: _percents(apart(m, shape, *others)),
        "apart-same": lambda m: _percents(apart(m, shape, same_phase())),
        "gap": lambda m: percent(fmean(gap(m, shape)), 1),
    }
    short = f"visits-{shape[0]}{'-replicas' if shape[1] else ''}"
    return {f"{short}-{what}": Number(patterns, compute) for what, compute in computed.items() if what in IN_PAPER[shape]}


STUDY = Study(
    SUITE,
    job="network",
    about="nodes that tokens visit under maps for balance and for locality, bounds on them",
    cells=cells,
    shapes=(
        finding({"placement": "text", "seconds_per_layer": "number", **SERVED}),
        Shape("bound", CELL | {"visit_bound": "p/q", "seconds_per_layer": "number"}),
    ),
    instance=instance,
    table=table,
    levels=levels,
    numbers={name: number for shape in SHAPES for name, number in _numbers(shape).items()},
)
