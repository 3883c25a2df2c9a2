from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from eplb_gap.heuristics.kernels.assignment import most


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 9, 2**50]))
def test_no_permutation_picks_more(size, seed, largest):
    table = np.random.default_rng(seed).integers(0, largest, (size, size), endpoint=True)
    rows, picked = np.arange(size), most(table)
    assert sorted(picked) == list(range(size))
    best = max(table[rows, list(order)].sum() for order in itertools.permutations(range(size)))
    assert table[rows, picked].sum() == best


@pytest.mark.parametrize("largest", [0, 1, 3, 40])
def test_of_several_best_assignments_it_is_scipys(largest):
    generator = np.random.default_rng(largest)
    for size in (1, 2, 3, 8, 32, 72):
        tables = generator.integers(0, largest, (3, 4, size, size), endpoint=True).astype(np.float32)
        found = most(tables)
        assert found.shape == tables.shape[:-1]
        for place in np.ndindex(3, 4):
            assert found[place].tolist() == linear_sum_assignment(tables[place], maximize=True)[1].tolist()
