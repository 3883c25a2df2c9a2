"""The count-indexed assignment model of :mod:`eplb_gap.solvers.compact.milp` in CP-SAT, with loads as integers.

The integers are exact wherever they fit. Where they do not, loads are rounded down: such a model is a relaxation, so its
bound is valid for the exact problem, and the incumbent evaluates the map exactly.

One departure from the MILP: GPUs of equally many slots are numbered by their replicas of the hottest expert, which removes much
of their symmetry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import assigned, count_ranges, denominator
from eplb_gap.solvers.compact.native import run_interruptibly
from eplb_gap.solvers.compact.watchdog import watched
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits

LARGEST_EXACT = 2**53
"""Sums of loads stay below this: they fit int64, and CP-SAT reports its bound as a float, exact up to here."""
ROUNDED_TOTAL = 2**40
BOUND_NOISE = 1e-2
"""The bound is an integer; a float this little above one is that integer."""


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield the map that CP-SAT finds and the bound that it claims.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map is the hint, its makespan limits T.
    limits : Limits

    Raises
    ------
    RuntimeError
        If the solver calls the feasible model infeasible or invalid.
    KeyboardInterrupt
        On Ctrl-C, after what was found so far.
    """
    if limits.seconds_left <= 0:
        return
    import ortools
    from ortools.sat.python import cp_model

    model = _build(instance, incumbent)
    solver = cp_model.CpSolver()
    # Symmetry detection in presolve can turn a complete feasible hint infeasible and end with an unknown status.
    parameters = {"symmetry_level": 0, "linearization_level": 2, "num_workers": limits.workers, "random_seed": limits.seed}
    for name, value in parameters.items():
        setattr(solver.parameters, name, value)
    solver.parameters.max_time_in_seconds = limits.seconds_left
    solver.parameters.catch_sigint_signal = False
    answers: list[Any] = []
    interrupted = run_interruptibly(lambda: answers.append(solver.solve(model.problem)), solver.stop_search)
    try:
        if has_solution(solver.status_name(answers[0])):
            yield _read_map(model, solver)
            claim = round_bound(solver.best_objective_bound, model.scale, model.multiple)
            yield Bound(claim, "claim", {"solver": "CP-SAT", "version": ortools.__version__, "parameters": parameters})
    finally:
        # Raised even when the caller stops asking: the solver swallowed Ctrl-C, the call must not go on.
        if interrupted:
            raise KeyboardInterrupt


def has_solution(status: str) -> bool:
    """Return whether a status of CP-SAT comes with a solution and a bound; an unknown one comes with nothing to rely on.

    Raises
    ------
    RuntimeError
        If the status is "INFEASIBLE" or "MODEL_INVALID": the model is neither.
    """
    if status in ("INFEASIBLE", "MODEL_INVALID"):
        raise RuntimeError(f"CP-SAT reports {status} for a model that has a solution; the solver is wrong")
    return status in ("OPTIMAL", "FEASIBLE")


def round_bound(bound: float, scale: Fraction, multiple: int) -> Fraction:
    """Return the makespan that a bound on the scaled, integer makespan stands for.

    Parameters
    ----------
    bound : float
        As CP-SAT reports it.
    scale : Fraction
        Scaled loads are ``floor(w_e scale / c)``.
    multiple : int
        Every makespan is a multiple of ``1 / multiple``.
    """
    return Fraction(math.ceil(math.ceil(bound - BOUND_NOISE) / scale * multiple), multiple)


def choose_scale(total: int, multiple: int) -> Fraction:
    """Return the factor of the scaled loads: ``multiple``, which makes them exact, unless their sum would not be safe."""
    return Fraction(multiple) if total * multiple < LARGEST_EXACT else Fraction(ROUNDED_TOTAL, total)


@dataclass(frozen=True)
class _Model:
    instance: Instance
    problem: Any
    copies: dict[tuple[int, int, int], Any]
    scale: Fraction
    multiple: int


