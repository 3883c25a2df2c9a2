"""The best split of a given map: against every set of GPUs, with its proof recomputed exactly."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.serving import token_split
from eplb_gap.heuristics.serving.token_split import Flow, _sweep, optimal_split
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError
from eplb_gap.problem.shares import even_shares, split_bound, verify_shares, verify_split

SHAPES = [(3, 6, 3), (4, 8, 4), (5, 9, 3), (4, 12, 6), (6, 12, 4), (2, 8, 4), (7, 10, 5), (3, 3, 3), (3, 7, 1)]
CLOSE = Fraction(1, 10**12)


def brute_force(slots: np.ndarray, loads: np.ndarray, gpus: int) -> Fraction:
    sets = (chosen for size in range(1, gpus + 1) for chosen in itertools.combinations(range(gpus), size))
    return max(split_bound(slots, loads, gpus, chosen) for chosen in sets)


def random_layer(generator: np.random.Generator, experts: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a map, with duplicates on a GPU where chance wants them, and loads with zeros, ties or one hot expert."""
    spare = generator.choice(experts, slots - experts, p=generator.dirichlet(np.ones(experts)))
    loads = np.rint(np.exp(1.2 * generator.normal(size=experts)) * 40).astype(np.int64)
    loads[generator.integers(experts)] *= generator.choice([0, 1, 12])
    return generator.permutation(np.concatenate([np.arange(experts), spare])), loads


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sweeps", [0, 1, 6])
def test_the_split_attains_the_best_set_of_gpus(
    shape: tuple[int, int, int], sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_split, "SWEEPS", sweeps)
    experts, slots, gpus = shape
    generator = np.random.default_rng(experts * slots)
    maps, loads = (np.array(part) for part in zip(*(random_layer(generator, experts, slots) for _ in range(40)), strict=True))
    placement, deployment = Placement(maps, experts), Deployment(experts, slots, gpus)
    upper, lower = verify_split(placement, optimal_split(placement, loads, deployment), loads, deployment)
    for layer, (makespan, bound) in enumerate(zip(upper, lower, strict=True)):
        assert bound == brute_force(maps[layer], loads[layer], gpus)
        assert bound <= makespan <= bound * (1 + CLOSE)


@settings(max_examples=150)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from([1, 10**3, 10**14]))
def test_proof_and_makespan_meet_on_any_map(gpus: int, k: int, seed: int, unit: int) -> None:
    generator = np.random.default_rng(seed)
    experts = int(generator.integers(1, gpus * k + 1))
    slots, loads = random_layer(generator, experts, gpus * k)
    placement, deployment, rows = Placement([slots], experts), Deployment(experts, gpus * k, gpus), loads[None] * unit
    (makespan,), (bound,) = verify_split(placement, optimal_split(placement, rows, deployment), rows, deployment)
    assert bound <= makespan <= bound * (1 + CLOSE)
    assert makespan <= verify_shares(placement, even_shares(placement), rows, deployment)[0] * (1 + CLOSE)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("method", ["fast", "fast-lpt"])
def test_large_layers_are_proven(k: int, method: str) -> None:
    generator = np.random.default_rng(k)
    loads = np.rint(np.exp(1.2 * generator.normal(size=(6, 256))) * 5000).astype(np.int64)
    deployment = Deployment(256, 288, 288 // k)
    placement = rebalance(loads, deployment, method)
    served = np.rint(loads * np.exp(0.4 * generator.normal(size=loads.shape))).astype(np.int64)
    for rows in (loads, served):
        split = optimal_split(placement, rows, deployment)
        for makespan, bound in zip(*verify_split(placement, split, rows, deployment), strict=True):
            assert bound <= makespan <= bound * (1 + CLOSE)


def test_only_experts_on_several_gpus_move_and_duplicates_are_one_destination() -> None:
    # Expert 0 twice on GPU 0 and once on GPU 1; expert 1 twice on GPU 1.
    placement = Placement([[0, 0, 2, 0, 1, 1]], 3)
    split = optimal_split(placement, [[10, 4, 2]], Deployment(3, 6, 2))
    assert split.shares[0].tolist() == pytest.approx([0.3, 0.3, 1.0, 0.4, 0.5, 0.5])
    assert split.critical == [(0, 1)]


def test_a_hot_single_expert_bounds_the_split_alone() -> None:
    placement = Placement([[0, 1, 1, 2]], 3)
    split = optimal_split(placement, [[90, 10, 20]], Deployment(3, 4, 2))
    assert split.shares[0].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert split.critical == [(0,)]


def test_load_passes_on_along_a_chain() -> None:
    # Every GPU shares an expert with the next; all the surplus is on the first and has to pass through the others.
    gpus = 12
    chain = [expert for g in range(gpus) for expert in (max(g - 1, 0) if g else gpus, g)]
    chain[-1] = gpus - 2
    slots = np.array([expert if expert != gpus else gpus - 1 for expert in chain])
    loads = np.array([[1000] * (gpus - 1) + [700]])
    placement, deployment = Placement([slots], gpus), Deployment(gpus, 2 * gpus, gpus)
    (makespan,), (bound,) = verify_split(placement, optimal_split(placement, loads, deployment), loads, deployment)
    assert bound == Fraction(int(loads.sum()), gpus)
    assert makespan <= bound * (1 + CLOSE)


def test_pouring_ends_where_rounding_puts_a_gpu_on_either_side_of_the_level() -> None:
    bases = np.array([44.800000000000004, 22.4, 61.6])
    edges = np.arange(3)
    flow = Flow(np.array([0, 3]), np.array([56.0]), np.zeros(3, np.int64), edges, np.zeros(3), edges, bases.copy(), bases.copy())
    _sweep.py_func(flow, 1)
    assert flow.flow.tolist() == pytest.approx([16.8, 39.2, 0.0], abs=1e-12)
    assert flow.total.tolist() == pytest.approx([61.6, 61.6, 61.6])


def test_no_load_is_split_evenly() -> None:
    placement = Placement([[0, 1, 0, 2]], 3)
    assert optimal_split(placement, [[0, 0, 0]], Deployment(3, 4, 2)).shares.tolist() == [[0.5, 1.0, 0.5, 1.0]]


def test_a_map_that_does_not_belong_to_loads_or_deployment_is_refused() -> None:
    deployment = Deployment(3, 4, 2)
    with pytest.raises(InputError, match=r"loads has shape \(1, 2\)"):
        optimal_split(Placement([[0, 1, 0, 2]], 3), [[1, 2]], deployment)
    with pytest.raises(InputError, match="4 slots"):
        optimal_split(Placement([[0, 1, 2]], 3), [[1, 2, 3]], deployment)
    with pytest.raises(PlacementError, match="names experts 0 to 3"):
        optimal_split(Placement([[0, 1, 2, 3]], 3), [[1, 2, 3]], deployment)
    with pytest.raises(PlacementError, match="layer 0: expert 2 has no replica"):
        optimal_split(Placement([[0, 1, 1, 0]], 3), [[1, 2, 3]], deployment)
