from __future__ import annotations

import pytest
import torch

from eplb_gap.heuristics.programs.packing import PACKERS, lpt, round_lpt, snake


def pack(rule, weights, packs, labels=None):
    weight = torch.tensor([weights], dtype=torch.float32)
    label = torch.arange(len(weights))[None] if labels is None else torch.tensor([labels])
    packing = rule(weight, label, packs)
    return packing.pack[0].tolist(), packing.rank[0].tolist()


def test_lpt_gives_the_next_heaviest_to_the_lightest_pack_with_room():
    # 9 -> pack 0, 8 -> pack 1, 7 -> pack 1 (8 < 9), which is then full: 1 -> pack 0.
    assert pack(lpt, [1, 7, 9, 8], 2) == ([0, 1, 0, 1], [1, 1, 0, 0])


def test_lpt_ties_go_to_the_first_pack_and_the_first_item():
    assert pack(lpt, [5, 5, 5, 5], 2) == ([0, 1, 0, 1], [0, 0, 1, 1])


def test_snake_turns_at_the_end_of_every_row():
    assert pack(snake, [6, 5, 4, 3, 2, 1], 2) == ([0, 1, 1, 0, 0, 1], [0, 0, 1, 1, 2, 2])


def test_round_lpt_serves_the_lightest_pack_first_in_every_round():
    # Round 1: 10 -> 0, 1 -> 1. Round 2: pack 1 is lighter and gets the larger of the next two.
    assert pack(round_lpt, [10, 1, 0.75, 0.5], 2) == ([0, 1, 1, 0], [0, 0, 1, 1])


def test_diversity_comes_before_load():
    labels = [0, 0, 1, 2]
    weights = [5, 5, 1, 1]
    assert pack(PACKERS["diversity_lpt"], weights, 2, labels)[0][:2] == [0, 1]
    # A third replica of the heavy expert goes where there is none, although that pack is heavier.
    labels, weights = [0, 1, 0, 2], [4, 9, 4, 3]
    packs, _ = pack(PACKERS["diversity_lpt"], weights, 2, labels)
    assert packs == [1, 0, 0, 1]
    assert pack(lpt, weights, 2, labels)[0] == [1, 0, 1, 0]


@pytest.mark.parametrize("name", PACKERS)
def test_every_rule_fills_every_pack_with_dense_ranks(name):
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(3, 12, generator=generator)
    label = torch.arange(12).expand(3, 12) // 2
    packing = PACKERS[name](weight, label, 4)
    for row in range(3):
        places = sorted(zip(packing.pack[row].tolist(), packing.rank[row].tolist(), strict=True))
        assert places == [(p, r) for p in range(4) for r in range(3)]


@pytest.mark.parametrize("name", PACKERS)
def test_one_slot_per_pack_is_the_identity_whatever_the_loads(name):
    packing = PACKERS[name](torch.tensor([[3.0, 1.0, 2.0]]), torch.arange(3)[None], 3)
    assert packing.pack.tolist() == [[0, 1, 2]]
    assert packing.rank.tolist() == [[0, 0, 0]]
