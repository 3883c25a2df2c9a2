from __future__ import annotations

import itertools
import json
from fractions import Fraction
from typing import Any

import pytest
from every_map import SHAPES, counts_of, instances, makespan, maps_of, optimum, optimum_for, sizes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Instance, Placement, verify
from eplb_gap.problem.bounds.bounds import (
    Bound,
    adams_counts,
    apportionment_bound,
    best_joint_bound,
    cardinality_bound,
    companion_load_at,
    counts_below,
    joint_bounds,
    lifted_bound,
    mean_bound,
    pigeonhole_bound,
    reachable,
    slot_counting_bound,
    slot_counting_value,
)
from eplb_gap.problem.proofs import trust

FLASHLB = Instance((600, 560, 120, 120, 20, 10, 10, 10), 16, 8)


def test_the_oracle_agrees_with_the_judge() -> None:
    instance = Instance((7, 5, 1), 6, 3, "forbidden")
    deployment = Deployment(3, 6, 3, duplicates="forbidden")
    for on_gpu in maps_of(instance):
        flat = [e for held in on_gpu for e in held]
        assert verify(Placement([flat], 3), [instance.loads], deployment) == [makespan(on_gpu, instance.loads)]


# Adams' counts


def count_vectors(experts: int, slots: int, most: int) -> list[tuple[int, ...]]:
    return [c for c in itertools.product(range(1, most + 1), repeat=experts) if sum(c) == slots]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 5), st.integers(1, 6))
@settings(max_examples=200)
def test_adams_counts_minimise_the_largest_replica(loads: list[int], spare: int, most: int) -> None:
    slots = len(loads) + spare
    feasible = count_vectors(len(loads), slots, most)
    if not feasible:
        with pytest.raises(InputError, match=f"num_slots is {slots}; {len(loads)} experts with at most {most}"):
            adams_counts(loads, slots, most)
        return
    counts = adams_counts(loads, slots, most)
    assert tuple(counts) in feasible
    assert max(sizes_of(counts, loads)) == min(max(sizes_of(c, loads)) for c in feasible)


@pytest.mark.parametrize(
    ("loads", "slots", "most", "counts"),
    [
        ([5, 5, 5], 4, 9, [2, 1, 1]),
        ([5, 5, 5], 5, 9, [2, 2, 1]),
        ([1, 4, 2], 4, 9, [1, 2, 1]),
        ([2, 4, 2], 5, 9, [2, 2, 1]),  # 4/2 ties with 2/1 at both ends: the lowest expert gets the slot
        ([4, 2, 2], 5, 9, [3, 1, 1]),
        ([0, 0, 0], 5, 9, [3, 1, 1]),
        ([0, 0, 0], 5, 2, [2, 2, 1]),
        ([0, 9, 0], 5, 9, [1, 3, 1]),
        ([0, 9, 0], 5, 2, [2, 2, 1]),
        ([1, 100], 4, 2, [2, 2]),
        ([3, 1], 2, 1, [1, 1]),
        ([10**30 + 1, 10**30], 3, 9, [2, 1]),  # equal as doubles
        ([10**30, 10**30 + 1], 3, 9, [1, 2]),
    ],
)
def test_adams_counts_by_hand(loads: list[int], slots: int, most: int, counts: list[int]) -> None:
    assert adams_counts(loads, slots, most) == counts


# Joint bounds


@given(instances())
@settings(max_examples=300)
def test_no_joint_bound_exceeds_the_optimum(instance: Instance) -> None:
    best = optimum(instance)
    for bound in [*joint_bounds(instance), best_joint_bound(instance)]:
        assert bound.value <= best, bound
        assert trust(bound) == "recomputed"


@given(instances())
def test_the_mean_and_the_apportionment_are_what_they_say(instance: Instance) -> None:
    assert mean_bound(instance).value == Fraction(sum(instance.loads), instance.num_gpus)
    bound = apportionment_bound(instance)
    counts = bound.witness["counts"]
    feasible = count_vectors(instance.num_experts, instance.num_slots, instance.max_count)
    assert tuple(counts) in feasible
    assert bound.value == max(sizes_of(counts, instance.loads)) == min(max(sizes_of(c, instance.loads)) for c in feasible)


