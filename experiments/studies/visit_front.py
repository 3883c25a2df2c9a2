"""Node visits against balance under both policies (part of ``eplb-gap bench network``).

Every layer has some maps of each policy: under the global one those that the planner finds at several limits on the GPU load,
under the hierarchical one the exact front over all ways to put groups on nodes. Rows also say what the profiles predict that
each would take, which ``policy_times`` compares.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases, parts
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.predicted_layers import NETWORKS, profiles, step_seconds
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.heuristics.locality.plan_visits import visit_front
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.traffic import traffic
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.locality.hierarchical_front import hierarchical_front

SUITE = "visit_front"
EXPERTS, SLOTS, GPUS, NODES, GROUPS, LAYERS = 256, 288, 32, 4, 8, 8
DEPLOYMENTS = {
    "global": Deployment(EXPERTS, SLOTS, GPUS, NODES),
    "hierarchical": Deployment(EXPERTS, SLOTS, GPUS, NODES, GROUPS),
}
EPS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Limits on the GPU load above its bound, of the global policy's maps."""
SECONDS = 1.0
"""Work on a layer for one limit."""
BALANCE, FRONT = "fast", "front"


def instance(policy: str, **_: object) -> Instance:
    """Return the loads of the tokens planned on and the deployment."""
    return parts()[PLANNED].loads(), DEPLOYMENTS[policy]


def balanced_cell(policy: str, profiles: str) -> Fields:
    """Plan every layer for balance alone and say what the map costs."""
    loads, deployment = instance(policy)
    started = time.process_time()
    placement = heuristics.rebalance(loads, deployment, BALANCE)
    return _row(policy, [[(BALANCE, phy2log)] for phy2log in placement.phy2log], time.process_time() - started, profiles)


def global_cell(policy: str, profiles: str) -> Fields:
    """Plan maps with few visits at every limit on the loads and say what they cost."""
    _, deployment = instance(policy)
    started = time.process_time()
    maps = visit_front(parts()[PLANNED], deployment, EPS, seconds=SECONDS)
    seconds = (time.process_time() - started) / len(EPS)
    named = [[(f"eps {eps:g}", of.phy2log[layer]) for eps, of in zip(EPS, maps, strict=True)] for layer in range(LAYERS)]
    return _row(policy, named, seconds, profiles)


def hierarchical_cell(policy: str, profiles: str) -> Fields:
    """Go through all ways to put groups on nodes, nodes planned for balance, and say what those cost that no other beats."""
    _, deployment = instance(policy)
    started = time.process_time()
    fronts = [hierarchical_front(parts()[PLANNED], deployment, layer, "planner") for layer in range(LAYERS)]
    seconds = time.process_time() - started
    maps = [[(" ".join("".join(map(str, node)) for node in p.partition), p.placement.phy2log[0]) for p in of] for of in fronts]
    above = max(float(point.upper / point.lower - 1) for of in fronts for point in of)
    return {**_row(policy, maps, seconds, profiles), "above_proven": above}


def _row(policy: str, maps: list[list[tuple[str, np.ndarray]]], seconds: float, profiles: str) -> Fields:
    """Return the fields of a row from the maps of every layer, each with what it is called."""
    loads, deployment = instance(policy)
    return {
        "kind": "front",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"tokens": len(parts()[PLANNED].experts), "profiles": profiles},
        "status": "legal",
        "seconds_per_layer": seconds / LAYERS,
        "points": [
            [_point(name, phy2log, layer, deployment) for name, phy2log in of_layer] for layer, of_layer in enumerate(maps)
        ],
    }


def _point(name: str, phy2log: np.ndarray, layer: int, deployment: Deployment) -> dict[str, Any]:
    """Return visits and GPU load with a smallest cover, and predicted times of one layer's map, on every part of the routing."""
    predicted: dict[str, Any] = {network.profile: {} for network in NETWORKS}
    found: dict[str, Any] = {"map": name, "visits": {}, "gpu_load": {}, "predicted": predicted}
    for part, routing in parts().items():
        assert routing.step is not None
        experts = routing.rows(layer)
        loads = np.bincount(experts.ravel(), minlength=EXPERTS)[None]
        verify(Placement(phy2log[None], EXPERTS), loads, deployment)
        chosen = {rule: choose_replicas(experts, phy2log, deployment, rule) for rule in {network.rule for network in NETWORKS}}
        for network in NETWORKS:
            times = step_seconds(network, experts, chosen[network.rule], routing.step, phy2log, deployment)
            predicted[network.profile][part] = list(times)
        counted = traffic(experts, chosen["smallest-cover"], phy2log, deployment, "node-dedup")
        found["visits"][part] = counted.node_visits
        found["gpu_load"][part] = max(counted.gpu_loads) * GPUS / sum(counted.gpu_loads)
    return found


def name_of(policy: str) -> str:
    """Return the name of the sample on a deployment."""
    return f"sample {EXPERTS}/{SLOTS}/{GPUS}, {NODES} nodes {policy}"


