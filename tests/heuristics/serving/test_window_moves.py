"""New maps within a number of moves for several windows: legal, within the moves, no worse, near the best by enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import Deployment, InputError, Placement, rebalance
from eplb_gap.experiments.fuzzing.map_sequences import all_maps
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.serving.window_moves import replan_windows
from eplb_gap.problem.bounds.sample_average import sample_average_makespan

SHAPES = [Deployment(6, 8, 4), Deployment(6, 9, 3), Deployment(8, 12, 4, 2, 4), Deployment(6, 8, 4, duplicates="forbidden")]


@given(st.integers(0, 10**6), st.sampled_from(SHAPES), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_maps_are_legal_within_the_moves_and_no_worse(seed: int, shape: Deployment, most: int) -> None:
    rng = np.random.default_rng(seed)
    history = rng.integers(0, 100, (3, 2, shape.num_experts))
    in_use = rebalance(rng.integers(1, 100, (2, shape.num_experts)), shape)
    new = replan_windows(history, shape, in_use, most)
    assert moved(new, in_use, shape).sum() <= most
    before, after = (sum(sample_average_makespan(placement, history, shape)) for placement in (in_use, new))
    assert after <= before
    if not most:
        assert after == before


def test_most_of_what_the_best_map_within_the_moves_gains_is_gained() -> None:
    rng = np.random.default_rng(8)
    shape = Deployment(4, 6, 3)
    maps = [Placement([row], 4) for row in all_maps(shape)]
    gained = possible = 0.0
    for _ in range(12):
        history = rng.integers(0, 100, (3, 1, 4))
        in_use = maps[rng.integers(len(maps))]
        sums = {index: sample_average_makespan(placement, history, shape)[0] for index, placement in enumerate(maps)}
        within = [value for index, value in sums.items() if moved(maps[index], in_use, shape).sum() <= 2]
        start = sample_average_makespan(in_use, history, shape)[0]
        reached = sample_average_makespan(replan_windows(history, shape, in_use, 2), history, shape)[0]
        assert reached >= min(within)
        gained, possible = gained + float(start - reached), possible + float(start - min(within))
    assert gained >= 0.85 * possible > 0


def test_moves_go_to_the_layer_that_gains() -> None:
    history = np.array([[[9, 8, 2, 1], [5, 5, 5, 5]], [[8, 9, 1, 2], [5, 5, 5, 5]]])
    in_use = Placement([[0, 1, 2, 3]] * 2, 4)
    new = replan_windows(history, Deployment(4, 4, 2), in_use, 2)
    assert moved(new, in_use, Deployment(4, 4, 2)).tolist() == [2, 0]
    assert sum(sample_average_makespan(new, history, Deployment(4, 4, 2))) == 20


def test_what_it_cannot_plan_for_is_refused() -> None:
    with pytest.raises(InputError, match="several windows needs equally many"):
        replan_windows(np.ones((2, 1, 3), int), Deployment(3, slots_per_gpu=[1, 3]), Placement([[0, 1, 2, 0]], 3), 1)
