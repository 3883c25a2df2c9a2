"""Unequal slots: brute force, HiGHS, CP-SAT and the closed-form bounds agree; dead GPUs are left out of every solve."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, Instance, Placement, PlacementError, verify
from eplb_gap.problem.bounds.bounds import joint_bounds
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.solvers import ENGINES, solve
from eplb_gap.solvers.engines.oracle import best_map


def instances(count: int, seed: int) -> list[Instance]:
    """Return small instances with unequal slots, all of whose loads, counts of zeros and duplicates vary."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        slots = tuple(rng.randint(1, 4) for _ in range(rng.randint(2, 4)))
        mode: Any = rng.choice(["allowed", "forbidden"])
        if sum(slots) > 8 or len(set(slots)) == 1:
            continue
        experts = rng.randint(max(slots) if mode == "forbidden" else 1, sum(slots))
        loads = tuple(rng.choice([0, 1, rng.randint(1, 1000), rng.randint(1, 50)]) for _ in range(experts))
        found.append(Instance(loads, sum(slots), len(slots), mode, slots))
    return found


def as_problem(instance: Instance) -> tuple[np.ndarray, Deployment]:
    shape = Deployment(instance.num_experts, duplicates=instance.duplicates, slots_per_gpu=instance.slots_by_gpu)
    return np.array([instance.loads]), shape


def enumerated_optimum(instance: Instance) -> Fraction:
    """Every assignment of experts to slots, without any cut."""
    values = []
    for slots in itertools.product(range(instance.num_experts), repeat=instance.num_slots):
        gpus = [slots[start:end] for start, end in itertools.pairwise(instance.starts)]
        apart = all(len(set(gpu)) == len(gpu) for gpu in gpus)
        if len(set(slots)) == instance.num_experts and (apart or instance.duplicates == "allowed"):
            values.append(instance.makespan(slots))
    return min(values)


SMALL = instances(240, seed=5)


@pytest.mark.parametrize("part", range(8))
def test_the_oracle_agrees_with_enumeration_and_bounds_and_plans_keep_their_sides(part: int) -> None:
    enumerated = 0
    for instance in SMALL[part::8]:
        best = instance.makespan(best_map(instance))
        if instance.num_experts**instance.num_slots <= 4000:
            assert enumerated_optimum(instance) == best, instance
            enumerated += 1
        assert all(bound.value <= best for bound in joint_bounds(instance)), instance
        loads, deployment = as_problem(instance)
        assert verify(rebalance(loads, deployment), loads, deployment)[0] >= best, instance
    assert enumerated >= 10


@pytest.mark.parametrize("instance", SMALL[:60], ids=lambda i: i.digest)
def test_models_agree_with_the_oracle(instance: Instance) -> None:
    best = instance.makespan(best_map(instance))
    for method in ("auto", "oracle", "cpsat", "milp"):
        solution = solve(*as_problem(instance), method, time_limit=60)
        assert (solution.upper, solution.status) == ([best], ["optimal"]), (method, instance)


@pytest.mark.parametrize("instance", SMALL[60:68], ids=lambda i: i.digest)
def test_cbc_is_a_second_opinion(instance: Instance) -> None:
    solution = solve(*as_problem(instance), "milp-cbc", time_limit=60)
    assert solution.upper == [instance.makespan(best_map(instance))] == solution.lower


def test_a_limit_on_the_makespan_is_no_bound() -> None:
    # HiGHS reported the limit on T, the known optimum and a tolerance, as its bound; rounding made it contradict the optimum.
    instance = Instance((1, 269, 0, 0), 7, 3, "forbidden", (1, 4, 2))
    assert solve(*as_problem(instance), "milp").lower == [Fraction(541, 6)]


def test_dead_gpus_are_left_out_of_every_solve() -> None:
    loads = np.array([[90, 132, 40, 61, 104, 165]])
    deployment = Deployment(6, 10, 5, active=[True, False, True, True, True])
    solution = solve(loads, deployment)
    assert solution.upper == solution.lower == [151]  # a node of DeepSeek's README example
    assert verify(solution.placement, loads, deployment) == [151]
    assert solution.placement.ranks[0, 2:4].tolist() == [-1, -1]
    again = solve(loads, deployment, "bounds", initial=solution.placement)
    assert again.upper == [151]


def test_a_start_must_be_legal_on_the_gpus_that_are_left() -> None:
    deployment = Deployment(3, slots_per_gpu=[2, 1, 2], active=[True, False, True])
    start = with_dead(Placement([[0, 1, 0, 2]], 3), deployment)
    assert solve([[6, 2, 1]], deployment, "bounds", initial=start).upper == [5]
    with pytest.raises(PlacementError, match="expert 2 has no replica"):
        solve([[6, 2, 1]], deployment, initial=Placement([[0, 1, 2, 1, 0]], 3))
    with pytest.raises(InputError, match="placement has shape"):
        solve([[6, 2, 1]], deployment, initial=Placement([[0, 1, 2, 1]], 3))


@pytest.mark.parametrize("method", [name for name, engine in ENGINES.items() if not engine.unequal])
def test_engines_of_equal_slots_refuse_unequal_ones(method: str) -> None:
    with pytest.raises(InputError, match=f"method is '{method}', which needs equally many slots"):
        solve([[3, 2, 1]], Deployment(3, slots_per_gpu=[1, 3]), method)


def test_a_large_layer_ends_with_a_certified_gap() -> None:
    generator = np.random.default_rng(0)
    loads = generator.poisson(np.exp(0.7 * generator.normal(size=(2, 128))) * 5000)
    deployment = Deployment(128, slots_per_gpu=[10] * 8 + [8] * 8, active=[False] + [True] * 15)
    solution = solve(loads, deployment, target_gap=5e-3, time_limit=5)
    assert max(solution.gap) <= 5e-3
    verify(solution.placement, loads, deployment)
