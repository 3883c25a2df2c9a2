from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.problem import Deployment, Instance
from eplb_gap.problem.bounds.bounds import mean_bound
from eplb_gap.solvers import solve
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines.repartition import search


def instance(duplicates="allowed", total=10**6):
    generator = np.random.default_rng(5)
    raw = np.exp(generator.normal(size=48))
    loads = np.maximum(1, np.rint(raw * total / raw.sum())).astype(int)
    return Instance(tuple(int(w) for w in loads), 60, 10, duplicates)


def run(chosen, seconds, gap):
    incumbent = Incumbent(chosen, bound=mean_bound(chosen))
    drive(search, incumbent, Limits(time.monotonic() + seconds, gap), lambda: None)
    return incumbent


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_reaches_its_target_with_a_legal_map_and_stops(duplicates):
    incumbent = run(instance(duplicates), 60, 2e-4)
    assert incumbent.gap <= 2e-4


def test_stops_at_the_deadline():
    chosen, start = instance(), time.monotonic()
    incumbent = run(chosen, 0.5, 0.0)
    assert 0.5 <= time.monotonic() - start < 10  # the mean is out of reach, so only the clock ends the search
    assert incumbent.upper == chosen.makespan(incumbent.slots) < chosen.makespan(greedy_map(chosen))


def test_loads_that_could_overflow_are_left_alone():
    assert list(search(Instance((2**41, 5), 4, 2), Incumbent(Instance((2**41, 5), 4, 2)), Limits(time.monotonic() + 5))) == []
    solution = solve([[2**41, 5, 7, 9]], Deployment(4, 8, 2), time_limit=5)
    half = Fraction(2**41 + 21, 2)  # one replica of each expert on either GPU
    assert (solution.upper, solution.lower) == ([half], [half])


def test_a_seed_repeats():
    maps = [run(instance(), 60, 2e-4).slots for _ in range(2)]
    assert maps[0] == maps[1]
