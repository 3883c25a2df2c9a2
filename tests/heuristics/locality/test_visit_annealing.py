"""Annealing for few node visits: what it says is what a recount says, limits hold, and small instances end at the optimum."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.heuristics.locality.visit_annealing import anneal_visits
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.routing.traffic import traffic


def by_expert(rows: np.ndarray, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where each expert's tokens begin, and the tokens."""
    flat = rows.ravel()
    return np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=experts))]), np.argsort(flat, kind="stable") // rows.shape[
        1
    ]


def visits(rows: np.ndarray, slots: np.ndarray, deployment: Deployment) -> int:
    """Return the node visits with the smallest cover of every token."""
    return traffic(rows, choose_replicas(rows, slots, deployment, "smallest-cover"), slots, deployment, "node-dedup").node_visits


@pytest.mark.parametrize("seed", range(10))
def test_what_it_says_is_counted_and_no_gpu_exceeds_the_limit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes, per_node, k = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    size = nodes * per_node * k
    experts = int(rng.integers(max(2, size // 2), size + 1)) if size > 2 else size
    deployment = Deployment(experts, size, nodes * per_node, num_nodes=nodes)
    slots = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, size - experts)]))
    rows = np.stack([rng.permutation(experts)[: min(experts, 4)] for _ in range(80)])
    loads = np.bincount(rows.ravel(), minlength=experts).astype(float)
    before, first = visits(rows, slots, deployment), slots.copy()

    def fullest(some: np.ndarray) -> float:
        return float((loads / np.bincount(some, minlength=experts))[some].reshape(-1, k).sum(axis=1).max())

    limit = 1.1 * fullest(slots)
    for transfers in (False, True):
        improved = first.copy()
        found = anneal_visits(
            rows, *by_expert(rows, experts), loads, improved, nodes * per_node, nodes, limit, False, transfers, 2000, seed
        )
        assert found == visits(rows, improved, deployment) <= before
        assert fullest(improved) <= limit * (1 + 1e-9) and set(improved.tolist()) == set(range(experts))
        if not transfers:
            assert sorted(improved.tolist()) == sorted(first.tolist())


@pytest.mark.parametrize("seed", range(5))
def test_small_instances_end_at_the_fewest_visits(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    rows = np.stack([rng.permutation(6)[:3] for _ in range(15)])
    deployment = Deployment(6, 6, 6, num_nodes=2)
    best = min(visits(rows, np.array(order), deployment) for order in permutations(range(6)) if order[0] == 0)
    slots = np.arange(6)
    assert anneal_visits(rows, *by_expert(rows, 6), np.ones(6), slots, 6, 2, 10.0, True, True, 3000, 0) == best
    assert best == visits(RoutingTrace(rows[:, None], 6).rows(0).astype(np.int64), slots, deployment)


def test_no_gpu_gets_two_of_one_expert_where_that_is_forbidden() -> None:
    rng = np.random.default_rng(5)
    rows = np.stack([rng.permutation(8)[:2] for _ in range(60)])
    slots = np.concatenate([np.arange(8), np.arange(4)])[np.arange(12).reshape(3, 4).T.ravel()]
    anneal_visits(rows, *by_expert(rows, 8), np.ones(8), slots, 4, 2, 10.0, True, True, 4000, 1)
    assert all(len(set(gpu)) == 3 for gpu in slots.reshape(4, 3).tolist())
