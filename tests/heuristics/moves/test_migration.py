"""Maps within a number of moves: never over the budget, always legal, better with more; and the fronts they are chosen from."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.group_exchange import exchange_groups
from eplb_gap.heuristics.moves.migration import break_even, front, replan
from eplb_gap.heuristics.moves.move_budget import Fronts, divide_moves, fronts_of, worth_searching
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.metrics import duplicates

pytestmark = pytest.mark.usefixtures("short_plans")

SHAPES = [
    Deployment(5, 8, 4),
    Deployment(6, 9, 3),
    Deployment(6, 6, 3),
    Deployment(4, 8, 1),
    Deployment(3, 12, 4),
    Deployment(12, 16, 4, duplicates="forbidden"),
    Deployment(8, 12, 6, num_nodes=2, num_groups=4),
    Deployment(8, 16, 4, num_nodes=2, num_groups=2),
    Deployment(12, 24, 6, num_nodes=3, num_groups=6, duplicates="forbidden"),
    Deployment(12, 18, 6, num_nodes=3, num_groups=12),
]
LAYERS = 2


@st.composite
def problems(draw):
    deployment = draw(st.sampled_from(SHAPES))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    drift = draw(st.sampled_from([0.1, 1.0]))
    log = generator.normal(size=(2, LAYERS, deployment.num_experts))
    log[1] = log[0] + drift * log[1]
    old, loads = np.rint(100 * np.exp(log)).astype(np.int64)
    return loads, deployment, rebalance(old, deployment)


@settings(max_examples=20)
@given(problems(), st.integers(0, 12), st.integers(0, 30))
def test_never_over_a_budget_always_legal_and_never_worse_than_the_map_in_use(problem, per_layer, total):
    loads, deployment, previous = problem
    before = verify(previous, loads, deployment)
    for found, limit, whole in (
        (replan(loads, deployment, previous, max_moves=per_layer), per_layer, LAYERS * per_layer),
        (replan(loads, deployment, previous, total_moves=total), total, total),
        (replan(loads, deployment, previous, per_layer, total), per_layer, total),
        (replan(loads, deployment, previous, per_layer, total, cost_per_move=0.2), per_layer, total),
    ):
        moves = moved(found, previous, deployment)
        assert (moves <= limit).all()
        assert moves.sum() <= whole
        # Only what moves changes its slot.
        assert ((found.phy2log != previous.phy2log).sum(axis=1) == moves).all()
        assert all(new <= old for new, old in zip(verify(found, loads, deployment), before, strict=True))


@settings(max_examples=20)
@given(problems())
def test_fronts_are_what_budgets_lead_to_and_end_no_worse_than_a_full_plan(problem):
    loads, deployment, previous = problem
    fronts = front(loads, deployment, previous)
    assert [points[0] for points in fronts] == [(0, pytest.approx(float(v))) for v in verify(previous, loads, deployment)]
    for points in fronts:
        for (moves, makespan), (more, less) in pairwise(points):
            assert moves < more
            assert makespan > less
    for budget in (1, 2, 5):
        got = verify(replan(loads, deployment, previous, max_moves=budget), loads, deployment)
        for value, points in zip(got, fronts, strict=True):
            # A search that may go further takes other ways as well, never fewer.
            assert float(value) == pytest.approx(min(makespan for moves, makespan in points if moves <= budget))
    unlimited = verify(replan(loads, deployment, previous), loads, deployment)
    assert [float(v) for v in unlimited] == [pytest.approx(points[-1][1]) for points in fronts]
    full = verify(rebalance(loads, deployment), loads, deployment)
    assert all(float(value) <= float(limit) * (1 + 1e-9) for value, limit in zip(unlimited, full, strict=True))


@settings(max_examples=15)
@given(problems())
def test_no_budget_leaves_the_map_in_use_and_a_larger_one_is_never_worse(problem):
    loads, deployment, previous = problem
    for none in ({"max_moves": 0}, {"total_moves": 0}, {"threshold": 2.0}):
        still = replan(loads, deployment, previous, **none)
        assert (still.phy2log == previous.phy2log).all()
        assert (still.ranks == previous.ranks).all()
    sums = [float(sum(verify(replan(loads, deployment, previous, None, t), loads, deployment))) for t in (0, 1, 2, 4, 9, 99)]
    assert all(more <= less * (1 + 1e-9) for less, more in pairwise(sums))


@settings(max_examples=30)
@given(problems(), st.sampled_from([0.02, 0.1, 0.3]))
def test_layers_gain_the_threshold_or_stay(problem, threshold):
    loads, deployment, previous = problem
    found = replan(loads, deployment, previous, threshold=threshold)
    before, after = (verify(placement, loads, deployment) for placement in (previous, found))
    moves = moved(found, previous, deployment)
    for old, new, moved_here in zip(before, after, moves, strict=True):
        assert not moved_here or float(old - new) >= float(old) * threshold * (1 - 1e-9)


@settings(max_examples=20)
@given(problems(), st.sampled_from([1e-200, 0.25, 1e200]))
def test_the_unit_of_the_loads_changes_nothing(problem, unit):
    loads, deployment, previous = problem
    found = replan(loads, deployment, previous, total_moves=8).phy2log
    # A power of two is exact; others only round.
    if unit == 0.25:
        assert (replan(loads * unit, deployment, previous, total_moves=8).phy2log == found).all()
    else:
        scaled = replan(loads * unit, deployment, previous, total_moves=8)
        assert float(sum(verify(scaled, loads, deployment))) == pytest.approx(
            float(sum(verify(Placement(found, deployment.num_experts), loads, deployment))), rel=1e-6
        )


@settings(max_examples=20)
@given(problems())
def test_no_new_duplicates(problem):
    loads, deployment, previous = problem
    if (duplicates(previous, deployment.num_gpus) == 0).all():
        for budget in (1, 3, None):
            assert (duplicates(replan(loads, deployment, previous, max_moves=budget), deployment.num_gpus) == 0).all()


def test_one_replica_of_a_hot_expert_by_hand():
    deployment = Deployment(4, 6, 3)
    previous = Placement([[0, 1, 2, 3, 1, 3]], 4)
    loads = [[90, 20, 20, 20]]  # GPUs: 90 + 10, 20 + 10, 10 + 10; with 0 in place of the last 3: 45 + 10, 20 + 20, 10 + 45
    assert front(loads, deployment, previous)[0][:2] == [(0, 100.0), (1, pytest.approx(55.0))]
    found = replan(loads, deployment, previous, max_moves=1)
    assert found.phy2log.tolist() == [[0, 1, 2, 3, 1, 0]]
    assert verify(found, loads, deployment) == [Fraction(55)]
    assert moved(found, previous, deployment).tolist() == [1]


def test_a_shared_budget_goes_where_it_gains_most():
    deployment = Deployment(4, 6, 3)
    previous = Placement([[0, 1, 2, 3, 1, 3]] * 2, 4)
    loads = [[9, 2, 2, 2], [90, 20, 20, 20]]
    assert moved(replan(loads, deployment, previous, total_moves=1), previous, deployment).tolist() == [0, 1]


def test_groups_change_nodes_where_that_is_what_is_needed():
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=4)
    loads = np.array([[10, 10, 10, 10, 1, 1, 1, 1]])
    previous = Placement([[0, 1, 2, 3, 4, 5, 6, 7]], 8)
    items = previous.phy2log[0].copy()
    assert exchange_groups(loads[0].astype(float), items, 4, 2, 4)
    assert verify(Placement([items], 8), loads, replace(deployment, duplicates="forbidden"))
    # Four replicas change their node, and on each of the nodes one makes room so that no two large ones meet.
    assert front(loads, deployment, previous)[0] == [(0, 20.0), (6, 11.0)]
    assert moved(replan(loads, deployment, previous, max_moves=5), previous, deployment).tolist() == [0]


def test_exchanged_groups_are_legal_and_lower_the_fullest_node():
    deployment = Deployment(24, 36, 12, num_nodes=3, num_groups=6, duplicates="forbidden")
    made = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        old, loads = np.rint(100 * np.exp(generator.normal(size=(2, 1, 24)))).astype(np.int64)
        items = rebalance(old, deployment).phy2log[0].copy()
        nodes = [loads[0, np.unique(row)].sum() for row in items.reshape(3, -1)]
        if exchange_groups(loads[0].astype(float), items, 12, 3, 6):
            made += 1
            verify(Placement([items], 24), loads, deployment)
            after = [loads[0, np.unique(row)].sum() for row in items.reshape(3, -1)]
            assert sorted(after, reverse=True) < sorted(nodes, reverse=True)
    assert made > 10


def random_fronts(generator: np.random.Generator, layers: int, forced: int = 0) -> Fronts:
    fronts = Fronts(np.empty((layers, 5), np.int64), np.empty((layers, 5)), generator.integers(1, 6, layers))
    for layer, size in enumerate(fronts.sizes):
        fronts.moves[layer, :size] = forced + np.append(0, np.sort(generator.choice(np.arange(1, 9), size - 1, replace=False)))
        fronts.costs[layer, :size] = np.sort(generator.choice(50, size, replace=False))[::-1]
    return fronts


def sums_within(fronts: Fronts, total: int) -> dict[tuple[int, ...], float]:
    """Return what every division of the moves costs, by points."""
    layers = range(len(fronts.sizes))
    return {
        points: sum(float(fronts.costs[layer, points[layer]]) for layer in layers)
        for points in product(*(range(size) for size in fronts.sizes))
        if sum(int(fronts.moves[layer, points[layer]] - fronts.moves[layer, 0]) for layer in layers) <= total
    }


@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 2))
def test_the_allocation_is_the_best_one(seed, total, forced):
    fronts = random_fronts(np.random.default_rng(seed), 3, forced)
    chosen, least = divide_moves(fronts, total)
    sums = sums_within(fronts, total)
    assert sums[tuple(chosen.tolist())] == min(sums.values()) == least[-1]
    for within, cost in enumerate(least.tolist()):
        assert cost == min(sums_within(fronts, within).values())


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([0.0, 0.5, 3.0]))
def test_a_point_that_could_improve_the_division_is_worth_searching(seed, total, cost_per_move):
    generator = np.random.default_rng(seed)
    fronts = random_fronts(generator, 3)
    makespans = np.full((3, 12), np.inf)
    for layer, size in enumerate(fronts.sizes):
        makespans[layer, fronts.moves[layer, :size]] = fronts.costs[layer, :size]
    fronts = fronts_of(makespans, np.ones(3), 0.0, cost_per_move)
    _, least = divide_moves(fronts, total)
    last = fronts.moves[np.arange(3), fronts.sizes - 1]
    costs = fronts.costs[np.arange(3), fronts.sizes - 1] - cost_per_move * last
    bounds = np.maximum(costs - generator.integers(1, 20, 3), 0.0)
    worth = np.empty(3, np.int64)
    others = generator.choice([0, 5, 100], 3)  # all of another kind, some, none: each kind has the same bound here
    worth_searching(*fronts, least, total, last, bounds, others, bounds, cost_per_move, worth)
    for layer, moves in product(range(3), range(1, 12)):
        if moves <= last[layer]:
            continue
        size = fronts.sizes[layer]
        more = Fronts(*(np.pad(array, ((0, 0), (0, 1))) for array in fronts[:2]), fronts.sizes + (np.arange(3) == layer))
        more.moves[layer, size], more.costs[layer, size] = moves, bounds[layer] + cost_per_move * moves
        if divide_moves(more, total)[1][-1] < least[-1]:
            assert worth[layer] >= moves


@pytest.mark.parametrize("nodes", [1, 4])
def test_fronts_searched_in_part_are_divided_as_whole_ones_are(nodes):
    deployment = Deployment(64, 80, 16, num_nodes=nodes, num_groups=2 * nodes if nodes > 1 else 1)
    losses = []
    for seed in range(8):
        log = np.random.default_rng(seed).normal(size=(2, 6, 64))
        old, loads = np.rint(1000 * np.exp(np.array([log[0], log[0] + 0.3 * log[1]]))).astype(np.int64)
        previous = rebalance(old, deployment)
        fronts = front(loads, deployment, previous)
        width = max(map(len, fronts))
        padded = np.array([points + [(0, 0.0)] * (width - len(points)) for points in fronts])
        whole = Fronts(padded[..., 0].astype(np.int64), padded[..., 1].copy(), np.array([len(points) for points in fronts]))
        for total in (4, 15, 48, 200):
            best = divide_moves(whole, total)[1][-1]
            found = float(sum(verify(replan(loads, deployment, previous, total_moves=total), loads, deployment)))
            losses.append(found / best - 1)
    assert max(map(abs, losses)) < 1e-12


def test_break_even_by_hand():
    fronts = [[(0, 100.0), (1, 90.0), (5, 80.0)], [(0, 50.0), (2, 49.0)]]
    assert break_even(fronts, 0.0) == [(5, 80.0), (2, 49.0)]
    assert break_even(fronts, 2.0) == [(5, 80.0), (0, 50.0)]
    assert break_even(fronts, 3.0) == [(1, 90.0), (0, 50.0)]
    assert break_even(fronts, 11.0) == [(0, 100.0), (0, 50.0)]
    assert break_even(fronts, 11.0, horizon=10.0) == [(5, 80.0), (0, 50.0)]


def test_moves_of_the_break_even_can_be_given_layer_by_layer():
    deployment = Deployment(12, 18, 6)
    generator = np.random.default_rng(0)
    old, loads = np.rint(1000 * np.exp(generator.normal(size=(2, 4, 12)))).astype(np.int64)
    previous = rebalance(old, deployment)
    points = break_even(front(loads, deployment, previous), 60.0)
    found = replan(loads, deployment, previous, max_moves=[moves for moves, _ in points])
    assert len({moves for moves, _ in points}) > 1
    assert [float(v) for v in verify(found, loads, deployment)] == [pytest.approx(makespan) for _, makespan in points]


@settings(max_examples=20)
@given(problems(), st.sampled_from([0.5, 3.0, 20.0]))
def test_a_cost_per_move_leads_to_the_break_even(problem, cost):
    loads, deployment, previous = problem
    assume(deployment.policy == "global")  # groups are exchanged at less than the cost of their moves
    points = break_even(front(loads, deployment, previous), cost)
    for limit in (None, 1000):
        found = replan(loads, deployment, previous, total_moves=limit, cost_per_move=cost)
        paid = [float(v) for v in verify(found, loads, deployment)] + cost * moved(found, previous, deployment)
        # A budget's search is cut off by a hope; a whole one is not.
        if limit is None:
            assert paid == pytest.approx([makespan + cost * moves for moves, makespan in points])
        assert (paid <= [float(v) * (1 + 1e-9) for v in verify(previous, loads, deployment)]).all()


def test_groups_are_exchanged_at_a_part_of_their_cost():
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=4)
    loads = np.array([[10, 10, 10, 10, 1, 1, 1, 1]] * 2)
    previous = Placement([[0, 1, 2, 3, 4, 5, 6, 7]] * 2, 8)

    def moves(cost: float, **limits: int) -> list[int]:
        return moved(replan(loads, deployment, previous, cost_per_move=cost, **limits), previous, deployment).tolist()

    # The four replicas of two groups take 9 from each GPU of the fuller node, at three times as much 6.75 a move. But the fullest
    # GPU needs two more moves, at their full cost, to lose 9: beyond 4.5 a move nothing is gained and all stays.
    assert [moves(cost) for cost in (1.0, 4.4, 4.6, 9.1)] == [[6, 6], [6, 6], [0, 0], [0, 0]]
    assert sorted(moves(1.0, total_moves=11)) == [0, 6]
    assert moves(1.0, max_moves=3) == [0, 0]
    assert previous.phy2log.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]] * 2


def test_idle_layers_stay():
    deployment = Deployment(5, 8, 4)
    previous = rebalance([[5, 4, 3, 2, 1]], deployment)
    assert (replan(np.zeros((1, 5)), deployment, previous).phy2log == previous.phy2log).all()
    assert front(np.zeros((1, 5)), deployment, previous) == [[(0, 0.0)]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"max_moves": -1}, InputError, "max_moves is -1; an integer of at least 0"),
        ({"max_moves": 1.5}, InputError, "max_moves is 1.5"),
        ({"max_moves": True}, InputError, "max_moves is True"),
        ({"max_moves": [1, 2]}, InputError, "max_moves has 2 entries; one for all or for each of the 1 layers"),
        ({"max_moves": [-2]}, InputError, r"max_moves\[0\] is -2"),
        ({"total_moves": -3}, InputError, "total_moves is -3"),
        ({"threshold": -0.1}, InputError, "threshold is -0.1"),
        ({"cost_per_move": -1.0}, InputError, "cost_per_move is -1.0; a finite number of at least 0"),
        ({"threshold": float("nan")}, InputError, "threshold is nan"),
        ({"previous": Placement([[0, 1, 2]], 3)}, InputError, "previous has 3 slots and 3 experts; the deployment has 4 and 4"),
        ({"previous": Placement([[0, 1, 2, 2]], 4)}, PlacementError, "previous: layer 0: expert 3 has no replica"),
        ({"previous": Placement([[0, 1, 2, 9]], 4)}, PlacementError, "previous: layer 0, slot 3: expert 9 does not exist"),
        ({"previous": Placement([[0, 2, 1, 3]], 4)}, PlacementError, "previous: layer 0, slot .*hierarchical"),
        ({"loads": [[1, 2, 3]]}, InputError, r"loads has shape \(1, 3\)"),
        ({"loads": [[1, 2, 3, 4], [1, 2, 3, 4]]}, InputError, r"loads has shape \(2, 4\)"),
        ({"loads": [[1, 2, -3, 4]]}, InputError, r"loads\[0, 2\] is -3"),
    ],
)
def test_what_cannot_be_is_one_clear_error(change, error, message):
    deployment = Deployment(4, 4, 2, num_nodes=2, num_groups=2)
    arguments = {"loads": [[4, 3, 2, 1]], "deployment": deployment, "previous": Placement([[0, 1, 2, 3]], 4), **change}
    with pytest.raises(error, match=message):
        replan(**arguments)
    with pytest.raises(InputError, match="cost_per_move is -1"):
        break_even([[(0, 1.0)]], -1)
