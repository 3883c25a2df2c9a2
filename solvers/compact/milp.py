"""The textbook count-indexed assignment model as a MILP in PuLP, solved by HiGHS or by CBC.

For every expert e, possible count c and GPU g: ``z[e, c]`` says whether e has c replicas, ``x[e, c, g]`` how many of them are
on g. ::

    minimise T
    sum_c z[e, c] = 1                          every expert has one count
    sum_g x[e, c, g] = c z[e, c]               and that many replicas
    sum_{e, c} x[e, c, g] = k_g                every GPU is full
    sum_{e, c} (w_e / c) x[e, c, g] <= T       T is the makespan

Its linear relaxation is worth the mean load, so it proves small instances only. What a backend returns is not trusted: a map
is recomputed exactly by the incumbent, a bound is rounded safely and labelled a claim.
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact import native
from eplb_gap.solvers.compact.counts import assigned, count_ranges, denominator
from eplb_gap.solvers.compact.watchdog import watched
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits

TOLERANCE = Fraction(1, 10**6)
"""Error allowed for in a backend's bound, relative to the mean load: the feasibility tolerance of both backends."""
INTEGRALITY = 1e-4


def search_highs(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield the map that HiGHS finds and the bound that it claims.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map starts the solver, its makespan limits T.
    limits : Limits

    Raises
    ------
    RuntimeError
        If highspy is older than 1.15.1 (some of those return false optima), the solver calls a feasible model infeasible, or
        its solution is not integral.
    KeyboardInterrupt
        On Ctrl-C, after what was found so far.
    """
    if limits.seconds_left > 0:
        yield from _findings(_build(instance, incumbent), limits, run_highs)


def search_cbc(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield the map that CBC finds, and its makespan as a claimed bound if CBC says that it is optimal.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map starts the solver, its makespan limits T.
    limits : Limits

    Raises
    ------
    RuntimeError
        If the solver fails, calls a feasible model infeasible, or its solution is not integral.
    """
    if limits.seconds_left > 0:
        yield from _findings(_build(instance, incumbent), limits, run_cbc)


@dataclass(frozen=True)
class Outcome:
    """What may be concluded from a finished backend: whether it holds a map, and its bound on T, if any."""

    has_map: bool
    bound: float | None


def read_outcome(sol_status: int, objective: float | None, dual_bound: float | None) -> Outcome:
    """Map what PuLP and a backend report to what it proves.

    PuLP's ``status`` is "Optimal" at a time limit too, so it is not read at all.

    Parameters
    ----------
    sol_status : int
        PuLP's ``sol_status``.
    objective : float or None
        Objective of the solution; None where the backend says that it holds no feasible one.
    dual_bound : float or None
        The backend's own bound; None where it reports none, and then only a proven optimum is one.

    Raises
    ------
    RuntimeError
        If the backend says infeasible or unbounded: the model is neither.
    """
    import pulp

    if sol_status in (pulp.LpSolutionInfeasible, pulp.LpSolutionUnbounded):
        raise RuntimeError(
            f"a MILP solver reports {pulp.LpSolution[sol_status]!r} for a model that has a solution; the solver is wrong"
        )
    has_map = objective is not None and sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    if dual_bound is None and has_map and sol_status == pulp.LpSolutionOptimal:
        dual_bound = objective
    return Outcome(has_map, dual_bound if dual_bound is not None and math.isfinite(dual_bound) else None)


def round_claim(bound: float, unit: Fraction, multiple: int, makespan: Fraction | None) -> Fraction:
    """Return the makespan that a backend's bound stands for.

    Every makespan is a multiple of ``1 / multiple``, so the bound less the tolerance is rounded up to one. A claim that exceeds
    the best map's makespan by no more than the tolerance is that makespan: both name the same optimum as exactly as the
    backend knows it, and the map's value is the one that is known to be attained. A claim further above is returned as it is,
    for it contradicts the map.

    Parameters
    ----------
    bound : float
        On T in the model, whose loads are divided by ``unit``.
    unit : Fraction
    multiple : int
    makespan : Fraction or None
        Of the best map known.
    """
    slack = TOLERANCE * unit
    claim = Fraction(math.ceil((Fraction(bound) * unit - slack) * multiple), multiple)
    if makespan is not None and makespan < claim <= makespan + slack:
        return makespan
    return claim


@dataclass(frozen=True)
class _Model:
    instance: Instance
    problem: Any
    copies: dict[tuple[int, int, int], Any]
    unit: Fraction
    multiple: int
    upper: Fraction | None
    has_start: bool


@dataclass(frozen=True)
class Run:
    """What a backend said, who it is, and whether Ctrl-C ended it."""

    outcome: Outcome
    solver: str
    version: str
    parameters: dict[str, Any]
    interrupted: bool = False


def _build(instance: Instance, incumbent: Incumbent) -> _Model:
    import pulp

    upper = incumbent.upper
    ranges = count_ranges(instance, upper)
    # Loads are divided by the mean, so that T is near 1 and the backends' absolute tolerances are relative to it.
    unit = instance.mean or Fraction(1)
    gpus = range(instance.num_gpus)
    problem = pulp.LpProblem("placement", pulp.LpMinimize)
    # A little room keeps the known map feasible after conversion to float. It is less than the tolerance of a claim, for a
    # backend may well report this very limit as its bound.
    makespan = problem.add_variable(
        "T", float(best_joint_bound(instance).value / unit), None if upper is None else float(upper / unit + TOLERANCE / 2)
    )
    problem += makespan
    has_count, copies = {}, {}
    for expert, counts in enumerate(ranges):
        for count in counts:
            has_count[expert, count] = problem.add_variable(f"z_{expert}_{count}", 0, 1, cat=pulp.LpInteger)
            for gpu in gpus:
                most = 1 if instance.duplicates == "forbidden" else min(count, instance.slots_by_gpu[gpu])
                copies[expert, count, gpu] = problem.add_variable(f"x_{expert}_{count}_{gpu}", 0, most, cat=pulp.LpInteger)
    for expert, counts in enumerate(ranges):
        problem += pulp.lpSum(has_count[expert, count] for count in counts) == 1
        for count in counts:
            problem += pulp.lpSum(copies[expert, count, gpu] for gpu in gpus) == count * has_count[expert, count]
    for gpu in gpus:
        here = [(expert, count) for expert, counts in enumerate(ranges) for count in counts]
        problem += pulp.lpSum(copies[expert, count, gpu] for expert, count in here) == instance.slots_by_gpu[gpu]
        load = pulp.lpSum(float(instance.loads[expert] / unit / count) * copies[expert, count, gpu] for expert, count in here)
        problem += load <= makespan
    if incumbent.slots is not None and upper is not None:
        counted, placed = assigned(incumbent.slots, instance.starts)
        makespan.setInitialValue(float(upper / unit))
        for (expert, count), variable in has_count.items():
            variable.setInitialValue(int(counted[expert] == count))
        for key, variable in copies.items():
            variable.setInitialValue(placed[key])
    return _Model(instance, problem, copies, unit, denominator(ranges), upper, incumbent.slots is not None)


def _findings(model: _Model, limits: Limits, run: Callable[[Any, bool, Limits], Run]) -> Iterator[Finding]:
    ran = run(model.problem, model.has_start, limits)
    try:
        best = model.upper
        if ran.outcome.has_map:
            slots = _read_map(model)
            value = model.instance.makespan(slots)
            best = value if best is None else min(value, best)
            yield slots
        if ran.outcome.bound is not None:
            claim = round_claim(ran.outcome.bound, model.unit, model.multiple, best)
            yield Bound(claim, "claim", {"solver": ran.solver, "version": ran.version, "parameters": ran.parameters})
    finally:
        # Raised even when the caller stops asking: a solver that swallowed Ctrl-C must not let the call go on.
        if ran.interrupted:
            raise KeyboardInterrupt


def _read_map(model: _Model) -> tuple[int, ...]:
    placed: list[list[int]] = [[] for _ in range(model.instance.num_gpus)]
    for (expert, _, gpu), variable in model.copies.items():
        value = variable.varValue
        if abs(value - round(value)) > INTEGRALITY:
            raise RuntimeError(f"a MILP solver returned {variable.name} = {value}; an integer within {INTEGRALITY} is needed")
        placed[gpu] += [expert] * round(value)
    for gpu, experts in enumerate(placed):
        slots = model.instance.slots_by_gpu[gpu]
        if len(experts) != slots:
            raise RuntimeError(f"a MILP solver put {len(experts)} replicas on GPU {gpu}; it has {slots} slots")
    return tuple(expert for experts in placed for expert in experts)


def run_highs(problem: Any, has_start: bool, limits: Limits) -> Run:
    """Run HiGHS on a PuLP problem to a gap of zero, from the variables' initial values if they are a start."""
    import highspy
    import pulp

    version = native.checked_highspy()
    parameters = {"mip_rel_gap": 0.0, "mip_abs_gap": 0.0, "threads": limits.workers, "random_seed": limits.seed}
    solver = pulp.HiGHS(msg=False, timeLimit=limits.seconds_left, **parameters)
    with native.without_stdout():  # the constructor prints a banner before any option can be set
        solver.createAndConfigureSolver(problem)
    solver.buildSolverModel(problem)
    highs = problem.solverModel
    highs.HandleUserInterrupt = True
    if has_start:
        start = highspy.HighsSolution()
        start.col_value = [float(variable.varValue) for variable in problem.variables()]
        start.value_valid = True
        highs.setSolution(start)

    interrupted = False
    try:
        native.check_status(highs, native.run_highs(highs, highs.cancelSolve))
    except KeyboardInterrupt:  # what has been found until then still counts
        interrupted = True
    _, sol_status = solver.findSolutionValues(problem)
    info = highs.getInfo()
    feasible = info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible)
    outcome = read_outcome(sol_status, info.objective_function_value if feasible else None, info.mip_dual_bound)
    return Run(outcome, "HiGHS", version, parameters, interrupted)


