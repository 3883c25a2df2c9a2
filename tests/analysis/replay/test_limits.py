"""The certified limit against the best sequences of maps, by enumeration."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from map_sequences import all_maps, least_served

from eplb_gap import Controller, Deployment, InputError, LoadTrace, replay
from eplb_gap.analysis.replay.limits import certified_limit

SHAPES = (
    Deployment(3, 4, 2),
    Deployment(4, 4, 2),
    Deployment(2, 4, 2, duplicates="forbidden"),
    Deployment(4, 4, 2, 2, 2),
    Deployment(3, 3, 3),
    Deployment(2, 4, 4, 2, 2),
)
PER_SHAPE = 36


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bounds_and_controllers_are_on_their_sides_of_the_best_sequence(shape: Deployment) -> None:
    assert len(SHAPES) * PER_SHAPE > 200
    generator = np.random.default_rng(len(all_maps(shape)))
    for number in range(PER_SHAPE):
        interval, intervals = int(generator.integers(1, 4)), int(generator.integers(3, 5))
        loads = generator.integers(0, 2 + 10 ** (number % 4), (interval * intervals, 1, shape.num_experts))
        first = interval  # a controller serves its first map from there on
        judged = loads[first:, 0]
        starts = list(range(0, len(judged), interval))
        limit = certified_limit(loads, shape, interval, first)
        free = least_served(judged, shape, starts, None)
        assert limit.mean <= limit.step_lower <= least_served(judged, shape, list(range(len(judged))), None) <= limit.step_upper
        assert limit.step_lower <= limit.interval_lower <= free <= limit.interval_upper
        share = 0.34
        bound = least_served(judged, shape, starts, int(share * shape.num_slots))
        assert free <= bound
        controllers = [
            Controller("periodic", interval=interval),
            Controller("clairvoyant", interval=interval),
            Controller("budgeted", interval=interval, moves=share),
            Controller("adaptive", interval=interval, moves=share),
        ]
        result = replay(LoadTrace(loads), shape, controllers, limit=interval)
        for run in result.runs:
            assert run.first == first
            assert run.served >= (bound if run.controller.moves is not None else free)
            regret = result.regret(run)
            assert regret is not None
            assert regret[0] <= regret[1]


def test_the_best_sequence_is_worked_out_by_hand() -> None:
    # Two GPUs of one slot pair: hot experts change; without a move both stay where they are.
    shape = Deployment(4, 4, 2)
    steps = np.array([[9, 9, 1, 1], [9, 1, 9, 1]])
    assert least_served(steps, shape, [0, 1], None) == 20
    assert least_served(steps, shape, [0], None) == 20  # 0 3 | 1 2 serves both: 10 and 10
    steps = np.array([[9, 9, 1, 1], [9, 1, 9, 1], [9, 1, 1, 9]])
    assert least_served(steps, shape, [0, 1, 2], None) == 30
    assert least_served(steps, shape, [0, 1, 2], 0) == 38
    assert least_served(steps, shape, [0, 1, 2], 2) == 30


def test_controllers_that_change_elsewhere_get_no_regret() -> None:
    loads = LoadTrace(np.random.default_rng(0).integers(1, 50, (12, 1, 4)))
    controllers = [Controller("none"), Controller("periodic", interval=4), Controller("periodic", interval=3)]
    result = replay(loads, Deployment(4, 4, 2), controllers, limit=2)
    assert [result.regret(run) is None for run in result.runs] == [False, False, True]
    lagged = replay(loads, Deployment(4, 4, 2), [Controller("periodic", interval=4, lag=1)], limit=2)
    assert lagged.limit is not None
    assert lagged.limit.offset == 1
    assert lagged.regret(lagged.runs[0]) is not None


@pytest.mark.parametrize(("interval", "first", "message"), [(0, 0, "interval"), (1, 4, "first is 4"), (1, -1, "first is -1")])
def test_a_limit_out_of_range_is_named(interval: int, first: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        certified_limit(np.ones((4, 1, 4), dtype=np.int64), Deployment(4, 4, 2), interval, first)


def test_no_load_is_no_loss() -> None:
    limit = certified_limit(np.zeros((4, 1, 4), dtype=np.int64), Deployment(4, 4, 2), 2, 0)
    assert limit.balancedness == (1.0, 1.0)
    assert limit.regret(Fraction(0)) == (0.0, 0.0)
