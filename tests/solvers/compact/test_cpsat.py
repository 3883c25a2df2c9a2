"""The CP-SAT engine: known optima, agreement with the oracle, integer scaling and what its status is turned into."""

from __future__ import annotations

import random
import signal
import threading
import time
from fractions import Fraction

import pytest
from known import BY_HAND, PUBLISHED

from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.compact import cpsat
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import oracle

HARD = Instance(tuple(100 + 37 * e % 91 for e in range(24)), 36, 12)


def solved(instance: Instance, start: bool = False) -> Incumbent:
    incumbent = Incumbent(instance)
    if start:
        incumbent.offer_map(greedy_map(instance))
    drive(cpsat.search, incumbent, Limits(time.monotonic() + 60), lambda: None)
    return incumbent


@pytest.mark.parametrize(("instance", "value"), BY_HAND)
def test_known_optima(instance: Instance, value: Fraction) -> None:
    for start in (False, True):
        incumbent = solved(instance, start)
        assert incumbent.proven
        assert incumbent.upper == value


@pytest.mark.parametrize(("instance", "value"), PUBLISHED)
def test_published_examples(instance: Instance, value: Fraction) -> None:
    incumbent = solved(instance, start=True)
    assert incumbent.upper == incumbent.bound.value == value
    assert trust(incumbent.bound) == "solver"
    assert incumbent.bound.witness["solver"] == "CP-SAT"
    assert incumbent.bound.witness["parameters"]["symmetry_level"] == 0


def test_agrees_with_the_oracle() -> None:
    rng = random.Random(40)
    for index in range(40):
        duplicates = ("allowed", "forbidden")[index % 2]
        gpus, k = rng.choice([(1, 4), (2, 2), (2, 3), (2, 4), (3, 2), (4, 2), (6, 1)])
        experts = rng.randint(max(k, gpus * k - 4), gpus * k)
        instance = Instance(tuple(rng.randint(0, 1000) for _ in range(experts)), gpus * k, gpus, duplicates)
        incumbent = solved(instance, start=index % 3 == 0)
        assert incumbent.proven, instance
        assert incumbent.upper == instance.makespan(oracle.best_map(instance)), instance


def test_loads_too_large_for_exact_integers_give_a_valid_bound() -> None:
    rng = random.Random(3)
    for _ in range(5):
        instance = Instance(tuple(rng.randint(10**15, 10**17) for _ in range(4)), 6, 3)
        best = instance.makespan(oracle.best_map(instance))
        incumbent = solved(instance)
        assert incumbent.bound.value <= best <= (incumbent.upper or 0)
        assert incumbent.gap < 1e-9


def test_scale_and_bounds_are_safe() -> None:
    assert cpsat.choose_scale(10**6, 60) == 60
    assert cpsat.choose_scale(2**60, 60) == Fraction(2**40, 2**60)
    assert cpsat.round_bound(590.0, Fraction(6), 6) == Fraction(590, 6)
    assert cpsat.round_bound(590.0001, Fraction(6), 6) == Fraction(590, 6)
    assert cpsat.round_bound(590.9, Fraction(6), 6) == Fraction(591, 6)
    # Seen through a coarser scale, the bound still rises to the next multiple that a makespan can have.
    assert cpsat.round_bound(1.0, Fraction(1, 7), 3) == 7
    assert cpsat.round_bound(10.0, Fraction(4), 3) == Fraction(8, 3)


def test_statuses() -> None:
    assert cpsat.has_solution("OPTIMAL")
    assert cpsat.has_solution("FEASIBLE")
    assert not cpsat.has_solution("UNKNOWN")
    for impossible in ("INFEASIBLE", "MODEL_INVALID"):
        with pytest.raises(RuntimeError, match="the solver is wrong"):
            cpsat.has_solution(impossible)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.5])
def test_a_time_limit_is_no_optimum(seconds: float) -> None:
    incumbent = Incumbent(HARD)
    incumbent.offer_map(greedy_map(HARD))
    started = time.monotonic()
    for finding in cpsat.search(HARD, incumbent, Limits(started + seconds)):
        if isinstance(finding, Bound):
            incumbent.offer_bound(finding)
        else:
            incumbent.offer_map(finding)
    assert not incumbent.proven
    assert time.monotonic() - started < seconds + 5


def test_interrupt_ends_a_solve() -> None:
    started = time.monotonic()
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    incumbent = Incumbent(HARD)
    incumbent.offer_map(greedy_map(HARD))
    with pytest.raises(KeyboardInterrupt):
        drive(cpsat.search, incumbent, Limits(started + 30), lambda: None)
    assert time.monotonic() - started < 10
