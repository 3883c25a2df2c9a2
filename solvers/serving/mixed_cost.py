"""Proven maps of small layers for steps that pay for weights and for tokens: map and choices of replicas in one model.

With jobs p_te (:mod:`eplb_gap.problem.routing.mixed_cost`) ::

    minimise sum_t T_t
    sum_g x[e, g] >= 1                  every expert is on a GPU
    sum_e x[e, g] <= k                  which has k slots
    sum_g z[t, e, g] = 1                an active expert is read on one
    z[t, e, g] <= x[e, g]               that holds it
    sum_e p_te z[t, e, g] <= T_t        for every step t and GPU g
    x[e, g] <= y[group of e, node of g] under the hierarchical policy

A further replica takes nothing from a map, so that slots which the model leaves open are filled with whatever is legal. The
solver's bound is a claim; maps and choices are recomputed, and where they meet the bounds of the steps that the kernel has,
nothing is left to claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from eplb_gap.heuristics.dispatch.mixed_cost import plan_for_cost
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.mixed_cost import StepCost, step_cost_bounds, step_costs
from eplb_gap.problem.validation import check
from eplb_gap.solvers.compact.cpsat import has_solution, round_bound
from eplb_gap.solvers.compact.native import run_interruptibly
from eplb_gap.solvers.engine import ContradictionError

MOST_CHOICES = 100_000
"""Choices of a GPU, active experts of all steps times GPUs, above which a model is not built: it is for small instances."""


@dataclass(frozen=True)
class MixedPlan:
    """A map with the choices of replicas, and what no map goes below.

    Parameters
    ----------
    phy2log : ndarray of int64 [slots]
    gpus : ndarray of int64 [steps, experts]
        GPU of every active expert, -1 for the others.
    upper : int
        Sum over the steps of what the fullest GPU pays, recomputed.
    lower : int
        No map and choices have a smaller sum; a claim where ``proof`` is one.
    proof : {"recomputed", "claim"}
        Whether the bound is that of the kernel, or what CP-SAT says.
    """

    phy2log: np.ndarray
    gpus: np.ndarray
    upper: int
    lower: int
    proof: Literal["recomputed", "claim"]

    @property
    def status(self) -> Literal["optimal", "claimed", "bounded"]:
        """ "optimal" where nothing is cheaper by the kernel's bound, "claimed" where CP-SAT alone says so, else "bounded"."""
        if self.upper > self.lower:
            return "bounded"
        return "optimal" if self.proof == "recomputed" else "claimed"


def solve_mixed_cost(
    counts: np.ndarray, deployment: Deployment, cost: StepCost, time_limit: float = 60.0, workers: int = 1, seed: int = 0
) -> MixedPlan:
    """Minimise the sum over steps of what the fullest GPU pays, over maps and choices of one replica an expert.

    Parameters
    ----------
    counts : ndarray of int [steps, experts]
        Tokens of every step by expert.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    cost : StepCost
    time_limit : float, default 60
        Wall seconds of the solver, which starts from the map of
        :func:`eplb_gap.heuristics.dispatch.mixed_cost.plan_for_cost`.
    workers : int, default 1
        Threads of the solver.
    seed : int, default 0

    Raises
    ------
    InputError
        If an argument is not what it must be, or the instance is too large.
    ContradictionError
        If the solver's bound exceeds what a map has, or it says that there is no such map.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.problem.routing.mixed_cost import StepCost
    >>> from eplb_gap.solvers.serving.mixed_cost import solve_mixed_cost
    >>> found = solve_mixed_cost(np.array([[5, 4, 1, 0]]), Deployment(4, 4, 2), StepCost(expert=2, token=1))
    >>> found.upper, found.status  # 7 for expert 0; 6 + 3 for experts 1 and 2
    (9, 'optimal')
    """
    deployment.require_regular("a plan for decode steps")
    choices = int((cost.jobs(counts) > 0).sum()) * deployment.num_gpus
    if choices > MOST_CHOICES:
        raise InputError(f"counts has {choices} choices of a GPU for an active expert; at most {MOST_CHOICES} are modelled")
    phy2log, gpus = plan_for_cost(counts, deployment, cost, seed=seed)
    upper = _value(gpus, counts, phy2log, deployment, cost)
    floors = step_cost_bounds(counts, deployment.num_gpus, cost)
    lower = int(floors.sum())
    if upper == lower:
        return MixedPlan(phy2log, gpus, upper, lower, "recomputed")
    found, claim = _solve(counts, deployment, cost, (phy2log, gpus), time_limit, workers, seed)
    if found is not None and (value := _value(found[1], counts, found[0], deployment, cost)) < upper:
        (phy2log, gpus), upper = found, value
    if claim > upper:
        raise ContradictionError(f"bound {claim} of CP-SAT exceeds {upper}, which a map has")
    if claim <= lower:
        return MixedPlan(phy2log, gpus, upper, lower, "recomputed")
    return MixedPlan(phy2log, gpus, upper, claim, "claim")


Found = tuple[np.ndarray, np.ndarray]


def _value(gpus: np.ndarray, counts: np.ndarray, phy2log: np.ndarray, deployment: Deployment, cost: StepCost) -> int:
    """Return what all steps pay, after checking that the map is legal."""
    check(Placement(phy2log[None], deployment.num_experts), deployment)
    return int(step_costs(gpus, counts, phy2log, deployment, cost).sum())


