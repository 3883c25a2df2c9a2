"""The pattern engine against brute force, and what its certificates, its clock and its parts must keep."""

from __future__ import annotations

import _thread
import json
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.problem.bounds.bounds import Bound, reachable
from eplb_gap.problem.bounds.pattern_dual import pattern_value
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import patterns
from eplb_gap.solvers.engines.improvement import STALLED, Improvement
from eplb_gap.solvers.engines.neighbourhood import improve
from eplb_gap.solvers.engines.oracle import best_map

SHAPES = [(5, 6, 2), (6, 9, 3), (7, 8, 2), (8, 12, 4), (8, 12, 3), (10, 12, 4), (3, 6, 2), (9, 12, 3)]
HOT = (
    40_000,
    21_000,
    9_000,
    7_500,
    6_000,
    4_200,
    3_900,
    3_500,
    2_800,
    2_200,
    1_700,
    1_400,
    1_100,
    900,
    750,
    600,
    500,
    420,
    350,
    300,
)


def run(instance: Instance, seconds: float, seed: int = 0) -> Incumbent:
    incumbent = Incumbent(instance)
    drive(patterns.search, incumbent, Limits(time.monotonic() + seconds, seed=seed), lambda: None)
    return incumbent


@pytest.mark.parametrize("instance", flat_instances(80, seed=11, shapes=SHAPES), ids=lambda instance: instance.digest)
def test_bounds_enclose_the_optimum(instance: Instance) -> None:
    optimum = instance.makespan(best_map(instance))
    incumbent = run(instance, 0.4)
    assert incumbent.upper is not None
    assert incumbent.bound.value <= optimum <= incumbent.upper
    if incumbent.bound.kind == "pattern dual":
        witness = json.loads(json.dumps(incumbent.bound.witness))
        assert reachable(instance, pattern_value(instance, witness)) == incumbent.bound.value
        for value in (optimum, optimum + Fraction(1, 3)):
            with pytest.raises(InputError):
                pattern_value(instance, {"threshold": str(value), "proof": witness["proof"]})
        with pytest.raises(InputError):
            pattern_value(instance, {**witness, "next": str(optimum + Fraction(1, 100))})


def test_hot_loads_are_proven_optimal_by_branching() -> None:
    incumbent = run(Instance(HOT, 24, 8), 20.0)
    assert incumbent.proven
    assert incumbent.bound.kind == "pattern dual"
    witness: Any = json.loads(json.dumps(incumbent.bound.witness))
    assert pattern_value(incumbent.instance, witness) == incumbent.upper
    assert trust(incumbent.bound) == "recomputed"


def test_the_same_seed_finds_the_same() -> None:
    instance = Instance(HOT, 24, 8, "forbidden")
    limits = Limits(time.monotonic() + 60)
    found = []
    for _ in range(2):
        findings = patterns.search(instance, Incumbent(instance), limits)
        found.append([finding if not isinstance(finding, Bound) else (finding.value, finding.kind) for finding in findings])
    assert found[0] == found[1]


def test_the_deadline_is_kept() -> None:
    loads = np.random.default_rng(0).integers(1, 10**6, size=64).tolist()
    instance = Instance(tuple(loads), 72, 24)
    run(instance, 0.1)  # compiles
    started = time.monotonic()
    run(instance, 1.0)
    assert time.monotonic() - started < 6
    assert len(list(patterns.search(instance, Incumbent(instance), Limits(time.monotonic())))) == 2


def test_ctrl_c_is_seen_soon() -> None:
    loads = np.rint(1e6 / np.arange(1, 257) ** 0.8).astype(int)
    instance = Instance(tuple(loads.tolist()), 288, 96)
    run(instance, 0.1)
    pressed = []

    def press() -> None:
        pressed.append(time.monotonic())
        _thread.interrupt_main()

    timer = threading.Timer(1.0, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(instance, 20.0)
    assert time.monotonic() - pressed[0] < 6
    timer.join()


def test_other_numbers_of_slots_are_refused() -> None:
    instance = Instance((3, 2, 1, 1), 4, 2)
    with pytest.raises(InputError, match="3 or 4"):
        next(patterns.search(instance, Incumbent(instance), Limits(time.monotonic() + 1)))


@pytest.mark.parametrize(
    "instance",
    flat_instances(40, seed=5, shapes=[*SHAPES, (10, 24, 8), (20, 32, 8), (30, 45, 9), (9, 9, 1), (2, 12, 4)]),
    ids=lambda instance: instance.digest,
)
def test_neighbourhoods_keep_maps_legal_and_never_make_them_worse(instance: Instance) -> None:
    incumbent = Incumbent(instance)
    incumbent.offer_map(greedy_map(instance))
    slots = np.array(incumbent.slots)
    loads = np.array(instance.loads, dtype=np.float64)
    forbidden = instance.duplicates == "forbidden"
    for turn in range(3):
        before = incumbent.upper
        assert before is not None
        value = improve(loads, slots, instance.num_gpus, instance.max_count, forbidden, float(instance.mean), 6, 100_000, turn)
        incumbent.offer_map(slots)  # raises where the map is not legal
        assert instance.makespan(slots) <= before
        assert value == pytest.approx(float(instance.makespan(slots)), rel=1e-9)


def test_a_neighbourhood_of_all_gpus_finds_the_only_balanced_map() -> None:
    instance = Instance((9, 8, 7, 6, 5, 4, 3, 2, 1), 9, 3)
    slots = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert improve(np.array(instance.loads, dtype=np.float64), slots, 3, 1, False, 15.0, 3, 1_000_000, 0) == 15.0
    assert instance.makespan(slots) == 15


def test_fresh_starts_leave_the_counts_of_the_hottest_experts_behind():
    loads = family_loads("ln2.3", 64, 10**6, 0)
    instance = Instance.of_layer(loads, Deployment(64, 96, 32))
    mean = Fraction(instance.total, 32)
    found = Improvement(instance, greedy_map(instance), 0)
    values = []
    for _ in range(3 * STALLED):
        before = found.upper
        assert found.round(mean) == (found.upper < before)
        assert instance.makespan(found.best) == found.upper  # also while rounds work on another map
        values.append(found.upper)
    assert values == sorted(values, reverse=True)
    assert found.upper < Fraction(101, 100) * mean  # rounds on one map alone stay above this
