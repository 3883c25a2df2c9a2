from __future__ import annotations

import itertools

import numpy as np
import pytest

from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, verify
from eplb_gap.solvers import solve
from eplb_gap.solvers.hierarchical import NodeProblems

SHAPE = Deployment(16, 24, 8, num_nodes=4, num_groups=8)


def partitions(groups: frozenset[int], size: int):
    if not groups:
        yield []
        return
    first = min(groups)
    for others in itertools.combinations(sorted(groups - {first}), size - 1):
        for rest in partitions(groups - {first, *others}, size):
            yield [(first, *others), *rest]


def test_eight_groups_on_four_nodes_are_28_problems_and_105_partitions():
    problems = NodeProblems(np.arange(1, 17), SHAPE)
    assert len(problems.incumbents) == 28
    assert sum(1 for _ in partitions(frozenset(range(8)), 2)) == 105


@pytest.mark.parametrize("seed", range(10))
def test_the_best_partition_is_the_bottleneck_optimum(seed):
    loads = np.random.default_rng(seed).integers(1, 500, size=16)
    problems = NodeProblems(loads, SHAPE)
    value = {groups: incumbent.bound.value for groups, incumbent in problems.incumbents.items()}
    best = min(max(value[g] for g in nodes) for nodes in partitions(frozenset(range(8)), 2))
    found = problems.best_partition()
    assert sorted(g for node in found for g in node) == list(range(8))
    assert max(value[g] for g in found) == best == problems.bound(found).value


def test_the_witness_names_every_node_that_the_bound_rests_on():
    problems = NodeProblems(np.arange(1, 17) ** 2, SHAPE)
    bound = problems.bound(problems.best_partition())
    named = {tuple(node["groups"]) for node in bound.witness["nodes"]}
    # Without the named nodes no partition is left: that is the proof.
    assert all(any(g in named for g in nodes) for nodes in partitions(frozenset(range(8)), 2))


def test_a_layer_map_goes_to_the_nodes_and_back():
    problems = NodeProblems(np.arange(1, 17), SHAPE)
    slots = [e for node in range(4) for e in [*range(4 * node, 4 * node + 4), 4 * node, 4 * node + 1]]
    problems.offer_layer(slots)
    assert problems.layer_map([(0, 1), (2, 3), (4, 5), (6, 7)]) == tuple(slots)
    assert problems.layer_map([(0, 2), (1, 3), (4, 5), (6, 7)]) is None


def test_too_many_node_problems_are_refused_with_their_number():
    with pytest.raises(InputError, match="635376 node"):
        NodeProblems(np.ones(64, dtype=int), Deployment(64, 64, 16, num_nodes=16, num_groups=64))


def test_more_sets_of_groups_than_are_enumerated_are_left_to_the_planners() -> None:
    shape = Deployment(128, 160, 16, num_nodes=2, num_groups=64)
    loads = np.arange(1, 129)[None] ** 2
    solution = solve(loads, shape, time_limit=1.0)
    assert solution.lower[0] <= solution.upper[0] <= verify(rebalance(loads, shape, "fast"), loads, shape)[0]
    assert solution.proof == ["mean"]
