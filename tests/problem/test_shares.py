"""Shares and what bounds them: exact judgement, every way to be wrong, the dual set."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, metrics, verify
from eplb_gap.problem.shares import (
    TokenSplit,
    as_shares,
    balancedness_with_shares,
    even_shares,
    gpu_loads_with_shares,
    split_bound,
)
from eplb_gap.problem.validation import verify_split

DEPLOYMENT = Deployment(3, 4, 2)
PLACEMENT = Placement([[0, 1, 0, 2]], 3)  # expert 0 on both GPUs, expert 1 on the first, expert 2 on the second
LOADS = [[8, 6, 2]]
SHARES = [[0.25, 1.0, 0.75, 1.0]]


def test_loads_and_makespan_by_hand() -> None:
    assert gpu_loads_with_shares(PLACEMENT, SHARES, LOADS, 2).tolist() == [[8.0, 8.0]]
    assert verify(PLACEMENT, LOADS, DEPLOYMENT, SHARES) == [Fraction(8)]
    assert balancedness_with_shares(PLACEMENT, SHARES, LOADS, 2) == 1.0
    assert balancedness_with_shares(PLACEMENT, SHARES, [[0, 0, 0]], 2) == 1.0


def test_planned_shares_are_judged_on_other_loads() -> None:
    assert verify(PLACEMENT, [[8, 2, 6]], DEPLOYMENT, SHARES) == [Fraction(12)]
    assert balancedness_with_shares(PLACEMENT, SHARES, [[8, 2, 6]], 2) == pytest.approx(8 / 12)


def test_shares_that_miss_one_by_rounding_are_read_as_proportions() -> None:
    placement, deployment = Placement([[0, 1, 0, 0, 2, 0]], 3), Deployment(3, 6, 6)
    tenths = [[0.7, 1.0, 0.1, 0.1, 1.0, 0.1]]
    assert sum(Fraction(s) for s in (0.7, 0.1, 0.1, 0.1)) != 1
    exact = verify(placement, [[1000, 0, 0]], deployment, tenths)[0]
    assert exact == 1000 * Fraction(0.7) / (Fraction(0.7) + 3 * Fraction(0.1))
    assert float(exact) == pytest.approx(700, rel=1e-15)


@given(st.lists(st.integers(0, 50), min_size=12, max_size=12), st.integers(0, 99))
def test_even_shares_give_the_loads_of_systems_without_shares(loads: list[int], seed: int) -> None:
    deployment = Deployment(6, 8, 4)
    generator = np.random.default_rng(seed)
    maps = [generator.permutation([0, 1, 2, 3, 4, 5, 0, 1]) for _ in range(2)]
    placement, rows = Placement(maps, 6), np.array(loads).reshape(2, 6)
    shares = even_shares(placement)
    assert gpu_loads_with_shares(placement, shares, rows, 4) == pytest.approx(metrics.gpu_loads(placement, rows, 4))
    assert verify(placement, rows, deployment, shares) == verify(placement, rows, deployment)
    assert balancedness_with_shares(placement, shares, rows, 4) == pytest.approx(metrics.balancedness_gpu(placement, rows, 4))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.25, 1, 0.75, 1], r"shares is float64 of shape \(4,\)"),
        ([[0.25, 1, 0.75]], r"shape \(1, 3\); numbers of the placement's shape \(1, 4\)"),
        ([[0.25, 1], [1]], "shares is ragged"),
        ([["a", "b", "c", "d"]], "shares is <U1"),
        ([[-0.25, 1, 1.25, 1]], r"shares\[0, 0\] is -0.25"),
        ([[0.25, 1, float("nan"), 1]], r"shares\[0, 2\] is nan"),
        ([[0.25, 1, float("inf"), 1]], r"shares\[0, 2\] is inf"),
    ],
)
def test_what_is_no_array_of_shares_is_refused(shares: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_shares(shares, PLACEMENT)


@pytest.mark.parametrize("off", [2e-9, -2e-9, 0.5])
def test_shares_must_sum_to_one(off: float) -> None:
    as_shares([[0.25, 1.0, 0.75 + 5e-10, 1.0]], PLACEMENT)
    with pytest.raises(PlacementError, match="layer 0, expert 0: the shares of its replicas sum to"):
        verify(PLACEMENT, LOADS, DEPLOYMENT, [[0.25, 1.0, 0.75 + off, 1.0]])


def test_an_expert_served_by_none_of_its_replicas_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"expert 2: .* sum to 0.0"):
        as_shares([[0.25, 1.0, 0.75, 0.0]], PLACEMENT)


def test_an_illegal_map_is_refused_whatever_its_shares() -> None:
    with pytest.raises(PlacementError, match="expert 2 has no replica"):
        verify(Placement([[0, 1, 0, 1]], 3), LOADS, DEPLOYMENT, [[0.5] * 4])
    with pytest.raises(PlacementError, match="expert 7 does not exist"):
        verify(Placement([[0, 1, 2, 7]], 3), LOADS, DEPLOYMENT, [[1.0] * 4])
    with pytest.raises(InputError, match=r"loads has shape \(1, 2\)"):
        gpu_loads_with_shares(PLACEMENT, SHARES, [[1, 2]], 2)


def test_a_set_of_gpus_proves_the_load_that_cannot_leave_it() -> None:
    slots, loads = PLACEMENT.phy2log[0], np.array(LOADS[0])
    assert split_bound(slots, loads, 2, (0, 1)) == 8
    assert split_bound(slots, loads, 2, [0]) == 6
    assert split_bound(slots, loads, 2, {1}) == 2


@pytest.mark.parametrize("gpus", [(), (2,), (-1,), (0, 0)])
def test_a_set_of_gpus_must_be_one(gpus: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="gpus "):
        split_bound(PLACEMENT.phy2log[0], np.array(LOADS[0]), 2, gpus)


def test_a_split_is_judged_with_its_bound() -> None:
    assert verify_split(PLACEMENT, TokenSplit(np.array(SHARES), [(0, 1)]), LOADS, DEPLOYMENT) == ([8], [8])
    with pytest.raises(InputError, match="critical has 0 sets"):
        verify_split(PLACEMENT, TokenSplit(np.array(SHARES), []), LOADS, DEPLOYMENT)


@given(st.data())
def test_no_set_proves_more_than_any_split_has(data: st.DataObject) -> None:
    loads = np.array(data.draw(st.lists(st.integers(0, 20), min_size=3, max_size=3)))
    slots = np.array([0, 1, 1, 2, 2, 0])
    first = [data.draw(st.floats(0, 1)) for _ in range(3)]
    shares = [[first[0], first[1], 1 - first[1], first[2], 1 - first[2], 1 - first[0]]]
    makespan = verify(Placement([slots], 3), [loads], Deployment(3, 6, 3), shares)[0]
    for size in (1, 2, 3):
        for gpus in itertools.combinations(range(3), size):
            assert split_bound(slots, loads, 3, gpus) <= makespan


def test_verify_and_metrics_take_shares() -> None:
    placement, loads = Placement([[0, 1, 0, 2]], 3), [[12, 4, 2]]
    deployment = Deployment(3, 4, 2)
    shares = np.array([[0.25, 1.0, 0.75, 1.0]])
    assert verify(placement, loads, deployment, shares) == [Fraction(11)]
    assert verify(placement, loads, deployment) == [Fraction(10)]
    with pytest.raises(PlacementError, match="sum to"):
        verify(placement, loads, deployment, [[0.5, 1.0, 0.75, 1.0]])


DEAD = Deployment(3, slots_per_gpu=[2, 2, 2], active=[True, False, True])
ON_LIVE = Placement([[0, 1, 0, 0, 2, 0]], 3, [[0, 0, -1, -1, 0, 1]])


def test_the_judge_gives_dead_gpus_nothing() -> None:
    loads = [[30, 5, 5]]
    third = 1 / 3
    # Whatever the shares, 40 tokens on two live GPUs are 20 at least: the judge once said 15.
    with pytest.raises(PlacementError, match=r"layer 0, slot 2: the share is 0\.333.* holds filler.* 0 is needed"):
        verify(ON_LIVE, loads, DEAD, shares=[[third, 1, third, 0, 1, third]])
    unmarked = Placement(ON_LIVE.phy2log, 3)
    with pytest.raises(PlacementError, match=r"layer 0, slot 2: the share is 0\.333"):
        verify(unmarked, loads, DEAD, shares=[[third, 1, third, 0, 1, third]])
    for placement in (ON_LIVE, unmarked):
        assert verify(placement, loads, DEAD, shares=[[0.5, 1, 0, 0, 1, 0.5]]) == [20]
        assert verify(placement, loads, DEAD, shares=[[0.25, 1, 0, 0, 1, 0.75]]) == [Fraction(55, 2)]
        assert even_shares(placement, DEAD).tolist() == [[0.5, 1.0, 0.0, 0.0, 1.0, 0.5]]
        assert gpu_loads_with_shares(placement, even_shares(placement, DEAD), loads, DEAD).tolist() == [[20.0, 20.0]]
    assert even_shares(ON_LIVE).tolist() == [[0.5, 1.0, 0.0, 0.0, 1.0, 0.5]]


def test_unequal_slots_have_one_makespan_with_even_shares_or_none() -> None:
    deployment = Deployment(4, slots_per_gpu=[1, 3, 2])
    placement, loads = Placement([[0, 1, 2, 3, 0, 1]], 4), [[40, 4, 10, 30]]
    assert verify(placement, loads, deployment) == [42]
    assert verify(placement, loads, deployment, shares=even_shares(placement)) == [42]
    assert balancedness_with_shares(placement, even_shares(placement), loads, deployment) == pytest.approx(28 / 42)


def test_a_set_of_gpus_names_live_ones() -> None:
    slots, loads = ON_LIVE.phy2log[0], np.array([30, 5, 5])
    assert split_bound(slots, loads, DEAD, (0, 2)) == 20
    assert split_bound(slots, loads, DEAD, (2,)) == 5
    with pytest.raises(InputError, match="gpus names GPU 1 twice, or it is dead"):
        split_bound(slots, loads, DEAD, (0, 1))
    unequal = Deployment(4, slots_per_gpu=[1, 3, 2])
    assert split_bound(np.array([0, 1, 2, 3, 0, 1]), np.array([40, 4, 10, 30]), unequal, (1,)) == 40
