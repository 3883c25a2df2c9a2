"""Replicas spread over nodes: legal everywhere, as many as Adams' rule says, and where they save visits."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.heuristics.locality.grouping import greedy_grouping, spectral_grouping
from eplb_gap.heuristics.locality.spread_replicas import spread_replicas
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.routing.traffic import traffic
from eplb_gap.problem.validation import verify

SHAPES = (
    Deployment(8, 8, 4, 2),
    Deployment(8, 12, 4, 2),
    Deployment(8, 12, 4, 4, duplicates="forbidden"),
    Deployment(8, 12, 12, 3),
    Deployment(7, 9, 3, 3),
    Deployment(5, 12, 6, 2, duplicates="forbidden"),
    Deployment(4, 16, 4, 2, duplicates="forbidden"),
    Deployment(3, 16, 4, 2),
    Deployment(6, 6, 3),
)
"""No spare slot, some, one slot a GPU, nodes that experts do not divide over, all experts everywhere, more slots than that."""


def skewed(experts: int, seed: int) -> RoutingTrace:
    """Return two layers, in the second of which one expert is never asked and one always."""
    rng = np.random.default_rng([experts, seed])
    layers = []
    for weight in (rng.exponential(size=experts) ** 3, np.r_[0.0, 1e6, rng.exponential(size=experts - 2)]):
        layers.append([rng.choice(experts, 2, replace=False, p=weight / weight.sum()) for _ in range(50)])
    return RoutingTrace(np.array(layers).transpose(1, 0, 2), experts)


def adams(loads: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return Adams' counts with at most one replica a GPU, one replica after the other."""
    counts = np.ones_like(loads)
    for load, count in zip(loads.tolist(), counts, strict=True):
        for _ in range(deployment.num_slots - deployment.num_experts):
            allowed = [e for e in range(len(load)) if count[e] < deployment.num_gpus]
            count[max(allowed, key=lambda e: load[e] / count[e])] += 1
    return counts


@pytest.mark.parametrize("deployment", SHAPES, ids=str)
def test_maps_are_legal_without_duplicates_where_there_need_be_none(deployment: Deployment) -> None:
    for seed in range(6):
        routing = skewed(deployment.num_experts, seed)
        for grouping in (spectral_grouping, greedy_grouping):
            placement = grouping(routing, deployment, replicas="spread")
            assert len(verify(placement, routing.loads(), deployment)) == 2
            held = np.sort(placement.by_gpu(deployment.num_gpus), axis=2)
            if deployment.slots_per_gpu <= deployment.num_experts:
                assert (np.diff(held, axis=2) > 0).all()
                np.testing.assert_array_equal(placement.counts(), adams(routing.loads(), deployment))


def test_a_replica_goes_where_its_expert_is_asked() -> None:
    """Expert 0 is asked with 4 more than with 2, and 4 with 0; 2 comes last and finds room on its own node alone.

    It needs another, node 0: what moves for it is the replica of 4, worth least there, and no expert from its home.
    """
    rows = [[0, 1]] * 9 + [[0, 4]] * 7 + [[0, 2]] * 3 + [[2, 3]] * 8 + [[4, 5]] * 8
    routing, homes = RoutingTrace(np.array(rows)[:, None], 6), np.array([0, 0, 1, 1, 2, 2])
    slots = spread_replicas(homes, routing.co_activation(0), Deployment(6, 9, 3, 3))
    assert [sorted(node) for node in slots.reshape(3, 3).tolist()] == [[0, 1, 2], [2, 3, 4], [0, 4, 5]]


def visits(routing: RoutingTrace, placement: Placement, deployment: Deployment) -> int:
    rows, phy2log = routing.rows(0), placement.phy2log[0]
    return traffic(
        rows, choose_replicas(rows, phy2log, deployment, "smallest-cover"), phy2log, deployment, "node-dedup"
    ).node_visits


def test_spread_replicas_save_visits_that_those_at_home_do_not() -> None:
    deployment = Deployment(8, 12, 4, 2)
    for seed in range(6):
        routing = skewed(8, seed)
        home, spread = (spectral_grouping(routing, deployment, replicas=where) for where in ("home", "spread"))
        assert visits(routing, spread, deployment) < visits(routing, home, deployment)


def test_where_replicas_may_be() -> None:
    with pytest.raises(InputError, match="replicas is 'near'; one of home, spread is needed"):
        spectral_grouping(skewed(8, 0), SHAPES[0], replicas="near")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="replicas is 'spread'; under the hierarchical policy"):
        greedy_grouping(skewed(8, 0), Deployment(8, 12, 4, 2, 4), replicas="spread")


@pytest.mark.parametrize(
    ("homes", "message"),
    [
        ([0] * 7 + [1], "with 6 slots are there"),
        ([0, 1] * 3 + [0, 2], "nodes from 0 to 1"),
        ([0, 1] * 3 + [0, -1], "nodes from 0 to 1"),
        ([0, 1] * 3, r"\(6,\) and \(8, 8\)"),
    ],
)
def test_homes_that_cannot_be(homes: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spread_replicas(np.array(homes), skewed(8, 0).co_activation(0), Deployment(8, 12, 4, 2))
