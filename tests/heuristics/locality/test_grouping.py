"""Grouping by co-activation: legal maps on every kind of deployment, and blocks that tokens stay in are found."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from eplb_gap.heuristics.locality.grouping import greedy_grouping, hypergraph_grouping, spectral_grouping
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import verify

Planner = Callable[[RoutingTrace, Deployment], Placement]
both = pytest.mark.parametrize("plan", [spectral_grouping, greedy_grouping])


def in_blocks(experts: int, blocks: int, topk: int, seed: int) -> tuple[RoutingTrace, np.ndarray]:
    """Return tokens whose experts are all of one block, and the block of every expert; blocks are shuffled."""
    rng = np.random.default_rng(seed)
    block = rng.permutation(np.arange(experts) % blocks)
    rows = [rng.choice(np.flatnonzero(block == rng.integers(blocks)), topk, replace=False) for _ in range(400)]
    return RoutingTrace(np.array(rows)[:, None], experts), block


@both
@pytest.mark.parametrize("seed", range(3))
def test_planted_blocks_are_found(plan: Planner, seed: int) -> None:
    routing, block = in_blocks(24, 4, 3, seed)
    deployment = Deployment(24, 32, 8, num_nodes=4)
    nodes = plan(routing, deployment).phy2log.reshape(4, -1)
    assert sorted(block[node][0] for node in nodes) == [0, 1, 2, 3]
    assert all(len(set(block[node])) == 1 for node in nodes)
    contiguous = np.arange(24).reshape(4, -1)  # the control: the numbering says nothing about the blocks
    assert any(len(set(block[node])) > 1 for node in contiguous)


@pytest.mark.parametrize("seed", range(3))
def test_experts_that_are_never_asked_start_no_group(seed: int) -> None:
    """The first third of the experts is in no token; the blocks of the others stay together."""
    inner, block = in_blocks(16, 4, 3, seed)
    nodes = spectral_grouping(RoutingTrace(inner.experts.astype(int) + 8, 24), Deployment(24, 24, 8, num_nodes=4))
    for node in nodes.phy2log.reshape(4, -1):
        assert len({block[e - 8] for e in node if e >= 8}) == 1


@both
@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(12, 12, 4, num_nodes=4),
        Deployment(12, 16, 8, num_nodes=2, num_groups=4),
        Deployment(12, 16, 16, num_nodes=8),
        Deployment(12, 24, 8, num_nodes=4, duplicates="forbidden"),
        Deployment(12, 24, 8, num_nodes=2, num_groups=2, duplicates="forbidden"),
        Deployment(12, 14, 2),
    ],
    ids=repr,
)
def test_legal(plan: Planner, deployment: Deployment) -> None:
    one_hot = np.tile(np.array([0, 1]), (20, 1, 1))
    for routing in (in_blocks(12, 3, 2, 5)[0], RoutingTrace(one_hot, 12)):
        verify(plan(routing, deployment), routing.loads(), deployment)


@both
@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (Deployment(12, slots_per_gpu=[6, 7]), "grouping by co-activation needs equally many"),
        (Deployment(12, 24, 4, active=[True, True, False, True]), "GPU 2 is dead"),
        (Deployment(12, 16, 4, num_nodes=4, duplicates="forbidden"), "gives a node 3 different experts"),
        (Deployment(12, 16, 16, num_nodes=16), "num_nodes is 16; .* at most num_experts = 12"),
        (Deployment(8, 8, 4), "routing has 12 experts"),
    ],
    ids=repr,
)
def test_one_error(plan: Planner, deployment: Deployment, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(in_blocks(12, 3, 2, 5)[0], deployment)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mtkahypar", None)
    with pytest.raises(InputError, match="mtkahypar is not installed"):
        hypergraph_grouping(in_blocks(12, 3, 2, 5)[0], Deployment(12, 16, 4, num_nodes=2))


@pytest.mark.parametrize("seed", range(2))
def test_hypergraphs_find_planted_blocks(seed: int) -> None:
    pytest.importorskip("mtkahypar")
    test_planted_blocks_are_found(hypergraph_grouping, seed)
    test_legal(hypergraph_grouping, Deployment(12, 16, 16, num_nodes=8))
