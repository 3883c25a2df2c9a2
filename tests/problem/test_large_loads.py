"""Loads up to the limit of int64: exact, or one clear error. Python's integers and fractions are the oracle."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import (
    Deployment,
    InputError,
    LoadTrace,
    capacity,
    evaluate,
    explain,
    optimal_split,
    plan_for_split,
    rebalance,
    replan,
    sample_average,
    solve,
    verify,
)
from eplb_gap.heuristics.kernels.local_search import LATTICE_LIMIT, SAFE_TOTAL, lattice_bound
from eplb_gap.problem.bounds.bounds import adams_counts, apportionment_bound, best_joint_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engines.oracle import best_map
from eplb_gap.solvers.serving.sample_average_exact import solve_sample_average

SHAPES = [
    Deployment(4, 8, 4),
    Deployment(8, 12, 4),
    Deployment(8, 8, 4, 2, 4),
    Deployment(6, slots_per_gpu=[1, 3, 2, 2]),
    Deployment(6, 9, 3, active=[True, False, True]),
]
loads_below_a_thousand = st.lists(st.integers(0, 999), min_size=8, max_size=8)


def makespan(slots: np.ndarray, loads: list[int], deployment: Deployment) -> Fraction:
    """Return the largest GPU load of a map by the definition; filler on dead GPUs is no replica."""
    dead, ends = set(deployment.dead_gpus), np.cumsum((0, *deployment.slots_by_gpu))
    gpus = [slots[ends[g] : ends[g + 1]].tolist() for g in range(deployment.num_gpus) if g not in dead]
    counts = [sum(gpu.count(e) for gpu in gpus) for e in range(deployment.num_experts)]
    return max(sum((Fraction(loads[e], counts[e]) for e in gpu), Fraction(0)) for gpu in gpus)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(max_examples=3)
@given(loads_below_a_thousand, st.integers(1, 49))
def test_what_is_scaled_by_a_power_of_two_scales_exactly(shape, loads, shift):
    base = [loads[: shape.num_experts]]
    large = [[load << shift for load in base[0]]]
    for method in ("fast-counts" if shape.is_regular else "fast", None):
        small_map, large_map = (
            rebalance(each, shape, method) if method else solve(each, shape, time_limit=5.0).placement for each in (base, large)
        )
        small, found = verify(small_map, base, shape)[0], verify(large_map, large, shape)[0]
        assert found == small * 2**shift == makespan(large_map.phy2log[0], large[0], shape)


@given(st.lists(st.integers(0, (2**63 - 1) // 8), min_size=4, max_size=4))
@settings(max_examples=8)
def test_any_loads_up_to_the_limit_are_solved_exactly(loads):
    shape = Deployment(4, 6, 3)
    solution = solve([loads], shape, time_limit=5.0)
    exact = Instance(tuple(loads), 6, 3)
    optimum = exact.makespan(best_map(exact))
    assert solution.upper == [optimum] == [makespan(solution.placement.phy2log[0], loads, shape)]
    assert solution.lower[0] <= optimum


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=6), st.integers(0, 6), st.integers(1, 5))
@settings(max_examples=40)
def test_bounds_of_large_loads_are_those_of_exact_arithmetic(loads, spare, gpus):
    slots = -(-(len(loads) + spare) // gpus) * gpus
    instance = Instance(tuple(loads), slots, gpus)
    counts = [1] * len(loads)
    for _ in range(slots - len(loads)):
        counts[max(range(len(loads)), key=lambda e: (Fraction(loads[e], counts[e]), -e))] += 1
    assert adams_counts(loads, slots, instance.max_count) == counts
    largest = max(Fraction(load, count) for load, count in zip(loads, counts, strict=True))
    assert apportionment_bound(instance).value == largest
    assert best_joint_bound(instance).value >= max(largest, instance.mean)


@pytest.mark.parametrize("gpus", [1, 7, 512])
def test_the_lattice_of_one_expert_with_all_tokens_does_not_overflow(gpus):
    loads, counts = np.array([SAFE_TOTAL - 1, 0]), np.array([1, LATTICE_LIMIT])
    scale = LATTICE_LIMIT
    step = Fraction((SAFE_TOTAL - 1) * scale, scale)
    assert lattice_bound(loads, counts, gpus) == float(step)


def test_the_largest_deployment_with_the_largest_loads():
    shape = Deployment(1024, 1024, 512)
    loads = np.full((1, 1024), (2**63 - 1) // 1024)
    solution = solve(loads, shape, time_limit=0.5)
    assert solution.upper == solution.lower == [Fraction(2 * int(loads[0, 0]))]
    loads[0, 0] += 1
    with pytest.raises(InputError, match=r"loads\[0, 0\] is 9007199254740992; loads must be small enough"):
        solve(loads, shape)


def test_the_other_answers_scale_too():
    shape, shift = Deployment(8, 12, 4), 51
    base = np.array([[90, 132, 40, 61, 104, 165, 39, 4]])
    large = base << shift
    plans = {
        "replan": lambda w: replan(w[:, ::-1].copy(), shape, rebalance(w, shape, "fast-counts"), total_moves=2),
        "sample_average": lambda w: sample_average(np.stack([w, w[:, ::-1]]), shape),
        "plan_for_split": lambda w: plan_for_split(w, shape),
    }
    for name, plan in plans.items():
        assert plan(base).phy2log.tolist() == plan(large).phy2log.tolist(), name
    planned = rebalance(base, shape, "fast")
    assert optimal_split(planned, base, shape).shares.tolist() == optimal_split(planned, large, shape).shares.tolist()
    small, scaled = (LoadTrace(np.stack([w, w[:, ::-1]])) for w in (base, large))
    assert (scaled.windowed(2).loads == small.windowed(2).loads << shift).all()
    for answer in (evaluate, explain):
        assert answer(scaled, shape, "fast") is not None
    assert capacity(scaled, shape, 0.9, 12, seconds=0.5) is not None


def test_sums_beyond_the_limit_are_one_error():
    trace = LoadTrace(np.full((4, 1, 2), 2**61))
    with pytest.raises(InputError, match=r"summed loads.* fit int64"):
        trace.windowed(4)
    with pytest.raises(InputError, match="history has 18446744073709551616 tokens"):
        solve_sample_average(np.full((4, 1, 2), 2**61), Deployment(2, 4, 2))
