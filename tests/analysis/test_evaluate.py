from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from eplb_gap import heuristics
from eplb_gap.analysis.evaluate import Bounds, certified_bounds, evaluate, evaluate_map, summary
from eplb_gap.analysis.windows import Windows
from eplb_gap.problem import Deployment, InputError, LoadTrace, Placement, PlacementError
from eplb_gap.problem.uneven_map import GpuLists

DEPLOYMENT = Deployment(8, 12, 4, num_nodes=2, num_groups=4)
WINDOWS = Windows.of(LoadTrace(np.random.default_rng(0).integers(1, 500, (3, 2, 8))))
BOUNDS = certified_bounds(WINDOWS, DEPLOYMENT)


def test_a_method_is_scored_on_both_windows_by_hand_checked_numbers():
    deployment = Deployment(2, 3, 3)
    windows = Windows.of(LoadTrace([[[6, 2]], [[2, 6]]]))
    bounds = Bounds([Fraction(3)], [Fraction(3)])
    found = evaluate_map("own", Placement([[0, 0, 1]], 2), windows, deployment, bounds)
    assert (found.planning.makespans, found.serving.makespans) == ([Fraction(3)], [Fraction(6)])
    assert (found.planning.gaps, found.serving.gaps) == ([0.0], [1.0])
    assert found.serving.balancedness_gpu == found.serving.balancedness_expert == pytest.approx(8 / 18)
    assert (found.duplicates, found.moved, found.note) == ([0], None, "")


def test_bounds_are_below_every_method_on_their_window():
    for method in ("fast", "initial_program", "fast-counts"):
        found = evaluate_map(method, heuristics.rebalance(WINDOWS.planning, DEPLOYMENT, method), WINDOWS, DEPLOYMENT, BOUNDS)
        assert min(found.planning.gaps + found.serving.gaps) >= 0
        assert found.note == ""


def test_moved_replicas_are_counted_against_the_previous_map():
    placed = heuristics.rebalance(WINDOWS.planning, DEPLOYMENT)
    still = evaluate_map("fast", placed, WINDOWS, DEPLOYMENT, BOUNDS, previous=placed)
    assert still.moved == [0, 0]
    in_use = Placement([[0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 4, 5]] * 2, 8)
    swapped = in_use.phy2log.copy()
    swapped[0, [2, 3]] = swapped[0, [3, 2]]  # experts 2 and 3 between two GPUs: both are copied
    swapped[1, [0, 1]] = swapped[1, [1, 0]]  # on one GPU: nothing is
    assert evaluate_map("own", Placement(swapped, 8), WINDOWS, DEPLOYMENT, BOUNDS, previous=in_use).moved == [2, 0]


def test_a_map_that_splits_a_group_is_scored_against_the_mean_and_named():
    split_group = Placement([[0, 2, 4, 6, 1, 3, 5, 7, 0, 2, 4, 6]] * 2, 8)
    found = evaluate_map("map.json", split_group, WINDOWS, DEPLOYMENT, BOUNDS)
    assert "not legal for this deployment" in found.note
    assert "group" in found.note
    assert found.serving.bounds == found.serving.mean


def test_an_uneven_map_is_scored_as_it_is_and_named():
    placed = GpuLists.from_lists([[[0, 1, 2], [3, 4], [5, 6], [7]]] * 2, 8)
    found = evaluate_map("omni.npy", placed, WINDOWS, DEPLOYMENT, BOUNDS)
    rows = WINDOWS.serving
    assert found.serving.makespans == [
        max(Fraction(int(row[list(gpu)].sum())) for gpu in ((0, 1, 2), (3, 4), (5, 6), (7,))) for row in rows
    ]
    assert found.serving.balancedness_gpu == pytest.approx(
        float(sum(row.sum() for row in rows) / 4 / sum(map(float, found.serving.makespans)))
    )
    assert found.serving.balancedness_expert == pytest.approx(rows.sum() / 8 / rows.max(axis=1).sum())
    assert found.note == "GPUs hold 1 to 3 experts"
    assert found.moved is None


def test_a_map_without_an_expert_cannot_be_scored():
    with pytest.raises(PlacementError, match="expert 7 has no replica"):
        evaluate_map("map", Placement([[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]] * 2, 8), WINDOWS, DEPLOYMENT, BOUNDS)


def test_the_summary_names_the_model_s_layers_and_keeps_exact_values():
    found = evaluate_map("fast", heuristics.rebalance(WINDOWS.planning, DEPLOYMENT), WINDOWS, DEPLOYMENT, BOUNDS)
    data = summary(found, [3, 7])
    assert [layer["layer"] for layer in data["layers"]] == [3, 7]
    assert [Fraction(layer["serving"]["makespan"]) for layer in data["layers"]] == found.serving.makespans
    assert data["serving"]["gap_worst"] == max(found.serving.gaps)


def test_dead_gpus_count_for_nothing():
    loads = np.random.default_rng(1).integers(1, 90, (3, 2, 6))
    whole, live = Deployment(6, 12, 4, active=[True, False, True, True]), Deployment(6, 9, 3)
    found, expected = evaluate(LoadTrace(loads), whole), evaluate(LoadTrace(loads), live)
    assert found == expected
    assert found.serving.mean == [Fraction(int(row.sum()), 3) for row in loads[-1]]


def test_replicas_lost_with_a_gpu_are_moves():
    # Expert 0 was on the dead GPU alone: it must be copied, whatever else stays.
    trace = LoadTrace([[[5, 4, 3]], [[5, 4, 3]]])
    before = Placement([[0, 1, 2]], 3)
    alive = Deployment(3, slots_per_gpu=[1, 2, 2], active=[False, True, True])
    after = Placement([[0, 1, 0, 2, 0]], 3, [[-1, 0, 0, 0, 1]])
    found = evaluate(trace, alive, after, previous=Placement([[0, 1, 1, 2, 2]], 3))
    assert found.moved == [2]
    with pytest.raises(InputError, match="previous has 3 slots; the deployment has 5"):
        evaluate(trace, alive, after, previous=before)


def test_unequal_slots_are_scored():
    trace = LoadTrace([[[40, 4, 10, 30]], [[40, 4, 10, 30]]])
    found = evaluate(trace, Deployment(4, slots_per_gpu=[1, 3, 2]), Placement([[0, 1, 2, 3, 0, 1]], 4))
    assert found.serving.makespans == [Fraction(42)]
    assert found.serving.mean == [Fraction(28)]
    assert found.serving.balancedness_gpu == pytest.approx(28 / 42)
