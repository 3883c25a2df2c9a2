"""The best map within a number of moves, by CP-SAT: the assignment model of :mod:`eplb_gap.solvers.compact.cpsat` with a budget.

Counts and packing are free, but GPUs are not alike any more: each remembers what it holds, and a replica of an expert on a GPU
that did not hold it before is a move. A reference for small instances, not an engine: its problem has one more datum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.compact.cpsat import choose_scale, has_solution, round_bound
from eplb_gap.solvers.compact.native import run_interruptibly
from eplb_gap.solvers.engine import Incumbent


@dataclass(frozen=True)
class MigrationOptimum:
    """What CP-SAT found.

    Parameters
    ----------
    slots : tuple of int
        The map, GPU after GPU.
    upper : Fraction
        Its exact makespan.
    bound : Bound
        What no map within the budget is below: the solver's claim, or a closed-form bound that holds for any map.
    moves : int
        Replicas on a GPU that did not hold them.
    """

    slots: tuple[int, ...]
    upper: Fraction
    bound: Bound
    moves: int

    @property
    def proven(self) -> bool:
        """Whether upper equals the bound."""
        return self.upper == self.bound.value


def count_moves(slots: Sequence[int], previous: Sequence[int], slots_per_gpu: int) -> int:
    """Return how many replicas of a map are on a GPU that did not hold them, as multisets."""
    moves = 0
    for start in range(0, len(slots), slots_per_gpu):
        on_gpu, before = (Counter(held[start : start + slots_per_gpu]) for held in (slots, previous))
        moves += (on_gpu - before).total()
    return moves


def best_within(
    instance: Instance, previous: Sequence[int], budget: int, time_limit: float = 60.0, workers: int = 1, seed: int = 0
) -> MigrationOptimum:
    """Return the best map that the map in use can become by at most so many moves.

    Parameters
    ----------
    instance : Instance
    previous : sequence of int [slots]
        The map in use, GPU after GPU; legal.
    budget : int
        Most moves.
    time_limit : float, default 60.0
        Seconds.
    workers, seed : int

    Raises
    ------
    InputError
        If the budget is negative.
    PlacementError
        If the map in use, or what the solver returns, is not legal.
    KeyboardInterrupt
        On Ctrl-C.
    """
    if budget < 0:
        raise InputError(f"budget is {budget}; at least 0 moves are needed")
    import ortools
    from ortools.sat.python import cp_model

    incumbent = Incumbent(instance, bound=best_joint_bound(instance))
    incumbent.offer_map(previous)
    model = _build(instance, incumbent, budget)
    solver = cp_model.CpSolver()
    parameters = {"num_workers": workers, "random_seed": seed}
    for name, value in {**parameters, "max_time_in_seconds": time_limit, "catch_sigint_signal": False}.items():
        setattr(solver.parameters, name, value)
    answers: list[Any] = []
    if run_interruptibly(lambda: answers.append(solver.solve(model.problem)), solver.stop_search):
        raise KeyboardInterrupt
    bound = incumbent.bound
    if has_solution(solver.status_name(answers[0])):
        incumbent.offer_map(_read_map(model, solver))
        claim = round_bound(solver.best_objective_bound, model.scale, model.multiple)
        if claim > bound.value:
            bound = Bound(claim, "claim", {"solver": "CP-SAT", "version": ortools.__version__, "parameters": parameters})
    assert incumbent.slots is not None
    assert incumbent.upper is not None
    moves = count_moves(incumbent.slots, previous, instance.slots_per_gpu)
    if moves > budget:
        raise PlacementError(f"CP-SAT returned a map of {moves} moves; at most {budget} are allowed")
    return MigrationOptimum(incumbent.slots, incumbent.upper, bound, moves)


@dataclass(frozen=True)
class _Model:
    num_gpus: int
    problem: Any
    copies: dict[tuple[int, int, int], Any]
    scale: Fraction
    multiple: int


def _build(instance: Instance, incumbent: Incumbent, budget: int) -> _Model:
    from ortools.sat.python import cp_model

    assert incumbent.slots is not None
    assert incumbent.upper is not None
    ranges = count_ranges(instance, incumbent.upper)
    multiple = denominator(ranges)
    scale = choose_scale(instance.total, multiple)
    k, gpus = instance.slots_per_gpu, range(instance.num_gpus)
    held = Counter((expert, slot // k) for slot, expert in enumerate(incumbent.slots))
    problem = cp_model.CpModel()
    # Rounding down keeps both limits valid: a map of makespan t has scaled loads of at most floor(t scale).
    makespan = problem.new_int_var(math.floor(incumbent.bound.value * scale), math.floor(incumbent.upper * scale), "T")
    copies, moves = {}, []
    for expert, counts in enumerate(ranges):
        has_count = {count: problem.new_bool_var(f"z_{expert}_{count}") for count in counts}
        problem.add_exactly_one(has_count.values())
        for count in counts:
            most = 1 if instance.duplicates == "forbidden" else min(count, k)
            for gpu in gpus:
                copies[expert, count, gpu] = problem.new_int_var(0, most, f"x_{expert}_{count}_{gpu}")
            problem.add(sum(copies[expert, count, gpu] for gpu in gpus) == count * has_count[count])
        for gpu in gpus:
            new = problem.new_int_var(0, k, f"m_{expert}_{gpu}")
            problem.add(new >= sum(copies[expert, count, gpu] for count in counts) - held[expert, gpu])
            moves.append(new)
    problem.add(sum(moves) <= budget)
    for gpu in gpus:
        here = [(x, math.floor(instance.loads[e] * scale / c)) for (e, c, g), x in copies.items() if g == gpu]
        variables, sizes = zip(*here, strict=True)
        problem.add(sum(variables) == k)
        problem.add(cp_model.LinearExpr.weighted_sum(variables, sizes) <= makespan)
    problem.minimize(makespan)
    return _Model(instance.num_gpus, problem, copies, scale, multiple)


def _read_map(model: _Model, solver: Any) -> list[int]:
    placed: list[list[int]] = [[] for _ in range(model.num_gpus)]
    for (expert, _, gpu), variable in model.copies.items():
        placed[gpu] += [expert] * solver.value(variable)
    return [expert for experts in placed for expert in experts]
