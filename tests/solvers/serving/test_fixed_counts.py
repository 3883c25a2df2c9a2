from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap import heuristics
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.solvers.serving.fixed_counts import best_assignment


def flat_optimum(loads, counts, num_gpus, distinct):
    """Best makespan of fixed counts by trying every assignment of the replicas to GPUs."""
    replicas = [e for e, c in enumerate(counts) for _ in range(c)]
    k = len(replicas) // num_gpus
    best = None

    def fill(left, worst):
        nonlocal best
        if not left:
            best = worst if best is None else min(best, worst)
            return
        first, rest = left[0], left[1:]
        for others in set(itertools.combinations(rest, k - 1)):
            gpu = (first, *others)
            if distinct and len(set(gpu)) < k:
                continue
            load = sum(Fraction(int(loads[e]), int(counts[e])) for e in gpu)
            remaining = list(rest)
            for e in others:
                remaining.remove(e)
            fill(tuple(remaining), max(worst, load))

    fill(tuple(replicas), Fraction(0))
    return best


SHAPES = [(4, 6, 3, "allowed"), (5, 6, 2, "forbidden"), (6, 9, 3, "allowed"), (5, 8, 4, "forbidden"), (4, 4, 4, "allowed")]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("experts", "slots", "gpus", "duplicates"), SHAPES)
def test_the_interval_holds_the_brute_force_optimum(experts, slots, gpus, duplicates, seed):
    generator = np.random.default_rng(seed)
    deployment = Deployment(experts, slots, gpus, duplicates=duplicates)
    planned = heuristics.rebalance(generator.integers(0, 200, (1, experts)), deployment)
    serving = generator.integers(0, 200, (1, experts))
    found = best_assignment(planned, serving, deployment)
    optimum = flat_optimum(serving[0], planned.counts()[0], gpus, duplicates == "forbidden")
    assert found.lower[0] <= optimum <= found.upper[0] <= verify(planned, serving, deployment)[0]
    assert (found.placement.counts() == planned.counts()).all()
    if slots == 2 * gpus and duplicates == "allowed":
        assert found.upper[0] == optimum


@pytest.mark.parametrize("seed", range(12))
def test_groups_change_nodes_where_their_counts_fit(seed):
    generator = np.random.default_rng(seed)
    deployment = Deployment(8, 12, 4, num_nodes=2, num_groups=4)
    planned = heuristics.rebalance(generator.integers(1, 50, (1, 8)), deployment)
    serving = generator.integers(0, 200, (1, 8))
    found = best_assignment(planned, serving, deployment)
    counts = planned.counts()[0]
    optima = []
    for partner in (1, 2, 3):
        nodes = [(0, partner), tuple({1, 2, 3} - {partner})]
        experts = [[e for g in node for e in (2 * g, 2 * g + 1)] for node in nodes]
        if all(counts[node].sum() == 6 for node in experts):
            optima.append(max(flat_optimum(serving[0][node], counts[node], 2, False) for node in experts))
    assert found.lower[0] <= min(optima) <= found.upper[0]
    assert verify(found.placement, serving, deployment) == found.upper


def test_a_better_partition_of_the_groups_is_found():
    # All counts are 1, so any two groups fill a node; planned together, the two hot groups make one node twice as heavy.
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=4)
    planned = Placement([[0, 1, 2, 3, 4, 5, 6, 7]], 8)
    found = best_assignment(planned, [[10, 10, 10, 10, 0, 0, 0, 0]], deployment)
    assert (found.upper, found.lower) == ([Fraction(10)], [Fraction(10)])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=16, max_size=16), st.integers(0, 5))
def test_scaling_the_loads_scales_the_interval(loads, seed):
    deployment = Deployment(16, 24, 4)
    planned = heuristics.rebalance(np.random.default_rng(seed).integers(1, 99, (1, 16)), deployment)
    once, thrice = (best_assignment(planned, [[factor * w for w in loads]], deployment) for factor in (1, 3))
    assert thrice.lower == [3 * value for value in once.lower]
    assert once.lower[0] <= once.upper[0]


def test_a_map_that_is_not_legal_and_too_many_sets_of_groups_are_refused():
    with pytest.raises(PlacementError, match="expert 3 has no replica"):
        best_assignment(Placement([[0, 1, 2, 2]], 4), [[1, 1, 1, 1]], Deployment(4, 4, 2))
    many = Deployment(40, 40, 2, num_nodes=2, num_groups=40)
    with pytest.raises(InputError, match=r"num_groups is 40 with 20 per node: 137846528820 sets"):
        best_assignment(Placement([list(range(40))], 40), [[1] * 40], many)
