"""Predicted times: they grow with the imbalance, lie above their bounds on every map, and meet what was published."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.analysis.step_time.predict import imbalance, least_time, map_time, network_seconds, step_time
from eplb_gap.analysis.step_time.profile import PROFILES, Profile, Tiles, read_profile
from eplb_gap.problem import Deployment, InputError, Placement, verify
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.bounds.node_visits import star_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.routing.traffic import Traffic, traffic

NETWORKS = ("deepep-h800-ep16", "deepep-v2-sm100-ep8", "deepep-h800-low-latency-ep32")
HINGED = [name for name in PROFILES if read_profile(name).hinge is not None]


@given(st.sampled_from(HINGED), st.floats(1, 5), st.floats(1, 5))
def test_time_never_falls_with_imbalance_and_is_flat_in_the_dead_zone(name: str, one: float, other: float) -> None:
    profile = read_profile(name)
    less, more = (step_time(profile, r) for r in sorted((one, other)))
    assert less.relative is not None and more.relative is not None and profile.hinge is not None
    assert 1.0 <= less.relative <= more.relative
    assert less.inside_dead_zone == (less.relative == 1.0 and less.imbalance <= profile.hinge.knee)
    if more.inside_dead_zone:
        assert more.relative == less.relative
    if profile.hinge.seconds is None:
        assert less.seconds is None
    else:
        assert less.seconds == pytest.approx(profile.hinge.seconds * less.relative)
    interval = profile.hinge.knee_interval
    assert less.at_knee == (interval is not None and interval[0] < less.imbalance < interval[1])


def test_an_imbalance_between_the_ends_of_the_knee_is_at_its_edge() -> None:
    profile = read_profile("qwen2-57b-ep8-h20")
    edge = [1.08, 1.11]
    assert [r for r in (1.05, 1.06, *edge, 1.121, 1.13) if step_time(profile, r).at_knee] == edge
    assert step_time(profile, 1.08).inside_dead_zone and not step_time(profile, 1.11).inside_dead_zone
    assert not step_time(read_profile("a100"), 1.053).at_knee


def test_no_number_below_one_is_an_imbalance() -> None:
    for wrong in (0.99, float("nan"), float("inf")):
        with pytest.raises(InputError, match="at least 1"):
            step_time(read_profile("deepep-h800-ep16"), wrong)


def test_imbalance_is_the_mean_of_the_layers_that_have_loads() -> None:
    deployment = Deployment(4, 4, 2)
    placement = Placement([[0, 1, 2, 3]] * 3, 4)
    assert imbalance(placement, [[3, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]], deployment) == (1.5 + 1.0) / 2
    assert imbalance(placement, np.zeros((3, 4), int), deployment) == 1.0


@pytest.mark.parametrize("seed", range(30))
def test_no_map_is_faster_than_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(1, 4))
    experts, gpus, topk = 6, 2 * nodes, 3
    deployment = Deployment(experts, int(rng.integers(1, 3)) * 6 * (2 if gpus == 4 else 1), gpus, num_nodes=nodes)
    rows = np.stack([rng.permutation(experts)[:topk] for _ in range(60)])
    loads = np.bincount(rows.ravel(), minlength=experts)[None]
    pairs = np.zeros((experts, experts), int)
    for row in rows:
        pairs[np.ix_(row, row)] += 1
    hinge, network = read_profile("qwen2-57b-ep8-h20").hinge, read_profile(NETWORKS[seed % 3]).network
    assert network is not None
    profile = Profile("p", "s", "m", hinge=hinge, tiles=Tiles(1e6, 4e-6, 8, 1e12), network=network)
    lower = [best_joint_bound(Instance.of_layer(loads[0], deployment)).value]
    places = {"node-dedup": nodes, "rank-dedup": gpus}.get(network.dispatch)
    visits = [Fraction(int(loads.sum())) if places is None else star_bound(pairs, topk, deployment.num_slots, places)]
    bound = least_time(profile, lower, loads, deployment, visits)
    assert bound.expert_seconds is not None and bound.network_seconds is not None and bound.seconds is not None
    for _ in range(10):
        spare = rng.integers(0, experts, deployment.num_slots - experts)
        placement = Placement([rng.permutation([*range(experts), *spare])], experts)
        verify(placement, loads, deployment.as_global())
        chosen = np.array([[rng.choice(np.flatnonzero(placement.phy2log[0] == e)) for e in row] for row in rows])
        layer = traffic(rows, chosen, placement.phy2log[0], deployment, network.dispatch)
        time = map_time(profile, placement, loads, deployment, [layer])
        assert time.expert_seconds is not None and time.network_seconds is not None and time.seconds is not None
        assert time.imbalance >= bound.imbalance * (1 - 1e-12) and time.seconds >= bound.seconds * (1 - 1e-12)
        assert time.expert_seconds >= bound.expert_seconds * (1 - 1e-12)
        assert time.network_seconds >= bound.network_seconds * (1 - 1e-12)
        assert bound.expert_seconds > 0 and bound.network_seconds > 0


def test_tiles_of_a_layer_by_hand() -> None:
    # Read 2 us; tiles of 4 rows 1 us each. GPU 0: 9 rows in three tiles, and a read. GPU 1: 20 / 2 rows twice, three tiles each.
    profile = Profile("p", "s", "m", tiles=Tiles(2.0, 1e-6, 4, 1e6))
    time = map_time(profile, Placement([[0, 1, 2, 2]], 3), [[9, 1, 20]], Deployment(3, 4, 2))
    assert time.expert_seconds == pytest.approx(6e-6)
    assert time.relative is time.seconds is time.inside_dead_zone is time.network_seconds is None
    idle = map_time(profile, Placement([[0, 1, 2, 2]], 3), [[0, 1, 0]], Deployment(3, 4, 2))
    assert idle.expert_seconds == pytest.approx(2e-6)


def test_network_of_a_layer_by_hand() -> None:
    network = read_profile("deepep-h800-ep16").network
    assert network is not None and network.rdma_bytes_per_second is not None and network.nvlink_bytes_per_second is not None
    network = replace(network, latency_seconds=1e-6, combine_factor=2.0)
    deployment = Deployment(4, 4, 4, num_nodes=2)
    rows = np.array([[0], [0], [0], [3]])
    layer = traffic(rows, rows, np.arange(4), deployment, "node-dedup", source=np.array([2, 2, 0, 3]))
    # Two copies from GPU 2 into node 0, whose two cards share them; what a GPU gets or sends beside that is over NVLink.
    assert layer.busiest_node == 2 and max(layer.into_gpus) == 2 and max(layer.out_of_gpus) == 2
    per_way = max(1 / network.rdma_bytes_per_second, 1 / network.nvlink_bytes_per_second) * network.bytes_per_copy
    assert network_seconds(network, layer) == pytest.approx(2e-6 + 3 * per_way)


@pytest.mark.parametrize("seed", range(8))
def test_one_link_a_gpu_is_waited_for_in_its_fuller_direction_both_ways(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = read_profile(NETWORKS[1 + seed % 2]).network
    assert network is not None
    bandwidth = network.nvlink_bytes_per_second or network.rdma_bytes_per_second
    assert bandwidth is not None
    deployment = Deployment(8, 8, 4)
    rows = np.stack([rng.permutation(8)[:3] for _ in range(20)])
    source = np.minimum(rng.integers(0, 12, 20), 3)  # most tokens are on the last GPU
    copies = [(int(s), int(e) // 2) for row, s in zip(rows, source, strict=True) for e in row]
    if network.dispatch == "rank-dedup":
        copies = [(int(s), g) for row, s in zip(rows, source, strict=True) for g in {int(e) // 2 for e in row}]

    def slowest(sent: list[tuple[int, int]], size: float) -> float:
        links = Counter(end for s, g in sent if s != g for end in (("out", s), ("in", g)))
        return size * max(links.values()) / bandwidth

    size = network.bytes_per_copy
    expected = slowest(copies, size) + slowest([(g, s) for s, g in copies], network.combine_factor * size)
    layer = traffic(rows, rows, np.arange(8), deployment, network.dispatch, source)
    assert network_seconds(network, layer) == pytest.approx(expected)
    # What one direction alone would have said of the dispatch is less.
    assert max(layer.into_gpus) < max(layer.out_of_gpus)


@pytest.mark.parametrize("name", NETWORKS[1:])
def test_the_bound_on_one_link_is_reached_by_even_loads(name: str) -> None:
    profile, deployment, rows = Profile("p", "s", "m", network=read_profile(name).network), Deployment(4, 4, 4), np.arange(8) % 4
    assert profile.network is not None
    layer = traffic(rows[:, None], rows[:, None], np.arange(4), deployment, profile.network.dispatch)
    bound = least_time(profile, [Fraction(2)], [[2] * 4], deployment, [Fraction(8)])
    assert bound.network_seconds == pytest.approx(network_seconds(profile.network, layer))


@pytest.mark.parametrize(
    ("name", "gpus", "dispatch"), [("deepep-h800-low-latency-ep32", 32, 155e-6), ("deepep-h800-low-latency-ep128", 128, 192e-6)]
)
def test_the_published_times_of_the_low_latency_kernels_are_met(name: str, gpus: int, dispatch: float) -> None:
    # 128 tokens a GPU to 8 experts each, spread evenly: every GPU gets as many copies as it sends, and keeps its own part.
    network = read_profile(name).network
    assert network is not None
    copies = (128 * 8 * (1 - Fraction(1, gpus)),) * gpus
    layer = Traffic(128 * gpus, 128 * gpus, 128 * gpus, (Fraction(0),), (Fraction(0),), copies, copies, (128 * 8,) * gpus)
    assert network_seconds(replace(network, combine_factor=1.0), layer) == pytest.approx(2 * dispatch, rel=0.03)


@pytest.mark.parametrize(("gpus", "nodes", "bandwidth"), [(16, 2, 43e9), (32, 4, 58e9), (64, 8, 51e9)])
def test_the_published_bandwidth_is_met_and_the_cards_are_what_limits(gpus: int, nodes: int, bandwidth: float) -> None:
    # As its test does: tokens to the best 8 of the experts of 4 nodes at most, a visit to the token's own node counted as sent.
    scores = np.random.default_rng(gpus).random((2048, nodes, 256 // nodes))
    best = np.argsort(-scores.max(axis=2), axis=1)[:, :4]
    allowed = np.zeros((2048, nodes, 1), dtype=bool)
    np.put_along_axis(allowed[..., 0], best, True, axis=1)
    rows = np.argsort(-np.where(allowed, scores, -1.0).reshape(2048, 256), axis=1)[:, :8]
    layer = traffic(rows, rows, np.arange(256), Deployment(256, 256, gpus, num_nodes=nodes), "node-dedup")
    network = read_profile(f"deepep-h800-ep{gpus}").network
    assert network is not None
    published = layer.node_visits / gpus * network.bytes_per_copy / bandwidth
    assert network_seconds(replace(network, combine_factor=1.0), layer) == pytest.approx(2 * published, rel=0.05)


def test_the_published_times_of_the_grouped_kernel_are_met() -> None:
    # Eight experts, with as many rows each.
    profile = read_profile("deepgemm-fp8-sm90")
    for rows, microseconds in ((1, 240), (8, 240), (256, 512), (512, 925), (1024, 1884), (2048, 3643)):
        time = map_time(profile, Placement([range(8)], 8), [[rows] * 8], Deployment(8, 8, 1))
        assert time.expert_seconds == pytest.approx(microseconds * 1e-6, rel=0.1)


def test_the_time_bound_needs_every_layer() -> None:
    profile, deployment = read_profile("deepep-h800-ep16"), Deployment(4, 4, 4, num_nodes=2)
    with pytest.raises(InputError, match="makespans has 1 layers, loads 2"):
        least_time(profile, [Fraction(1)], np.ones((2, 4), int), deployment)
    with pytest.raises(InputError, match="visits has 1 layers, loads 2"):
        least_time(profile, [Fraction(1)] * 2, np.ones((2, 4), int), deployment, [Fraction(1)])
    assert least_time(profile, [Fraction(1)] * 2, np.ones((2, 4), int), deployment).network_seconds is None
