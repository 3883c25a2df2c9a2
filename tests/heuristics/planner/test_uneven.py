"""Plans for unequal slots and dead GPUs: legal, near the bound, and every method on what is left of a deployment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.heuristics.config import FastConfig
from eplb_gap.heuristics.planner.uneven import lower_bound, pack, plan, replicate
from eplb_gap.problem import Deployment, InputError, Instance, metrics, verify
from eplb_gap.problem.bounds.bounds import adams_counts, best_joint_bound, capacity_bound

README_LOADS = np.array(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
)


def skewed(layers: int, experts: int, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.poisson(np.exp(0.7 * generator.normal(size=(layers, experts))) * 5000)


@st.composite
def shapes(draw: Any) -> tuple[list[int], tuple[int, ...], bool]:
    slots = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)))
    distinct = draw(st.booleans())
    experts = draw(st.integers(max(slots) if distinct else 1, sum(slots)))
    loads = draw(st.lists(st.integers(0, 500), min_size=experts, max_size=experts))
    return loads, slots, distinct


@given(shapes())
def test_plans_are_legal_avoid_duplicates_and_repeat(shape: tuple[list[int], tuple[int, ...], bool]) -> None:
    loads, slots, distinct = shape
    mode: Any = "forbidden" if distinct else "allowed"
    deployment = Deployment(len(loads), slots_per_gpu=slots, duplicates=mode)
    placement = plan([loads], deployment, steps=500)
    (makespan,) = verify(placement, [loads], deployment)
    assert makespan >= best_joint_bound(Instance.of_layer(loads, deployment)).value
    if max(slots) <= len(loads):
        assert not metrics.duplicates(placement, deployment).any()
    assert (plan([loads], deployment, steps=500).phy2log == placement.phy2log).all()


@given(shapes())
def test_counts_and_bound_are_those_of_the_exact_kernel(shape: tuple[list[int], tuple[int, ...], bool]) -> None:
    loads, slots, _ = shape
    starts, given_loads = np.cumsum((0, *slots)), np.array(loads, dtype=float)
    counts = replicate(given_loads, starts, False)
    assert counts.tolist() == adams_counts(loads, sum(slots), sum(slots))
    instance = Instance(tuple(loads), sum(slots), len(slots), slots_by_gpu=slots)
    exact = max(float(capacity_bound(instance).value), max(w / c for w, c in zip(loads, counts, strict=True)))
    assert lower_bound(given_loads, counts, starts) == pytest.approx(exact, rel=1e-12)


def test_counts_respect_what_distinct_gpus_can_hold() -> None:
    # Adams would give 3, 3, 2, 1; two experts with three replicas each need six slots, at most two a GPU: 1 + 2 + 2.
    loads, starts = np.array([90.0, 90.0, 50.0, 1.0]), np.array([0, 1, 5, 9])
    assert replicate(loads, starts, False).tolist() == [3, 3, 2, 1]
    counts = replicate(loads, starts, True)
    assert counts.tolist() == [3, 2, 2, 2]
    slots = np.empty(9, dtype=np.int64)
    pack(loads, counts, starts, True, slots)
    assert [len(set(slots[a:b])) for a, b in ((0, 1), (1, 5), (5, 9))] == [1, 4, 4]


def test_a_gpu_of_few_slots_gets_large_replicas() -> None:
    # Adams' counts make all replicas 10: two of them on the small GPU are a third of the mean.
    loads = np.array([[30, 30, 10, 10, 10, 10, 10, 10]])
    deployment = Deployment(8, slots_per_gpu=[2, 5, 5])
    placement = rebalance(loads, deployment)
    assert verify(placement, loads, deployment) == [40]
    assert {10, 30} == set(loads[0, placement.phy2log[0, :2]])


@pytest.mark.parametrize(
    "slots", [[9] * 31 + [5], [10] * 16 + [8] * 16, [9] * 31 + [1]], ids=["one small", "two kinds", "one slot"]
)
def test_large_layers_come_near_the_bound(slots: list[int]) -> None:
    loads, deployment = skewed(3, 256), Deployment(256, slots_per_gpu=slots)
    bounds = [best_joint_bound(Instance.of_layer(row, deployment)).value for row in loads]
    makespans = verify(rebalance(loads, deployment), loads, deployment)
    assert all(makespan <= bound * 1.012 for makespan, bound in zip(makespans, bounds, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_plans_around_dead_gpus(method: str) -> None:
    k = 4 if method == "vllm-ascend" else 5  # it puts at most one extra replica on a GPU
    deployment = Deployment(12, 5 * k, 5, active=[True, False, True, True, True])
    placement = rebalance(README_LOADS, deployment, method)
    dead = slice(k, 2 * k)
    assert (placement.phy2log[:, dead] == 0).all() and (placement.ranks[:, dead] == -1).all()
    live = rebalance(README_LOADS, deployment.live, method)
    assert verify(placement, README_LOADS, deployment) == verify(live, README_LOADS, deployment.live)
    assert (placement.counts() == live.counts()).all()
    assert not np.isin(placement.log2phy(), np.arange(deployment.num_slots)[dead]).any()


def test_sglangs_elastic_algorithm_is_deepseeks_on_the_gpus_left() -> None:
    loads, whole = skewed(4, 64), Deployment(64, 96, 8)
    for dead in ((), (0,), (2, 7)):
        active = [gpu not in dead for gpu in range(8)]
        deployment = Deployment(64, 96, 8, active=active)
        placement = rebalance(loads, deployment, "sglang-elastic")
        reduced = rebalance(loads, Deployment(64, 12 * sum(active), sum(active)), "initial_program")
        kept = [gpu for gpu in range(8) if active[gpu]]
        assert (placement.by_gpu(8)[:, kept] == reduced.by_gpu(len(kept))).all()
        assert (placement.by_gpu(8)[:, list(dead)] == 0).all()
    assert (rebalance(loads, whole, "sglang-elastic").phy2log == rebalance(loads, whole, "initial_program").phy2log).all()


@pytest.mark.parametrize(("method", "config"), [("fast-counts", None), ("initial_program", None), ("fast", FastConfig())])
def test_other_methods_refuse_unequal_slots(method: str, config: Any) -> None:
    with pytest.raises(InputError, match="needs equally many slots on all live GPUs; 'fast' plans on unequal ones"):
        rebalance([[3, 2, 1]], Deployment(3, slots_per_gpu=[1, 3]), method, config)
    with pytest.raises(InputError, match="hierarchical"):
        plan([[3, 2, 1, 1]], Deployment(4, 8, 4, 2, 2))
