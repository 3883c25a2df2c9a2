"""Maps for the mixed cost of weights and tokens: exact model and planner against all maps and all choices, by brute force."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.mixed_cost import plan_for_cost
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.mixed_cost import StepCost, step_cost_bounds, step_costs
from eplb_gap.problem.validation import check
from eplb_gap.solvers.engine import ContradictionError
from eplb_gap.solvers.serving import mixed_cost as module
from eplb_gap.solvers.serving.mixed_cost import solve_mixed_cost

SHAPES = (
    Deployment(4, 6, 3),
    Deployment(4, 4, 2),
    Deployment(3, 6, 3, duplicates="forbidden"),
    Deployment(4, 6, 2, num_nodes=2, num_groups=2),
    Deployment(5, 6, 2),
    Deployment(4, 4, 4),
)
COSTS = (StepCost(1, 0), StepCost(0, 1), StepCost(5, 1), StepCost(2, 3))


def drawn(seed: int) -> tuple[np.ndarray, Deployment, StepCost]:
    """Return tokens by step and expert, a deployment and a cost."""
    rng = np.random.default_rng(seed)
    deployment = SHAPES[seed % len(SHAPES)]
    counts = rng.integers(1, 9, (3, deployment.num_experts)) * (rng.random((3, deployment.num_experts)) < 0.8)
    return counts, deployment, COSTS[seed // len(SHAPES) % len(COSTS)]


def cheapest_choice(row: list[int], homes: list[set[int]], deployment: Deployment, cost: StepCost) -> int:
    """Return what the fullest GPU of a step pays at least with one replica an expert, of all choices."""
    active = [expert for expert, tokens in enumerate(row) if tokens]
    best = None
    for choice in product(*(homes[expert] for expert in active)):
        paid = [0] * deployment.num_gpus
        for expert, gpu in zip(active, choice, strict=True):
            paid[gpu] += cost.expert + cost.token * row[expert]
        best = max(paid) if best is None else min(best, max(paid))
    return best or 0


def least(counts: np.ndarray, deployment: Deployment, cost: StepCost) -> int:
    """Return the smallest sum over the steps of all legal maps."""
    contents = list(combinations_with_replacement(range(deployment.num_experts), deployment.slots_per_gpu))
    hierarchical = deployment.policy == "hierarchical"
    maps = (
        product(contents, repeat=deployment.num_gpus)
        if hierarchical
        else combinations_with_replacement(contents, deployment.num_gpus)
    )
    best = None
    for some in maps:
        placement = Placement([[expert for content in some for expert in content]], deployment.num_experts)
        if len({expert for content in some for expert in content}) < deployment.num_experts:
            continue
        try:
            check(placement, deployment)
        except ValueError:
            continue
        homes = [{gpu for gpu, content in enumerate(some) if expert in content} for expert in range(deployment.num_experts)]
        value = sum(cheapest_choice(row, homes, deployment, cost) for row in counts.tolist())
        best = value if best is None else min(best, value)
    assert best is not None
    return best


@pytest.mark.parametrize("seed", range(24))
def test_the_model_finds_what_brute_force_finds_and_nothing_goes_below_the_bounds(seed: int) -> None:
    counts, deployment, cost = drawn(seed)
    known = least(counts, deployment, cost)
    found = solve_mixed_cost(counts, deployment, cost)
    check(Placement(found.phy2log[None], deployment.num_experts), deployment)
    assert (found.upper, found.lower) == (known, known)
    assert step_costs(found.gpus, counts, found.phy2log, deployment, cost).sum() == known
    floor = step_cost_bounds(counts, deployment.num_gpus, cost).sum()
    assert floor <= known
    assert (found.proof, found.status) == (("recomputed", "optimal") if floor == known else ("claim", "claimed"))
    phy2log, gpus = plan_for_cost(counts, deployment, cost, moves=300)
    check(Placement(phy2log[None], deployment.num_experts), deployment)
    assert known <= step_costs(gpus, counts, phy2log, deployment, cost).sum()


def test_without_time_or_room_a_bound_is_left_and_a_large_instance_is_refused() -> None:
    counts, deployment, cost = drawn(9)
    found = solve_mixed_cost(counts, deployment, cost, time_limit=0.0)
    assert found.proof == "recomputed"
    assert found.lower == step_cost_bounds(counts, deployment.num_gpus, cost).sum() <= found.upper
    many = np.random.default_rng(0).integers(1, 50, (500, 32))
    with pytest.raises(InputError, match="256000 choices of a GPU"):
        solve_mixed_cost(many, Deployment(32, 32, 16), cost)
    with pytest.raises(InputError, match="needs equally many on each"):
        solve_mixed_cost(counts, Deployment(4, slots_per_gpu=[3, 2]), cost)


@pytest.mark.parametrize("deployment", [Deployment(4, 6, 3), Deployment(4, 8, 4, num_nodes=2, num_groups=2)])
def test_the_solver_begins_with_the_planned_map(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hints are a solution of the model, whichever GPU the expert with most tokens was planned on."""
    from ortools.sat.python import cp_model

    def hinted(solver: cp_model.CpSolver, problem: cp_model.CpModel) -> object:
        solver.parameters.fix_variables_to_their_hinted_value = True
        return solved(solver, problem)

    solved = cp_model.CpSolver.solve
    monkeypatch.setattr(cp_model.CpSolver, "solve", hinted)
    counts = np.random.default_rng(0).integers(1, 9, (3, 4))
    slots, gpus = plan_for_cost(counts, deployment, StepCost(2, 3), moves=0)
    apart = slots.reshape(deployment.num_gpus, -1)[::-1].ravel(), deployment.num_gpus - 1 - gpus  # all are active
    for start in ((slots, gpus), apart):
        found, _ = module._solve(counts, deployment, StepCost(2, 3), start, 10.0, 1, 0)  # noqa: SLF001
        assert found is not None
        costs = [step_costs(each[1], counts, each[0], deployment, StepCost(2, 3)).tolist() for each in (found, start)]
        assert costs[0] == costs[1]


def test_an_answer_that_there_is_no_map_is_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    from ortools.sat.python import cp_model

    seed = next(s for s in range(24) if solve_mixed_cost(*drawn(s)).proof == "claim")
    monkeypatch.setattr(cp_model.CpSolver, "solve", lambda *_: cp_model.INFEASIBLE)
    monkeypatch.setattr(cp_model.CpSolver, "status_name", lambda *_: "INFEASIBLE")
    with pytest.raises(ContradictionError, match="no map is as cheap"):
        solve_mixed_cost(*drawn(seed))


def test_tokens_beyond_what_is_added_up_are_one_error() -> None:
    with pytest.raises(InputError, match="counts has 4611686018427387904 tokens"):
        plan_for_cost(np.full((2, 4), 1 << 62), Deployment(4, 6, 3), StepCost(1, 0))


def test_the_planner_finds_nearly_every_optimum_of_small_instances() -> None:
    rng = np.random.default_rng(77)
    reached = 0
    for case in range(12):
        deployment = (Deployment(6, 8, 4), Deployment(8, 12, 4, num_nodes=2, num_groups=4))[case % 2]
        counts = rng.poisson(rng.gamma(1.0, 3.0, deployment.num_experts), (4, deployment.num_experts))
        found = solve_mixed_cost(counts, deployment, StepCost(5, 1))
        assert found.status in {"optimal", "claimed"}
        phy2log, gpus = plan_for_cost(counts, deployment, StepCost(5, 1))
        reached += step_costs(gpus, counts, phy2log, deployment, StepCost(5, 1)).sum() == found.upper
    assert reached >= 11
