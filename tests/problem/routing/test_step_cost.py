"""Cost of steps that pay for weights and tokens, counted again in plain Python; choices against all choices."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.mixed_cost import choose_for_cost, plan_for_cost
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.mixed_cost import LARGEST, StepCost, step_cost_bounds, step_costs


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, Deployment]:
    """Return tokens by step and expert, a map and its deployment."""
    rng = np.random.default_rng(seed)
    gpus, k = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    experts = int(rng.integers(1, gpus * k + 1))
    phy2log = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, gpus * k - experts)]))
    counts = rng.integers(0, 7, (4, experts))
    return counts, phy2log, Deployment(experts, gpus * k, gpus)


@pytest.mark.parametrize("seed", range(30))
def test_costs_are_those_of_the_choice_and_no_choice_is_below_the_bound(seed: int) -> None:
    counts, phy2log, deployment = drawn(seed)
    for cost in (StepCost(1, 0), StepCost(0, 1), StepCost(4, 1)):
        gpus = choose_for_cost(counts, phy2log, deployment, cost)
        found = step_costs(gpus, counts, phy2log, deployment, cost)
        bounds = step_cost_bounds(counts, deployment.num_gpus, cost)
        for step, row in enumerate(counts.tolist()):
            active = [expert for expert, tokens in enumerate(row) if tokens]
            jobs = {expert: cost.expert + cost.token * row[expert] for expert in active}
            chosen = [sum(jobs[e] for e in active if gpus[step, e] == gpu) for gpu in range(deployment.num_gpus)]
            assert found[step] == max(chosen)
            homes = [{s // deployment.slots_per_gpu for s, held in enumerate(phy2log) if held == e} for e in active]
            least = min(
                max(sum(jobs[e] for e, gpu in zip(active, some, strict=True) if gpu == at) for at in range(deployment.num_gpus))
                for some in product(*homes)
            )
            assert bounds[step] <= least <= found[step]
            if not cost.token:
                assert found[step] == least


def test_the_bound_knows_that_jobs_cannot_be_cut() -> None:
    counts = np.array([[3, 3, 3, 0]])
    assert step_cost_bounds(counts, 2, StepCost(0, 1)).tolist() == [6]  # two of three jobs meet
    assert step_cost_bounds(counts, 3, StepCost(1, 1)).tolist() == [4]
    assert step_cost_bounds(np.zeros((1, 4), np.int64), 2, StepCost(1, 1)).tolist() == [0]


@pytest.mark.parametrize("wrong", [(-1, 1), (1.0, 1), (True, 1), (0, 0), (1, LARGEST)])
def test_a_cost_that_is_none_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="needed"):
        StepCost(*wrong)


def test_what_is_no_step_or_no_choice_is_refused() -> None:
    deployment, phy2log, cost = Deployment(2, 2, 2), np.array([0, 1]), StepCost(1, 1)
    counts = np.array([[2, 0]])
    assert step_costs(np.array([[0, -1]]), counts, phy2log, deployment, cost).tolist() == [3]
    with pytest.raises(InputError, match="does not hold"):
        step_costs(np.array([[1, -1]]), counts, phy2log, deployment, cost)
    with pytest.raises(InputError, match="one GPU for every active expert"):
        step_costs(np.array([[0, 1]]), counts, phy2log, deployment, cost)
    for bad in (counts - 1, counts[0], counts / 2, np.zeros((0, 2), np.int64)):
        with pytest.raises(InputError, match="counts is"):
            plan_for_cost(bad, deployment, cost)
    with pytest.raises(InputError, match="less than"):
        cost.jobs(np.array([[LARGEST]]))
    with pytest.raises(InputError, match="counts has 9223372036854775808 tokens of one expert"):
        StepCost(1, 0).jobs(np.array([[2**63, 1]], dtype=np.uint64))
    assert StepCost(1, 0).jobs(np.array([[2**39, 1]], dtype=np.uint64)).tolist() == [[1, 1]]
    with pytest.raises(InputError, match="counts has 3 experts"):
        plan_for_cost(np.ones((1, 3), np.int64), deployment, cost)
    with pytest.raises(InputError, match="moves is -1"):
        plan_for_cost(counts, deployment, cost, moves=-1)
