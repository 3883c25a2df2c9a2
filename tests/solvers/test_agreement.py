"""Brute force and every engine agree; bounds stay below the optimum, heuristics above it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances, hierarchical_cases
from eplb_gap.experiments.studies.agreement import hierarchical_optimum
from eplb_gap.heuristics import METHODS as HEURISTICS
from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, Instance, PlacementError, verify
from eplb_gap.problem.bounds.bounds import adams_counts, cardinality_bound, joint_bounds, lifted_bound, pigeonhole_bound
from eplb_gap.solvers import ENGINES, solve
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engines.oracle import best_map, best_map_for_counts

FLAT = flat_instances(150, seed=1)
FEW = 24
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
    for bound in joint_bounds(instance):
        assert bound.value <= best
    assert instance.makespan(greedy_map(instance)) >= best
    for method in HEURISTICS:
        try:
            assert verify(rebalance(loads, deployment, method), loads, deployment)[0] >= best
        except PlacementError as error:
            assert instance.duplicates == "forbidden" and "duplicates are forbidden" in str(error)
        except InputError as error:
            assert str(error) == HEURISTICS[method].refusal(deployment)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=lambda engine: engine.name)
def test_every_engine_agrees_with_brute_force(engine):
    # milp-cbc starts a process for every instance.
    number, seconds = (FEW if engine.name == "milp-cbc" else len(FLAT)), 60.0 if engine.exact else 0.1
    asked = [instance for instance in FLAT if instance.slots_per_gpu in engine.slots_per_gpu][:number]
    assert len(asked) >= FEW
    for instance in asked:
        loads, deployment = as_problem(instance)
        solution = solve(loads, deployment, engine.name, time_limit=seconds)
        best = optimum(instance)
        assert solution.lower[0] <= best <= solution.upper[0] == verify(solution.placement, loads, deployment)[0]
        if engine.exact:
            assert solution.status == ["optimal"], (loads, deployment, solution.upper, solution.lower)


@pytest.mark.parametrize("instance", FLAT[:120], ids=lambda i: i.digest)
def test_bounds_for_given_counts_hold_for_those_counts(instance):
    counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
    sizes = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True) for _ in range(c)]
    packed = best_map_for_counts(instance, counts)
    assert packed >= optimum(instance)
    for bound in (cardinality_bound, pigeonhole_bound, lifted_bound):
        assert bound(sizes, instance.num_gpus) <= packed


@pytest.mark.parametrize("instance", TWELVE, ids=lambda i: i.digest)
def test_twelve_slots(instance):
    best = optimum(instance)
    assert proven(*as_problem(instance), "cpsat") == best
    assert proven(*as_problem(instance), "milp") == best
    assert proven(*as_problem(instance), "exact-cover") == best
    assert all(bound.value <= best for bound in joint_bounds(instance))


@pytest.mark.parametrize("number", range(len(HIERARCHICAL)))
def test_hierarchical_optimum(number):
    loads, deployment = HIERARCHICAL[number]
    best = hierarchical_optimum(loads[0], deployment)
    assert proven(loads, deployment, "auto") == best
    assert proven(loads, deployment, "oracle") == best
    assert proven(loads, deployment, "milp") == best
    for method in HEURISTICS:
        try:
            assert verify(rebalance(loads, deployment, method), loads, deployment)[0] >= best
        except PlacementError as error:
            assert "duplicates are forbidden" in str(error)
        except InputError as error:
            assert "global policy only" in str(error)
