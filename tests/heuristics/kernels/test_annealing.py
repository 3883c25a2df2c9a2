"""Annealing keeps a map legal, never makes it worse, reports its makespan and repeats itself."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics.kernels.annealing import LEVELS, anneal
from eplb_gap.problem import Deployment, Instance, Placement, verify

SHAPES = [(5, 6, 2), (6, 9, 3), (8, 12, 4), (10, 24, 8), (20, 32, 8), (30, 45, 9), (9, 9, 1), (3, 12, 4), (4, 8, 8)]


def dealt(instance: Instance) -> np.ndarray:
    """Deal the experts round the GPUs, the spare slots to the first experts: legal, without duplicates for these shapes."""
    replicas = sorted([e % instance.num_experts for e in range(instance.num_slots)])
    gpus = instance.num_gpus
    return np.array([replicas[position] for gpu in range(gpus) for position in range(gpu, len(replicas), gpus)])


@pytest.mark.parametrize("duplicates", ["allowed", "forbidden"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_stay_legal_and_never_get_worse(shape: tuple[int, int, int], duplicates: str) -> None:
    generator = np.random.default_rng(sum(shape))
    experts, num_slots, gpus = shape
    for turn, level in enumerate(LEVELS):
        loads = np.rint(np.exp(generator.normal(size=experts)) * 100).astype(np.int64)
        loads[0] *= [1, 0, 20, 1][turn]
        instance = Instance(tuple(loads.tolist()), num_slots, gpus, duplicates)  # type: ignore[arg-type]
        slots = dealt(instance)
        before = instance.makespan(slots)
        value = anneal(
            loads.astype(np.float64),
            slots,
            gpus,
            instance.max_count,
            duplicates == "forbidden",
            float(instance.mean),
            level,
            3000,
            turn,
        )
        deployment = Deployment(experts, num_slots, gpus, duplicates=duplicates)  # type: ignore[arg-type]
        (after,) = verify(Placement(slots[None], experts), loads[None], deployment)
        assert after <= before
        assert value == pytest.approx(float(after), rel=1e-9)


def test_it_balances_and_repeats_itself() -> None:
    instance = Instance(tuple(range(100, 148)), 60, 20)
    results = []
    for _ in range(2):
        slots = dealt(instance)
        start = instance.makespan(slots)
        anneal(np.arange(100.0, 148.0), slots, 20, instance.max_count, False, float(instance.mean), 0.0, 30_000, 7)
        results.append(slots.tolist())
    assert results[0] == results[1]
    assert instance.makespan(results[0]) < 1.02 * instance.mean < start


def test_nothing_is_done_at_the_bound() -> None:
    slots = np.array([0, 1, 0, 1, 1, 0])
    assert anneal(np.array([6.0, 6.0]), slots, 2, 5, False, 6.0, 0.0, 100, 1) == 6.0
    assert slots.tolist() == [0, 1, 0, 1, 1, 0]
