"""The fewest activated experts against all choices of replicas, and the proof of each."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.activated import fewest_activated
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.activated import activated, activated_bound, read_by_tokens


def drawn(seed: int, steps: int, most: int = 4) -> tuple[np.ndarray, np.ndarray, Deployment]:
    """Return active experts, a map and its deployment."""
    rng = np.random.default_rng(seed)
    gpus, k = int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1))
    experts = int(rng.integers(1, gpus * k + 1))
    phy2log = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, gpus * k - experts)]))
    return rng.random((steps, experts)) < rng.random(), phy2log, Deployment(experts, gpus * k, gpus)


@pytest.mark.parametrize("seed", range(40))
def test_no_choice_reads_fewer_and_the_witness_proves_it(seed: int) -> None:
    active, phy2log, deployment = drawn(seed, 6, 3)
    gpus, witness = fewest_activated(active, phy2log, deployment)
    found = activated(gpus, active, phy2log, deployment)
    assert (found == activated_bound(witness, active, phy2log, deployment)).all()
    for step, row in enumerate(active):
        homes = [set((np.flatnonzero(phy2log == e) // deployment.slots_per_gpu).tolist()) for e in np.flatnonzero(row)]
        best = min(np.bincount(some, minlength=1).max() if some else 0 for some in product(*homes))
        assert found[step] == best


@pytest.mark.parametrize("seed", range(8))
def test_large_steps_are_proven_too(seed: int) -> None:
    active, phy2log, deployment = drawn(1000 + seed, 30, 24)
    gpus, witness = fewest_activated(active, phy2log, deployment)
    found = activated(gpus, active, phy2log, deployment)
    assert (found == activated_bound(witness, active, phy2log, deployment)).all()


def test_forged_choices_and_witnesses_are_refused() -> None:
    deployment = Deployment(3, 4, 2)
    active, phy2log = np.array([[True, True, False]]), np.array([0, 1, 2, 0])
    for wrong in ([[1, 1, -1]], [[1, -1, -1]], [[1, 0, 1]], [[2, 0, -1]]):
        with pytest.raises(InputError):
            activated(np.array(wrong), active, phy2log, deployment)
    with pytest.raises(InputError, match="active experts alone"):
        activated_bound(np.array([[True, True, True]]), active, phy2log, deployment)
    with pytest.raises(InputError, match="witness and active are int64 and bool"):
        activated_bound(np.array([[5, 0, 0]]), active, phy2log, deployment)
    with pytest.raises(InputError, match="each at least once"):
        fewest_activated(active, np.array([0, 1, 1, 0]), deployment)
    with pytest.raises(InputError, match=r"bool \[steps, 3\]"):
        fewest_activated(active[:, :2], phy2log, deployment)


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="experts of 4 slots"):
        fewest_activated(np.ones((1, 3), dtype=np.bool_), np.array([0, 1, 2, 0, 1, 2, 2, 2]), Deployment(3, 4, 2))
    six, deployment, some = np.array([0, 1, 2, 0, 1, 2]), Deployment(3, 4, 2), np.ones((1, 3), dtype=np.bool_)
    with pytest.raises(InputError, match=r"phy2log has shape \(6,\); \(4,\) is needed"):
        read_by_tokens(np.array([[0], [1]]), np.array([[3], [1]]), np.array([0, 1]), six, deployment)
    with pytest.raises(InputError, match=r"phy2log has shape \(6,\)"):
        activated(np.zeros((1, 3), dtype=np.int64), some, six, deployment)
    with pytest.raises(InputError, match=r"step names 1125899906842624; at most \d+ steps are counted"):
        read_by_tokens(np.array([[0]]), np.array([[0]]), np.array([1 << 50]), six[:4], deployment)
