from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import InputError, Placement, PlacementError


@st.composite
def maps(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    """Return a map [layers][slots] and its number of experts; some experts may have no replica."""
    experts, layers, slots = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 8))
    row = st.lists(st.integers(0, experts - 1), min_size=slots, max_size=slots)
    return draw(st.lists(row, min_size=layers, max_size=layers)), experts


@given(maps())
def test_counts_ranks_and_log2phy_agree_with_plain_loops(case: tuple[list[list[int]], int]) -> None:
    phy2log, experts = case
    slots_of = [[[s for s, e in enumerate(row) if e == expert] for expert in range(experts)] for row in phy2log]
    widest = max(len(slots) for layer in slots_of for slots in layer)
    placement = Placement(phy2log, experts)
    assert placement.counts().tolist() == [[len(slots) for slots in layer] for layer in slots_of]
    assert placement.ranks.tolist() == [[row[:s].count(e) for s, e in enumerate(row)] for row in phy2log]
    assert placement.log2phy().tolist() == [[slots + [-1] * (widest - len(slots)) for slots in layer] for layer in slots_of]
    assert (placement.num_layers, placement.num_slots) == (len(phy2log), len(phy2log[0]))


@given(maps(), st.randoms(use_true_random=False), st.integers(0, 2))
def test_tensors_with_any_replica_order_round_trip(case: tuple[list[list[int]], int], random: Any, padding: int) -> None:
    phy2log, experts = case
    ranks = np.zeros_like(phy2log)
    for layer, row in enumerate(phy2log):
        for expert in range(experts):
            held = [s for s, e in enumerate(row) if e == expert]
            order = list(range(len(held)))
            random.shuffle(order)
            ranks[layer, held] = order
    given_ranks = Placement(phy2log, experts, ranks)
    log2phy = np.pad(given_ranks.log2phy(), ((0, 0), (0, 0), (0, padding)), constant_values=-1)
    back = Placement.from_tensors(phy2log, log2phy, given_ranks.counts())
    assert back.phy2log.tolist() == phy2log
    assert back.ranks.tolist() == ranks.tolist()
    assert back.num_experts == experts


PHY2LOG = [[0, 1, 0, 2], [2, 1, 0, 2]]
LOG2PHY = [[[0, 2], [1, -1], [3, -1]], [[2, -1], [1, -1], [0, 3]]]
LOGCNT = [[2, 1, 1], [1, 1, 2]]


def test_consistent_tensors_are_taken() -> None:
    placement = Placement.from_tensors(PHY2LOG, LOG2PHY, LOGCNT)
    assert placement.ranks.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("layer", "expert", "row", "count", "part"),
    [
        (1, 2, [0, -1], 2, "log2phy holds -1 inside its valid prefix of 2"),
        (1, 2, [-1, 3], 2, "log2phy holds -1 inside its valid prefix of 2"),
        (1, 2, [3, 3], 2, "log2phy names slot 3 twice"),
        (1, 2, [0, 1], 2, "log2phy names slot 1, which phy2log gives to expert 1"),
        (1, 2, [0, 4], 2, "log2phy names slot 4; slots are 0 to 3"),
        (1, 2, [0, 3], 1, "log2phy lists more than the 1 replicas of logcnt"),
        (0, 1, [1, -2], 1, "log2phy lists more than the 1 replicas of logcnt"),
        (1, 2, [0, 3], 3, "logcnt is 3; log2phy lists up to 2 replicas"),
        (1, 2, [0, 3], -1, "logcnt is -1"),
    ],
)
def test_a_contradiction_names_layer_and_expert(layer: int, expert: int, row: list[int], count: int, part: str) -> None:
    log2phy, logcnt = np.array(LOG2PHY), np.array(LOGCNT)
    log2phy[layer, expert], logcnt[layer, expert] = row, count
    with pytest.raises(PlacementError) as caught:
        Placement.from_tensors(PHY2LOG, log2phy, logcnt)
    assert f"layer {layer}, expert {expert}: " in str(caught.value)
    assert part in str(caught.value)


def test_a_replica_that_log2phy_does_not_list_is_named_with_its_slot() -> None:
    log2phy, logcnt = np.array(LOG2PHY), np.array(LOGCNT)
    log2phy[1, 2], logcnt[1, 2] = [0, -1], 1
    with pytest.raises(PlacementError, match="layer 1, slot 3: expert 2's log2phy does not list it"):
        Placement.from_tensors(PHY2LOG, log2phy, logcnt)


def test_a_slot_of_an_unknown_expert_is_named() -> None:
    with pytest.raises(PlacementError, match="layer 0, slot 2: expert 7's log2phy does not list it"):
        Placement.from_tensors([[0, 1, 7]], [[[0], [1]]], [[1, 1]])


@pytest.mark.parametrize(
    ("log2phy", "logcnt"),
    [(LOG2PHY, [[2, 1], [1, 1]]), (LOG2PHY[:1], LOGCNT[:1]), (LOG2PHY[:1], LOGCNT), (LOG2PHY, LOGCNT[:1])],
)
def test_shapes_that_do_not_belong_together_are_refused(log2phy: Any, logcnt: Any) -> None:
    with pytest.raises(InputError, match="do not belong together"):
        Placement.from_tensors(PHY2LOG, log2phy, logcnt)


@pytest.mark.parametrize(
    ("phy2log", "part"),
    [
        ([0, 1], "phy2log is int64 of shape (2,)"),
        ([[[0, 1]]], "phy2log is int64 of shape (1, 1, 2)"),
        ([[0.0, 1.0]], "phy2log is float64"),
        ([[True, False]], "phy2log is bool"),
        ([["0", "1"]], "phy2log is <U1"),
        ([[]], "2 non-empty axes"),
        ([[0, 1], [0]], "phy2log is ragged"),
    ],
)
def test_a_map_that_is_no_integer_matrix_is_refused(phy2log: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        Placement(phy2log, 2)
    assert part in str(caught.value)


def test_ranks_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"ranks has shape \(1, 3\); that of phy2log, \(1, 2\)"):
        Placement([[0, 1]], 2, [[0, 0, 0]])


def test_narrow_types_are_widened() -> None:
    placement = Placement(np.array([[0, 1]], dtype=np.int16), 2, np.array([[0, 0]], dtype=np.uint8))
    assert placement.phy2log.dtype == placement.ranks.dtype == np.int64


def test_slots_are_dealt_to_gpus_in_order() -> None:
    placement = Placement([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], 6)
    assert placement.by_gpu(3).tolist() == [[[0, 1], [2, 3], [4, 5]], [[5, 4], [3, 2], [1, 0]]]


@pytest.mark.parametrize("gpus", [0, -1, 4, 12])
def test_gpus_that_do_not_divide_the_slots_are_refused(gpus: int) -> None:
    with pytest.raises(InputError, match=f"num_gpus is {gpus}; a divisor of the 6 slots"):
        Placement([[0, 1, 2, 3, 4, 5]], 6).by_gpu(gpus)
