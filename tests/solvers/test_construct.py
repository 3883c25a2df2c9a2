from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Instance
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Incumbent


@st.composite
def instances(draw):
    gpus = draw(st.integers(1, 6))
    k = draw(st.integers(1, 5))
    experts = draw(st.integers(1, gpus * k))
    duplicates = draw(st.sampled_from(["allowed", "forbidden"])) if k <= experts else "allowed"
    loads = draw(st.lists(st.integers(0, 1000), min_size=experts, max_size=experts))
    return Instance(tuple(loads), gpus * k, gpus, duplicates)


@given(instances())
def test_the_greedy_map_is_always_legal(instance):
    incumbent = Incumbent(instance)
    assert incumbent.offer_map(greedy_map(instance))
    assert incumbent.upper >= instance.mean


def test_where_lpt_would_be_stuck_the_replicas_are_dealt():
    instance = Instance((100, 99, 50, 1), 6, 2, "forbidden")
    slots = greedy_map(instance)
    assert all(len(set(slots[g * 3 : g * 3 + 3])) == 3 for g in range(2))


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
def test_exchanges_reach_what_lpt_misses(duplicates):
    instance = Instance((5, 5, 4, 3, 3, 2), 6, 2, duplicates)
    assert instance.makespan(greedy_map(instance)) == 11
