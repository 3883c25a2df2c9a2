"""The linear program of the best split against the combinatorial one and every set of GPUs: 220 small maps."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.problem import Deployment, Placement, PlacementError
from eplb_gap.problem.shares import split_bound
from eplb_gap.problem.validation import verify_split
from eplb_gap.solvers.serving.split_lp import lp_split

SHAPES = [
    (3, 6, 3),
    (4, 8, 4),
    (5, 9, 3),
    (4, 12, 6),
    (6, 12, 4),
    (2, 8, 4),
    (7, 10, 5),
    (5, 10, 5),
    (6, 8, 8),
    (6, 12, 6),
    (4, 6, 1),
]
CLOSE = Fraction(1, 10**9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_three_ways_to_the_optimum_agree(shape: tuple[int, int, int]) -> None:
    experts, slots, gpus = shape
    generator = np.random.default_rng(slots)
    maps, loads = np.empty((20, slots), dtype=np.int64), generator.integers(0, 400, size=(20, experts)) ** 2
    for row in maps:
        row[:] = generator.permutation(np.concatenate([np.arange(experts), generator.integers(experts, size=slots - experts)]))
    placement, deployment = Placement(maps, experts), Deployment(experts, slots, gpus)
    by_lp = verify_split(placement, lp_split(placement, loads, deployment), loads, deployment)
    by_flow = verify_split(placement, optimal_split(placement, loads, deployment), loads, deployment)
    sets = [chosen for size in range(1, gpus + 1) for chosen in itertools.combinations(range(gpus), size)]
    for layer in range(20):
        best = max(split_bound(maps[layer], loads[layer], gpus, chosen) for chosen in sets)
        assert by_flow[1][layer] == best
        assert best <= by_flow[0][layer] <= best * (1 + CLOSE)
        assert best <= by_lp[0][layer] <= best * (1 + CLOSE)
        assert best * (1 - CLOSE) <= by_lp[1][layer] <= best


def test_a_large_layer_agrees() -> None:
    generator = np.random.default_rng(3)
    loads = np.rint(np.exp(generator.normal(size=(2, 256))) * 5000).astype(np.int64)
    deployment = Deployment(256, 288, 32)
    placement = rebalance(loads[:, ::-1], deployment)  # planned on other loads, so that the split has something to do
    upper, lower = verify_split(placement, lp_split(placement, loads, deployment), loads, deployment)
    for layer, makespan in enumerate(verify_split(placement, optimal_split(placement, loads, deployment), loads, deployment)[0]):
        assert abs(float(makespan / upper[layer]) - 1) < 1e-9
        assert lower[layer] <= makespan <= lower[layer] * (1 + CLOSE)


def test_experts_without_load_get_even_shares_and_illegal_maps_none() -> None:
    deployment = Deployment(3, 4, 2)
    assert lp_split(Placement([[0, 1, 0, 2]], 3), [[0, 3, 3]], deployment).shares.tolist() == [[0.5, 1.0, 0.5, 1.0]]
    with pytest.raises(PlacementError, match="expert 2 has no replica"):
        lp_split(Placement([[0, 1, 0, 1]], 3), [[1, 2, 3]], deployment)
