"""Budgets per layer against brute force, and curves against single solves."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, verify
from eplb_gap.solvers import solve
from eplb_gap.solvers.serving.budgets import SlotCurves, allocate, allocate_greedily, plan, slot_curves, total

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
    chosen, greedy = allocate(curves, slots, budget), allocate_greedily(curves, slots, budget)
    best = brute_force(curves, slots, budget)
    assert sum(chosen) <= budget and total(curves, slots, chosen) == best
    assert sum(greedy) <= budget and total(curves, slots, greedy) >= best


def test_marginal_gain_is_exact_for_convex_curves_on_a_grid() -> None:
    rng = random.Random(0)
    for _ in range(100):
        slots = list(range(8, 8 + 4 * rng.randint(1, 4), 4))
        curves = []
        for _ in range(rng.randint(1, 4)):
            drops = sorted((Fraction(rng.randint(0, 40), rng.randint(1, 6)) for _ in slots[1:]), reverse=True)
            curves.append([Fraction(200) - sum(drops[:at]) for at in range(len(slots))])
        budget = rng.randint(len(curves) * 8, len(curves) * slots[-1])
        greedy = allocate_greedily(curves, slots, budget)
        assert total(curves, slots, greedy) == total(curves, slots, allocate(curves, slots, budget))


def test_a_step_that_gains_nothing_hides_the_next_from_marginal_gain_only() -> None:
    curves = [[Fraction(10), Fraction(10), Fraction(1)], [Fraction(9), Fraction(8), Fraction(8)]]
    assert allocate_greedily(curves, [4, 6, 8], 12) == [4, 6]
    assert allocate(curves, [4, 6, 8], 12) == [8, 4]


def test_of_equal_sums_the_one_with_fewest_slots_is_chosen() -> None:
    assert allocate([[Fraction(3), Fraction(3)]], [4, 8], 100) == [4]


@pytest.mark.parametrize("rule", [allocate, allocate_greedily])
def test_a_budget_below_the_minimum_is_refused(rule) -> None:
    with pytest.raises(InputError, match="budget is 7 slots; 2 layers of at least 4 need 8"):
        rule([[Fraction(1)], [Fraction(1)]], [4], 7)


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
    found = plan(curves, 20)
    assert found.slots == [12, 8]
    assert found.upper == found.lower == curves.upper[0][1] + 200


def test_the_bound_of_a_plan_is_that_of_the_best_division_of_the_bounds() -> None:
    curves = SlotCurves([4, 8], [[Fraction(9), Fraction(5)], [Fraction(9), Fraction(6)]], [[Fraction(8), Fraction(5)]] * 2, [])
    found = plan(curves, 12)
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
