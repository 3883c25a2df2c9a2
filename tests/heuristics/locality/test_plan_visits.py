"""Maps for few node visits: against all maps of tiny deployments, within limits, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.heuristics.locality.plan_visits import plan_visits, visit_front
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import check


def routed(seed: int, experts: int, tokens: int = 30, topk: int = 3, skew: float = 0.5) -> RoutingTrace:
    """Return tokens of one layer that prefer some experts."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(experts, 1 / skew)) if skew else np.full(experts, 1 / experts)
    rows = [rng.choice(experts, topk, replace=False, p=(chance + 0.01) / (chance + 0.01).sum()) for _ in range(tokens)]
    return RoutingTrace(np.array(rows)[:, None], experts)


def seen(routing: RoutingTrace, slots: np.ndarray, deployment: Deployment) -> tuple[int, int, int]:
    """Return visits, and the largest loads of a GPU and a node, as the dispatcher makes them."""
    rows = routing.rows(0).astype(np.int64)
    chosen = choose_replicas(rows, slots, deployment, "smallest-cover")
    visits = sum(len(set(row)) for row in (chosen // deployment.slots_per_node).tolist())
    loads = np.bincount(chosen.ravel(), minlength=deployment.num_slots)
    gpus, nodes = (loads.reshape(parts, -1).sum(axis=1) for parts in (deployment.num_gpus, deployment.num_nodes))
    return visits, int(gpus.max()), int(nodes.max())


def limits(routing: RoutingTrace, deployment: Deployment, eps: float) -> tuple[int, int]:
    """Return the most tokens of a GPU and of a node."""
    nodes = Deployment(deployment.num_experts, deployment.num_slots, deployment.num_nodes)
    bounds = [best_joint_bound(Instance.of_layer(routing.loads()[0], each)).value for each in (deployment, nodes)]
    return int(bounds[0] * (1 + Fraction(eps))), int(bounds[1] * (1 + Fraction(eps)))


TINY = [(4, 4, 2, 2), (3, 4, 2, 2), (3, 4, 4, 2), (3, 5, 5, 5), (5, 5, 5, 5), (3, 6, 3, 3)]


def test_tiny_deployments_end_at_the_fewest_visits_of_all_maps() -> None:
    reached = 0
    for seed, (experts, slots, gpus, nodes) in enumerate(TINY):
        routing, deployment = routed(seed, experts, 12, 2), Deployment(experts, slots, gpus, num_nodes=nodes)
        most = limits(routing, deployment, 0.3)
        visits, *loads = seen(routing, plan_visits(routing, deployment, eps=0.3, seconds=0.05).phy2log[0], deployment)
        every = [
            seen(routing, np.array(one), deployment) for one in product(range(experts), repeat=slots) if len(set(one)) == experts
        ]
        best = min((one[0] for one in every if one[1] <= most[0] and one[2] <= most[1]), default=None)
        within = loads[0] <= most[0] and loads[1] <= most[1]
        assert best is None or not within or visits >= best
        reached += within and visits == best if best is not None else not within
    assert reached == len(TINY)


def test_eight_experts_on_two_and_four_nodes_end_at_the_fewest_visits() -> None:
    reached = 0
    for seed, nodes in product(range(3), (2, 4)):
        routing, deployment = routed(seed, 8, 40), Deployment(8, 8, 4, num_nodes=nodes)
        most = limits(routing, deployment, 0.2)
        visits, gpu, node = seen(routing, plan_visits(routing, deployment, eps=0.2, seconds=0.05).phy2log[0], deployment)
        assert gpu <= most[0]
        assert node <= most[1]
        rows, loads, per = routing.rows(0).astype(np.int64), routing.loads()[0], 8 // nodes
        best = 10**9
        for order in permutations(range(8)):
            if order[0] or any(order[i] > order[i + 1] for i in range(0, 8, 2)):  # one order of a GPU, the first expert first
                continue
            home = np.empty(8, dtype=np.int64)
            home[list(order)] = np.arange(8)
            if np.bincount(home // 2, loads).max() <= most[0] and np.bincount(home // per, loads).max() <= most[1]:
                masks = np.bitwise_or.reduce(1 << home[rows] // per, axis=1)
                best = min(best, sum(int((masks >> n & 1).sum()) for n in range(nodes)))
        assert visits >= best
        reached += visits == best
    assert reached == 6


def test_limits_beyond_all_tokens_are_as_good_as_none() -> None:
    routing, deployment = routed(4, 8, 40), Deployment(8, 8, 4, num_nodes=2)
    found = [plan_visits(routing, deployment, eps=eps, seconds=0.01).phy2log.tolist() for eps in (1e6, 1e30, 1e308)]
    assert found[0] == found[1] == found[2]


def test_experts_that_are_asked_together_end_on_one_node() -> None:
    rng = np.random.default_rng(2)
    together = rng.permutation(32).reshape(4, 8)
    rows = np.stack([rng.permutation(together[t % 4])[:4] for t in range(600)])
    routing, deployment = RoutingTrace(rows[:, None], 32), Deployment(32, 32, 8, num_nodes=4)
    found = plan_visits(routing, deployment, eps=0.1, seconds=0.2)
    assert seen(routing, found.phy2log[0], deployment)[0] == 600  # one node a token
    assert seen(routing, rebalance(routing.loads(), deployment).phy2log[0], deployment)[0] > 1200


@pytest.mark.parametrize("slots", [16, 24])
def test_limits_hold_the_front_falls_and_visits_are_fewer(slots: int) -> None:
    routing, deployment = routed(3, 16, 400, 4, 0.3), Deployment(16, slots, 8, num_nodes=4)
    first = rebalance(routing.loads(), deployment)
    start = seen(routing, first.phy2log[0], deployment)[0]
    front = visit_front(routing, deployment, [0.1, 0.2, 0.5], seconds=0.05)
    found = [seen(routing, one.phy2log[0], deployment) for one in front]
    assert start >= found[0][0] >= found[1][0] >= found[2][0]
    assert found[2][0] < start
    for eps, (_, gpu, node) in zip([0.1, 0.2, 0.5], found, strict=True):
        most = limits(routing, deployment, eps)
        assert gpu <= most[0]
        assert node <= most[1]
    assert (plan_visits(routing, deployment, eps=0.1, seconds=0.05).phy2log == front[0].phy2log).all()


def test_a_limit_that_no_map_keeps_leaves_a_map_at_least_as_good_as_the_first() -> None:
    routing, deployment = routed(5, 8, 200, 3, 3.0), Deployment(8, 8, 4, num_nodes=2, duplicates="forbidden")
    worst = Placement([[0, 1, 2, 3, 4, 5, 6, 7]], 8)
    found = plan_visits(routing, deployment, worst, eps=0.0, seconds=0.02)
    check(found, deployment)
    assert seen(routing, found.phy2log[0], deployment)[1] <= seen(routing, worst.phy2log[0], deployment)[1]


@pytest.mark.parametrize("most", [0, 2, 6])
def test_no_more_replicas_move_than_may(most: int) -> None:
    routing, deployment = routed(7, 16, 400, 4, 0.3), Deployment(16, 20, 4, num_nodes=4, duplicates="forbidden")
    in_use = rebalance(routing.loads(), deployment)
    found = plan_visits(routing, deployment, in_use, eps=0.3, max_moves=most, seconds=0.05)
    check(found, deployment)
    assert moved(found, in_use, deployment)[0] <= most
    changed = (found.phy2log != in_use.phy2log).sum()
    assert changed == moved(found, in_use, deployment)[0]  # what stays on its GPU stays in its slot
    assert (seen(routing, found.phy2log[0], deployment)[0] < seen(routing, in_use.phy2log[0], deployment)[0]) == (most > 0)


def test_experts_by_other_names_are_placed_as_well() -> None:
    routing, deployment = routed(11, 12, 300, 3, 0.3), Deployment(12, 12, 6, num_nodes=3)
    names = np.random.default_rng(0).permutation(12)
    other = RoutingTrace(names[routing.experts], 12)
    found = [seen(one, plan_visits(one, deployment, eps=0.2, seconds=0.1).phy2log[0], deployment)[0] for one in (routing, other)]
    assert abs(found[0] - found[1]) <= 0.02 * found[0]


@pytest.mark.parametrize(
    "rows", [[[0]], [[2], [2], [2]], [[0, 1]] * 5, [[0, 1, 2, 3]] * 3], ids=["one token", "one hot", "tied", "all experts"]
)
def test_degenerate_tokens_get_legal_maps(rows: list[list[int]]) -> None:
    routing = RoutingTrace(np.array(rows)[:, None], 4)
    for deployment in (Deployment(4, 4, 4, num_nodes=2), Deployment(4, 8, 4, num_nodes=4), Deployment(4, 4, 1)):
        check(plan_visits(routing, deployment, seconds=0.01), deployment)


def test_what_cannot_be_planned_is_refused() -> None:
    routing, deployment = routed(1, 4, 10, 2), Deployment(4, 4, 2, num_nodes=2)
    legal = Placement([[0, 1, 2, 3]], 4)
    refused = {
        "hierarchical_front": lambda: plan_visits(routing, Deployment(4, 4, 2, num_nodes=2, num_groups=2)),
        "routing has 4 experts; the deployment has 5": lambda: plan_visits(routing, Deployment(5, 6, 2)),
        "at most 24": lambda: plan_visits(routed(1, 25, 10, 2), Deployment(25, 25, 25, num_nodes=25)),
        "needs equally many": lambda: plan_visits(routing, Deployment(4, slots_per_gpu=[1, 3])),
        "initial has 2 layers": lambda: plan_visits(routing, deployment, Placement([[0, 1, 2, 3]] * 2, 4)),
        "eps is nan": lambda: plan_visits(routing, deployment, eps=float("nan")),
        "eps is -0.1": lambda: plan_visits(routing, deployment, eps=-0.1),
        "ascending": lambda: visit_front(routing, deployment, [0.2, 0.1]),
        "max_moves is -1": lambda: plan_visits(routing, deployment, legal, max_moves=-1),
        "seconds is 0": lambda: plan_visits(routing, deployment, seconds=0),
        "seed is True": lambda: plan_visits(routing, deployment, seed=True),
        "routing is": lambda: plan_visits([[0, 1]], deployment),  # type: ignore[arg-type]
    }
    for message, call in refused.items():
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(PlacementError, match="initial: layer 0"):
        plan_visits(routing, deployment, Placement([[0, 1, 2, 2]], 4))