@given(instances())
def test_the_best_joint_bound_is_the_largest_up_to_the_step_of_the_bisection(instance: Instance) -> None:
    best = best_joint_bound(instance)
    mean, apportionment, slot_counting, *forced = joint_bounds(instance)
    largest = max(bound.value for bound in (mean, apportionment, slot_counting, *forced))
    assert best.value >= max(mean.value, apportionment.value)
    assert slot_counting.value >= apportionment.value
    assert best.value >= largest - Fraction(1, 2**19)
    assert best.value <= reachable(instance, largest + Fraction(1, 2**19))


@given(instances(), st.randoms(use_true_random=False))
def test_renaming_the_experts_changes_no_joint_bound(instance: Instance, random: Any) -> None:
    loads = list(instance.loads)
    random.shuffle(loads)
    renamed = Instance(tuple(loads), instance.num_slots, instance.num_gpus, instance.duplicates)
    assert [b.value for b in joint_bounds(renamed)] == [b.value for b in joint_bounds(instance)]
    assert best_joint_bound(renamed).value == best_joint_bound(instance).value


@given(instances(), st.integers(1, 1000))
def test_scaled_loads_scale_the_joint_bounds(instance: Instance, factor: int) -> None:
    scaled = Instance(tuple(factor * w for w in instance.loads), instance.num_slots, instance.num_gpus, instance.duplicates)
    mean, apportionment, slot_counting = joint_bounds(instance)[:3]
    assert mean_bound(scaled).value == factor * mean.value
    assert apportionment_bound(scaled).value == factor * apportionment.value
    # Slot counting is located by bisection, to 2**-20 on either scale.
    assert abs(slot_counting_bound(scaled).value - factor * slot_counting.value) <= Fraction(factor + 1, 2**19)


def test_a_layer_without_load_is_bounded_by_zero() -> None:
    instance = Instance((0, 0, 0), 6, 3)
    assert [bound.value for bound in joint_bounds(instance)] == [0, 0, 0]
    assert best_joint_bound(instance).value == 0


def test_flashlb_example() -> None:
    mean, apportionment, slot_counting = joint_bounds(FLASHLB)
    assert mean == Bound(Fraction(725, 4), "mean")
    assert apportionment.value == 120
    assert apportionment.kind == "apportionment"
    assert slot_counting.value == 130
    assert slot_counting.kind == "slot counting"
    # Within 544/3 the hot experts have 4 to 6 replicas, the others at most 3: every load is a multiple of 1/3.
    assert best_joint_bound(FLASHLB) == Bound(Fraction(544, 3), "mean")


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
@pytest.mark.parametrize(
    ("loads", "value"), [((6, 6, 9), Fraction(15, 2)), ((6, 6, 9, 9), Fraction(21, 2)), ((20, 20, 30), Fraction(25))]
)
def test_slot_counting_can_be_the_best_bound_and_tight(loads: tuple[int, ...], value: Fraction, duplicates: Any) -> None:
    instance = Instance(loads, 6, 3, duplicates)
    best = best_joint_bound(instance)
    assert best.kind == "slot counting"
    assert best.value == optimum(instance) == value > max(instance.mean, apportionment_bound(instance).value)


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_witnesses_survive_json(duplicates: Any) -> None:
    for bound in joint_bounds(Instance((100, 10, 10, 10), 6, 3, duplicates)):
        assert json.loads(json.dumps(bound.witness)) == bound.witness


@given(instances())
def test_the_witness_of_slot_counting_proves_its_value(instance: Instance) -> None:
    bound = slot_counting_bound(instance)
    if "counts" in bound.witness:
        assert bound.value == max(sizes_of(bound.witness["counts"], instance.loads))
    else:
        thresholds = Fraction(bound.witness["refuted"]), Fraction(bound.witness["above"])
        assert slot_counting_value(instance, *thresholds) == bound.value


