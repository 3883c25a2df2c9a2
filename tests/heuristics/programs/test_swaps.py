from __future__ import annotations

import torch

from eplb_gap.heuristics.programs.packing import Packing, lpt
from eplb_gap.heuristics.programs.swaps import extremes, nearest, rank_by_item, refine, unchecked


def refined(weights, packs, assignment, rule, steps):
    pack = torch.tensor([assignment])
    size = len(weights) // packs
    rank = torch.tensor([[sorted(i for i, p in enumerate(assignment) if p == q).index(j) for j, q in enumerate(assignment)]])
    packing = Packing(pack, rank)
    refine(torch.tensor([weights], dtype=torch.float32), packing, packs, rule, steps)
    places = sorted(zip(packing.pack[0].tolist(), packing.rank[0].tolist(), strict=True))
    assert places == [(p, r) for p in range(packs) for r in range(size)]
    return packing.pack[0].tolist()


def test_unchecked_swap_is_taken_although_it_makes_things_worse():
    # Packs 10 + 1 and 9 + 1: exchanging 10 for 1 leaves 2 against 19.
    assert refined([10, 1, 9, 1], 2, [0, 0, 1, 1], unchecked, 1) == [1, 0, 1, 0]
    assert refined([10, 1, 9, 1], 2, [0, 0, 1, 1], extremes, 1) == [0, 0, 1, 1]


def test_extremes_looks_at_one_pair_and_nearest_at_all():
    # 8 + 6 against 5 + 3: difference 6. Heaviest with lightest leaves 4; 8 with 5 or 6 with 3 leave 0.
    assert refined([8, 6, 5, 3], 2, [0, 0, 1, 1], extremes, 1) == [1, 0, 1, 0]
    assert refined([8, 6, 5, 3], 2, [0, 0, 1, 1], nearest, 1) == [1, 0, 0, 1]


def test_nearest_declines_where_no_swap_helps():
    assert refined([5, 1, 4, 2], 2, [0, 0, 1, 1], nearest, 2) == [0, 0, 1, 1]


def test_steps_are_counted():
    weights, start = [9, 8, 7, 1, 1, 1], [0, 0, 0, 1, 1, 1]
    assert refined(weights, 2, start, nearest, 0) == start
    assert refined(weights, 2, start, nearest, 1) != start


def test_rank_by_item_lists_a_pack_in_ascending_order():
    packing = lpt(torch.tensor([[1.0, 7.0, 9.0, 8.0]]), torch.arange(4)[None], 2)
    rank_by_item(packing, 2)
    assert packing.pack.tolist() == [[0, 1, 0, 1]]
    assert packing.rank.tolist() == [[0, 0, 1, 1]]
