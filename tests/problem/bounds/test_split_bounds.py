"""Bounds for all maps under all splits, against the exhausted space of small instances."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from split_bounds import companions_value, is_refuted, split_joint_bound

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds.bounds import apportionment_bound, mean_bound

SHAPES = [(3, 6, 3), (4, 6, 3), (4, 8, 4), (5, 6, 3), (5, 6, 6), (5, 6, 2), (4, 6, 2)]


def best_split_of(instance: Instance, contents: tuple[tuple[int, ...], ...]) -> Fraction:
    """Return the optimum of a map by its dual: the best of all sets of GPUs."""
    best = Fraction(0)
    for size in range(1, instance.num_gpus + 1):
        for outside in itertools.combinations(contents, instance.num_gpus - size):
            elsewhere = set().union(*outside)
            best = max(best, Fraction(sum(w for e, w in enumerate(instance.loads) if e not in elsewhere), size))
    return best


def best_of_all_maps(instance: Instance) -> Fraction:
    """Return the optimum over maps and splits; a duplicate on a GPU is as good as an empty slot, so sets of k experts suffice."""
    width = min(instance.slots_per_gpu, instance.num_experts)
    choices = list(itertools.combinations(range(instance.num_experts), width))
    return min(
        best_split_of(instance, contents)
        for contents in itertools.combinations_with_replacement(choices, instance.num_gpus)
        if len(set().union(*contents)) == instance.num_experts
    )


@pytest.mark.parametrize("instance", flat_instances(63, 5, SHAPES), ids=lambda instance: str(instance.loads))
def test_the_bound_never_exceeds_the_optimum_of_all_maps_and_splits(instance: Instance) -> None:
    bound, best = split_joint_bound(instance), best_of_all_maps(instance)
    assert mean_bound(instance).value <= bound.value <= best
    for factor in (Fraction(1), Fraction(11, 10), Fraction(2)):
        assert not is_refuted(instance, best * factor)
    if bound.kind == "split companions":
        assert companions_value(instance, Fraction(bound.witness["refuted"])) == bound.value


def test_companions_prove_more_than_mean_and_largest_replica() -> None:
    # Six slots, five experts: one cut. The hot expert fills two GPUs with a whole companion each at least.
    instance = Instance((200, 30, 30, 30, 30), 6, 3)
    bound = split_joint_bound(instance)
    assert apportionment_bound(instance).value == 100
    assert mean_bound(instance).value == Fraction(320, 3)
    assert bound.kind == "split companions"
    assert bound.value == pytest.approx(130, rel=1e-5)
    assert bound.value <= best_of_all_maps(instance) == 130


def test_with_one_slot_per_gpu_free_shares_gain_nothing() -> None:
    instance = Instance((50, 30, 9, 8), 7, 7)
    assert split_joint_bound(instance).value == apportionment_bound(instance).value == best_of_all_maps(instance)


def test_a_threshold_that_is_not_refuted_proves_nothing() -> None:
    instance = Instance((4, 4), 2, 2)
    assert companions_value(instance, Fraction(7, 2)) == Fraction(7, 2)
    with pytest.raises(InputError, match="4 is not refuted"):
        companions_value(instance, Fraction(4))


def test_no_load_needs_nothing() -> None:
    instance = Instance((0, 0, 0), 4, 2)
    assert split_joint_bound(instance).value == 0
    assert not is_refuted(instance, Fraction(0))
    assert is_refuted(Instance((1, 0, 0), 4, 2), Fraction(0))


def test_more_slots_on_a_gpu_than_experts() -> None:
    assert split_joint_bound(Instance((7, 3), 6, 2)).value == 5
    assert math.isclose(split_joint_bound(Instance((7,), 3, 3)).value, 7 / 3)
