"""The front of visits and makespan under the hierarchical policy: every legal map of tiny deployments is asked."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import legal_layers, makespans
from eplb_gap.solvers.locality import hierarchical_front as module
from eplb_gap.solvers.locality.hierarchical_front import hierarchical_front, partitions

TINY = [
    Deployment(4, 4, 4, num_nodes=2, num_groups=4),
    Deployment(4, 6, 2, num_nodes=2, num_groups=4),
    Deployment(4, 6, 6, num_nodes=2, num_groups=2),
    Deployment(4, 6, 2, num_nodes=2, num_groups=2),
    Deployment(4, 8, 8, num_nodes=2, num_groups=4, duplicates="forbidden"),
    Deployment(3, 6, 6, num_nodes=3, num_groups=3),
]


def routed(deployment: Deployment, seed: int, tokens: int = 30) -> RoutingTrace:
    """Return tokens with skewed experts, top-2."""
    rng = np.random.default_rng(seed)
    skew = rng.dirichlet(np.ones(deployment.num_experts))
    rows = [rng.choice(deployment.num_experts, 2, replace=False, p=skew) for _ in range(tokens)]
    return RoutingTrace(np.array(rows)[:, None], deployment.num_experts)


def counted(routing: RoutingTrace, slots: np.ndarray, deployment: Deployment) -> int:
    """Return node visits token by token: under this policy an expert is on one node."""
    home = {int(expert): s // deployment.slots_per_node for s, expert in enumerate(slots)}
    return sum(len({home[int(e)] for e in row}) for row in routing.rows(0))


@pytest.mark.parametrize("deployment", TINY, ids=repr)
@pytest.mark.parametrize("method", ["auto", "planner"])
def test_it_is_the_front_of_all_legal_maps(deployment: Deployment, method: str) -> None:
    routing = routed(deployment, 1)
    maps = np.array(list(product(range(deployment.num_experts), repeat=deployment.num_slots)))
    maps = maps[np.array([len(set(row)) == deployment.num_experts for row in maps.tolist()])]
    maps = maps[legal_layers(Placement(maps, deployment.num_experts), deployment)]
    loads = np.repeat(routing.loads(), len(maps), axis=0)
    values = makespans(Placement(maps, deployment.num_experts), loads, deployment)
    by_visits: dict[int, object] = {}
    for slots, value in zip(maps, values, strict=True):
        count = counted(routing, slots, deployment)
        by_visits[count] = min(value, by_visits.get(count, value))
    true, best = [], None
    for count in sorted(by_visits):
        if best is None or by_visits[count] < best:
            best = by_visits[count]
            true.append((count, best))
    front = hierarchical_front(routing, deployment, method=method)
    assert front[0].visits == true[0][0]
    for point in front:
        assert counted(routing, point.placement.phy2log[0], deployment) == point.visits
        assert point.lower <= min(value for count, value in true if count <= point.visits) <= point.upper
    if method == "auto":
        assert [(point.visits, point.upper) for point in front] == true and all(point.is_optimal for point in front)


def test_a_lower_value_is_that_of_all_partitions_up_to_the_next_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """With node bounds that are not met, also where a partition between two points has the least bound."""
    deployment, exact, rng = Deployment(6, 6, 3, num_nodes=3, num_groups=6), module._solved, np.random.default_rng(1)  # noqa: SLF001
    known: dict[module.Groups, tuple[Fraction, Fraction, list[int]]] = {}

    def loose(*of):
        for groups, (upper, lower, slots) in exact(*of).items():
            known[groups] = upper, lower * Fraction(int(rng.integers(1, 10)), 10), slots
        return known

    monkeypatch.setattr(module, "_solved", loose)
    between = 0
    for seed in range(6):
        routing = routed(deployment, seed)
        front = hierarchical_front(routing, deployment)
        found = []
        for partition in partitions(6, 2):
            visits = sum(sum(1 for node in partition if set(node) & set(row)) for row in routing.rows(0).tolist())
            found.append((visits, max(known[node][1] for node in partition)))
        for point, following in zip(front, [*front[1:], None], strict=True):
            up_to = [low for visits, low in found if following is None or visits < following.visits]
            assert point.lower == min(up_to)
            between += point.lower < min(low for visits, low in found if visits <= point.visits)
    assert between


def test_every_partition_comes_once() -> None:
    found = list(partitions(8, 2))
    assert len(found) == len({frozenset(map(frozenset, p)) for p in found}) == 105
    assert all(sorted(g for groups in p for g in groups) == list(range(8)) for p in found)


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (Deployment(4, 4, 4, num_nodes=2), "the global policy"),
        (Deployment(8, 8, 4, num_nodes=2, num_groups=2), "routing has 4 experts; the deployment has 8"),
        (Deployment(4, 8, 4, active=[True, True, True, False]), "the global policy"),
    ],
)
def test_one_error(deployment: Deployment, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hierarchical_front(routed(TINY[0], 0), deployment)


def test_too_many_partitions_are_refused_before_anything_is_enumerated() -> None:
    routing = RoutingTrace([[[0, 1]]], 32)
    with pytest.raises(InputError, match=r"num_groups is 32 on 4 nodes: \d+ partitions; at most 100000"):
        hierarchical_front(routing, Deployment(32, 32, 4, num_nodes=4, num_groups=32))
