"""One replica of every expert, and counts that are forced: bounds and maps enclose brute force, and the default engine closes."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.experiments.loads.scheduling import processing_times
from eplb_gap.problem.bounds.bounds import best_joint_bound, count_limits, lifted_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import PROOFS
from eplb_gap.solvers import solve
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import equal_cardinality
from eplb_gap.solvers.engines.exact_exchange import settle
from eplb_gap.solvers.engines.oracle import best_map

ONE_EACH = [(8, 8, 2), (8, 8, 4), (9, 9, 3), (10, 10, 5), (10, 10, 2), (12, 12, 3), (12, 12, 4), (6, 6, 6), (12, 12, 6)]
FORCED = [(2, 4, 2), (3, 6, 2), (3, 9, 3), (4, 8, 2), (2, 8, 4)]
"""With duplicates forbidden every expert is on every GPU."""
SPARE = [(5, 6, 2), (7, 8, 2), (8, 9, 3), (7, 8, 4), (6, 8, 4)]


def with_a_hot_expert(seed: int) -> Instance:
    """Return an instance whose spare slots go to the hot expert in every good map, so that its counts are as good as forced."""
    generator = np.random.default_rng(seed)
    experts, slots, gpus = SPARE[seed % len(SPARE)]
    loads = generator.integers(20, 60, size=experts)
    loads[0] *= [3, 4, 6][seed % 3]
    return Instance(tuple(loads.tolist()), slots, gpus, ("allowed", "forbidden")[seed % 2])


CASES = [*flat_instances(135, 41, ONE_EACH), *flat_instances(40, 42, FORCED), *(with_a_hot_expert(seed) for seed in range(60))]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_default_engine_agrees_with_brute_force(number: int) -> None:
    instance = CASES[number]
    best = instance.makespan(best_map(instance))
    closed_form = best_joint_bound(instance)
    assert PROOFS[closed_form.kind].value(instance, closed_form.witness) <= closed_form.value <= best
    deployment = Deployment(instance.num_experts, instance.num_slots, instance.num_gpus, duplicates=instance.duplicates)
    solution = solve([list(instance.loads)], deployment, time_limit=20)
    assert (solution.lower, solution.upper) == ([best], [best])


def test_the_cases_cover_what_they_are_for() -> None:
    kinds = {instance.duplicates for instance in CASES if instance.num_slots == instance.num_experts}
    assert kinds == {"allowed", "forbidden"}
    forced = [i for i in CASES if i.num_slots > i.num_experts and best_joint_bound(i).kind == "forced counts"]
    assert {i.duplicates for i in forced} == {"allowed", "forbidden"}
    assert len(forced) >= 20
    assert len([i for i in CASES if count_limits(i, None).forced]) >= 150


@pytest.mark.parametrize("instance", flat_instances(45, 44, ONE_EACH[:-2]), ids=lambda i: i.digest)
def test_the_engine_alone_is_enclosed_by_brute_force(instance: Instance) -> None:
    best = instance.makespan(best_map(instance))
    incumbent = Incumbent(instance, bound=best_joint_bound(instance))
    drive(equal_cardinality.ENGINE.search, incumbent, Limits(time.monotonic() + 0.1), lambda: None)
    assert incumbent.bound.value <= best
    assert incumbent.upper is None or incumbent.upper == best  # None: the search ends at once on a single GPU


@pytest.mark.parametrize("instance", flat_instances(90, 45, ONE_EACH), ids=lambda i: i.digest)
def test_the_lifted_bound_is_the_mean_of_its_core(instance: Instance) -> None:
    part = equal_cardinality.core(instance)
    assert sorted(part.inside + part.outside) == list(range(instance.num_experts))
    assert len(part.inside) == part.num_gpus * instance.slots_per_gpu
    mean = Fraction(sum(instance.loads[e] for e in part.inside), part.num_gpus)
    assert mean <= lifted_bound([Fraction(w) for w in instance.loads], instance.num_gpus)
    if part.outside:
        assert mean > instance.mean


@given(
    st.integers(2, 6), st.integers(1, 30), st.sampled_from([0, 1, 100, 10**6, 2**36]), st.integers(0, 10**6), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_exchanges_keep_every_expert_and_end(gpus: int, k: int, largest: int, seed: int, tries: int) -> None:
    loads = np.random.default_rng(seed).integers(0, largest, size=gpus * k, endpoint=True)
    experts, sizes = np.arange(gpus * k), loads.copy()
    settle(experts, sizes, gpus, int(loads.sum()) // gpus, tries, seed)
    assert sorted(experts) == list(range(gpus * k))
    assert (sizes == loads[experts]).all()


def test_exchanges_reach_the_mean_exactly() -> None:
    loads = processing_times("uniform", 500, 10_000, 0)
    sizes, target = loads.copy(), -(-int(loads.sum()) // 25)
    settle(np.arange(500), sizes, 25, target, 2000, 0)
    assert sizes.reshape(25, 20).sum(axis=1).max() == target


@pytest.mark.parametrize(
    ("jobs", "machines", "kind", "largest", "seed"),
    [
        (50, 10, "uniform", 10_000, 1),
        (50, 10, "nonuniform", 10_000, 0),  # a map at the bound balances the core
        (100, 5, "nonuniform", 1000, 2),
        (100, 25, "uniform", 10_000, 0),
        (500, 25, "uniform", 10_000, 0),
    ],
)
def test_classical_instances_are_closed(jobs: int, machines: int, kind: str, largest: int, seed: int) -> None:
    loads = processing_times(kind, jobs, largest, seed)
    solution = solve(loads[None], Deployment(jobs, jobs, machines), time_limit=30)
    assert solution.status == ["optimal"]
    assert solution.proof[0] in ("mean", "forced counts")


def test_a_mean_that_no_map_reaches_is_refuted_by_a_replayable_search() -> None:
    loads = processing_times("uniform", 50, 10_000, 0)
    instance = Instance(tuple(loads.tolist()), 50, 10)
    solution = solve(loads[None], Deployment(50, 50, 10), time_limit=30)
    (bound,) = solution.bounds
    assert solution.status == ["optimal"]
    assert bound.kind == "replayed search"
    assert PROOFS[bound.kind].value(instance, bound.witness) == bound.value == solution.upper[0] > instance.mean
