"""The exact value of one map on many windows, and the bounds on it."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.experiments.loads.random_instances import FLAT_SHAPES, HIERARCHICAL_SHAPES
from eplb_gap.experiments.loads.random_instances import loads as draw
from eplb_gap.problem import Deployment, InputError, Instance, Placement, PlacementError, verify
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.bounds.partition import num_partitions, partitions
from eplb_gap.problem.bounds.sample_average import (
    AVERAGES,
    SHARE_UNIT,
    ascend_shares,
    counts_value,
    groups_value,
    interval_bounds,
    maps_value,
    proven_average,
    sample_average_bound,
    sample_average_makespan,
    shares_value,
)
from eplb_gap.problem.proofs import PROOFS
from eplb_gap.solvers.serving.sample_average_oracle import least_sample_average

PAIR = Deployment(3, 4, 2)
NODES = Deployment(4, 4, 4, num_nodes=2, num_groups=4)


def windows_of(history: list[list[int]], deployment: Deployment) -> list[Instance]:
    return [Instance.of_layer(window, deployment) for window in history]


def test_the_value_is_the_mean_of_the_makespans() -> None:
    placement = Placement([[0, 1, 0, 2]], 3)
    history = np.array([[[8, 1, 5]], [[3, 7, 1]]])
    assert sample_average_makespan(placement, history, PAIR) == [(Fraction(4 + 5) + Fraction(3, 2) + 7) / 2]
    assert sample_average_makespan(placement, history[:1], PAIR) == verify(placement, history[0], PAIR)


def test_an_illegal_map_and_a_history_of_two_axes_are_refused() -> None:
    with pytest.raises(PlacementError, match="expert 2 has no replica"):
        sample_average_makespan(Placement([[0, 1, 0, 1]], 3), np.ones((2, 1, 3), int), PAIR)
    with pytest.raises(InputError, match="history has shape"):
        sample_average_makespan(Placement([[0, 1, 0, 2]], 3), np.ones((1, 3), int), PAIR)


def test_opposite_hot_experts_are_seen_by_the_shares_alone() -> None:
    # Each window alone could replicate its own hot expert on both GPUs; three slots give two replicas to one of them only.
    deployment = Deployment(2, 3, 3)
    history = np.array([[60, 0], [0, 60]])
    own = sum(best_joint_bound(window).value for window in windows_of(history.tolist(), deployment)) / 2
    bound = sample_average_bound(history, deployment, listing=False)
    assert own == 30
    assert bound.kind == "shares"
    assert 44 < bound.value <= 45  # one window at 60, the other at 30


def test_groups_that_no_partition_balances_in_all_windows() -> None:
    history = np.array([[9, 9, 0, 0], [9, 0, 9, 0], [9, 0, 0, 9]])
    bound = sample_average_bound(history, Deployment(4, 4, 2, num_nodes=2, num_groups=4))
    assert bound.kind == "groups"
    assert bound.value == Fraction(18 + 9 + 9, 3)


def test_groups_need_the_hierarchical_policy() -> None:
    floors = [Fraction(1), Fraction(2)]
    assert groups_value(np.ones((2, 4), int), NODES.as_global(), floors) == Fraction(3, 2)


@pytest.mark.parametrize(("groups", "nodes"), [(8, 4), (6, 2), (6, 3), (4, 1), (4, 4)])
def test_every_partition_comes_once(groups: int, nodes: int) -> None:
    found = [frozenset(sets) for sets in partitions(tuple(range(groups)), groups // nodes)]
    assert len(set(found)) == len(found) == num_partitions(groups, nodes)
    assert all(sorted(group for members in sets for group in members) == list(range(groups)) for sets in found)


@pytest.mark.parametrize("row", [[SHARE_UNIT, 0, 0], [SHARE_UNIT, 0, 0, 1], [SHARE_UNIT + 1, -1, 0, 0]])
def test_shares_that_are_no_weights_prove_nothing(row: list[int]) -> None:
    with pytest.raises(InputError, match="shares"):
        shares_value(windows_of([[1, 2, 3]], PAIR), [row])


HISTORIES = st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=1, max_size=4)
SHARES = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@given(HISTORIES, st.data())
def test_any_shares_are_below_the_best_of_all_counts(history: list[list[int]], data: st.DataObject) -> None:
    rows = []
    for _ in history:
        drawn = data.draw(SHARES)
        row = [share * SHARE_UNIT // sum(drawn) for share in drawn]
        row[3] += SHARE_UNIT - sum(row)
        rows.append(row)
    deployment = Deployment(3, 6, 2)
    best = min(
        sum(max(Fraction(sum(w), 2), *(Fraction(x, c) for x, c in zip(w, counts, strict=True))) for w in history)
        for counts in itertools.product(range(1, 5), repeat=3)
        if sum(counts) == 6
    )
    assert shares_value(windows_of(history, deployment), rows) * len(history) <= best
    found = shares_value(windows_of(history, deployment), ascend_shares(np.array(history), deployment))
    assert found * len(history) <= best


@given(HISTORIES)
def test_the_bound_holds_for_every_map(history: list[list[int]]) -> None:
    deployment = Deployment(3, 4, 2)
    bound = sample_average_bound(history, deployment).value
    for row in set(itertools.permutations([0, 1, 2, 0])) | set(itertools.permutations([0, 1, 2, 1])):
        value = sample_average_makespan(Placement([row], 3), np.array(history)[:, None], deployment)[0]
        assert bound <= value


@given(HISTORIES, st.integers(1, 10**6))
def test_the_bound_scales_with_the_loads_and_is_at_least_every_windows_own(history: list[list[int]], factor: int) -> None:
    bound = sample_average_bound(history, PAIR).value
    scaled = sample_average_bound((np.array(history) * factor).tolist(), PAIR).value
    assert math.isclose(scaled, bound * factor, rel_tol=1e-4)
    own = [best_joint_bound(window).value for window in windows_of(history, PAIR)]
    assert bound >= sum(own, Fraction(0)) / len(own)


def test_one_window_is_the_plain_problem() -> None:
    history = [[7, 20, 3]]
    assert sample_average_bound(history, PAIR).value >= best_joint_bound(Instance.of_layer(history[0], PAIR)).value


SMALL = [(*shape, 1, 1) for shape in FLAT_SHAPES if shape[1] <= 6] + [shape for shape in HIERARCHICAL_SHAPES if shape[1] <= 8]


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_listed_maps_are_the_optimum_and_listed_counts_stay_below_it(duplicates: str) -> None:
    generator = np.random.default_rng(5)
    for shape in SMALL:
        if duplicates == "forbidden" and shape[1] // shape[2] > shape[0] // shape[3]:
            continue
        deployment = Deployment(*shape, duplicates)
        history = np.array([draw(deployment.num_experts, generator) for _ in range(3)])
        best = least_sample_average(history, deployment)
        assert maps_value(history, deployment) == best == sample_average_bound(history, deployment, ascend=False).value
        assert maps_value(history * 2**50, deployment) == best * 2**50  # beyond int64 once multiplied by the counts
        counts = counts_value(history, deployment)
        assert counts is not None
        assert counts <= best
        own, together = interval_bounds(history, deployment)
        assert together == best
        assert own == sum((maps_value(window[None], deployment) or Fraction(0) for window in history), Fraction(0)) / 3


def test_every_kind_on_averages_is_a_proof_that_is_recomputed() -> None:
    history, deployment = np.array([[7, 20, 3], [9, 1, 12]]), Deployment(3, 4, 2)
    best = least_sample_average(history, deployment)
    for kind in AVERAGES:
        assert PROOFS[kind].trust == "recomputed"
        shares = {"shares": ascend_shares(history, deployment), "unit": SHARE_UNIT} if kind == "shares" else {}
        claimed = Bound(best + 1, kind, shares)  # the value is not believed
        assert proven_average(claimed, history, deployment) <= best
    assert proven_average(Bound(Fraction(0), "maps"), history, deployment) == best


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (Bound(Fraction(9), "pairing tree"), "no bound on an average of kind 'pairing tree'"),
        (Bound(Fraction(9), "maps", {"number": 3}), "witness of the maps bound"),
        (Bound(Fraction(9), "shares"), "witness of the shares bound"),
        (Bound(Fraction(9), "shares", {"shares": [[SHARE_UNIT, 0, 0, 0]], "unit": SHARE_UNIT}), "2 rows of integers"),
        (Bound(Fraction(9), "shares", {"shares": [[1.0, 0, 0, 0]] * 2, "unit": SHARE_UNIT}), "2 rows of integers"),
        (Bound(Fraction(9), "shares", {"shares": [[1, 0, 0, 0]] * 2, "unit": 1}), "unit is 1"),
        (Bound(Fraction(9), "shares", {"shares": [[SHARE_UNIT - 1, 0, 0, 0]] * 2, "unit": SHARE_UNIT}), "with sum"),
    ],
)
def test_a_bound_on_an_average_that_its_witness_does_not_prove_is_refused(bound: Bound, message: str) -> None:
    with pytest.raises(InputError, match=message):
        proven_average(bound, [[7, 20, 3], [9, 1, 12]], Deployment(3, 4, 2))


def test_what_is_too_much_to_list_proves_nothing() -> None:
    wide = Deployment(32, 40, 8)
    for kind in ("maps", "counts"):
        with pytest.raises(InputError, match="too many"):
            proven_average(Bound(Fraction(1), kind), np.ones((2, 32), int), wide)


def test_counts_see_what_one_gpu_must_hold() -> None:
    # Every pairing puts both hot experts of one of the first three windows together, which neither a window nor the sum tells.
    history = np.array([[2, 2, 0, 0], [2, 0, 2, 0], [0, 2, 2, 0], [0, 0, 0, 4]])
    deployment = Deployment(4, 4, 2)
    own = sum((best_joint_bound(window).value for window in windows_of(history.tolist(), deployment)), Fraction(0)) / 4
    assert own == Fraction(2 + 2 + 2 + 4, 4)
    assert counts_value(history, deployment) == Fraction(4 + 2 + 2 + 4, 4) == least_sample_average(history, deployment)
