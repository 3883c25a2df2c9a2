"""Node visits against balance under both policies, and which policy takes less time (part of ``eplb-gap bench network``).

Every layer has some maps of each policy: under the global one those that the planner finds at several limits on the GPU load,
under the hierarchical one the exact front over all ways to put groups on nodes. What each would take is predicted from published
profiles; the map is chosen on the tokens planned on, its time is that of the tokens it serves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.step_time.predict import network_seconds
from eplb_gap.analysis.step_time.profile import Tiles, read_profile
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases, parts
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.measuring.statistics import Interval, mean_interval
from eplb_gap.experiments.studies.numbers import Number, interval_text
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.dispatch.replica_choice import Rule, choose_replicas
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
TILES = "deepgemm-fp8-sm90"
"""The profile that experts' times are from."""


@dataclass(frozen=True)
class Network:
    """A network that policies are compared on: its profile, the tokens that every GPU has in a step, how replicas are chosen."""

    profile: str
    title: str
    tokens: int
    rule: Rule


NETWORKS = (
    Network("deepep-h800-ep32", "RDMA, one copy a node, prefill", 4096, "smallest-cover"),
    Network("deepep-v2-sm100-ep8", "NVLink, one copy a GPU, prefill", 4096, "hashed"),
    Network("deepep-h800-low-latency-ep32", "RDMA, one copy an expert, decode", 128, "hashed"),
)


def instance(policy: str, **_: object) -> Instance:
    """Return the loads of the tokens planned on and the deployment."""
    return parts()[PLANNED].loads(), DEPLOYMENTS[policy]


def profiles() -> str:
    """Return a digest of the profiles that times are predicted from: rows of others are not those of these."""
    told = [repr(read_profile(name)) for name in (TILES, *(network.profile for network in NETWORKS))]
    return hashlib.sha256("".join(told).encode()).hexdigest()[:16]


def balanced_cell(policy: str, profiles: str) -> Fields:
    """Plan every layer for balance alone and say what the map costs."""
    loads, deployment = instance(policy)
    started = time.process_time()
    placement = heuristics.rebalance(loads, deployment, BALANCE)
    return _row(policy, [[(BALANCE, phy2log)] for phy2log in placement.phy2log], time.process_time() - started, profiles)


def global_cell(profiles: str) -> Fields:
    """Plan maps with few visits at every limit on the loads and say what they cost."""
    _, deployment = instance("global")
    started = time.process_time()
    maps = visit_front(parts()[PLANNED], deployment, EPS, seconds=SECONDS)
    seconds = (time.process_time() - started) / len(EPS)
    named = [[(f"eps {eps:g}", of.phy2log[layer]) for eps, of in zip(EPS, maps, strict=True)] for layer in range(LAYERS)]
    return _row("global", named, seconds, profiles)


def hierarchical_cell(profiles: str) -> Fields:
    """Go through all ways to put groups on nodes, nodes planned for balance, and say what those cost that no other beats."""
    _, deployment = instance("hierarchical")
    started = time.process_time()
    fronts = [hierarchical_front(parts()[PLANNED], deployment, layer, "planner") for layer in range(LAYERS)]
    seconds = time.process_time() - started
    maps = [[(" ".join("".join(map(str, node)) for node in p.partition), p.placement.phy2log[0]) for p in of] for of in fronts]
    above = max(float(point.upper / point.lower - 1) for of in fronts for point in of)
    return {**_row("hierarchical", maps, seconds, profiles), "above_proven": above}


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
        experts = routing.rows(layer)
        loads = np.bincount(experts.ravel(), minlength=EXPERTS)[None]
        verify(Placement(phy2log[None], EXPERTS), loads, deployment)
        for network in NETWORKS:
            profile, tiles = read_profile(network.profile), _tiles()
            assert profile.network is not None
            chosen = choose_replicas(experts, phy2log, deployment, network.rule)
            counted = traffic(experts, chosen, phy2log, deployment, profile.network.dispatch)
            scale, idle = network.tokens * GPUS / len(experts), 2 * profile.network.latency_seconds
            predicted[network.profile][part] = [
                _expert_seconds(tiles, chosen, scale, deployment),
                idle + scale * (network_seconds(profile.network, counted) - idle),
            ]
            if profile.network.dispatch == "node-dedup":
                found["visits"][part] = counted.node_visits
                found["gpu_load"][part] = max(counted.gpu_loads) * GPUS / sum(counted.gpu_loads)
    return found


@cache
def _tiles() -> Tiles:
    tiles = read_profile(TILES).tiles
    assert tiles is not None
    return tiles


def _expert_seconds(tiles: Tiles, chosen: np.ndarray, scale: float, deployment: Deployment) -> float:
    """Return the time of the GPU whose replicas take longest, with the tokens that the dispatcher sends to each."""
    sent = np.rint(np.bincount(chosen.ravel(), minlength=SLOTS) * scale)
    cost = np.maximum(tiles.read_seconds, tiles.tile_seconds * np.ceil(sent / tiles.tile_rows))
    return float(np.where(sent > 0, cost, 0.0).reshape(GPUS, -1).sum(axis=1).max())


def name_of(policy: str) -> str:
    """Return the name of the sample on a deployment."""
    return f"sample {EXPERTS}/{SLOTS}/{GPUS}, {NODES} nodes {policy}"


