"""Moves planned on several windows: within the budget, legal, never worse on the windows, near the best by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import Deployment, InputError, Placement, PlacementError
from eplb_gap.experiments.fuzzing.map_sequences import all_maps
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.moves.window_moves import replan_on_windows
from eplb_gap.problem.metrics import duplicates
from eplb_gap.problem.step_makespans import step_makespans, total

pytestmark = pytest.mark.usefixtures("short_plans")

SHAPES = [
    Deployment(5, 8, 4),
    Deployment(6, slots_per_gpu=[2, 3, 4]),
    Deployment(8, 12, 6, num_nodes=2, num_groups=4),
    Deployment(6, 12, 4, active=[True, True, False, True]),
]


@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_maps_stay_within_the_moves_and_never_lose(seed: int, shape: Deployment, most: int) -> None:
    generator = np.random.default_rng(seed)
    history = generator.integers(0, 100, (3, 2, shape.num_experts))
    in_use = rebalance(generator.integers(0, 100, (2, shape.num_experts)), shape)
    found = replan_on_windows(history, shape, in_use, most)
    after, before = (total(*step_makespans(each, history, shape)) for each in (found, in_use))  # also checks that they are legal
    moves = int(moved(found, in_use, shape).sum())
    assert moves <= most
    assert after < before or (after == before and moves == 0)
    assert duplicates(found, shape).sum() <= duplicates(in_use, shape).sum()
    assert (replan_on_windows(history, shape, in_use, most).phy2log == found.phy2log).all()


def test_windows_count_each_and_not_their_sum() -> None:
    # Of the sum all experts are alike and every map is as good; 0 and 1 are hot together, 2 and 3 too.
    history = np.array([[[9, 9, 1, 1]], [[1, 1, 9, 9]]])
    shape, in_use = Deployment(4, 4, 2), Placement([[0, 1, 2, 3]], 4)
    found = replan_on_windows(history, shape, in_use, 2)
    assert total(*step_makespans(in_use, history, shape)) == 36
    assert total(*step_makespans(found, history, shape)) == 20
    assert (replan_on_windows(history, shape, in_use, 1).phy2log == in_use.phy2log).all()  # an exchange takes two


def test_most_of_what_the_best_map_within_the_moves_gains_is_gained() -> None:
    rng = np.random.default_rng(8)
    shape = Deployment(4, 6, 3)
    maps = [Placement([row], 4) for row in all_maps(shape)]
    gained = possible = 0.0
    for _ in range(12):
        history = rng.integers(0, 100, (3, 1, 4))
        in_use = maps[rng.integers(len(maps))]
        sums = {index: total(*step_makespans(placement, history, shape)) for index, placement in enumerate(maps)}
        within = [value for index, value in sums.items() if moved(maps[index], in_use, shape).sum() <= 2]
        start = total(*step_makespans(in_use, history, shape))
        reached = total(*step_makespans(replan_on_windows(history, shape, in_use, 2), history, shape))
        assert reached >= min(within)
        gained, possible = gained + float(start - reached), possible + float(start - min(within))
    assert gained >= 0.85 * possible > 0


def test_moves_go_to_the_layer_that_gains() -> None:
    history = np.array([[[9, 8, 2, 1], [5, 5, 5, 5]], [[8, 9, 1, 2], [5, 5, 5, 5]]])
    in_use = Placement([[0, 1, 2, 3]] * 2, 4)
    new = replan_on_windows(history, Deployment(4, 4, 2), in_use, 2)
    assert moved(new, in_use, Deployment(4, 4, 2)).tolist() == [2, 0]
    assert total(*step_makespans(new, history, Deployment(4, 4, 2))) == 40


@pytest.mark.parametrize(
    ("history", "most", "message"),
    [
        (np.ones((1, 4)), 1, r"history has shape \(1, 4\)"),
        (np.ones((2, 1, 5)), 1, r"history has shape \(2, 1, 5\)"),
        (np.full((1, 1, 4), -1.0), 1, r"history\[0, 0, 0\] is -1.0"),
        (np.full((1, 1, 4), np.nan), 1, r"history\[0, 0, 0\] is nan"),
        (np.ones((1, 1, 4)), -1, "total_moves is -1; an integer of at least 0"),
        (np.ones((1, 1, 4)), 1.5, "total_moves is 1.5"),
        (np.ones((1, 1, 4)), True, "total_moves is True"),
    ],
)
def test_bad_input_is_named(history: np.ndarray, most: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replan_on_windows(history, Deployment(4, 4, 2), Placement([[0, 1, 2, 3]], 4), most)


def test_an_illegal_map_is_refused() -> None:
    with pytest.raises(PlacementError, match="previous: "):
        replan_on_windows(np.ones((1, 1, 4)), Deployment(4, 4, 2), Placement([[0, 0, 2, 3]], 4), 1)
