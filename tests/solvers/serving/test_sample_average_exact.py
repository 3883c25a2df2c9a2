"""Proven optima of sample-average placement: both models against exhaustive search, and the planner against them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import FLAT_SHAPES, HIERARCHICAL_SHAPES, loads
from eplb_gap.heuristics.serving.sample_average import plan
from eplb_gap.problem import Deployment, InputError, Instance
from eplb_gap.problem.bounds.sample_average import sample_average_bound, sample_average_makespan
from eplb_gap.solvers.engines import oracle
from eplb_gap.solvers.serving.sample_average_exact import MODELS, solve_sample_average
from eplb_gap.solvers.serving.sample_average_oracle import least_sample_average


def cases(number: int, seed: int) -> list[tuple[np.ndarray, Deployment]]:
    """Return histories, int64 [windows, 1, experts], flat and hierarchical in turn, duplicates allowed and forbidden."""
    generator = np.random.default_rng(seed)
    shapes = [(*shape, 1, 1) for shape in FLAT_SHAPES if shape[1] <= 8] + [s for s in HIERARCHICAL_SHAPES if s[1] <= 8]
    found = []
    for index in range(number):
        experts, slots, gpus, nodes, groups = shapes[index % len(shapes)]
        forbidden = index % 2 == 1 and slots // gpus <= experts // nodes
        deployment = Deployment(experts, slots, gpus, nodes, groups, "forbidden" if forbidden else "allowed")
        windows = int(generator.integers(1, 4))
        found.append((np.array([[loads(experts, generator)] for _ in range(windows)]), deployment))
    return found


@pytest.mark.parametrize("method", MODELS)
def test_models_agree_with_exhaustive_search(method: str) -> None:
    for history, deployment in cases(26, 1):
        solution = solve_sample_average(history, deployment, method)
        assert solution.upper == solution.lower == [least_sample_average(history[:, 0], deployment)]
        assert solution.upper == sample_average_makespan(solution.placement, history, deployment)


def test_of_one_window_the_search_is_that_of_the_plain_problem() -> None:
    for history, deployment in cases(26, 2):
        if deployment.policy == "global":
            instance = Instance.of_layer(history[0, 0], deployment)
            assert least_sample_average(history[0], deployment) == instance.makespan(oracle.best_map(instance))


def test_bound_optimum_and_planner_are_in_order() -> None:
    gaps = []
    for history, deployment in cases(39, 3):
        best = least_sample_average(history[:, 0], deployment)
        value = sample_average_makespan(plan(history, deployment), history, deployment)[0]
        assert sample_average_bound(history[:, 0], deployment).value <= best <= value
        if deployment.duplicates == "forbidden":
            gaps.append(float(value / best - 1))
    assert sum(gaps) / len(gaps) <= 0.01


def test_opposite_windows_by_hand() -> None:
    history = np.array([[[60, 0]], [[0, 60]]])
    for method in MODELS:
        solution = solve_sample_average(history, Deployment(2, 3, 3), method)
        assert solution.upper == [Fraction(45)]
        assert solution.proof in (["shares"], [f"claim of {'CP-SAT' if method == 'cpsat' else 'HiGHS'}"])


def test_without_time_the_planners_map_and_the_bound_are_returned() -> None:
    history, deployment = cases(3, 4)[2]
    solution = solve_sample_average(history, deployment, time_limit=0.0)
    assert solution.upper == sample_average_makespan(plan(history, deployment), history, deployment)
    assert solution.lower == [sample_average_bound(history[:, 0], deployment, listing=False).value]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match=r"method is 'simplex'.*cpsat, milp"):
        solve_sample_average(np.ones((1, 1, 2), int), Deployment(2, 2, 2), "simplex")
    with pytest.raises(InputError, match="at most 12 slots"):
        least_sample_average(np.ones((1, 13), int), Deployment(13, 13, 13))
    with pytest.raises(InputError, match=r"below 2\*\*53"):
        solve_sample_average(np.array([[[2**52, 3, 1, 5]], [[1, 9, 2**52, 2]]]), Deployment(4, 6, 2))