def _build(instance: Instance, incumbent: Incumbent) -> _Model:
    from ortools.sat.python import cp_model

    upper = incumbent.upper
    ranges = count_ranges(instance, upper)
    multiple = denominator(ranges)
    scale = choose_scale(instance.total, multiple)
    gpus = range(instance.num_gpus)
    problem = cp_model.CpModel()
    # Rounding down keeps both limits valid: a map of makespan t has scaled loads of at most floor(t scale).
    lowest = math.floor(best_joint_bound(instance).value * scale)
    highest = math.floor((instance.total if upper is None else upper) * scale)
    makespan = problem.new_int_var(lowest, highest, "T")
    has_count, copies = {}, {}
    for expert, counts in enumerate(ranges):
        for count in counts:
            has_count[expert, count] = problem.new_bool_var(f"z_{expert}_{count}")
            for gpu in gpus:
                most = 1 if instance.duplicates == "forbidden" else min(count, instance.slots_by_gpu[gpu])
                copies[expert, count, gpu] = problem.new_int_var(0, most, f"x_{expert}_{count}_{gpu}")
    for expert, counts in enumerate(ranges):
        problem.add_exactly_one(has_count[expert, count] for count in counts)
        for count in counts:
            problem.add(sum(copies[expert, count, gpu] for gpu in gpus) == count * has_count[expert, count])
    here = [(expert, count) for expert, counts in enumerate(ranges) for count in counts]
    sizes = [math.floor(instance.loads[expert] * scale / count) for expert, count in here]
    for gpu in gpus:
        on_gpu = [copies[expert, count, gpu] for expert, count in here]
        problem.add(sum(on_gpu) == instance.slots_by_gpu[gpu])
        problem.add(cp_model.LinearExpr.weighted_sum(on_gpu, sizes) <= makespan)
    # GPUs of equally many slots are alike, so they may be numbered by the replicas of the hottest expert on them, most first.
    hottest = max(range(instance.num_experts), key=instance.loads.__getitem__)
    of_hottest = [sum(copies[hottest, count, gpu] for count in ranges[hottest]) for gpu in gpus]
    for alike in _alike(instance):
        for one, other in itertools.pairwise(alike):
            problem.add(of_hottest[one] >= of_hottest[other])
    problem.minimize(makespan)
    if incumbent.slots is not None:
        counted, placed = assigned(_numbered_by(hottest, incumbent.slots, instance), instance.starts)
        problem.add_hint(makespan, highest)
        for (expert, count), variable in has_count.items():
            problem.add_hint(variable, int(counted[expert] == count))
        for key, variable in copies.items():
            problem.add_hint(variable, placed[key])
    return _Model(instance, problem, copies, scale, multiple)


def _alike(instance: Instance) -> list[list[int]]:
    """Return the GPUs in classes of equally many slots, ascending."""
    classes: dict[int, list[int]] = {}
    for gpu, slots in enumerate(instance.slots_by_gpu):
        classes.setdefault(slots, []).append(gpu)
    return list(classes.values())


def _numbered_by(expert: int, slots: Sequence[int], instance: Instance) -> list[int]:
    """Return the map with its GPUs, among those alike, in descending order of the replicas of an expert."""
    gpus = [slots[start:end] for start, end in itertools.pairwise(instance.starts)]
    numbered = list(gpus)
    for alike in _alike(instance):
        for gpu, contents in zip(alike, sorted((gpus[g] for g in alike), key=lambda held: -held.count(expert)), strict=True):
            numbered[gpu] = contents
    return [e for contents in numbered for e in contents]


def _read_map(model: _Model, solver: Any) -> tuple[int, ...]:
    placed: list[list[int]] = [[] for _ in range(model.instance.num_gpus)]
    for (expert, _, gpu), variable in model.copies.items():
        placed[gpu] += [expert] * solver.value(variable)
    return tuple(expert for experts in placed for expert in experts)


ENGINE = Engine("cpsat", watched(search), unequal=True)