def run_cbc(problem: Any, has_start: bool, limits: Limits) -> Run:
    """Run CBC on a PuLP problem to a gap of zero, from the variables' initial values if they are a start."""
    import pulp

    solver = pulp.COIN_CMD(path=pulp.PULP_CBC_CMD.pulp_cbc_path)
    parameters: dict[str, Any] = {"ratio": 0.0, "allow": 0.0, "increment": 1e-9, "randomCbcSeed": limits.seed}
    if limits.workers > 1:
        parameters["threads"] = limits.workers
    with tempfile.TemporaryDirectory() as directory:
        mps, start, log, solution = (str(Path(directory, name)) for name in ("model.mps", "start.sol", "cbc.log", "solution.sol"))
        variables, names, rows, _ = problem.writeMPS(mps, rename=True)
        command = [solver.path, mps]
        if has_start:
            solver.writesol(start, problem, variables, names, rows)
            command += ["-mips", start]
        for name, value in {**parameters, "timeMode": "elapsed", "sec": limits.seconds_left}.items():
            command += [f"-{name}", str(value)]
        command += ["-solve", "-printingOptions", "all", "-solution", solution]
        # Not through PuLP, which leaves the process alive when Ctrl-C ends the wait.
        with open(log, "wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            try:
                process.wait()
            finally:
                process.kill()
                process.wait()
        said = Path(log).read_text(errors="replace").splitlines()
        if process.returncode or not Path(solution).exists():
            raise RuntimeError(f"CBC ended with code {process.returncode} without a solution file; its last words: {said[-1:]}")
        _, values, *_, sol_status = solver.readsol_MPS(solution, problem, variables, names, rows)
    problem.assignVarsVals(values)
    version = next(line.split()[1] for line in said if line.startswith("Version:"))
    return Run(read_outcome(sol_status, pulp.value(problem.objective), None), "CBC", version, parameters)


HIGHS = Engine("milp", watched(search_highs), unequal=True)
CBC = Engine("milp-cbc", watched(search_cbc), unequal=True, swept=False)
