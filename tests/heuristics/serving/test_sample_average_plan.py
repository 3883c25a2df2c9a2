"""Sample-average placement: legality, the value that the compiled search keeps, and what planning on a sum cannot do."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.kernels.window_loads import total_makespan
from eplb_gap.heuristics.planner import fast
from eplb_gap.heuristics.serving.sample_average import plan
from eplb_gap.heuristics.serving.window_packing import WindowPacking
from eplb_gap.problem import Deployment, InputError
from eplb_gap.problem.bounds.sample_average import sample_average_bound, sample_average_makespan
from eplb_gap.problem.metrics import duplicates, gpu_loads

SHAPES = [
    Deployment(12, 16, 4, duplicates="forbidden"),
    Deployment(12, 16, 4, num_nodes=2, num_groups=4, duplicates="forbidden"),
    Deployment(12, 18, 6, num_nodes=3, num_groups=6, duplicates="forbidden"),
    Deployment(12, 16, 8, num_nodes=2, num_groups=3, duplicates="forbidden"),  # global: groups do not divide over nodes
    Deployment(5, 5, 5, duplicates="forbidden"),
    Deployment(4, 12, 3, duplicates="forbidden"),  # every GPU holds every expert
    Deployment(3, 8, 2),  # more slots on a GPU than experts: duplicates are unavoidable
    Deployment(6, 12, 2, num_nodes=2, num_groups=2),
    Deployment(24, 24, 12, num_nodes=2, num_groups=24, duplicates="forbidden"),  # too many partitions to enumerate
]


def histories(experts: int) -> list[np.ndarray]:
    generator = np.random.default_rng(experts)
    return [
        np.zeros((2, 2, experts), dtype=np.int64),
        np.full((1, 1, experts), 2**40),
        np.stack([np.eye(2, experts, window, dtype=np.int64) * 90 for window in range(3)]),
        generator.poisson(np.exp(1.5 * generator.normal(size=(4, 3, experts))) * 100),
        generator.poisson(np.exp(generator.normal(size=(3, 2, experts))) * [[[10]], [[10**6]], [[0]]]),
    ]


@pytest.mark.parametrize("trials", [-1, 0, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_map_is_legal_and_above_the_bound(shape: Deployment, trials: int) -> None:
    for history in histories(shape.num_experts):
        placement = plan(history, shape, trials=trials)
        values = sample_average_makespan(placement, history, shape)
        assert all(value >= sample_average_bound(history[:, n], shape).value for n, value in enumerate(values))
        if shape.duplicates == "forbidden":
            assert not duplicates(placement, shape.num_gpus).any()


def test_more_search_is_never_worse() -> None:
    for shape in SHAPES[:4]:
        history = histories(shape.num_experts)[3]
        values = [sum(sample_average_makespan(plan(history, shape, trials=n), history, shape)) for n in (-1, 0, 20)]
        assert values[0] >= values[1] >= values[2]
        assert values[0] > values[2]


def test_experts_hot_in_the_same_window_are_kept_apart() -> None:
    # On the sum all four experts are alike, and every pairing is as good; two of the three pairings are twice as bad.
    history = np.array([[[10, 10, 0, 0]], [[0, 0, 10, 10]]])
    shape = Deployment(4, 4, 2)
    assert sample_average_makespan(plan(history, shape), history, shape) == [10]
    assert sample_average_makespan(fast.plan(np.array([[11, 10, 10, 9]]), shape), history, shape) != [20]
    hot = np.array([[[11, 0, 0, 9]], [[0, 10, 10, 0]]])
    assert sample_average_makespan(rebalance(hot, shape), hot, shape) == [20]
    assert sample_average_makespan(rebalance(hot, shape, "sample-average"), hot, shape) == [Fraction(21, 2)]


def test_groups_hot_in_the_same_window_are_kept_apart() -> None:
    shape = Deployment(8, 8, 4, num_nodes=2, num_groups=4)
    history = np.array([[[9, 9, 9, 9, 0, 0, 0, 0]], [[0, 0, 0, 0, 9, 9, 9, 9]]])
    for trials in (-1, 0):
        placement = plan(history, shape, trials=trials)
        loads = [gpu_loads(placement, window, 2)[0] for window in history]
        assert np.array(loads).tolist() == [[18, 18], [18, 18]]


def test_a_window_without_load_and_the_unit_change_nothing() -> None:
    history = histories(12)[3]
    for shape in SHAPES[:2]:
        first = plan(history, shape).phy2log
        assert (plan(history * 4, shape).phy2log == first).all()
        assert (plan(history / 2.0**60, shape).phy2log == first).all()
        padded = np.concatenate([history, np.zeros_like(history[:1])])
        assert sample_average_makespan(plan(padded, shape, trials=0), history, shape) == sample_average_makespan(
            plan(history, shape, trials=0), history, shape
        )


def test_maps_are_the_same_on_every_call_and_for_a_layer_alone() -> None:
    history = histories(12)[3]
    whole = plan(history, SHAPES[1]).phy2log
    assert (plan(history, SHAPES[1]).phy2log == whole).all()
    assert (plan(history[:, 1:2], SHAPES[1]).phy2log == whole[1:2]).all()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_exchanged_windows_and_renamed_experts_are_as_good_within_the_search(seed: int, windows: int) -> None:
    generator = np.random.default_rng(seed)
    history = generator.integers(0, 50, size=(windows, 1, 6))
    shape = Deployment(6, 8, 4, duplicates="forbidden")
    value = sample_average_makespan(plan(history, shape), history, shape)[0]
    for other in (history[::-1], history[:, :, generator.permutation(6)]):
        assert sample_average_makespan(plan(other, shape), other, shape)[0] <= value * Fraction(102, 100)


def test_the_compiled_value_is_the_exact_one() -> None:
    loads = np.array([[3.0, 1.0], [2.0, 5.0], [0.0, 4.0]])
    packing = WindowPacking(loads, np.ones(3, np.int64), np.arange(3), loads)
    assert total_makespan.py_func(packing.loads) == 8.0


def test_one_window_is_as_good_as_the_planner_for_one_window() -> None:
    history = np.random.default_rng(2).poisson(np.exp(np.random.default_rng(3).normal(size=(1, 6, 12))) * 1000)
    for shape in SHAPES[:2]:
        ours = sum(sample_average_makespan(plan(history, shape), history, shape))
        assert ours <= sum(sample_average_makespan(fast.plan(history[0], shape), history, shape)) * Fraction(1001, 1000)


def test_the_registry_hands_over_the_history() -> None:
    history = histories(12)[3]
    assert (rebalance(history, SHAPES[0], "sample-average").phy2log == plan(history, SHAPES[0]).phy2log).all()
    assert (rebalance(history[0], SHAPES[0], "sample-average").phy2log == plan(history[:1], SHAPES[0]).phy2log).all()


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (np.ones((2, 12)), "history is float64 of shape"),
        (np.ones((2, 1, 11)), "history has 11 experts; the deployment has 12"),
        (-np.ones((1, 1, 12)), r"history\[0, 0, 0\] is -1.0"),
        (np.full((1, 1, 12), np.inf), "finite"),
    ],
)
def test_a_bad_history_is_one_clear_error(history: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(history, SHAPES[0])


def test_bad_trials_are_refused() -> None:
    with pytest.raises(InputError, match="trials is -2"):
        plan(histories(12)[3], SHAPES[0], trials=-2)
