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
from eplb_gap.experiments.measuring.visits import SERVED, best_bound, served
from eplb_gap.experiments.studies.numbers import Number, interval_text, percent, span
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.digest import array_sha256
from eplb_gap.problem.fractions import fraction

SUITE = "visits"
NODES = (4, 8)
DEPLOYMENTS = {nodes: Deployment(256, 288, 32, nodes) for nodes in NODES}
"""The global policy: an expert may be anywhere."""
LAYERS = 8
BOUND = "bound"
ASKED_FEWER, ASKED_APART, ASKED_LOAD, ASKED_GAP, GAP_NODES = 0.20, 0.03, 1.05, 0.15, 4


def name_of(nodes: int) -> str:
    """Return the name of the sample on a deployment."""
    return f"sample 256/288/32, {nodes} nodes"


def instance(nodes: int, layer: int | None = None, **_: object) -> Instance:
    """Return the loads of the tokens planned on, of all layers or of one, and the deployment."""
    loads = parts()[PLANNED].loads()
    return loads if layer is None else loads[layer : layer + 1], DEPLOYMENTS[nodes]


def planned_cell(nodes: int, method: str) -> Fields:
    """Plan on the first tokens and count visits and loads of these and of every phase behind them."""
    deployment, by_part = DEPLOYMENTS[nodes], parts()
    started = time.process_time()
    placement = PLANNERS[method](by_part[PLANNED], deployment)
    seconds = time.process_time() - started
    return {
        "kind": "finding",
        "hash": rows.instance_hash(*instance(nodes)),
        "parameters": {"eps": EPS, "tokens": len(by_part[PLANNED].experts)},
        "status": "legal",
        "placement": array_sha256(placement.phy2log)[:16],
        "seconds_per_layer": seconds / LAYERS,
        **served(placement, by_part, deployment),
    }


def bound_cell(nodes: int, layer: int) -> Fields:
    """Bound the visits of the tokens planned on in one layer, whatever the map."""
    routing = parts()[PLANNED]
    started = time.process_time()
    value, proof = best_bound(routing, layer, DEPLOYMENTS[nodes])
    return {
        "kind": "bound",
        "hash": rows.instance_hash(*instance(nodes, layer)),
        "parameters": {"tokens": len(routing.experts)},
        "status": proof,
        "visit_bound": fraction(value),
        "seconds_per_layer": time.process_time() - started,
    }


def cells() -> list[Cell]:
    """Return the cells: every planner, and the bound layer by layer, on both deployments."""
    return [
        *(
            Cell(SUITE, f"{name_of(nodes)}, layer {layer}", BOUND, bound_cell, {"nodes": nodes, "layer": layer})
            for nodes in NODES
            for layer in range(LAYERS)
        ),
        *(
            Cell(SUITE, name_of(nodes), method, planned_cell, {"nodes": nodes, "method": method})
            for nodes in NODES
            for method in PLANNERS
        ),
    ]


def find(measured: Rows, nodes: int, method: str) -> Row:
    """Return the row of a planner."""
    return measured.one(suite=SUITE, instance=name_of(nodes), method=method)


def bounds(measured: Rows, nodes: int) -> list[float]:
    """Return the bound on the visits of a planned token, layer by layer."""
    found = [measured.one(suite=SUITE, instance=f"{name_of(nodes)}, layer {layer}", method=BOUND) for layer in range(LAYERS)]
    return [float(rows.fractions_in([row["visit_bound"]])[0]) / row["parameters"]["tokens"] for row in found]


def gap(measured: Rows, nodes: int, method: str = PLANNER) -> list[float]:
    """Return by how much a planner's visits exceed the bound, layer by layer, on the tokens planned on."""
    visits = per_token(find(measured, nodes, method), PLANNED)
    return [up / low - 1 for up, low in zip(visits, bounds(measured, nodes), strict=True)]


def fewer(measured: Rows, nodes: int, *names: str, method: str = PLANNER) -> Interval:
    """Return by what part a planner's visits are below those of balance alone, mean over layers, with an interval over them."""
    ours, base = (per_token(find(measured, nodes, who), *names) for who in (method, BALANCE))
    return mean_interval([1 - one / other for one, other in zip(ours, base, strict=True)])


