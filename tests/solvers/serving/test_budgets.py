"""Budgets per layer against brute force, and curves against single solves."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, verify
from eplb_gap.solvers import solve
from eplb_gap.solvers.serving.budgets import SlotCurves, divide_slots, plan_budget, slot_curves, total

VALUES = st.fractions(0, 50, max_denominator=12)


def brute_force(curves: list[list[Fraction]], slots: list[int], budget: int) -> Fraction:
    choices = itertools.product(slots, repeat=len(curves))
    return min(total(curves, slots, chosen) for chosen in choices if sum(chosen) <= budget)


@st.composite
def problems(draw) -> tuple[list[list[Fraction]], list[int], int]:
    slots = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=4)))
    layers = draw(st.integers(1, 4))
    curves = draw(st.lists(st.lists(VALUES, min_size=len(slots), max_size=len(slots)), min_size=layers, max_size=layers))
    return curves, slots, draw(st.integers(layers * slots[0], layers * slots[-1] + 3))


@given(problems())
def test_the_programme_is_exact_for_curves_of_any_shape(problem: tuple[list[list[Fraction]], list[int], int]) -> None:
    curves, slots, budget = problem
    chosen = divide_slots(curves, slots, budget)
    assert sum(chosen) <= budget and total(curves, slots, chosen) == brute_force(curves, slots, budget)


def test_a_step_that_gains_nothing_does_not_hide_the_next() -> None:
    curves = [[Fraction(10), Fraction(10), Fraction(1)], [Fraction(9), Fraction(8), Fraction(8)]]
    assert divide_slots(curves, [4, 6, 8], 12) == [8, 4]


def test_of_equal_sums_the_one_with_fewest_slots_is_chosen() -> None:
    assert divide_slots([[Fraction(3), Fraction(3)]], [4, 8], 100) == [4]


def test_a_budget_below_the_minimum_is_refused() -> None:
    with pytest.raises(InputError, match="budget is 7 slots; 2 layers of at least 4 need 8"):
        divide_slots([[Fraction(1)], [Fraction(1)]], [4], 7)


def test_curves_are_solves_and_plans_are_certified() -> None:
    loads = np.array([[600, 560, 120, 120, 20, 10, 10, 10], [100, 100, 100, 100, 100, 100, 100, 100]])
    deployment = Deployment(8, 8, 4)
    curves = slot_curves(loads, deployment, [12, 8], target_gap=0.0)
    assert curves.slots == [8, 12]
    for option, slots in enumerate(curves.slots):
        shape = Deployment(8, slots, 4)
        upper = [curve[option] for curve in curves.upper]
        assert verify(curves.placements[option], loads, shape) == upper == solve(loads, shape).upper
    # The even layer gains nothing from replicas, so the hot one may have them all.
    found = plan_budget(curves, 20)
    assert found.slots == [12, 8]
    assert found.upper == found.lower == curves.upper[0][1] + 200


def test_the_bound_of_a_plan_is_that_of_the_best_division_of_the_bounds() -> None:
    curves = SlotCurves([4, 8], [[Fraction(9), Fraction(5)], [Fraction(9), Fraction(6)]], [[Fraction(8), Fraction(5)]] * 2, [])
    found = plan_budget(curves, 12)
    assert (found.slots, found.upper, found.lower) == ([8, 4], 14, 13)


@pytest.mark.parametrize(
    ("slots", "message"), [([], "one or more different"), ([8, 8], "one or more different"), ([9], "num_gpus")]
)
def test_wrong_options_are_refused(slots: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        slot_curves([[1] * 8], Deployment(8, 8, 4), slots)


def test_unequal_slots_have_no_budget() -> None:
    with pytest.raises(InputError, match="need GPUs alike"):
        slot_curves([[1, 1, 1]], Deployment(3, slots_per_gpu=[1, 3]), [4])