def cells() -> list[Cell]:
    """Return the cells: the front and a map for balance, of both policies."""
    known = {"profiles": profiles()}
    return [
        Cell(SUITE, name_of("global"), FRONT, global_cell, known),
        Cell(SUITE, name_of("hierarchical"), FRONT, hierarchical_cell, known),
        *(Cell(SUITE, name_of(policy), BALANCE, balanced_cell, {"policy": policy, **known}) for policy in DEPLOYMENTS),
    ]


Point = dict[str, Any]


def candidates(measured: Rows, policy: str) -> list[list[Point]]:
    """Return all maps of every layer under a policy."""
    found = [row["points"] for row in measured.where(suite=SUITE, instance=name_of(policy))]
    return [[point for points in found for point in points[layer]] for layer in range(LAYERS)]


def balanced(measured: Rows, policy: str) -> list[Point]:
    """Return the map for balance of every layer."""
    return [points[0] for points in measured.one(suite=SUITE, instance=name_of(policy), method=BALANCE)["points"]]


def quickest(measured: Rows, policy: str, profile: str) -> list[Point]:
    """Return of every layer the map that is predicted to take the least time on the tokens planned on."""
    return [min(points, key=lambda point: sum(point["predicted"][profile][PLANNED])) for points in candidates(measured, policy)]


def seconds(point: Point, profile: str, names: Iterable[str]) -> tuple[float, float]:
    """Return the predicted times of experts and network on some parts of the routing, every token counted alike."""
    tokens = {name: len(parts()[name].experts) for name in names}
    experts, network = (
        sum(n * point["predicted"][profile][name][which] for name, n in tokens.items()) / sum(tokens.values()) for which in (0, 1)
    )
    return experts, network


def longer(measured: Rows, profile: str, names: Iterable[str]) -> Interval:
    """Return by what part of its time the best hierarchical map takes longer than the best global one; interval over layers."""
    return compared(quickest(measured, "hierarchical", profile), quickest(measured, "global", profile), profile, names)


def compared(ours: list[Point], base: list[Point], profile: str, names: Iterable[str]) -> Interval:
    """Return by what part of their time some maps take longer than others, mean over layers, with an interval over these."""
    told = list(names)
    times = [[sum(seconds(point, profile, told)) for point in of] for of in (ours, base)]
    return mean_interval([one / other - 1 for one, other in zip(*times, strict=True)])


def winner(found: Interval) -> str:
    """Return the policy that takes less time, where the interval says so."""
    return "global" if found.low > 0 else "hierarchical" if found.high < 0 else "neither"


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
    """Return the fronts and the comparison of policies as Markdown."""
    return f"{_fronts(measured)}\n\n{_policies(measured)}\n"


def _fronts(measured: Rows) -> str:
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
        f"with even shares at most {100 * above:.2f} % above what is proven for as few visits.\n\n" + markdown(header, body)
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


def _policies(measured: Rows) -> str:
    body = []
    for network in NETWORKS:
        for what, names in _stretches():
            found = longer(measured, network.profile, names)
            chosen = [("global, balance only", balanced(measured, "global"))]
            chosen += [(policy, quickest(measured, policy, network.profile)) for policy in ("global", "hierarchical")]
            local = compared(chosen[1][1], chosen[0][1], network.profile, names)
            times = [" + ".join(f"{1000 * fmean(of):.2f}" for of in _two(points, network.profile, names)) for _, points in chosen]
            body.append(
                [
                    network.title,
                    what,
                    *times,
                    interval_text(local.scaled(100), 1, sign=True),
                    interval_text(found.scaled(100), 1, sign=True),
                    winner(found),
                ]
            )
    header = [
        "network",
        "tokens",
        "global, balance only, ms",
        "global, best, ms",
        "hierarchical, best, ms",
        "global, best against balance only, %",
        "hierarchical against global, %",
        "less time",
    ]
    cited = "\n".join(
        f"* *{n.title}*, {n.tokens:,} tokens a GPU. Network by `{n.profile}`: {_cited(n.profile)}." for n in NETWORKS
    )
    return (
        "## Hierarchical against global, predicted\n\nPredicted time of a MoE layer, experts + network (dispatch and combine), "
        "mean over layers, of the best map of each policy by this prediction on the tokens planned on. Tokens come evenly from "
        f"all GPUs, nothing overlaps, a profile of fewer GPUs is taken for {GPUS}. Nothing here was timed. Interval: 95 % "
        f"bootstrap over the {LAYERS} layers of one model; *less time*: where it excludes zero.\n\n{cited}\n* Experts by "
        f"`{TILES}`: {_cited(TILES)}.\n\n" + markdown(header, body)
    )


def _stretches() -> list[tuple[str, tuple[str, ...]]]:
    names = [name for name in parts() if name != PLANNED]
    return [("planned", (PLANNED,)), ("served, other phases", other_phases()), *((name, (name,)) for name in names)]


def _two(points: list[Point], profile: str, names: Iterable[str]) -> list[list[float]]:
    told = list(names)
    return [list(of) for of in zip(*(seconds(point, profile, told) for point in points), strict=True)]


def _cited(name: str) -> str:
    profile = read_profile(name)
    return f"{profile.source}; measured on {profile.measured_on}"


def _number(profile: str) -> Number:
    pattern = (SUITE, f"sample {EXPERTS}/{SLOTS}/{GPUS}, {NODES} nodes *", "*")
    return Number((pattern,), lambda m: interval_text(longer(m, profile, other_phases()).scaled(100), 1, sign=True))


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
    numbers={f"policies-{short}": _number(n.profile) for short, n in zip(("rdma", "nvlink", "decode"), NETWORKS, strict=True)},
)
