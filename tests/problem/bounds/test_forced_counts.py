"""Where the counts are forced, what can be beside a replica, and the lattice of the reachable makespans, against all maps."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from every_map import SHAPES, counts_of, instances, makespan, maps_of, optimum
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Instance, Placement
from eplb_gap.problem.bounds.bounds import (
    Bound,
    best_joint_bound,
    companion_load,
    count_limits,
    forced_counts_bound,
    forced_counts_value,
    reachable,
)
from eplb_gap.problem.certificate import CertificateError, check, write
from eplb_gap.solvers.engine import Incumbent
from eplb_gap.solvers.facade import solve

ONE_REPLICA: list[tuple[int, int, int, Any]] = [
    (4, 4, 2, "allowed"),
    (6, 6, 2, "allowed"),
    (6, 6, 3, "forbidden"),
    (3, 6, 2, "forbidden"),  # two replicas each, no more GPUs than that
    (2, 6, 3, "forbidden"),
]
GRID = [Fraction(step, 8) for step in range(6, 17)]


@given(instances(tuple(SHAPES) + tuple(ONE_REPLICA)))
@settings(max_examples=150)
def test_every_map_keeps_the_limits_of_its_makespan(instance: Instance) -> None:
    best = optimum(instance)
    for factor in GRID:
        limits = count_limits(instance, best * factor)
        for on_gpu in maps_of(instance)[:200]:
            if makespan(on_gpu, instance.loads) > best * factor:
                continue
            assert limits is not None
            counts = counts_of(on_gpu, instance.num_experts)
            assert all(low <= c <= high for low, c, high in zip(limits.least, counts, limits.most, strict=True))
    alone = count_limits(instance, None)
    assert alone is not None
    vectors = {counts_of(on_gpu, instance.num_experts) for on_gpu in maps_of(instance)}
    assert list(map(min, zip(*vectors, strict=True))) >= alone.least
    assert list(map(max, zip(*vectors, strict=True))) <= alone.most
    assert not alone.forced or len(vectors) == 1


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 5), st.sampled_from(["allowed", "forbidden"]), st.data()
)
def test_companion_load_is_the_smallest_load_of_so_many_replicas(loads: list[int], k: int, duplicates: Any, data: Any) -> None:
    """Against all multisets of k - 1 replicas within the largest counts, for every count vector: tight, and never above."""
    experts = len(loads)
    most = [data.draw(st.integers(1, 4)) for _ in loads]
    if (sum(most) if duplicates == "allowed" else experts) < k - 1 or (duplicates == "forbidden" and k > experts):
        return
    instance = Instance(tuple(loads), k * max(4, experts), max(4, experts), duplicates)
    copies = [1 if duplicates == "forbidden" else m for m in most]
    taken = [t for t in itertools.product(*(range(m + 1) for m in copies)) if sum(t) == k - 1]
    smallest = min(
        sum((Fraction(w, c) * n for w, c, n in zip(loads, counts, held, strict=True)), Fraction(0))
        for counts in itertools.product(*(range(1, m + 1) for m in most))
        for held in taken
        if duplicates == "forbidden" or all(n <= c for n, c in zip(held, counts, strict=True))
    )
    assert companion_load(instance, most) == smallest


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_a_hot_expert_beside_many_equal_ones(duplicates: Any) -> None:
    instance = Instance((6400, 1, *(100,) * 62), 64, 8, duplicates)
    assert best_joint_bound(instance).value == 7001
    solution = solve([instance.loads], Deployment(64, 64, 8, duplicates=duplicates), time_limit=2)
    assert solution.status == ["optimal"]
    assert solution.upper == [7001]


@given(instances([*ONE_REPLICA, *SHAPES]))
@settings(max_examples=150)
def test_forced_counts_never_exceed_the_optimum(instance: Instance) -> None:
    best = optimum(instance)
    for threshold in (None, *(best * factor for factor in GRID)):
        try:
            value = forced_counts_value(instance, threshold)
        except InputError as error:
            assert "forced counts: the placements" in str(error)
            continue
        assert value <= best
    bound = forced_counts_bound(instance, Fraction(0))
    if bound is not None:
        assert bound.value <= best
        threshold = bound.witness.get("threshold")
        assert forced_counts_value(instance, None if threshold is None else Fraction(threshold)) >= bound.value


def test_one_replica_each_is_bounded_by_the_lifted_bound() -> None:
    # One of two machines gets two of the three jobs of 5.
    instance = Instance((5, 5, 5, 1, 1, 1), 6, 2)
    bound = best_joint_bound(instance)
    assert (bound.value, bound.kind, optimum(instance)) == (11, "forced counts", 11)
    assert instance.mean == 9


def test_counts_can_be_forced_up_to_a_threshold_only() -> None:
    # Up to 30 the hot expert needs its four replicas: the others have one each, and the largest has a companion.
    instance = Instance((90, 25, 24, 23), 7, 7)
    limits = count_limits(instance, Fraction(29))
    assert limits is not None
    assert limits.least == limits.most == [4, 1, 1, 1]
    assert forced_counts_value(instance, Fraction(29)) == 25
    with pytest.raises(InputError, match=r"forced counts: the placements within 30 have more than one count vector"):
        forced_counts_value(instance, Fraction(30))
    with pytest.raises(InputError, match=r"forced counts: the placements within 20 have more than one count vector, or there is"):
        forced_counts_value(instance, Fraction(20))
    with pytest.raises(InputError, match=r"forced counts: the placements have more than one"):
        forced_counts_value(instance, None)


def test_unequal_slots_are_refused() -> None:
    # The lifted bound would be 11: it gives the load of 10 a companion, and the GPU with one slot has none.
    instance = Instance((10, 1, 1, 1), 4, 2, slots_by_gpu=(1, 3))
    assert instance.makespan((0, 1, 2, 3)) == 10
    with pytest.raises(InputError, match=r"forced counts: GPUs with 1 to 3 slots found; equally many on each"):
        forced_counts_value(instance, None)
    assert best_joint_bound(instance).value <= 10


@given(instances([*ONE_REPLICA, *SHAPES]), st.fractions(min_value=0, max_value=40, max_denominator=12), st.booleans())
@settings(max_examples=200)
def test_no_map_lies_between_a_value_and_what_is_reachable_from_it(instance: Instance, value: Fraction, above: bool) -> None:
    upward = reachable(instance, value, above)
    assert upward >= value
    for on_gpu in maps_of(instance):
        found = makespan(on_gpu, instance.loads)
        assert not (value < found < upward or (not above and found == value < upward))


@pytest.mark.parametrize(
    ("instance", "value", "above", "expected"),
    [
        (Instance((4, 8, 8, 12), 4, 2), Fraction(5), False, 8),  # multiples of 4, one replica each
        (Instance((4, 8, 8, 12), 4, 2), Fraction(8), False, 8),
        (Instance((4, 8, 8, 12), 4, 2), Fraction(8), True, 12),
        (Instance((5, 3, 2, 1), 4, 2), Fraction(16, 3), False, 6),
        (Instance((5, 3, 2, 1), 5, 5), Fraction(16, 5), False, Fraction(7, 2)),  # one or two replicas: halves
        (Instance((7,), 3, 3), Fraction(2), False, Fraction(7, 3)),
        (Instance((0, 0), 4, 2), Fraction(0), False, 0),
        (Instance((10**15 + 1, 3) + (1,) * 30, 96, 32), Fraction(10**15, 7), False, Fraction(10**15, 7)),  # too fine a lattice
    ],
)
def test_reachable_by_hand(instance: Instance, value: Fraction, above: bool, expected: Any) -> None:
    assert reachable(instance, value, above) == expected


def test_a_bound_is_offered_as_what_is_reachable() -> None:
    incumbent = Incumbent(Instance((5, 3, 2, 1), 4, 2))
    assert incumbent.offer_bound(Bound(Fraction(11, 2), "mean"))
    assert incumbent.bound.value == 6
    assert not incumbent.offer_bound(Bound(Fraction(23, 4), "mean"))


def test_fifty_jobs_on_ten_machines() -> None:
    """A classical scheduling instance with five jobs a machine; `solve` finds a map of the bound in two seconds."""
    generator = np.random.default_rng(0)
    loads = np.where(generator.random(50) < 0.98, generator.integers(9000, 10001, 50), generator.integers(20, 200, 50))
    instance = Instance(tuple(loads.tolist()), 50, 10)
    assert instance.mean < 45786
    assert best_joint_bound(instance) == Bound(Fraction(47288), "forced counts")


@pytest.fixture
def forced(tmp_path):
    loads, deployment = [[5, 5, 5, 1, 1, 1]], Deployment(6, 6, 2)
    path = tmp_path / "c.json"
    write(path, loads, deployment, Placement([[0, 1, 3, 2, 4, 5]], 6), [best_joint_bound(Instance(tuple(loads[0]), 6, 2))])
    return path


def test_a_certificate_holds_forced_counts(forced) -> None:
    verdict = check(forced)
    assert (verdict.lower, verdict.optimal, verdict.claims) == ([11], 1, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"witness": {"threshold": "10/1"}}, "forced counts witness proves 10"),
        ({"witness": {"threshold": "6/1"}}, "more than one count vector, or there is none"),
        ({"witness": {"threshold": 7}}, "threshold is 7; a fraction like"),
        ({"proof": "mean", "witness": {}}, "mean witness proves 9"),
    ],
)
def test_a_certificate_with_another_witness_is_refused(forced, change, message) -> None:
    document = json.loads(forced.read_text())
    document["layers"][0].update(change)
    forced.write_text(json.dumps(document))
    with pytest.raises(CertificateError, match=message):
        check(forced)


def test_a_mean_may_be_rounded_to_what_is_reachable_and_no_further(tmp_path) -> None:
    loads, deployment, path = [[5, 3, 2, 1]], Deployment(4, 4, 2), tmp_path / "c.json"
    placement = Placement([[0, 2, 1, 3]], 4)
    write(path, loads, deployment, placement, [Bound(Fraction(6), "mean")])
    assert check(path).lower == [6]
    write(path, loads, deployment, placement, [Bound(Fraction(13, 2), "mean")])
    with pytest.raises(CertificateError, match="mean witness proves 6"):
        check(path)