def _solve(
    counts: np.ndarray, deployment: Deployment, cost: StepCost, start: Found, time_limit: float, workers: int, seed: int
) -> tuple[Found | None, int]:
    """Return a map with choices, if the solver has one, and the bound that it claims."""
    from ortools.sat.python import cp_model

    jobs, floors = cost.jobs(counts), step_cost_bounds(counts, deployment.num_gpus, cost)
    upper = step_costs(start[1], counts, start[0], deployment, cost)
    experts, gpus = range(deployment.num_experts), range(deployment.num_gpus)
    problem = cp_model.CpModel()
    # As the sum is to be no larger than it is, no step exceeds its floor by more than all steps together do now.
    slack = int(upper.sum() - floors.sum())
    paid = [problem.new_int_var(int(floor), int(floor) + slack, f"T_{t}") for t, floor in enumerate(floors)]
    problem.add(sum(paid) <= int(upper.sum()))
    held = {(e, g): problem.new_bool_var(f"x_{e}_{g}") for e in experts for g in gpus}
    for e in experts:
        problem.add_bool_or(held[e, g] for g in gpus)
    for g in gpus:
        problem.add(sum(held[e, g] for e in experts) <= deployment.slots_per_gpu)
    # GPUs, and nodes, can be exchanged: the expert with most tokens is on the first.
    first = int(counts.sum(axis=0).argmax())
    problem.add(held[first, 0] == 1)
    if deployment.policy == "hierarchical":
        _keep_groups_together(problem, held, deployment)
    read = {(t, e, g): problem.new_bool_var(f"z_{t}_{e}_{g}") for t, e in np.argwhere(counts > 0).tolist() for g in gpus}
    for t, e in np.argwhere(counts > 0).tolist():
        problem.add_exactly_one(read[t, e, g] for g in gpus)
        for g in gpus:
            problem.add_implication(read[t, e, g], held[e, g])
    for t, row in enumerate(jobs):
        active = np.flatnonzero(row).tolist()
        for g in gpus:
            problem.add(sum(int(row[e]) * read[t, e, g] for e in active) <= paid[t])
    problem.minimize(sum(paid))
    on = start[0].reshape(deployment.num_gpus, -1)
    order = _with_first(int(np.flatnonzero((on == first).any(axis=1))[0]), deployment)
    for (e, g), variable in held.items():
        problem.add_hint(variable, bool((on[order[g]] == e).any()))
    for (t, e, g), variable in read.items():
        problem.add_hint(variable, bool(start[1][t, e] == order[g]))
    for variable, value in zip(paid, upper.tolist(), strict=True):
        problem.add_hint(variable, value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = max(time_limit, 0.0)
    solver.parameters.catch_sigint_signal = False
    answers: list[Any] = []
    if run_interruptibly(lambda: answers.append(solver.solve(problem)), solver.stop_search):
        raise KeyboardInterrupt
    status = solver.status_name(answers[0])
    if status == "INFEASIBLE":
        raise ContradictionError("CP-SAT says that no map is as cheap as one that there is")
    if not has_solution(status):
        return None, 0
    on_gpu = [[e for e in experts if solver.value(held[e, g])] for g in gpus]
    chosen = np.full(counts.shape, -1)
    for (t, e, g), variable in read.items():
        if solver.value(variable):
            chosen[t, e] = g
    claim = round_bound(solver.best_objective_bound, Fraction(1), 1)
    return (_filled(on_gpu, deployment), chosen), int(claim)


def _with_first(gpu: int, deployment: Deployment) -> np.ndarray:
    """Return the GPUs in an order that begins with one: its node and the first change places, and so do GPUs within nodes."""
    order = np.arange(deployment.num_gpus).reshape(deployment.num_nodes, -1)
    node, place = divmod(gpu, deployment.gpus_per_node)
    order[[0, node]] = order[[node, 0]]
    order[:, [0, place]] = order[:, [place, 0]]
    return order.ravel()


def _keep_groups_together(problem: Any, held: dict[tuple[int, int], Any], deployment: Deployment) -> None:
    nodes, groups = range(deployment.num_nodes), range(deployment.num_groups)
    on_node = {(p, n): problem.new_bool_var(f"y_{p}_{n}") for p in groups for n in nodes}
    for p in groups:
        problem.add_exactly_one(on_node[p, n] for n in nodes)
    for n in nodes:
        problem.add(sum(on_node[p, n] for p in groups) == deployment.groups_per_node)
    for (e, g), variable in held.items():
        problem.add_implication(variable, on_node[e // deployment.experts_per_group, g // deployment.gpus_per_node])


def _filled(on_gpu: list[list[int]], deployment: Deployment) -> np.ndarray:
    """Return a map whose open slots hold further replicas: of experts of the node, not twice on a GPU while that can be."""
    hierarchical = deployment.policy == "hierarchical"
    slots = []
    for g, experts in enumerate(on_gpu):
        node = g // deployment.gpus_per_node
        near = {
            e for other, some in enumerate(on_gpu) if not hierarchical or other // deployment.gpus_per_node == node for e in some
        }
        more = [*sorted(near - set(experts)), *sorted(near) * deployment.slots_per_gpu]
        slots += [*experts, *more][: deployment.slots_per_gpu]
    return np.array(slots)
