"""The oracle against cases by hand, a search without any cut, and the bounds for given counts."""

from __future__ import annotations

import itertools
import random
import time
from fractions import Fraction

import pytest
from known import BY_HAND

from eplb_gap.problem.bounds.bounds import Bound, cardinality_bound, joint_bounds, lifted_bound, pigeonhole_bound
from eplb_gap.problem.bounds.exhausted import replayed_value
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.proofs import trust
from eplb_gap.solvers.engine import Incumbent, Limits, drive
from eplb_gap.solvers.engines import oracle

README_NODE = (90, 132, 40, 61, 104, 165)


def random_instance(rng: random.Random, most_slots: int = 8) -> Instance:
    gpus, k = rng.choice([(g, k) for g in range(1, 5) for k in range(1, 5) if g * k <= most_slots])
    duplicates = rng.choice(["allowed", "forbidden"])
    experts = rng.randint(k if duplicates == "forbidden" else 1, gpus * k)
    return Instance(tuple(rng.choice([0, 1, rng.randint(1, 1000)]) for _ in range(experts)), gpus * k, gpus, duplicates)


def optimum(instance: Instance) -> Fraction:
    return instance.makespan(oracle.best_map(instance))


def enumerated_optimum(instance: Instance) -> Fraction:
    """Every assignment of experts to slots, without any cut."""
    k = instance.slots_per_gpu
    values = []
    for slots in itertools.product(range(instance.num_experts), repeat=instance.num_slots):
        gpus = [slots[start : start + k] for start in range(0, instance.num_slots, k)]
        apart = all(len(set(gpu)) == k for gpu in gpus)
        if len(set(slots)) == instance.num_experts and (apart or instance.duplicates == "allowed"):
            values.append(instance.makespan(slots))
    return min(values)


@pytest.mark.parametrize(("instance", "value"), BY_HAND)
def test_known_optima(instance: Instance, value: Fraction) -> None:
    assert optimum(instance) == value


def test_forbidden_duplicates_cost() -> None:
    loads = (10, 4, 1)
    allowed, forbidden = (Instance(loads, 6, 2, mode) for mode in ("allowed", "forbidden"))
    slots = oracle.best_map(forbidden)
    assert all(len(set(slots[start : start + 3])) == 3 for start in (0, 3))
    assert optimum(forbidden) >= optimum(allowed) == enumerated_optimum(allowed)


def test_agrees_with_enumeration_without_cuts() -> None:
    rng = random.Random(0)
    for _ in range(60):
        instance = random_instance(rng, 6)
        if instance.num_experts**instance.num_slots <= 5000:
            assert optimum(instance) == enumerated_optimum(instance), instance


def test_best_over_counts_is_best_of_given_counts_and_bounds_hold() -> None:
    rng = random.Random(1)
    for _ in range(30):
        instance = random_instance(rng)
        most = instance.max_count
        values = []
        for counts in itertools.product(range(1, most + 1), repeat=instance.num_experts):
            if sum(counts) != instance.num_slots:
                continue
            value = oracle.best_map_for_counts(instance, counts)
            sizes = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True) for _ in range(c)]
            for bound in (cardinality_bound, pigeonhole_bound, lifted_bound):
                assert bound(sizes, instance.num_gpus) <= value, (bound, instance, counts)
            values.append(value)
        assert min(values) == optimum(instance)
        assert all(bound.value <= min(values) for bound in joint_bounds(instance))


def test_engine_yields_the_map_then_the_proof() -> None:
    instance = Instance(README_NODE, 8, 4)
    slots, bound = oracle.search(instance, Incumbent(instance), Limits(time.monotonic() + 60))
    assert isinstance(bound, Bound)
    assert instance.makespan(slots) == bound.value == 151
    assert (bound.kind, trust(bound)) == ("replayed search", "recomputed")
    assert replayed_value(instance, bound.witness) == 151
    incumbent = Incumbent(instance)
    drive(oracle.search, incumbent, Limits(time.monotonic() + 60), lambda: None)
    assert incumbent.proven


def test_no_proof_without_time() -> None:
    instance = Instance(README_NODE, 8, 4)
    assert list(oracle.search(instance, Incumbent(instance), Limits(time.monotonic()))) == []


def test_refuses_large_instances() -> None:
    instance = Instance((1,) * 13, 13, 13)
    message = "num_slots is 13; .* at most 12"
    with pytest.raises(InputError, match=message):
        oracle.best_map(instance)
    with pytest.raises(InputError, match=message):
        next(oracle.search(instance, Incumbent(instance), Limits(time.monotonic() + 1)))


@pytest.mark.parametrize(
    ("counts", "message"), [((1, 2), "2 entries"), ((1, 1, 1), "sum 3"), ((0, 2, 2), "from 1 to 2"), ((1, 0, 3), "from 1 to 2")]
)
def test_refuses_wrong_counts(counts: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        oracle.best_map_for_counts(Instance((5, 4, 3), 4, 2), counts)
