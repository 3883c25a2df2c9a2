"""Brute force, HiGHS and CP-SAT agree; bounds stay below the optimum, heuristics above it."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from instances import flat_instances, hierarchical_cases

from heuristics import METHODS as HEURISTICS
from heuristics import rebalance
from problem import Deployment, Instance, PlacementError, verify
from problem.bounds import adams_counts, cardinality_bound, joint_bounds, lifted_bound, pigeonhole_bound
from solvers import solve
from solvers.construct import greedy_map
from solvers.oracle import best_map, best_map_for_counts

FLAT = flat_instances(150, seed=1)
TWELVE = flat_instances(20, seed=2, shapes=[(8, 12, 4), (9, 12, 3), (10, 12, 4), (9, 12, 6)])
HIERARCHICAL = hierarchical_cases(56, seed=3)


def as_problem(instance: Instance) -> tuple[np.ndarray, Deployment]:
    shape = Deployment(instance.num_experts, instance.num_slots, instance.num_gpus, duplicates=instance.duplicates)
    return np.array([instance.loads]), shape


def optimum(instance: Instance) -> Fraction:
    return instance.makespan(best_map(instance))


def proven(loads: np.ndarray, deployment: Deployment, method: str) -> Fraction:
    solution = solve(loads, deployment, method, time_limit=60)
    assert solution.status == ["optimal"], (loads, deployment, method, solution.upper, solution.lower)
    return solution.upper[0]


@pytest.mark.parametrize("instance", FLAT, ids=lambda i: i.digest)
def test_flat_optimum_bounds_and_heuristics(instance):
    loads, deployment = as_problem(instance)
    best = optimum(instance)
    assert proven(loads, deployment, "cpsat") == best
    assert proven(loads, deployment, "milp") == best
    assert proven(loads, deployment, "exact-cover") == best
    for bound in joint_bounds(instance):
        assert bound.value <= best
    assert instance.makespan(greedy_map(instance)) >= best
    for method in HEURISTICS:
        try:
            assert verify(rebalance(loads, deployment, method), loads, deployment)[0] >= best
        except PlacementError as error:
            assert instance.duplicates == "forbidden" and "duplicates are forbidden" in str(error)


@pytest.mark.parametrize("instance", FLAT[:120], ids=lambda i: i.digest)
def test_bounds_for_given_counts_hold_for_those_counts(instance):
    counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
    sizes = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True) for _ in range(c)]
    packed = best_map_for_counts(instance, counts)
    assert packed >= optimum(instance)
    for bound in (cardinality_bound, pigeonhole_bound, lifted_bound):
        assert bound(sizes, instance.num_gpus) <= packed


@pytest.mark.parametrize("instance", [i for i in FLAT if i.num_slots <= 8][:24], ids=lambda i: i.digest)
def test_cbc_is_a_second_opinion(instance):
    assert proven(*as_problem(instance), "milp-cbc") == optimum(instance)


@pytest.mark.parametrize("instance", TWELVE, ids=lambda i: i.digest)
def test_twelve_slots(instance):
    best = optimum(instance)
    assert proven(*as_problem(instance), "cpsat") == best
    assert proven(*as_problem(instance), "milp") == best
    assert proven(*as_problem(instance), "exact-cover") == best
    assert all(bound.value <= best for bound in joint_bounds(instance))


def hierarchical_optimum(loads: np.ndarray, deployment: Deployment) -> Fraction:
    """Enumerate every partition of the groups over the nodes; brute force on every node."""
    size, per_node = deployment.experts_per_group, deployment.groups_per_node
    value = {}
    for groups in itertools.combinations(range(deployment.num_groups), per_node):
        experts = [e for g in groups for e in range(g * size, (g + 1) * size)]
        value[groups] = optimum(Instance.of_node(loads[0, experts], deployment))
    best = None
    for order in itertools.permutations(range(deployment.num_groups)):
        nodes = [tuple(sorted(order[i : i + per_node])) for i in range(0, len(order), per_node)]
        worst = max(value[groups] for groups in nodes)
        best = worst if best is None else min(best, worst)
    return best


@pytest.mark.parametrize("number", range(len(HIERARCHICAL)))
def test_hierarchical_optimum(number):
    loads, deployment = HIERARCHICAL[number]
    best = hierarchical_optimum(loads, deployment)
    assert proven(loads, deployment, "auto") == best
    assert proven(loads, deployment, "oracle") == best
    assert proven(loads, deployment, "milp") == best
    for method in HEURISTICS:
        try:
            assert verify(rebalance(loads, deployment, method), loads, deployment)[0] >= best
        except PlacementError as error:
            assert "duplicates are forbidden" in str(error)