def cells() -> list[Cell]:
    """Return the cells: the front and a map for balance, of both policies."""
    known = {"profiles": profiles()}
    fronts = {"global": global_cell, "hierarchical": hierarchical_cell}
    return [
        *(Cell(SUITE, name_of(policy), FRONT, cell, {"policy": policy, **known}) for policy, cell in fronts.items()),
        *(Cell(SUITE, name_of(policy), BALANCE, balanced_cell, {"policy": policy, **known}) for policy in DEPLOYMENTS),
    ]


Point = dict[str, Any]


def candidates(measured: Rows, policy: str) -> list[list[Point]]:
    """Return all maps of every layer under a policy."""
    found = [row["points"] for row in measured.where(suite=SUITE, instance=name_of(policy))]
    return [[point for points in found for point in points[layer]] for layer in range(LAYERS)]


def front(layers: Iterable[list[Point]]) -> list[tuple[float, float]]:
    """Return the best of all combinations of the layers' maps: mean GPU loads, rising, and visits per planned token, falling."""
    best = [(0.0, 0.0)]
    count, tokens = 0, len(parts()[PLANNED].experts)
    for points in layers:
        count += 1
        of_layer = _undominated((point["gpu_load"][PLANNED], point["visits"][PLANNED] / tokens) for point in points)
        best = _undominated((load + more, visits + most) for load, visits in best for more, most in of_layer)
    return [(load / count, visits / count) for load, visits in best]


def _undominated(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for load, visits in sorted(points):
        if not found or visits < found[-1][1]:
            found.append((load, visits))
    return found


def table(measured: Rows) -> str:
    """Return the fronts as Markdown."""
    body = []
    above = measured.one(suite=SUITE, instance=name_of("hierarchical"), method=FRONT)["above_proven"]
    for policy in DEPLOYMENTS:
        for row in measured.where(suite=SUITE, instance=name_of(policy)):
            for name, chosen in _maps(row["points"]):
                figures = [
                    f"{of(chosen, names):.3f}" for of in (mean_visits, mean_load) for names in ((PLANNED,), other_phases())
                ]
                body.append([policy, name, *figures, f"{row['seconds_per_layer']:.2f}"])
    header = [
        "policy",
        "maps",
        "visits, planned",
        "visits, other phases",
        "GPU load as sent, planned",
        "GPU load as sent, other phases",
        "s a layer",
    ]
    return (
        f"## Front of visits against balance\n\nSample of the small model's routing, {EXPERTS}/{SLOTS}/{GPUS}, {NODES} nodes, as "
        "in the table of visits; means over layers. Global: the planner's maps at limits on the GPU load, eps above its bound. "
        f"Hierarchical ({GROUPS} groups): the ends of the front over all ways to put groups on nodes, visits exact, makespans "
        f"with even shares at most {100 * above:.2f} % above what is proven for as few visits.\n\n"
        + markdown(header, body)
        + "\n"
    )


def _maps(points: list[list[Point]]) -> Iterator[tuple[str, list[Point]]]:
    """Yield the maps of a row: those of one name in all layers, or of a front that has none those at its two ends."""
    names = [point["map"] for point in points[0]]
    if all([point["map"] for point in of_layer] == names for of_layer in points):
        yield from ((f"`{name}`", [of_layer[place] for of_layer in points]) for place, name in enumerate(names))
    else:
        yield from zip(("front, best balance", "front, fewest visits"), ends(points), strict=True)


def ends(points: list[list[Point]]) -> tuple[list[Point], list[Point]]:
    """Return of every layer the maps with the best balance and with the fewest visits of the tokens planned on."""
    balance = [min(of, key=lambda point: (point["gpu_load"][PLANNED], point["visits"][PLANNED])) for of in points]
    return balance, [min(of, key=lambda point: (point["visits"][PLANNED], point["gpu_load"][PLANNED])) for of in points]


def mean_load(chosen: list[Point], names: Iterable[str]) -> float:
    """Return the fullest GPU over the mean, as the mean over layers and tokens."""
    tokens = {name: len(parts()[name].experts) for name in names}
    return fmean(sum(point["gpu_load"][name] * n for name, n in tokens.items()) for point in chosen) / sum(tokens.values())


def mean_visits(chosen: list[Point], names: Iterable[str]) -> float:
    """Return the nodes that a token visits, as the mean over layers and tokens."""
    tokens = {name: len(parts()[name].experts) for name in names}
    return fmean(sum(point["visits"][name] for name in tokens) for point in chosen) / sum(tokens.values())


STUDY = Study(
    SUITE,
    job="network",
    about="fronts of node visits against balance under both policies, and predicted times of their maps",
    cells=cells,
    shapes=(
        Shape(
            "front",
            CELL | {"seconds_per_layer": "number", "points": "list of list of object of anything"},
            {"above_proven": "number"},
        ),
    ),
    instance=instance,
    table=table,
    figures=("network_front",),
)
