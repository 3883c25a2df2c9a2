"""GPUs exchanged between nodes by the affinity of their hottest experts, against every single exchange."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics.locality.affinity_swaps import affinity_swaps
from eplb_gap.heuristics.registry import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import verify


def skewed(seed: int) -> RoutingTrace:
    """Return one layer of tokens that ask pairs of 24 experts, some much more than others."""
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=24)
    rows = [rng.choice(24, 2, replace=False, p=weight / weight.sum()) for _ in range(400)]
    return RoutingTrace(np.array(rows)[:, None], 24)


def test_gpus_are_exchanged_until_none_brings_hot_experts_together() -> None:
    deployment, routing = Deployment(24, 32, 16, 4), skewed(0)
    before, after = rebalance(routing.loads(), deployment, "initial_program"), affinity_swaps(routing, deployment)
    gpus = [sorted(map(tuple, np.sort(one.by_gpu(16)[0], axis=1).tolist())) for one in (before, after)]
    assert gpus[0] == gpus[1]
    assert verify(after, routing.loads(), deployment) == verify(before, routing.loads(), deployment)
    sizes, together = routing.loads()[0] / before.counts()[0], routing.co_activation(0)

    def within(by_gpu: np.ndarray) -> int:
        hot = [max(gpu, key=lambda e: sizes[e]) for gpu in by_gpu.tolist()]
        nodes = [hot[first : first + 4] for first in range(0, 16, 4)]
        return sum(int(together[a, b]) for node in nodes for i, a in enumerate(node) for b in node[:i] if a != b)

    placed = after.by_gpu(16)[0]
    best = within(placed)
    assert best > within(before.by_gpu(16)[0])
    for one in range(16):
        for other in range(one):
            order = np.arange(16)
            order[[one, other]] = other, one
            assert within(placed[order]) <= best


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (Deployment(24, 24, 4, 2, 4), "hierarchical policy"),
        (Deployment(6, 8, 4, 2), "routing has 24 experts; the deployment has 6"),
        (Deployment(24, 32, 4, 2, active=[True, True, True, False]), "GPU 3 is dead"),
        (Deployment(24, slots_per_gpu=[12, 13]), "12 to 13 slots"),
    ],
    ids=repr,
)
def test_one_error(deployment: Deployment, message: str) -> None:
    with pytest.raises(InputError, match=message):
        affinity_swaps(skewed(0), deployment)


def test_duplicates_of_the_algorithm_before_are_not_passed_on() -> None:
    routing = RoutingTrace([[[0, 1]], [[0, 2]], [[0, 3]]] * 9, 4)
    with pytest.raises(PlacementError, match="duplicates are forbidden"):
        affinity_swaps(routing, Deployment(4, 8, 2, 2, duplicates="forbidden"))
