"""Maps of few visits under both policies, and bounds that are looked for."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.analysis.network.planning import fewest_visits
from eplb_gap.analysis.network.traffic import network_traffic, visit_bounds
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.locality.hierarchical_front import hierarchical_front

RNG = np.random.default_rng(5)
ROUTING = RoutingTrace(
    np.stack([[RNG.permutation(8)[:3] for _ in range(2)] for _ in range(40)]),
    num_experts=8,
)


@pytest.mark.parametrize("groups", [1, 4])
def test_map_is_within_its_limit_and_few_visits(groups: int) -> None:
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=groups)
    placement = fewest_visits(ROUTING, deployment, eps=0.2)
    makespans = verify(placement, ROUTING.loads(), deployment)
    found = network_traffic(ROUTING, placement, deployment, replicas="smallest-cover")
    for layer in range(2):
        if groups > 1:
            front = hierarchical_front(ROUTING, deployment, layer, method="planner")
            within = [point for point in front if point.upper <= min(p.upper for p in front) * 12 / 10]
            assert found.layers[layer].counted.node_visits == min(point.visits for point in within)
            assert makespans[layer] <= within[0].upper


def test_bounds_that_are_looked_for_are_larger_and_below_the_map() -> None:
    deployment = Deployment(8, 8, 4, num_nodes=2)
    said: list[str] = []
    plain = visit_bounds(ROUTING, deployment, "node-dedup")
    proven = visit_bounds(ROUTING, deployment, "node-dedup", said.append)
    found = network_traffic(ROUTING, fewest_visits(ROUTING, deployment, eps=10.0), deployment)
    assert said == ["layer 1 of 2", "layer 2 of 2"]
    for before, after, layer in zip(plain, proven, found.layers, strict=True):
        assert before is not None and after is not None
        assert before.visits < after.visits <= layer.counted.node_visits and after.proof == "prices"
