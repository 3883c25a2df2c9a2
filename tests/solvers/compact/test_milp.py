"""The MILP engines: known optima, agreement with the oracle, and what their backends' words are turned into."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import pulp
import pytest
from known import BY_HAND, FLASHLB

from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.compact import counts, milp, native
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import ContradictionError, Incumbent, Limits, Search, drive
from eplb_gap.solvers.engines import oracle

HARD = Instance(tuple(100 + 37 * e % 91 for e in range(24)), 36, 12)
ENGINES = pytest.mark.parametrize("engine", [milp.search_highs, milp.search_cbc])


def solved(engine: Search, instance: Instance, start: bool = False) -> Incumbent:
    incumbent = Incumbent(instance)
    if start:
        incumbent.offer_map(greedy_map(instance))
    drive(engine, incumbent, Limits(time.monotonic() + 60), lambda: None)
    return incumbent


@ENGINES
@pytest.mark.parametrize(("instance", "value"), BY_HAND)
def test_known_optima(engine: Search, instance: Instance, value: Fraction) -> None:
    for start in (False, True):
        incumbent = solved(engine, instance, start)
        assert incumbent.proven
        assert incumbent.upper == value


def test_flashlb_example() -> None:
    incumbent = solved(milp.search_highs, FLASHLB, start=True)
    assert incumbent.upper == incumbent.bound.value == Fraction(590, 3)
    assert trust(incumbent.bound) == "solver"
    assert incumbent.bound.witness["solver"] == "HiGHS"
    assert incumbent.bound.witness["parameters"]["mip_rel_gap"] == 0.0


@pytest.mark.parametrize(("engine", "number"), [(milp.search_highs, 40), (milp.search_cbc, 10)])
def test_agrees_with_the_oracle(engine: Search, number: int) -> None:
    rng = random.Random(number)
    for index in range(number):
        duplicates = ("allowed", "forbidden")[index % 2]
        gpus, k = rng.choice([(1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (4, 2), (6, 1)])
        experts = rng.randint(max(k, gpus * k - 4), gpus * k)
        instance = Instance(tuple(rng.randint(0, 1000) for _ in range(experts)), gpus * k, gpus, duplicates)
        incumbent = solved(engine, instance, start=index % 3 == 0)
        assert incumbent.proven, instance
        assert incumbent.upper == instance.makespan(oracle.best_map(instance)), instance


@ENGINES
def test_no_time_yields_nothing(engine: Search) -> None:
    assert list(engine(FLASHLB, Incumbent(FLASHLB), Limits(time.monotonic()))) == []


@ENGINES
@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_a_time_limit_is_no_optimum(engine: Search, seconds: float) -> None:
    incumbent = Incumbent(HARD)
    incumbent.offer_map(greedy_map(HARD))
    started = time.monotonic()
    for finding in engine(HARD, incumbent, Limits(started + seconds)):
        if isinstance(finding, Bound):
            incumbent.offer_bound(finding)
        else:
            incumbent.offer_map(finding)
    assert not incumbent.proven
    assert time.monotonic() - started < seconds + 5


def test_workers_may_change_between_solves() -> None:
    instance = BY_HAND[0][0]
    for workers in (1, 2, 1):
        incumbent = Incumbent(instance)
        drive(milp.search_highs, incumbent, Limits(time.monotonic() + 60, workers=workers), lambda: None)
        assert incumbent.proven


def test_statuses_of_pulp() -> None:
    optimal, feasible, nothing = pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible, pulp.LpSolutionNoSolutionFound
    # A backend that reports its own bound is believed in that, never in the word "optimal".
    assert milp.read_outcome(optimal, 2.0, 1.5) == milp.Outcome(True, 1.5)
    assert milp.read_outcome(feasible, 2.0, 1.5) == milp.Outcome(True, 1.5)
    assert milp.read_outcome(feasible, None, 1.5) == milp.Outcome(False, 1.5)
    assert milp.read_outcome(nothing, None, -math.inf) == milp.Outcome(False, None)
    assert milp.read_outcome(feasible, 2.0, math.inf) == milp.Outcome(True, None)
    # One that reports none has a bound only with a proven optimum.
    assert milp.read_outcome(optimal, 2.0, None) == milp.Outcome(True, 2.0)
    assert milp.read_outcome(feasible, 2.0, None) == milp.Outcome(True, None)
    assert milp.read_outcome(nothing, 2.0, None) == milp.Outcome(False, None)
    for impossible in (pulp.LpSolutionInfeasible, pulp.LpSolutionUnbounded):
        with pytest.raises(RuntimeError, match="the solver is wrong"):
            milp.read_outcome(impossible, 2.0, 1.5)


def test_claims_are_rounded_safely() -> None:
    unit, sixth = Fraction(100), Fraction(1, 6)
    assert milp.round_claim(1.0, unit, 6, None) == 100
    assert milp.round_claim(1.0 - 1e-9, unit, 6, None) == 100
    assert milp.round_claim(1.0 + 1e-9, unit, 6, None) == 100
    assert milp.round_claim(1.0001, unit, 6, None) == 100 + sixth
    # On a lattice finer than the tolerance the claim stays below what the solver said, and is never lifted to the map's value.
    fine = 10**9
    assert milp.round_claim(1.0, unit, fine, Fraction(100)) == 100 - milp.TOLERANCE * unit
    assert milp.round_claim(1.0 + 1.5e-6, unit, fine, Fraction(100)) == 100
    assert milp.round_claim(1.0 + 2.5e-6, unit, fine, Fraction(100)) > 100
    assert milp.round_claim(1.1, unit, 6, Fraction(100)) > 100


def test_a_false_bound_is_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = BY_HAND[0][0]
    real = milp.read_outcome
    monkeypatch.setattr(milp, "read_outcome", lambda *reported: milp.Outcome(True, real(*reported).bound * 1.5))
    with pytest.raises(ContradictionError, match="HiGHS"):
        solved(milp.search_highs, instance, start=True)


def test_a_fractional_solution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    run = milp.run_highs

    def fractional(problem: pulp.LpProblem, has_start: bool, limits: Limits) -> milp.Run:
        ran = run(problem, has_start, limits)
        next(variable for variable in problem.variables() if variable.name.startswith("x_")).varValue = 0.5
        return ran

    monkeypatch.setattr(milp, "run_highs", fractional)
    with pytest.raises(RuntimeError, match=r"returned x_\d+_\d+_\d+ = 0\.5; an integer"):
        solved(milp.search_highs, BY_HAND[0][0])


def test_old_highspy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.metadata, "version", lambda _: "1.14.0")
    with pytest.raises(RuntimeError, match=r"highspy is 1\.14\.0; at least 1\.15\.1"):
        solved(milp.search_highs, BY_HAND[0][0])


def test_count_ranges_keep_every_map_within_the_makespan() -> None:
    instance = Instance((12, 6, 1), 6, 3)
    assert counts.count_ranges(instance, None) == [range(1, 5)] * 3
    assert counts.count_ranges(instance, Fraction(7)) == [range(2, 5), range(1, 4), range(1, 4)]
    assert counts.denominator(counts.count_ranges(instance, Fraction(7))) == 12
    assert counts.count_ranges(Instance((0, 0), 2, 2), Fraction(0)) == [range(1, 2)] * 2
    forbidden = Instance((12, 6, 1), 6, 2, "forbidden")
    assert counts.count_ranges(forbidden, None) == [range(1, 3)] * 3


def test_interrupt_stops_the_work_and_is_reported() -> None:
    stopped = threading.Event()

    def work() -> None:
        time.sleep(0.1)  # until the main thread waits for this one
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stopped.wait(10)

    assert native.run_interruptibly(work, stopped.set)
    assert not native.run_interruptibly(lambda: None, stopped.set)


def test_an_interrupt_gets_through_where_a_library_restarts_system_calls() -> None:
    stopped = threading.Event()

    def work() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stopped.wait(10)

    signal.siginterrupt(signal.SIGINT, False)
    try:
        assert native.run_interruptibly(work, stopped.set)
    finally:
        signal.siginterrupt(signal.SIGINT, True)


@ENGINES
def test_interrupt_ends_a_solve(engine: Search) -> None:
    started = time.monotonic()
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    incumbent = Incumbent(HARD)
    incumbent.offer_map(greedy_map(HARD))
    with pytest.raises(KeyboardInterrupt):
        drive(engine, incumbent, Limits(started + 30), lambda: None)
    assert time.monotonic() - started < 10


def test_nothing_is_printed_and_backends_are_imported_late() -> None:
    code = (
        "import sys, time; from eplb_gap.problem.instance import Instance; from eplb_gap.solvers.compact import milp\n"
        "from eplb_gap.solvers.engine import Incumbent, Limits\n"
        "assert not {'pulp', 'highspy', 'ortools'} & set(sys.modules)\n"
        "i = Instance((10, 6), 4, 2)\n"
        "list(milp.search_highs(i, Incumbent(i), Limits(time.monotonic() + 60)))\n"
        "list(milp.search_cbc(i, Incumbent(i), Limits(time.monotonic() + 60)))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
