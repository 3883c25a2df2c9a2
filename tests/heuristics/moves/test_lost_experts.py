"""A map in use on a deployment whose GPUs have died, or whose slots are unequal: lost experts first, budgets kept, legal."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.lost_experts import lost_experts
from eplb_gap.heuristics.moves.migration import front, replan
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.dead_ranks import live_slots

pytestmark = pytest.mark.usefixtures("short_plans")

# GPU 1 held expert 2 alone; experts 0 and 1 live on elsewhere.
BEFORE = Placement([[0, 1, 2, 0, 1, 3]], 4)
LEFT = Deployment(4, 6, 3, active=[True, False, True])
LOADS = [[40, 10, 20, 30]]


def test_a_lost_expert_is_copied_whatever_it_costs() -> None:
    before = Placement([[0, 1, 2, 0, 1, 3]], 4)
    assert lost_experts(before, LEFT) == [[2]]
    for arguments in ({}, {"max_moves": 1}, {"total_moves": 1}, {"threshold": 5.0}):
        found = replan(LOADS, LEFT, before, **arguments)
        # Expert 1 gives one of its two slots: 40 + 20 or 40 + 10 tokens beside the others.
        assert verify(found, LOADS, LEFT) == [50]
        assert moved(found, before, LEFT).tolist() == [1]
        assert found.ranks[0, 2:4].tolist() == [-1, -1]
    assert front(LOADS, LEFT, before) == [[(1, 50.0)]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"max_moves": 0},
            "max_moves allows 0 moves in layer 0; its experts 2 were on dead GPUs alone, at least 1 moves are needed",
        ),
        ({"max_moves": [0]}, "max_moves allows 0 moves in layer 0"),
        ({"total_moves": 0}, r"total_moves is 0; experts that were on dead GPUs alone need at least 1 moves \(layer 0: 2\)"),
    ],
)
def test_too_small_a_budget_names_the_lost_experts(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replan(LOADS, LEFT, BEFORE, **arguments)


def test_a_map_that_is_wrong_otherwise_is_still_refused() -> None:
    with pytest.raises(PlacementError, match="previous: layer 0, slot 4: expert 9 does not exist"):
        replan(LOADS, LEFT, Placement([[0, 1, 2, 0, 9, 3]], 4))
    forbidden = Deployment(3, 9, 3, active=[True, False, True], duplicates="forbidden")
    with pytest.raises(PlacementError, match="previous: layer 0, slot 2: GPU 0 holds expert 1 twice"):
        replan([[3, 2, 1]], forbidden, Placement([[0, 1, 1, 2, 2, 2, 0, 0, 0]], 3))
    with pytest.raises(PlacementError, match="previous: layer 0: expert 2 has no replica"):
        replan(LOADS, Deployment(4, 6, 3), Placement([[0, 1, 1, 0, 1, 3]], 4))


def test_sixteen_gpus_become_twelve() -> None:
    generator = np.random.default_rng(2)
    old, loads = np.rint(1000 * np.exp(0.7 * generator.normal(size=(2, 3, 64)))).astype(np.int64)
    whole = Deployment(64, 96, 16)
    before = rebalance(old, whole)
    left = Deployment(64, 96, 16, dead_gpus=[0, 5, 6, 15])
    lost = lost_experts(before, left)
    forced = [len(gone) for gone in lost]
    assert min(forced) > 0
    fewest = replan(loads, left, before, total_moves=sum(forced))
    assert moved(fewest, before, left).tolist() == forced
    some = replan(loads, left, before, total_moves=sum(forced) + 30)
    free = replan(loads, left, before)
    sums = [float(sum(verify(placement, loads, left))) for placement in (fewest, some, free)]
    assert sums == sorted(sums, reverse=True)
    anew = relabel(rebalance(loads, left), before, left)
    assert sums[-1] <= float(sum(verify(anew, loads, left))) * (1 + 1e-9)
    assert moved(free, before, left).sum() <= moved(anew, before, left).sum()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Deployment]:
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    dead = draw(st.sets(st.integers(0, len(sizes) - 1), max_size=len(sizes) - 1))
    experts = draw(st.integers(1, sum(size for gpu, size in enumerate(sizes) if gpu not in dead)))
    loads = np.random.default_rng(draw(st.integers(0, 999))).integers(0, 100, (2, 2, experts))
    return *loads, Deployment(experts, slots_per_gpu=sizes, dead_gpus=dead)


@settings(max_examples=40)
@given(problems(), st.integers(0, 6))
def test_budgets_are_kept_on_unequal_and_dead_gpus(problem: tuple[np.ndarray, np.ndarray, Deployment], more: int) -> None:
    old, loads, deployment = problem
    before = rebalance(old, replace(deployment, dead_gpus=()))
    forced = [len(gone) for gone in lost_experts(before, deployment)]
    sums = []
    for budget in (0, more, 99):
        found = replan(loads, deployment, before, total_moves=sum(forced) + budget)
        moves = moved(found, before, deployment)
        assert (moves >= forced).all()
        assert moves.sum() <= sum(forced) + budget
        changed = (found.phy2log != before.phy2log)[:, live_slots(deployment)]
        assert (changed.sum(axis=1) == moves).all()
        sums.append(float(sum(verify(found, loads, deployment))))
    assert all(less >= more * (1 - 1e-9) for less, more in pairwise(sums))
    if sum(forced):
        with pytest.raises(InputError, match="on dead GPUs alone"):
            replan(loads, deployment, before, total_moves=sum(forced) - 1)