@given(instances())
@settings(max_examples=150)
def test_companion_load_bounds_what_is_beside_any_replica(instance: Instance) -> None:
    for on_gpu in maps_of(instance)[:60]:
        counts = counts_of(on_gpu, instance.num_experts)
        least = min(
            sum((Fraction(instance.loads[e], counts[e]) for e in held), Fraction(0))
            - max(Fraction(instance.loads[e], counts[e]) for e in held)
            for held in on_gpu
        )
        companions = companion_load_at(instance, makespan(on_gpu, instance.loads))
        assert companions is not None, on_gpu
        assert companions <= least, on_gpu


def test_slot_counting_knows_that_forbidden_duplicates_limit_the_replicas() -> None:
    # Within 30.2 the hot expert needs a fourth replica, beside a companion of at least 1/2; there are three GPUs.
    threshold = Fraction(302, 10)
    assert companion_load_at(Instance((90, 1, 1), 6, 3, "forbidden"), threshold) is None
    assert companion_load_at(Instance((90, 1, 1), 6, 3, "allowed"), threshold) == 1


@given(instances())
def test_any_pair_of_thresholds_proves_at_most_the_optimum_or_is_rejected(instance: Instance) -> None:
    best = optimum(instance)
    grid = [best * step / 8 for step in range(14)]
    refuted = [companion_load_at(instance, threshold) is None for threshold in grid]
    assert refuted == sorted(refuted, reverse=True)  # a larger threshold is never harder to keep
    for (low, low_refuted), (high, high_refuted) in itertools.product(zip(grid, refuted, strict=True), repeat=2):
        if low_refuted and not high_refuted:
            assert low <= slot_counting_value(instance, low, high) <= best
        else:
            with pytest.raises(InputError, match=r"slot counting: .* proves nothing"):
                slot_counting_value(instance, low, high)


@pytest.mark.parametrize(
    ("refuted", "above"),
    [(130, 140), (200, 300), (100, 120), (Fraction(129), Fraction(129)), (140, 129), (-1, 0)],
)
def test_a_pair_of_thresholds_that_proves_nothing_is_rejected(refuted: Any, above: Any) -> None:
    with pytest.raises(InputError) as caught:
        slot_counting_value(FLASHLB, Fraction(refuted), Fraction(above))
    assert str(caught.value) == f"slot counting: {refuted} is not refuted or {above} is; the pair proves nothing"


def test_a_pair_of_thresholds_that_proves_something_is_taken() -> None:
    assert slot_counting_value(FLASHLB, Fraction(129), Fraction(130)) == 130
    assert slot_counting_value(FLASHLB, Fraction(129), Fraction(2000)) >= 129


# Bounds for given counts


@given(instances([shape for shape in SHAPES if shape[3] == "allowed"]), st.data())
@settings(max_examples=200)
def test_no_bound_for_given_counts_exceeds_the_best_packing_of_those_counts(instance: Instance, data: st.DataObject) -> None:
    feasible = count_vectors(instance.num_experts, instance.num_slots, instance.max_count)
    counts = data.draw(st.sampled_from(feasible))
    sizes = sizes_of(counts, instance.loads)
    best = optimum_for(counts, instance)
    for bound in (cardinality_bound, pigeonhole_bound, lifted_bound):
        assert bound(sizes, instance.num_gpus) <= best, bound


@st.composite
def packings(draw: st.DrawFn) -> tuple[list[Fraction], int]:
    gpus, k = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = st.fractions(min_value=0, max_value=20, max_denominator=6)
    return draw(st.lists(size, min_size=gpus * k, max_size=gpus * k)), gpus


@given(packings())
@settings(max_examples=200)
def test_the_lifted_bound_contains_the_others(case: tuple[list[Fraction], int]) -> None:
    sizes, gpus = case
    lifted = lifted_bound(sizes, gpus)
    assert lifted >= sum(sizes, Fraction(0)) / gpus
    assert lifted >= pigeonhole_bound(sizes, gpus) >= max(sizes)
    assert lifted >= cardinality_bound(sizes, gpus) >= max(sizes)


