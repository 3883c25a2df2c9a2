"""A map's traffic against a recount token by token with sets and dictionaries, and what must not change it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.analysis.network.traffic import Figures, NetworkTraffic, network_traffic, visit_bounds
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

DISPATCHES, RULES = ("node-dedup", "rank-dedup", "none"), ("hashed", "local-first", "smallest-cover")
DEPLOYMENTS = {
    "global, replicas": Deployment(8, 16, 8, num_nodes=4),
    "hierarchical, replicas": Deployment(8, 12, 6, num_nodes=2, num_groups=4),
    "no spare slot": Deployment(8, 8, 4, num_nodes=2),
    "one slot per GPU": Deployment(6, 8, 8, num_nodes=4),
    "one GPU per node": Deployment(8, 12, 3, num_nodes=3),
    "one node": Deployment(8, 12, 4),
}
GROUPS = np.repeat(np.arange(4), 2)


def a_map(deployment: Deployment, layers: int, rng: np.random.Generator) -> Placement:
    """Return a legal map: extra replicas of any expert, on its own node where the policy is hierarchical."""
    rows = []
    for _ in range(layers):
        if deployment.policy == "hierarchical":
            by_node = np.split(rng.permutation(deployment.num_groups), deployment.num_nodes)
            homes = [np.flatnonzero(np.isin(np.arange(8) // deployment.experts_per_group, some)) for some in by_node]
        else:
            homes = [np.arange(deployment.num_experts)]
        per_home = deployment.num_slots // len(homes)
        rows.append(np.concatenate([rng.permutation(np.r_[own, rng.choice(own, per_home - own.size)]) for own in homes]))
    return Placement(np.array(rows), deployment.num_experts)


def some_routing(deployment: Deployment, layers: int, rng: np.random.Generator, told: bool, tokens: int = 14) -> RoutingTrace:
    """Return tokens that like some experts, with the GPUs they are on where told."""
    liking = rng.random((1, layers, deployment.num_experts)) * np.arange(1, 1 + deployment.num_experts)
    experts = (rng.random((tokens, layers, deployment.num_experts)) * liking).argsort(axis=2)[:, :, -3:]
    return RoutingTrace(experts, deployment.num_experts, rng.integers(0, deployment.num_gpus, tokens) if told else None)


def in_turn(token: int, options: list, multiplier: int = 2654435761) -> object:
    """Return the option that the hash of a token's place says (Knuth's multiplicative hash, or another such)."""
    return options[((token + 1) * multiplier % 2**32) * len(options) // 2**32]


def slots_of(token: int, experts: list[int], held: dict[int, list[int]], deployment: Deployment, rule: str, source: int | None):
    """Return the slot of every expert by the words of the rules."""
    node_of, gpu_of = deployment.slots_per_node, deployment.slots_per_gpu
    home = None if source is None else source // deployment.gpus_per_node
    allowed = set(range(deployment.num_nodes))
    if rule == "smallest-cover":
        nodes = {e: {slot // node_of for slot in held[e]} for e in experts}
        must = {min(some) for some in nodes.values() if len(some) == 1} | ({home} if home is not None else set())
        left = [some for some in nodes.values() if not some & must]
        useful = sorted(set().union(*left))
        for size in range(len(useful) + 1):
            covers = [set(some) for some in combinations(useful, size) if all(other & set(some) for other in left)]
            if covers:
                covers.sort(key=lambda some: sum(2**node for node in some))
                allowed = must | in_turn(token, covers)
                break
    slots = []
    for e in experts:
        options = [slot for slot in held[e] if slot // node_of in allowed]
        if rule != "hashed" and source is not None:
            options = (
                [slot for slot in options if slot // gpu_of == source]
                or [slot for slot in options if slot // node_of == home]
                or options
            )
        slots.append(in_turn(token, options, 3242174889) if rule == "smallest-cover" else in_turn(token, options))
    return slots


def sent(gpus: list[int], source: int, deployment: Deployment, dispatch: str) -> list[tuple[int, int]]:
    """Return every copy as (from, to), hop by hop."""
    if dispatch == "none":
        return [(source, gpu) for gpu in gpus if gpu != source]
    if dispatch == "rank-dedup":
        return [(source, gpu) for gpu in set(gpus) if gpu != source]
    per_node, hops = deployment.gpus_per_node, []
    for node in {gpu // per_node for gpu in gpus}:
        gate = node * per_node + source % per_node
        hops += [(source, gate)] + [(gate, gpu) for gpu in set(gpus) if gpu // per_node == node]
    return [(start, end) for start, end in hops if start != end]


def recounted(
    routing: RoutingTrace, placement: Placement, deployment: Deployment, dispatch: str, rule: str, layers: list[int]
) -> dict[str, Fraction | None]:
    """Return the figures of layers, except bound and gap, by going through all tokens."""
    tokens, gpus, per_node = len(routing.experts), deployment.num_gpus, deployment.gpus_per_node
    node_visits = gpu_visits = stays = followed = 0
    sums = {name: [Fraction(0), Fraction(0)] for name in ("node_in", "node_out", "gpu_in", "gpu_load", "even_gpu_load")}
    crossing = Fraction(0)

    def visited(token: int, layer: int) -> list[int]:
        held: dict[int, list[int]] = {}
        for slot, e in enumerate(placement.phy2log[layer].tolist()):
            held.setdefault(e, []).append(slot)
        source = None if routing.source is None else int(routing.source[token])
        found = slots_of(token, routing.experts[token, layer].tolist(), held, deployment, rule, source)
        return [slot // deployment.slots_per_gpu for slot in found]

    for layer in layers:
        into, out, reached = ({} for _ in range(3))
        load = dict.fromkeys(range(gpus), Fraction(0))
        even = dict.fromkeys(range(gpus), Fraction(0))
        row = placement.phy2log[layer].tolist()
        for token in range(tokens):
            at = visited(token, layer)
            nodes = {gpu // per_node for gpu in at}
            node_visits, gpu_visits = node_visits + len(nodes), gpu_visits + len(set(at))
            for gpu in at:
                load[gpu] += 1
            for e in routing.experts[token, layer].tolist():
                for slot, held in enumerate(row):
                    if held == e:
                        even[slot // deployment.slots_per_gpu] += Fraction(1, row.count(e))
            homes = range(gpus) if routing.source is None else [int(routing.source[token])]
            for home in homes:
                for start, end in sent(at, home, deployment, dispatch):
                    reached[end] = reached.get(end, 0) + Fraction(1, len(homes))
                    if start // per_node != end // per_node:
                        crossing += Fraction(1, len(homes))
                        for counted, gpu in ((into, end), (out, start)):
                            counted[gpu // per_node] = counted.get(gpu // per_node, 0) + Fraction(1, len(homes))
            if layer + 1 < routing.num_layers:
                followed += 1
                stays += {gpu // per_node for gpu in visited(token, layer + 1)} <= nodes
        for name, counts, places in (
            ("node_in", into, deployment.num_nodes),
            ("node_out", out, deployment.num_nodes),
            ("gpu_in", reached, gpus),
            ("gpu_load", load, gpus),
            ("even_gpu_load", even, gpus),
        ):
            sums[name][0] += max(counts.values(), default=0)
            sums[name][1] += Fraction(sum(counts.values()), places)
    all_tokens = tokens * len(layers)
    return {
        "node_visits": Fraction(node_visits, all_tokens),
        "gpu_visits": Fraction(gpu_visits, all_tokens),
        "between_nodes": crossing / all_tokens,
        **{name: largest / mean if mean else None for name, (largest, mean) in sums.items()},
        "stays": Fraction(stays, followed) if followed else None,
    }


def counted(figures: Figures) -> dict[str, Fraction | None]:
    """Return the figures that are counted."""
    return {name: value for name, value in vars(figures).items() if name not in ("bound", "gap")}


@pytest.mark.parametrize("told", [True, False], ids=["sources", "even"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", DISPATCHES)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_figure_is_recounted(name: str, dispatch: str, rule: str, told: bool) -> None:
    deployment = DEPLOYMENTS[name]
    rng = np.random.default_rng([len(name), DISPATCHES.index(dispatch), RULES.index(rule), told])
    placement, routing = a_map(deployment, 2, rng), some_routing(deployment, 2, rng, told)
    found = network_traffic(routing, placement, deployment, dispatch, rule)
    assert counted(found.total()) == recounted(routing, placement, deployment, dispatch, rule, [0, 1])
    assert counted(found.layer(1)) == recounted(routing, placement, deployment, dispatch, rule, [1])
    assert found.sources == ("recorded" if told else "even")
    visits = {"node-dedup": found.total().node_visits, "rank-dedup": found.total().gpu_visits}.get(dispatch)
    if visits is None:
        assert found.total().bound is found.total().gap is None
    else:
        bound = sum(layer.bound.visits for layer in found.layers) / (2 * len(routing.experts))
        assert (found.total().bound, found.total().gap) == (bound, visits / bound - 1)
        assert bound <= visits
        if deployment.slots_per_gpu == 1 and dispatch == "rank-dedup":
            assert bound == visits == routing.topk
    if deployment.num_nodes == 1:
        assert found.total().node_visits == 1 and found.total().between_nodes == 0 and found.total().node_in is None


SHAPES = st.sampled_from([*DEPLOYMENTS.values()])


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 10**6), st.booleans(), st.sampled_from(RULES))
def test_totals_follow_from_the_dispatch_and_never_fall_below_the_bounds(
    deployment: Deployment, seed: int, told: bool, rule: str
) -> None:
    rng = np.random.default_rng(seed)
    placement, routing = a_map(deployment, 1, rng), some_routing(deployment, 1, rng, told)

    def total(dispatch: str) -> NetworkTraffic:
        return network_traffic(routing, placement, deployment, dispatch, rule)

    by_node, by_gpu, by_replica = (total(dispatch).total() for dispatch in DISPATCHES)
    assert by_node.between_nodes <= by_gpu.between_nodes <= by_replica.between_nodes
    assert by_node.gap >= 0 and by_gpu.gap >= 0
    assert len({(figures.node_visits, figures.gpu_visits, figures.gpu_load) for figures in (by_node, by_gpu, by_replica)}) == 1
    if not told:  # every node sends a copy that is not for itself
        assert by_node.between_nodes == by_node.node_visits * (1 - Fraction(1, deployment.num_nodes))


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(0, 10**6), st.booleans(), st.sampled_from(DISPATCHES))
def test_names_of_experts_and_nodes_do_not_matter(deployment: Deployment, seed: int, told: bool, dispatch: str) -> None:
    rng = np.random.default_rng(seed)
    placement, routing = a_map(deployment, 2, rng), some_routing(deployment, 2, rng, told)
    flat = replace(deployment, num_groups=1)
    before = network_traffic(routing, placement, flat, dispatch, "hashed").total()
    names = rng.permutation(deployment.num_experts)
    renamed = replace(routing, experts=names[routing.experts])
    after = network_traffic(renamed, Placement(names[placement.phy2log], deployment.num_experts), flat, dispatch, "hashed")
    assert after.total() == before
    # Nodes change places with all that is on them. A rule that goes by places may choose other replicas: the totals of a smallest
    # cover are its size, and without replicas there is nothing to choose.
    order = rng.permutation(deployment.num_nodes)
    moved = placement.phy2log.reshape(2, deployment.num_nodes, -1)[:, order].reshape(2, -1)
    place = np.argsort(order)
    source = routing.source
    if source is not None:
        source = place[source // deployment.gpus_per_node] * deployment.gpus_per_node + source % deployment.gpus_per_node
    there = network_traffic(
        replace(routing, source=source), Placement(moved, deployment.num_experts), flat, dispatch, "smallest-cover"
    ).total()
    here = network_traffic(routing, placement, flat, dispatch, "smallest-cover").total()
    if not told:
        assert there.node_visits == here.node_visits
    elif dispatch == "node-dedup":
        assert there.between_nodes == here.between_nodes
    if deployment.num_slots == deployment.num_experts:
        assert there == here


def test_a_map_that_splits_a_group_is_held_to_the_bounds_of_all_maps() -> None:
    deployment = Deployment(4, 4, 4, num_nodes=2, num_groups=2)
    routing = RoutingTrace([[[0, 2]], [[1, 3]]], 4)  # each token needs both groups, hence both nodes
    assert visit_bounds(routing, deployment, "node-dedup")[0].visits == 4
    split = network_traffic(routing, Placement([[0, 2, 1, 3]], 4), deployment)
    assert split.total().node_visits == split.total().bound == 1
    told = visit_bounds(routing, deployment, "node-dedup")
    assert network_traffic(routing, Placement([[0, 2, 1, 3]], 4), deployment, bounds=told) == split
    legal = network_traffic(routing, Placement([[0, 1, 2, 3]], 4), deployment).total()
    assert (legal.node_visits, legal.bound, legal.gap) == (2, 2, 0)


def test_numbers_of_experts_that_fill_a_byte() -> None:
    rng = np.random.default_rng(0)
    routing = RoutingTrace(rng.random((30, 1, 256)).argsort(axis=2)[:, :, :8], 256)
    for groups in (1, 8):
        deployment = Deployment(256, 256, 8, num_nodes=4, num_groups=groups)
        found = network_traffic(routing, Placement([np.arange(256)], 256), deployment)
        assert counted(found.total()) == recounted(
            routing, Placement([np.arange(256)], 256), deployment, "node-dedup", "hashed", [0]
        )
        assert found.total().gap >= 0


def test_tokens_of_one_expert_visit_one_node() -> None:
    deployment = Deployment(4, 8, 4, num_nodes=2)
    one_hot = RoutingTrace([[[2]]] * 8, 4)
    found = network_traffic(one_hot, Placement([[0, 1, 2, 2, 2, 2, 2, 3]], 4), deployment, "node-dedup", "hashed").total()
    assert found.node_visits == found.gpu_visits == found.bound == 1 and found.gap == 0
    assert found.even_gpu_load == Fraction(2 * 4, 5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"deployment": Deployment(4, slots_per_gpu=[1, 3])}, "traffic needs equally many"),
        ({"deployment": Deployment(4, 6, 3, active=[True, True, False])}, "traffic needs all GPUs alive"),
        ({"deployment": Deployment(5, 6, 2)}, "routing has 4 experts; the deployment has 5"),
        ({"placement": Placement([[0, 1, 2, 3]] * 2, 4)}, r"placement has shape \(2, 4\)"),
        ({"placement": Placement([[0, 1, 2, 3, 0, 1]], 4)}, r"placement has shape \(1, 6\)"),
        ({"routing": RoutingTrace([[[0]]], 4, source=[7])}, "source names GPUs 7 to 7; 0 to 1 are there"),
        ({"routing": [[[0]]]}, "RoutingTrace is needed"),
        ({"dispatch": "all"}, "dispatch is 'all'; one of node-dedup, rank-dedup, none"),
        ({"replicas": "nearest"}, "rule is 'nearest'"),
        ({"bounds": []}, "bounds has 0 entries"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, object], says: str) -> None:
    whole = {"routing": RoutingTrace([[[0]]], 4), "placement": Placement([[0, 1, 2, 3]], 4), "deployment": Deployment(4, 4, 2)}
    with pytest.raises(InputError, match=says):
        network_traffic(**{**whole, **change})  # type: ignore[arg-type]
    with pytest.raises(PlacementError, match="expert 3"):
        network_traffic(**{**whole, "placement": Placement([[0, 1, 2, 2]], 4)})  # type: ignore[arg-type]