def apart(measured: Rows, nodes: int, *names: str, method: str = PLANNER) -> Interval:
    """Return by what part visits are above those of the tokens planned on, mean over layers, with an interval over them."""
    row = find(measured, nodes, method)
    pairs = zip(per_token(row, *names), per_token(row, PLANNED), strict=True)
    return mean_interval([one / planned - 1 for one, planned in pairs])


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of visits."""
    body, others = [], other_phases()
    for nodes in NODES:
        row, at = find(measured, nodes, PLANNER), f"256/288/32 global, {nodes} nodes"
        even, sent = (fullest(row, PLANNED, field=f"{kind}node_load") for kind in ("even_", ""))
        gain, kept, near = fewer(measured, nodes, *others), apart(measured, nodes, *others), apart(measured, nodes, same_phase())
        body += [
            [
                f"visits per token against balance only, tokens of other phases, {at}",
                f">= {percent(ASKED_FEWER, 0)} % fewer, node load <= {ASKED_LOAD:g}",
                f"{_percents(gain)} % fewer, planned node load {even:.3f} with even shares, {sent:.3f} as sent",
                yes_or_no(gain.mean >= ASKED_FEWER and max(even, sent) <= ASKED_LOAD),
            ],
            *(
                [
                    f"visits on tokens {what} against planned, {at}",
                    f"within {percent(ASKED_APART, 0)} %",
                    f"{_percents(found)} %",
                    yes_or_no(abs(found.mean) <= ASKED_APART),
                ]
                for what, found in ((f"of later steps of the phase `{same_phase()}`", near), ("of other phases", kept))
            ),
        ]
        found = gap(measured, nodes)
        asked = f"<= {percent(ASKED_GAP, 0)} %" if nodes == GAP_NODES else "printed"
        met = yes_or_no(fmean(found) <= ASKED_GAP) if nodes == GAP_NODES else "-"
        body.append(
            [f"certified gap of visits, {at}", asked, f"mean {percent(fmean(found), 1)} %, worst {percent(max(found), 1)} %", met]
        )
    return body


def _percents(found: Interval) -> str:
    return interval_text(found.scaled(100), 1)


def table(measured: Rows) -> str:
    """Return visits, loads, gaps and times of every planner as Markdown."""
    phases = [name for name in parts() if name != PLANNED]
    sections = []
    for nodes in NODES:
        low, body = bounds(measured, nodes), []
        for method in PLANNERS:
            row = find(measured, nodes, method)
            body.append(
                [
                    TITLES[method],
                    *(f"{fmean(per_token(row, name)):.3f}" for name in (PLANNED, *phases)),
                    f"{fmean(per_token(row, PLANNED, field='hashed_visits')):.3f}",
                    percent(fmean(gap(measured, nodes, method)), 1),
                    _percents(fewer(measured, nodes, *other_phases(), method=method)),
                    _percents(apart(measured, nodes, *other_phases(), method=method)),
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
            f"### {nodes} nodes\n\nBound: {fmean(low):.3f} visits a token ({_proofs(measured, nodes)}).\n\n"
            + markdown(header, body)
        )
    tokens = {name: f"{len(routing.experts):,}" for name, routing in parts().items()}
    return (
        "## Node visits\n\nSample of the small model's routing (256 experts, 8 a token, 8 layers), global policy, 256/288/32. "
        f"Maps are planned on the first tokens ({tokens[PLANNED]}) and serve those of later steps: "
        f"{', '.join(f'{name} {tokens[name]}' for name in phases)}; `{same_phase()}` goes on where planning ended, the others "
        "are phases of other text. Nodes that a token visits, mean over layers, if the dispatcher takes a smallest set of them; "
        "*hashed*: where it takes replicas in turn. Loads: fullest over mean, experts' tokens shared evenly, mean over layers "
        "[as the smallest cover sends them]. Brackets in columns of %: 95 % bootstrap interval over the 8 layers of one model; "
        "CPU seconds on one thread.\n\n" + "\n\n".join(sections) + "\n"
    )


def _loads(row: Row, which: str) -> str:
    texts = []
    for names in ((PLANNED,), other_phases()):
        even, sent = (fullest(row, *names, field=f"{kind}{which}_load") for kind in ("even_", ""))
        texts.append(f"{even:.3f} [{sent:.3f}]")
    return " / ".join(texts)


def _proofs(measured: Rows, nodes: int) -> str:
    found = [
        measured.one(suite=SUITE, instance=f"{name_of(nodes)}, layer {layer}", method=BOUND)["status"] for layer in range(LAYERS)
    ]
    return ", ".join(f"{proof}: {found.count(proof)} layers" for proof in dict.fromkeys(found))


def _patterns(nodes: int, *methods: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((SUITE, name_of(nodes), method) for method in methods)


def _number(nodes: int, compute: Callable[[Rows], str]) -> Number:
    return Number((*_patterns(nodes, PLANNER, BALANCE), (SUITE, f"{name_of(nodes)}, layer *", BOUND)), compute)


def _numbers(nodes: int) -> dict[str, Number]:
    return {
        f"visits-{nodes}-balance": _number(nodes, lambda m: f"{fmean(per_token(find(m, nodes, BALANCE), *other_phases())):.2f}"),
        f"visits-{nodes}-planner": _number(nodes, lambda m: f"{fmean(per_token(find(m, nodes, PLANNER), *other_phases())):.2f}"),
        f"visits-{nodes}-fewer": _number(nodes, lambda m: _percents(fewer(m, nodes, *other_phases()))),
        f"visits-{nodes}-apart": _number(nodes, lambda m: _percents(apart(m, nodes, *other_phases()))),
        f"visits-{nodes}-apart-same": _number(nodes, lambda m: _percents(apart(m, nodes, same_phase()))),
        f"visits-{nodes}-gap": _number(nodes, lambda m: percent(fmean(gap(m, nodes)), 1)),
        f"visits-{nodes}-gap-layers": _number(nodes, lambda m: span([100 * of for of in gap(m, nodes)])),
    }


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
    numbers={name: number for nodes in NODES for name, number in _numbers(nodes).items()},
)
