from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics.programs.replication import REPLICATORS, adams, hamilton


def counts(rule, weights, slots):
    return rule(torch.tensor([weights], dtype=torch.float32), slots).count[0].tolist()


def test_adams_ties_go_to_the_lower_expert():
    assert counts(adams, [4, 4, 4], 5) == [2, 2, 1]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(0, 4))
def test_adams_minimises_the_largest_replica(weights, extra):
    slots = len(weights) + extra
    best = min(
        max(w / c for w, c in zip(weights, vector, strict=True))
        for vector in itertools.product(range(1, extra + 2), repeat=len(weights))
        if sum(vector) == slots
    )
    found = counts(adams, weights, slots)
    assert sum(found) == slots
    assert max(w / c for w, c in zip(weights, found, strict=True)) == pytest.approx(best, rel=1e-6)


def test_hamilton_rounds_down_and_gives_the_rest_to_the_largest_remainders():
    # Quotas of the 4 extra replicas: 2.0, 1.2, 0.8.
    assert counts(hamilton, [50, 30, 20], 7) == [3, 2, 2]


def test_hamilton_spreads_a_row_without_load_evenly():
    assert counts(hamilton, [0, 0, 0], 8) == [3, 3, 2]


def test_hamilton_is_not_adams():
    weights = [60, 10, 10, 10, 10]
    assert counts(hamilton, weights, 6) == [2, 1, 1, 1, 1]
    weights = [100, 90, 80]
    assert counts(adams, weights, 5) == [2, 2, 1]
    assert counts(hamilton, weights, 5) == [2, 2, 1]
    assert counts(hamilton, [100, 26, 26, 26], 6) == [2, 2, 1, 1]
    assert counts(adams, [100, 26, 26, 26], 6) == [3, 1, 1, 1]


@pytest.mark.parametrize("name", REPLICATORS)
def test_ranks_are_dense_and_the_first_replicas_come_first(name):
    generator = torch.Generator().manual_seed(2)
    replication = REPLICATORS[name](torch.rand(4, 6, generator=generator) ** 4, 15)
    assert replication.count.sum(dim=1).tolist() == [15] * 4
    for row in range(4):
        assert replication.expert[row, :6].tolist() == list(range(6))
        pairs = sorted(zip(replication.expert[row].tolist(), replication.rank[row].tolist(), strict=True))
        assert pairs == [(e, r) for e in range(6) for r in range(replication.count[row, e])]
