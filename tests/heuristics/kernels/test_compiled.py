"""The compiled kernels against slow, exact readings of what they compute."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics.kernels import greedy
from eplb_gap.heuristics.kernels.local_search import lattice_bound, pack_counts, plan
from eplb_gap.heuristics.kernels.refinement import swap_descent
from eplb_gap.heuristics.kernels.two_gpu_split import split_descent
from eplb_gap.problem import Instance
from eplb_gap.problem.bounds.bounds import adams_counts

LOADS = st.lists(st.integers(0, 60), min_size=1, max_size=5)


@given(LOADS, st.integers(0, 6), st.integers(1, 5))
def test_adams_counts_are_those_of_the_exact_kernel(loads, extra, limit):
    slots = min(len(loads) + extra, len(loads) * limit)
    assert greedy.adams_counts(np.array(loads), slots, limit).tolist() == adams_counts(loads, slots, limit)


def test_lpt_puts_copies_on_distinct_gpus_and_says_when_it_cannot():
    slots = np.empty(6, dtype=np.int64)
    assert greedy.lpt(np.array([90, 10, 10, 10]), np.array([3, 1, 1, 1]), 3, slots)
    assert [sorted(slots[g * 2 : g * 2 + 2]) for g in range(3)] == [[0, 1], [0, 2], [0, 3]]
    assert not greedy.lpt(np.array([90, 10, 10]), np.array([4, 1, 1]), 3, slots)


def makespan(loads, slots, gpus):
    return float(Instance(tuple(int(w) for w in loads), len(slots), gpus).makespan(slots))


def best_two_gpu_makespan(sizes):
    half, total = len(sizes) // 2, sum(sizes)
    return min(max(sum(pick), total - sum(pick)) for pick in itertools.combinations(sizes, half))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_two_gpus_are_split_optimally(k):
    generator = np.random.default_rng(k)
    for _ in range(20):
        loads = generator.integers(1, 1000, size=2 * k)
        experts, sizes = np.arange(2 * k), loads.astype(float)
        value, _ = split_descent(experts, sizes, 2, False, 0.0, 0, 0)
        assert value == best_two_gpu_makespan(loads.tolist()) == makespan(loads, experts, 2)
        assert sorted(experts) == list(range(2 * k))
        assert sizes.tolist() == loads[experts].tolist()


@st.composite
def packings(draw):
    gpus, k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    experts = draw(st.integers(max(1, k), gpus * k)) if gpus > 1 else gpus * k
    loads = np.array(draw(st.lists(st.integers(0, 500), min_size=experts, max_size=experts)))
    return loads, gpus, k


@settings(max_examples=60)
@given(packings(), st.booleans(), st.integers(0, 30))
def test_searches_never_raise_the_makespan_and_keep_every_replica(packing, distinct, kicks):
    loads, gpus, k = packing
    counts = greedy.adams_counts(loads, gpus * k, gpus)
    slots = np.empty(gpus * k, dtype=np.int64)
    if not greedy.lpt(loads, counts, gpus, slots) and distinct:
        return
    before = makespan(loads, slots, gpus)
    for search in (
        lambda e, s: swap_descent(e, s, gpus, distinct, 0.0),
        lambda e, s: split_descent(e, s, gpus, distinct, 0.0, kicks, 1),
    ):
        experts, sizes = slots.copy(), (loads / counts)[slots]
        search(experts, sizes)
        assert sorted(experts) == sorted(slots)
        assert makespan(loads, experts, gpus) <= before * (1 + 1e-9)
        assert sizes.tolist() == (loads / counts)[experts].tolist()
        if distinct:
            assert all(len(set(experts[g * k : g * k + k])) == k for g in range(gpus))


@pytest.mark.parametrize("hot", [0, 1000])
def test_kicks_of_pairs_without_load_stay_inside_their_arrays(hot):
    # Every split of two idle GPUs is as near to nothing as the pair itself is: that is no reason to have none.
    gpus, k = 4, 9
    slots = np.arange(gpus * k)
    experts, sizes = slots.copy(), np.zeros(slots.size)
    sizes[0] = hot
    assert split_descent(experts, sizes, gpus, False, -1.0 if hot == 0 else 0.0, 300, 0)[0] == hot
    assert sorted(experts) == sorted(slots)
    assert sizes[experts == 0] == [hot]


@given(LOADS, st.integers(1, 3), st.integers(1, 3))
def test_the_lattice_bound_holds_for_every_packing_of_the_counts(loads, gpus, k):
    if len(loads) > gpus * k:
        return
    counts = greedy.adams_counts(np.array(loads), gpus * k, gpus * k)
    bound = lattice_bound(np.array(loads), counts, gpus)
    replicas = [Fraction(w, int(c)) for w, c in zip(loads, counts, strict=True) for _ in range(c)]
    assert bound >= float(Fraction(sum(loads), gpus)) * (1 - 1e-12)
    for order in itertools.islice(itertools.permutations(replicas), 200):
        assert max(sum(order[g * k : g * k + k]) for g in range(gpus)) >= bound * (1 - 1e-12)


def test_plan_reaches_a_hundredth_of_a_percent_and_repeats():
    generator = np.random.default_rng(0)
    loads = np.rint(np.exp(0.7 * generator.normal(size=64)) * 15_000).astype(np.int64)
    stop = loads.sum() / 8 * (1 + 1e-4)
    first, second = np.empty(72, dtype=np.int64), np.empty(72, dtype=np.int64)
    assert plan(loads, 8, 9, False, stop, 50, 3, first) <= stop
    plan(loads, 8, 9, False, stop, 50, 3, second)
    assert first.tolist() == second.tolist()
    assert makespan(loads, first, 8) <= stop * (1 + 1e-12)


@settings(max_examples=40)
@given(packings(), st.booleans(), st.integers(0, 99))
def test_plans_use_every_expert_and_forbid_duplicates_where_asked(packing, distinct, seed):
    loads, gpus, k = packing
    slots, spare = np.empty(gpus * k, dtype=np.int64), gpus * k - len(loads)
    if plan(loads, gpus, min(spare + 1, gpus) if distinct else spare + 1, distinct, 0.0, 20, seed, slots) < np.inf:
        assert set(slots) == set(range(len(loads)))
        if distinct:
            assert all(len(set(slots[g * k : g * k + k])) == k for g in range(gpus))


@pytest.mark.parametrize("distinct", [False, True])
def test_plan_reaches_a_millionth_on_a_coarse_lattice(distinct):
    # Loads near multiples of 80: for whole and half replicas alone the mean lies between two attainable loads.
    generator = np.random.default_rng(1)
    loads = np.rint(np.exp(0.5 * generator.normal(size=64)) * 5_000) * 80 + generator.integers(-1, 1, size=64)
    loads = loads.astype(np.int64)
    slots, stop = np.empty(72, dtype=np.int64), loads.sum() / 8 * (1 + 1e-6)
    assert plan(loads, 8, 8, distinct, stop, 400, 0, slots) <= stop
    assert makespan(loads, slots, 8) <= stop * (1 + 1e-12)


def test_changing_counts_pays_for_hot_loads():
    loads = np.array([600, 560, 120, 120, 20, 10, 10, 10])
    slots = np.empty(16, dtype=np.int64)
    adams = pack_counts(loads, greedy.adams_counts(loads, 16, 9), 8, False, 0.0, 40, 0, slots)
    assert plan(loads, 8, 9, False, 0.0, 400, 0, slots) < adams
