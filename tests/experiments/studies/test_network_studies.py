"""Studies of ``bench network``: what is planned and served, counts against a slow count, fronts and comparisons by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eplb_gap.experiments.loads import public_routing as public_loads
from eplb_gap.experiments.loads.routing_sample import PLANNED, other_phases, parts, same_phase, sample
from eplb_gap.experiments.measuring.rows import Row, Rows
from eplb_gap.experiments.measuring.statistics import Interval
from eplb_gap.experiments.measuring.visit_figures import fullest, per_token
from eplb_gap.experiments.measuring.visits import SERVED, best_bound, served
from eplb_gap.experiments.studies import (
    node_visits,
    policy_times,
    predicted_layers,
    public_routing,
    schema,
    time_answers,
    timed_maps,
    visit_front,
)
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace


def test_the_parts_are_the_sample_in_order_and_phases_hold_their_own_steps():
    found, every = parts(), sample()
    assert sum(len(part.experts) for part in found.values()) == len(every.experts)
    assert (np.concatenate([part.step for part in found.values()]) == every.step).all()
    assert list(found) == [PLANNED, "stable", "slow drift", "abrupt change", "mixed"]
    assert (same_phase(), other_phases()) == ("stable", ("slow drift", "abrupt change", "mixed"))
    assert {name: (int(part.step.min()), int(part.step.max())) for name, part in found.items()} == {
        PLANNED: (0, 270),
        "stable": (300, 480),
        "slow drift": (510, 870),
        "abrupt change": (900, 990),
        "mixed": (1020, 1170),
    }


@pytest.fixture(scope="module")
def small():
    """Twelve experts on three nodes of two GPUs, three of them twice; two parts of random tokens, two layers."""
    random = np.random.default_rng(4)
    deployment = Deployment(12, 18, 6, 3)
    maps = np.stack([random.permutation(np.r_[np.arange(12), random.choice(12, 6, replace=False)]) for _ in range(2)])
    draw = lambda tokens: np.array([[random.choice(12, 3, replace=False) for _ in range(2)] for _ in range(tokens)])  # noqa: E731
    return Placement(maps, 12), {name: RoutingTrace(draw(n), 12) for name, n in (("one", 40), ("two", 25))}, deployment


def slowest_cover(row: np.ndarray, phy2log: np.ndarray, deployment: Deployment) -> int:
    """Count the nodes of the smallest set that holds every expert of a token, by trying all sets."""
    held = [set(phy2log[n * 6 : (n + 1) * 6].tolist()) for n in range(deployment.num_nodes)]
    sets = (nodes for size in range(1, 4) for nodes in itertools.combinations(range(3), size))
    return next(len(nodes) for nodes in sets if set(row.tolist()) <= set().union(*(held[n] for n in nodes)))


def test_what_a_row_says_of_a_map_is_what_a_slow_count_finds(small):
    placement, by_part, deployment = small
    found = served(placement, by_part, deployment)
    assert found.keys() == SERVED.keys()
    for name, routing in by_part.items():
        assert found["tokens"][name] == len(routing.experts)
        for layer, phy2log in enumerate(placement.phy2log):
            counted = sum(slowest_cover(row, phy2log, deployment) for row in routing.rows(layer))
            assert found["visits"][name][layer] == counted <= found["hashed_visits"][name][layer]
            shares = routing.loads()[layer] / np.bincount(phy2log)
            gpus = shares[phy2log].reshape(6, 3).sum(axis=1)
            assert found["even_gpu_load"][name][layer] == pytest.approx(gpus.max() / gpus.mean())
            nodes = gpus.reshape(3, 2).sum(axis=1)
            assert found["even_node_load"][name][layer] == pytest.approx(nodes.max() / nodes.mean())
            assert 1 <= found["node_load"][name][layer] <= 3
            assert best_bound(routing, layer, deployment, 0.05)[0] <= counted
    row = Row(found)
    weighted = [(a + b) / 65 for a, b in zip(found["visits"]["one"], found["visits"]["two"], strict=True)]
    assert per_token(row, "one", "two") == pytest.approx(weighted)
    loads = [np.mean(found["gpu_load"][name]) for name in ("one", "two")]
    assert fullest(row, "one", "two", field="gpu_load") == pytest.approx((40 * loads[0] + 25 * loads[1]) / 65)


def visits_row(method: str, planned: float, same: float, others: float, load: float) -> Row:
    """A row of 4 nodes whose layers are alike."""
    per = {PLANNED: planned, same_phase(): same, **dict.fromkeys(other_phases(), others)}
    fields = {name: dict.fromkeys(per, [load] * node_visits.LAYERS) for name in ("node_load", "even_node_load")}
    visits = {name: [round(100 * value)] * node_visits.LAYERS for name, value in per.items()}
    tokens = dict.fromkeys(per, 100)
    at = {"suite": node_visits.SUITE, "seed": 0, "method": method, "tokens": tokens, "visits": visits, **fields}
    return Row(at, instance=node_visits.name_of(4, 0))


def judged(monkeypatch, *, ours: tuple[float, float, float], load: float = 1.04, bound: str = "190/1") -> list[str]:
    """Return whether each level of 4 nodes is met; balance alone has 3 visits everywhere."""
    monkeypatch.setattr(node_visits, "SHAPES", ((4, 0),))
    low = [
        Row(
            suite=node_visits.SUITE,
            instance=f"{node_visits.name_of(4, 0)}, layer {layer}",
            method=node_visits.BOUND,
            seed=0,
            visit_bound=bound,
            status="star",
            parameters={"tokens": 100},
        )
        for layer in range(node_visits.LAYERS)
    ]
    rows = Rows([visits_row("fast", 3, 3, 3, 1.0), visits_row("visits", *ours, load), *low])
    return [line[3] for line in node_visits.levels(rows)]


def test_levels_of_visits_are_met_and_missed_each_for_its_own_reason(monkeypatch):
    assert judged(monkeypatch, ours=(2, 2, 2.05)) == ["yes", "yes", "yes", "yes"]
    assert judged(monkeypatch, ours=(2, 2, 2.05), load=1.06) == ["no", "yes", "yes", "yes"]
    assert judged(monkeypatch, ours=(2.5, 2.5, 2.5)) == ["no", "yes", "yes", "no"]
    assert judged(monkeypatch, ours=(2, 2.1, 2.1)) == ["yes", "no", "no", "yes"]
    assert judged(monkeypatch, ours=(2, 2, 2), bound="170/1") == ["yes", "yes", "yes", "no"]


def test_layers_and_phases_that_differ_in_opposite_ways_do_not_cancel():
    row = visits_row("visits", 2, 2, 2, 1.0)
    first, second, _ = other_phases()
    row["visits"][first] = [190, 210] * (node_visits.LAYERS // 2)
    row["visits"][second] = [196] * node_visits.LAYERS
    assert node_visits.farthest(Rows([row]), (4, 0), *other_phases()) == pytest.approx((0.05, first))


def test_a_step_is_predicted_by_itself():
    """Two steps whose tokens all go to one GPU each: in their sum both GPUs would have half."""
    network, deployment, phy2log = predicted_layers.NETWORKS[1], Deployment(2, 2, 2), np.arange(2)
    experts, steps = np.repeat([[0], [1]], 64, axis=0), np.repeat([0, 1], 64)
    apart = predicted_layers.step_seconds(network, experts, experts, steps, phy2log, deployment)
    together = predicted_layers.step_seconds(network, experts, experts, np.zeros(128, dtype=int), phy2log, deployment)
    assert apart == pytest.approx((2 * together[0], 2 * together[1]))
    assert apart[0] == pytest.approx(64 * 29.15e-6)  # 2 x 4096 tokens on one GPU, 128 a tile


def test_an_answer_is_what_its_interval_shows():
    said = [time_answers.shown(Interval(*ends)) for ends in ((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05), (0.1, -0.1, 0.2))]
    assert said == ["yes", "no", "not shown"]


def point(load: float, visits: float, **seconds: float) -> dict[str, object]:
    tokens = {name: len(part.experts) for name, part in parts().items()}
    of_part = {name: [seconds.get("experts", 1.0), 1.0] for name in tokens}
    times = {network.profile: of_part for network in predicted_layers.NETWORKS}
    whole = {name: visits * n for name, n in tokens.items()}
    return {"map": "", "gpu_load": dict.fromkeys(tokens, load), "visits": whole, "predicted": times}


def test_the_front_of_all_layers_is_that_of_all_combinations():
    random = np.random.default_rng(1)
    layers = [[point(*pair) for pair in random.integers(1, 9, (4, 2)).tolist()] for _ in range(3)]
    combined = [
        (float(np.mean([p["gpu_load"][PLANNED] for p in chosen])), visit_front.mean_visits(list(chosen), (PLANNED,)))
        for chosen in itertools.product(*layers)
    ]
    best = sorted({p for p in combined if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in combined)})
    assert np.allclose(visit_front.front(layers), best)


def test_a_policy_wins_where_its_interval_says_so():
    winners = [policy_times.winner(Interval(*ends)) for ends in ((0.1, 0.05, 0.2), (-0.1, -0.2, -0.05), (0.1, -0.1, 0.2))]
    assert winners == ["global", "hierarchical", "neither"]
    rows = Rows(
        Row(
            suite=visit_front.SUITE,
            instance=visit_front.name_of(policy),
            method=method,
            points=[[point(1.0, 2.0, experts=experts)] for _ in range(visit_front.LAYERS)],
        )
        for policy, method, experts in (("global", "fast", 4.0), ("global", "eps 0.05", 2.0), ("hierarchical", "fast", 3.5))
    )
    found = policy_times.longer(rows, predicted_layers.NETWORKS[0].profile, other_phases())
    assert found == pytest.approx((0.5, 0.5, 0.5))  # 4.5 against the quicker of the global maps, 3


def test_rows_of_other_profiles_do_not_count_as_done(monkeypatch):
    before = visit_front.cells()[0].arguments
    monkeypatch.setattr(predicted_layers, "TILES", "tile-32-rows")
    assert visit_front.cells()[0].arguments != before


def test_the_published_maps_are_predicted_by_a_hinge_and_not_by_a_line():
    row = Row(timed_maps.fitted_cell(), suite=timed_maps.SUITE, instance=timed_maps.NAME)
    assert timed_maps.levels(Rows([row]))[0][3] == "yes"
    row["left_out"] = row["left_out_line"]
    assert timed_maps.levels(Rows([row]))[0][3] == "no"


def test_without_the_public_file_every_row_says_so_and_has_its_shape(monkeypatch):
    monkeypatch.delenv(public_routing.VARIABLE, raising=False)
    rows = Rows(Row(cell.function(**cell.arguments), **cell.key._asdict()) for cell in public_routing.cells())
    assert {row["status"] for row in rows} == {public_routing.NOT_GIVEN}
    assert public_routing.table(rows).endswith(f"{public_routing.NOT_GIVEN}.\n")
    common = {"versions": {}, "revision": "", "cpu": "", "cores": 1, "timestamp": ""}
    times = {"cell_wall_seconds": 0.0, "cell_cpu_seconds": 0.0}
    assert [problem for row in rows for problem in schema.problems(Row(row, **common, **times))] == []


def test_public_routing_is_cut_by_requests_and_stepped_through_together(tmp_path):
    file = tmp_path / public_loads.ROUTED
    file.parent.mkdir()
    experts = np.array([[[i % 30, 30]] for i in range(7)])
    np.savez(file, routed_experts=experts, offsets=np.array([0, 3, 5, 7]))
    found = public_loads.public_parts(tmp_path)
    assert found[public_loads.PLANNED].experts[:, 0, 0].tolist() == [0, 1, 2, 5, 6]
    assert found[public_loads.OTHERS].experts[:, 0, 0].tolist() == [3, 4]
    together = public_loads.in_lock_step(found[public_loads.PLANNED])
    assert together.experts[:, 0, 0].tolist() == [0, 5, 1, 6, 2]
    assert together.step.tolist() == [0, 0, 1, 1, 2]
    np.savez(file, routed_experts=experts, offsets=np.array([0, 3, 3, 7]))
    public_loads.public_routing.cache_clear()
    with pytest.raises(InputError, match=r"routed_experts.*rising offsets"):
        public_loads.public_routing(tmp_path)