@given(packings(), st.fractions(min_value=0, max_value=50, max_denominator=9), st.randoms(use_true_random=False))
def test_bounds_for_given_counts_scale_and_ignore_order(case: tuple[list[Fraction], int], factor: Fraction, random: Any) -> None:
    sizes, gpus = case
    changed = [factor * size for size in sizes]
    random.shuffle(changed)
    for bound in (cardinality_bound, pigeonhole_bound, lifted_bound):
        assert bound(changed, gpus) == factor * bound(sizes, gpus)


@pytest.mark.parametrize(
    ("sizes", "gpus", "cardinality", "pigeonhole", "lifted"),
    [
        ([5, 1, 1, 1], 2, 6, 6, 6),
        ([3, 3, 3, 0], 2, 3, 6, 6),
        ([9, 5, 4, 3, 2, 1], 2, 12, 12, 12),
        ([9, 9, 6, 4, 4, 3], 3, 12, 12, Fraction(25, 2)),  # two GPUs hold 25 of the load: more than each alone proves
        ([7, 2], 2, 7, 7, 7),
        ([4, 3, 2], 1, 9, 9, 9),
        ([0, 0], 2, 0, 0, 0),
        ([Fraction(1, 2), Fraction(1, 3)], 1, Fraction(5, 6), Fraction(5, 6), Fraction(5, 6)),
    ],
)
def test_bounds_for_given_counts_by_hand(sizes: Any, gpus: int, cardinality: int, pigeonhole: int, lifted: Any) -> None:
    sizes = [Fraction(size) for size in sizes]
    assert cardinality_bound(sizes, gpus) == cardinality
    assert pigeonhole_bound(sizes, gpus) == pigeonhole
    assert lifted_bound(sizes, gpus) == lifted


@pytest.mark.parametrize("bound", [cardinality_bound, pigeonhole_bound, lifted_bound])
@pytest.mark.parametrize("sizes", [[], [Fraction(1)] * 3])
def test_sizes_that_do_not_fill_the_gpus_are_refused(bound: Any, sizes: list[Fraction]) -> None:
    with pytest.raises(InputError, match=f"sizes has {len(sizes)} entries; a positive multiple of num_gpus = 2"):
        bound(sizes, 2)


@pytest.mark.parametrize(
    ("instance", "adams", "lifted", "joint"),
    [
        (Instance((10, 2), 4, 2), [3, 1], Fraction(20, 3), Fraction(6)),
        (Instance((5, 12, 4), 6, 3), [2, 3, 1], Fraction(8), Fraction(22, 3)),
    ],
)
def test_bounds_for_the_counts_of_a_heuristic_are_no_joint_bounds(
    instance: Instance, adams: list[int], lifted: Fraction, joint: Fraction
) -> None:
    assert adams_counts(instance.loads, instance.num_slots, instance.max_count) == adams
    sizes = sizes_of(adams, instance.loads)
    assert pigeonhole_bound(sizes, instance.num_gpus) == lifted_bound(sizes, instance.num_gpus) == lifted
    assert optimum_for(adams, instance) == lifted
    assert optimum(instance) == joint < lifted


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 6), st.fractions(min_value="1/9", max_value=60))
def test_counts_below_a_value_say_whether_the_apportionment_bound_reaches_it(loads, spare, value):
    for gpus in range(1, len(loads) + spare + 1):
        if (len(loads) + spare) % gpus:
            continue
        for duplicates in ("allowed", "forbidden"):
            if duplicates == "forbidden" and gpus * len(loads) < len(loads) + spare:
                continue
            instance = Instance(tuple(loads), len(loads) + spare, gpus, duplicates)
            needed = counts_below(loads, value)
            reaches = sum(needed) > instance.num_slots or max(needed) > instance.max_count
            assert reaches == (apportionment_bound(instance).value >= value)
