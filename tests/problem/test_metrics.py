from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement, metrics, verify

PLACEMENT = Placement([[0, 0, 1, 1], [0, 1, 1, 1]], 2)
LOADS = [[6, 2], [3, 9]]


def test_loads_of_slots_and_gpus_by_hand() -> None:
    assert metrics.slot_loads(PLACEMENT, LOADS).tolist() == [[3, 3, 1, 1], [3, 3, 3, 3]]
    assert metrics.gpu_loads(PLACEMENT, LOADS, 2).tolist() == [[6, 2], [6, 6]]
    assert metrics.gpu_loads(PLACEMENT, LOADS, 1).tolist() == [[8], [12]]


def test_balancedness_is_a_ratio_of_sums_over_layers() -> None:
    assert metrics.balancedness_expert(PLACEMENT, LOADS) == pytest.approx((2 + 3) / (3 + 3))
    assert metrics.balancedness_gpu(PLACEMENT, LOADS, 2) == pytest.approx((4 + 6) / (6 + 6))


def test_a_layer_without_load_adds_nothing() -> None:
    loads = [LOADS[0], [0, 0]]
    assert metrics.balancedness_expert(PLACEMENT, loads) == pytest.approx(2 / 3)
    assert metrics.balancedness_gpu(PLACEMENT, loads, 2) == pytest.approx(4 / 6)


def test_no_load_at_all_is_perfectly_balanced() -> None:
    loads = [[0, 0], [0, 0]]
    assert metrics.balancedness_expert(PLACEMENT, loads) == 1.0
    assert metrics.balancedness_gpu(PLACEMENT, loads, 2) == 1.0


@st.composite
def placed_loads(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a legal map, the same map with every layer's slots shuffled, and loads."""
    layers, experts, spare = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(0, 4))
    rows = [list(range(experts)) + [draw(st.integers(0, experts - 1)) for _ in range(spare)] for _ in range(layers)]
    shuffled = [draw(st.permutations(row)) for row in rows]
    loads = [[draw(st.integers(0, 1000)) for _ in range(experts)] for _ in range(layers)]
    return np.array(rows), np.array(shuffled), np.array(loads)


@given(placed_loads())
def test_balancedness_expert_depends_on_the_counts_alone(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    phy2log, shuffled, loads = case
    experts = loads.shape[1]
    before = metrics.balancedness_expert(Placement(phy2log, experts), loads)
    assert metrics.balancedness_expert(Placement(shuffled, experts), loads) == before


def test_balancedness_gpu_does_depend_on_the_packing() -> None:
    apart, together = Placement([[0, 1, 0, 1]], 2), Placement([[0, 0, 1, 1]], 2)
    assert metrics.balancedness_gpu(apart, [[6, 2]], 2) == pytest.approx(1.0)
    assert metrics.balancedness_gpu(together, [[6, 2]], 2) == pytest.approx(4 / 6)


@given(placed_loads())
def test_gpu_loads_are_those_of_the_judge(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, phy2log, loads = case
    slots, experts = phy2log.shape[1], loads.shape[1]
    placement = Placement(phy2log, experts)
    for gpus in (g for g in range(1, slots + 1) if slots % g == 0):
        exact = verify(placement, loads, Deployment(experts, slots, gpus))
        assert metrics.gpu_loads(placement, loads, gpus).max(axis=1) == pytest.approx([float(value) for value in exact])
        assert metrics.gpu_loads(placement, loads, gpus).sum(axis=1) == pytest.approx(loads.sum(axis=1))


def test_duplicates_are_counted_within_a_gpu_only() -> None:
    placement = Placement([[0, 0, 0, 1, 1, 2], [0, 1, 0, 0, 1, 2], [0, 1, 2, 0, 1, 2]], 3)
    assert metrics.duplicates(placement, 2).tolist() == [3, 1, 0]
    assert metrics.duplicates(placement, 6).tolist() == [0, 0, 0]
    assert metrics.duplicates(placement, 1).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "loads",
    [[[6, 2]], [[6, 2], [3, 9], [1, 1]], [[6, 2, 1], [3, 9, 1]]],
    ids=["fewer layers", "more layers", "more experts"],
)
@pytest.mark.parametrize(
    "metric",
    [
        metrics.slot_loads,
        metrics.balancedness_expert,
        lambda placement, loads: metrics.gpu_loads(placement, loads, 2),
        lambda placement, loads: metrics.balancedness_gpu(placement, loads, 2),
    ],
    ids=["slot_loads", "balancedness_expert", "gpu_loads", "balancedness_gpu"],
)
def test_loads_of_another_shape_are_refused(metric: Any, loads: Any) -> None:
    with pytest.raises(InputError, match="loads"):
        metric(PLACEMENT, loads)


def test_optimality_gap_is_taken_from_the_fractions() -> None:
    assert metrics.optimality_gap(Fraction(11, 3), Fraction(10, 3)) == pytest.approx(0.1)
    assert metrics.optimality_gap(Fraction(5), Fraction(5)) == 0.0
    assert metrics.optimality_gap(Fraction(0), Fraction(0)) == 0.0
    # The nearest doubles of these two are equal; the fractions are not.
    assert metrics.optimality_gap(Fraction(2**60 + 1), Fraction(2**60)) == 2.0**-60
