from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Instance, Placement, verify


def test_sizes_and_mean() -> None:
    instance = Instance((5, 3, 2), 6, 3)
    assert (instance.num_experts, instance.slots_per_gpu, instance.total, instance.mean) == (3, 2, 10, Fraction(10, 3))


@pytest.mark.parametrize(
    ("experts", "slots", "gpus", "duplicates", "most"),
    [
        (3, 3, 1, "allowed", 1),
        (3, 8, 2, "allowed", 6),
        (4, 8, 2, "forbidden", 2),
        (4, 8, 8, "forbidden", 5),
        (4, 4, 4, "forbidden", 1),
    ],
)
def test_max_count_is_the_spare_slots_or_one_per_gpu(experts: int, slots: int, gpus: int, duplicates: Any, most: int) -> None:
    assert Instance((1,) * experts, slots, gpus, duplicates).max_count == most


@pytest.mark.parametrize("bad", [-1, 1.0, "1", None, True, np.int64(1)])
def test_a_load_that_is_no_non_negative_integer_is_named(bad: Any) -> None:
    with pytest.raises(InputError) as caught:
        Instance((1, bad, 2), 4, 2)
    assert str(caught.value) == f"loads[1] is {bad!r}; a non-negative integer is needed"


@pytest.mark.parametrize(
    ("loads", "slots", "gpus", "duplicates", "part"),
    [
        ((1, 2, 3), 5, 2, "allowed", "divisor of num_slots = 5"),
        ((1, 2, 3), 2, 1, "allowed", "num_slots is 2"),
        ((1, 2), 6, 2, "forbidden", "at most the 2"),
        ((), 2, 1, "allowed", "num_experts is 0"),
        ((1, 2), 2, 0, "allowed", "num_gpus is 0"),
        ((1, 2), 2, 1, "sometimes", "duplicates is 'sometimes'"),
    ],
)
def test_an_impossible_shape_is_refused(loads: Any, slots: int, gpus: int, duplicates: Any, part: str) -> None:
    with pytest.raises(InputError, match=part):
        Instance(loads, slots, gpus, duplicates)


def test_a_layer_becomes_a_global_problem_and_a_node_a_part_of_it() -> None:
    deployment = Deployment(4, 8, 4, 2, 2, "forbidden")
    assert Instance.of_layer(np.array([4, 3, 2, 1]), deployment) == Instance((4, 3, 2, 1), 8, 4, "forbidden")
    assert Instance.of_node([4, 3], deployment) == Instance((4, 3), 4, 2, "forbidden")


@pytest.mark.parametrize("build", [Instance.of_layer, Instance.of_node])
def test_fractional_loads_are_refused_and_not_truncated(build: Any) -> None:
    with pytest.raises(InputError):
        build([1.5, 2.5], Deployment(2, 2, 1))


def test_digest_is_stable_and_sees_every_field() -> None:
    variants = [
        Instance((1, 2, 3), 6, 2),
        Instance((1, 3, 2), 6, 2),
        Instance((12, 3), 6, 2),
        Instance((1, 23), 6, 2),
        Instance((1, 2, 3), 6, 3),
        Instance((1, 2, 3), 4, 2),
        Instance((1, 2, 3), 6, 2, "forbidden"),
    ]
    assert len({instance.digest for instance in variants}) == len(variants)
    assert variants[0].digest == Instance((1, 2, 3), 6, 2).digest == "29ad09590c4d3280"


@given(st.lists(st.integers(0, 10**6), min_size=3, max_size=3), st.permutations([0, 1, 2, 0, 1, 1]))
def test_makespan_is_that_of_the_judge(loads: list[int], slots: list[int]) -> None:
    instance = Instance(tuple(loads), 6, 2)
    assert [instance.makespan(slots)] == verify(Placement([slots], 3), [loads], Deployment(3, 6, 2))


def test_makespan_by_hand() -> None:
    instance = Instance((7, 3, 1), 6, 3)
    assert instance.makespan([0, 1, 0, 2, 0, 1]) == Fraction(7, 3) + Fraction(3, 2)
