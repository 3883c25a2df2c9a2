"""Proven optima of sample-average placement for small layers: the assignment model with one makespan per window.

The variables are those of :mod:`eplb_gap.solvers.compact.milp`; the hierarchical policy adds ``y[p, n]``, whether group p is on
node n. ::

    minimise sum_t T_t
    sum_c z[e, c] = 1                            every expert has one count
    sum_g x[e, c, g] = c z[e, c]                 and that many replicas
    sum_{e, c} x[e, c, g] = k_g                  every GPU is full
    sum_{e, c} (w_te / c) x[e, c, g] <= T_t      for every window t and GPU g
    sum_c x[e, c, g] <= k y[group of e, node of g]   where all have k slots

A solver's optimum is its claim; maps are recomputed exactly by
:func:`eplb_gap.problem.bounds.sample_average.sample_average_makespan`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.planner import uneven
from eplb_gap.heuristics.serving.sample_average import plan
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.bounds.sample_average import sample_average_bound, sample_average_makespan
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.compact.cpsat import LARGEST_EXACT, has_solution, round_bound
from eplb_gap.solvers.compact.milp import INTEGRALITY, TOLERANCE, round_claim, run_highs
from eplb_gap.solvers.compact.native import run_interruptibly
from eplb_gap.solvers.engine import ContradictionError, Limits
from eplb_gap.solvers.solution import Solution


@dataclass(frozen=True)
class Layer:
    """One layer as the models see it: what is given, and a start.

    Parameters
    ----------
    history : ndarray
        int64 [windows, experts].
    deployment : Deployment
        Without dead GPUs, and without nodes and groups where the policy is global.
    slots : tuple of int
        A legal map.
    upper, lower : Fraction
        Its exact sum of makespans over the windows, and a proven bound on that sum.
    ranges : list of range
        Counts that an expert can have in a map that is as good.
    """

    history: np.ndarray
    deployment: Deployment
    slots: tuple[int, ...]
    upper: Fraction
    lower: Fraction
    ranges: list[range]

    def node(self, gpu: int) -> int:
        """Node of a GPU."""
        return gpu // self.deployment.gpus_per_node

    def group(self, expert: int) -> int:
        """Group of an expert."""
        return expert // self.deployment.experts_per_group


Answer = tuple[tuple[int, ...] | None, Fraction | None, str]
"""A map, a claimed bound on the sum of makespans, and who claims it; None where the solver has none."""


def solve_sample_average(
    history: Any, deployment: Deployment, method: str = "cpsat", time_limit: float = 60.0, workers: int = 1, seed: int = 0
) -> Solution:
    """Minimise the mean makespan of one map over all windows, layer by layer.

    Parameters
    ----------
    history : array_like of int [windows, layers, experts]
    deployment : Deployment
    method : str, default "cpsat"
        Key of :data:`MODELS`.
    time_limit : float, default 60
        Wall seconds for all layers.
    workers : int, default 1
        Threads of the solver.
    seed : int, default 0

    Returns
    -------
    Solution
        ``upper`` and ``lower`` are means over the windows, in tokens.

    Raises
    ------
    InputError
        If history or method is not what it must be.
    ContradictionError
        If a solver's bound exceeds a map's value.
    """
    if method not in MODELS:
        raise InputError(f"method is {method!r}; the models are {', '.join(MODELS)}")
    checked = as_loads(history, "history", 3)
    largest = max(checked[:, layer].sum(dtype=object) for layer in range(checked.shape[1]))
    if largest >= 1 << 63:
        raise InputError(f"history has {largest} tokens in a layer over all windows; at most 2**63 - 1 are added up")
    live = deployment.live
    start = _start(checked, live)  # before the clock starts: the first call of a process compiles
    begin = time.monotonic()
    limits = Limits(begin + time_limit, workers=workers, seed=seed)
    rows, bounds = [], []
    for layer, slots in enumerate(start.phy2log):
        of_layer = checked[:, layer]
        found, bound = _solve_layer(of_layer, live, tuple(slots.tolist()), MODELS[method], limits)
        rows.append(found)
        bounds.append(bound)
    placement = with_dead(Placement(np.array(rows), deployment.num_experts), deployment)
    upper = sample_average_makespan(placement, checked, deployment)
    for layer, (value, bound) in enumerate(zip(upper, bounds, strict=True)):
        if bound.value > value:
            raise ContradictionError(f"layer {layer}: bound {bound.value} of {bound.witness} exceeds {value}, which a map has")
    return Solution(placement, upper, bounds, method, time.monotonic() - begin, checked, deployment)


def _start(history: np.ndarray, live: Deployment) -> Placement:
    """Return a legal map; where slots are unequal one that was planned on the sum of the windows."""
    return plan(history, live) if live.is_regular else uneven.plan(history.sum(axis=0), live)


def _solve_layer(
    history: np.ndarray, deployment: Deployment, slots: tuple[int, ...], model: Callable[[Layer, Limits], Answer], limits: Limits
) -> tuple[tuple[int, ...], Bound]:
    windows = len(history)
    # What enumeration would prove is left to the model: its proof is to be one of its own.
    bound = sample_average_bound(history, deployment, listing=False)
    value = _value(slots, history, deployment)
    if value == bound.value or limits.seconds_left <= 0:
        return slots, bound
    shape = deployment if deployment.policy == "hierarchical" else deployment.as_global()
    summed = Instance.of_layer(history.sum(axis=0), shape)
    # No replica's sum over the windows is larger than the sum of makespans.
    ranges = count_ranges(summed, value * windows)
    layer = Layer(history, shape, slots, value * windows, bound.value * windows, ranges)
    found, claim, solver = model(layer, limits)
    if found is not None and _value(found, history, deployment) < value:
        slots = found
    if claim is not None and claim / windows > bound.value:
        bound = Bound(claim / windows, "claim", {"solver": solver})
    return slots, bound


def _value(slots: tuple[int, ...], history: np.ndarray, deployment: Deployment) -> Fraction:
    placement = Placement(np.array([slots]), deployment.num_experts)
    return sample_average_makespan(placement, history[:, None], deployment)[0]


def _keys(layer: Layer) -> tuple[list[tuple[int, int]], range, int]:
    """Return the pairs (expert, count), the GPUs, and the most replicas of an expert on a GPU."""
    pairs = [(expert, count) for expert, counts in enumerate(layer.ranges) for count in counts]
    most = 1 if layer.deployment.duplicates == "forbidden" else max(layer.deployment.slots_by_gpu)
    return pairs, range(layer.deployment.num_gpus), most


def _as_map(placed: dict[tuple[int, int, int], int], num_gpus: int) -> tuple[int, ...]:
    on_gpu: list[list[int]] = [[] for _ in range(num_gpus)]
    for (expert, _, gpu), copies in placed.items():
        on_gpu[gpu] += [expert] * copies
    return tuple(expert for experts in on_gpu for expert in experts)


def solve_highs(layer: Layer, limits: Limits) -> Answer:
    """Solve the model as a MILP in PuLP with HiGHS."""
    import pulp

    pairs, gpus, most = _keys(layer)
    deployment, history = layer.deployment, layer.history
    unit = Fraction(int(history.sum()), deployment.num_gpus) or Fraction(1)
    problem = pulp.LpProblem("sample_average", pulp.LpMinimize)
    makespans = [problem.add_variable(f"T_{t}", 0) for t in range(len(history))]
    problem += pulp.lpSum(makespans)
    problem += pulp.lpSum(makespans) >= float(layer.lower / unit - TOLERANCE)
    has_count = {(e, c): problem.add_variable(f"z_{e}_{c}", 0, 1, cat=pulp.LpInteger) for e, c in pairs}
    copies = {
        (e, c, g): problem.add_variable(f"x_{e}_{c}_{g}", 0, min(c, most), cat=pulp.LpInteger) for e, c in pairs for g in gpus
    }
    for expert, counts in enumerate(layer.ranges):
        problem += pulp.lpSum(has_count[expert, c] for c in counts) == 1
        for c in counts:
            problem += pulp.lpSum(copies[expert, c, g] for g in gpus) == c * has_count[expert, c]
    for g in gpus:
        problem += pulp.lpSum(copies[e, c, g] for e, c in pairs) == deployment.slots_by_gpu[g]
        for t, makespan in enumerate(makespans):
            load = pulp.lpSum(float(int(history[t, e]) / unit / c) * copies[e, c, g] for e, c in pairs)
            problem += load <= makespan
    if deployment.num_nodes > 1:
        nodes, groups = range(deployment.num_nodes), range(deployment.num_groups)
        on_node = {(p, n): problem.add_variable(f"y_{p}_{n}", 0, 1, cat=pulp.LpInteger) for p in groups for n in nodes}
        for p in groups:
            problem += pulp.lpSum(on_node[p, n] for n in nodes) == 1
        for n in nodes:
            problem += pulp.lpSum(on_node[p, n] for p in groups) == deployment.groups_per_node
        for expert, counts in enumerate(layer.ranges):
            for g in gpus:
                here = pulp.lpSum(copies[expert, c, g] for c in counts)
                problem += here <= most * on_node[layer.group(expert), layer.node(g)]
    ran = run_highs(problem, False, limits)
    if ran.interrupted:
        raise KeyboardInterrupt
    found = None
    if ran.outcome.has_map:
        for variable in copies.values():
            if abs(variable.varValue - round(variable.varValue)) > INTEGRALITY:
                raise RuntimeError(f"HiGHS returned {variable.name} = {variable.varValue}; an integer is needed")
        found = _as_map({key: round(variable.varValue) for key, variable in copies.items()}, deployment.num_gpus)
    if ran.outcome.bound is None:
        return found, None, ran.solver
    best = layer.upper
    if found is not None:
        best = min(best, _value(found, history, deployment) * len(history))
    return found, round_claim(ran.outcome.bound, unit, denominator(layer.ranges), best), ran.solver


def solve_cpsat(layer: Layer, limits: Limits) -> Answer:
    """Solve the model with CP-SAT on integer loads, exactly.

    Raises
    ------
    InputError
        If the loads times the least common multiple of the counts do not fit the solver's integers.
    RuntimeError
        If the solver calls the feasible model infeasible or invalid.
    """
    from ortools.sat.python import cp_model

    pairs, gpus, most = _keys(layer)
    deployment, history = layer.deployment, layer.history
    multiple = denominator(layer.ranges)
    if int(history.sum()) * multiple >= LARGEST_EXACT:
        raise InputError(
            f"history has {history.sum()} tokens and counts of multiple {multiple}; their product must be below 2**53"
        )
    problem = cp_model.CpModel()
    makespans = [problem.new_int_var(0, int(window.sum()) * multiple, f"T_{t}") for t, window in enumerate(history)]
    problem.add(sum(makespans) >= math.ceil(layer.lower * multiple))
    problem.add(sum(makespans) <= math.floor(layer.upper * multiple))
    has_count = {(e, c): problem.new_bool_var(f"z_{e}_{c}") for e, c in pairs}
    copies = {(e, c, g): problem.new_int_var(0, min(c, most), f"x_{e}_{c}_{g}") for e, c in pairs for g in gpus}
    for expert, counts in enumerate(layer.ranges):
        problem.add_exactly_one(has_count[expert, c] for c in counts)
        for c in counts:
            problem.add(sum(copies[expert, c, g] for g in gpus) == c * has_count[expert, c])
    for g in gpus:
        on_gpu = [copies[e, c, g] for e, c in pairs]
        problem.add(sum(on_gpu) == deployment.slots_by_gpu[g])
        for window, makespan in zip(history, makespans, strict=True):
            sizes = [int(window[e]) * multiple // c for e, c in pairs]
            problem.add(cp_model.LinearExpr.weighted_sum(on_gpu, sizes) <= makespan)
    if deployment.num_nodes > 1:
        nodes, groups = range(deployment.num_nodes), range(deployment.num_groups)
        on_node = {(p, n): problem.new_bool_var(f"y_{p}_{n}") for p in groups for n in nodes}
        for p in groups:
            problem.add_exactly_one(on_node[p, n] for n in nodes)
        for n in nodes:
            problem.add(sum(on_node[p, n] for p in groups) == deployment.groups_per_node)
        for (e, c, g), variable in copies.items():
            problem.add(variable <= min(c, most) * on_node[layer.group(e), layer.node(g)])
    problem.minimize(sum(makespans))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = limits.workers
    solver.parameters.random_seed = limits.seed
    solver.parameters.symmetry_level = 0
    solver.parameters.max_time_in_seconds = limits.seconds_left
    solver.parameters.catch_sigint_signal = False
    answers: list[Any] = []
    if run_interruptibly(lambda: answers.append(solver.solve(problem)), solver.stop_search):
        raise KeyboardInterrupt
    if not has_solution(solver.status_name(answers[0])):
        return None, None, "CP-SAT"
    found = _as_map({key: solver.value(variable) for key, variable in copies.items()}, deployment.num_gpus)
    return found, round_bound(solver.best_objective_bound, Fraction(multiple), multiple), "CP-SAT"


MODELS: dict[str, Callable[[Layer, Limits], Answer]] = {"cpsat": solve_cpsat, "milp": solve_highs}
"""Models by the name of their solver."""
