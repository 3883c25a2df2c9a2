"""Activated experts counted again token by token, and the best choice against its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eplb_gap.analysis.decode import activation as module
from eplb_gap.analysis.decode.activation import CHOICES, Activation, activation, in_turn
from eplb_gap.analysis.decode.batches import decode_steps
from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing import activated as kernel
from eplb_gap.problem.routing.activated import read_by_tokens
from eplb_gap.problem.routing.trace import RoutingTrace


def drawn(seed: int, with_steps: bool) -> tuple[RoutingTrace, Placement, Deployment]:
    """Return routing of two layers, a map and its deployment."""
    rng = np.random.default_rng(seed)
    gpus, k = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    experts = int(rng.integers(1, gpus * k + 1))
    topk = min(experts, 3)
    rows = [[rng.permutation(experts)[:topk] for _ in range(2)] for _ in range(37)]
    maps = [rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, gpus * k - experts)])) for _ in range(2)]
    step = np.sort(rng.integers(0, 4, 37)) if with_steps else None
    return RoutingTrace(rows, experts, step=step), Placement(maps, experts), Deployment(experts, gpus * k, gpus)


def recount(rows: list[list[int]], chosen: list[list[int]], deployment: Deployment) -> tuple[int, int]:
    """Return what the fullest GPU of one step reads and computes, in plain Python."""
    reads: list[set[int]] = [set() for _ in range(deployment.num_gpus)]
    copies = [0] * deployment.num_gpus
    for experts, slots in zip(rows, chosen, strict=True):
        for expert, slot in zip(experts, slots, strict=True):
            reads[slot // deployment.slots_per_gpu].add(expert)
            copies[slot // deployment.slots_per_gpu] += 1
    return max(map(len, reads)), max(copies)


def turns(rows: list[list[int]], phy2log: list[int]) -> list[list[int]]:
    """Return the slots of tokens that go to replicas in turn."""
    seen = dict.fromkeys(phy2log, 0)
    chosen = []
    for experts in rows:
        slots = []
        for expert in experts:
            replicas = [slot for slot, held in enumerate(phy2log) if held == expert]
            slots.append(replicas[seen[expert] % len(replicas)])
            seen[expert] += 1
        chosen.append(slots)
    return chosen


@pytest.mark.parametrize("seed", range(12))
def test_every_count_is_that_of_the_tokens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MARKS", 1 << seed)  # blocks of one step and of many
    monkeypatch.setattr(module, "CELLS", 2 * seed + 1)
    routing, placement, deployment = drawn(seed, with_steps=seed % 2 == 0)
    found = activation(routing, placement, deployment, batch=None if seed % 4 == 0 else 5)
    steps = decode_steps(routing, None if seed % 4 == 0 else 5)
    assert steps.tokens.size + steps.left_out == 37
    for layer, phy2log in enumerate(placement.phy2log):
        rows = routing.rows(layer)[steps.tokens]
        chosen = {
            "hashed": choose_replicas(rows, phy2log, deployment, "hashed").tolist(),
            "even": turns(rows.tolist(), phy2log.tolist()),
        }
        for step in range(steps.count):
            where = np.flatnonzero(steps.step == step)
            active = {int(expert) for expert in rows[where].ravel()}
            assert found.active[layer, step] == len(active)
            for choice, slots in chosen.items():
                counted = recount(rows[where].tolist(), [slots[token] for token in where], deployment)
                assert counted == (found.read[choice][layer, step], found.tokens[choice][layer, step])
            # all tokens of an expert are on one GPU under the best choice
            assert found.tokens["best"][layer, step] >= np.bincount(rows[where].ravel()).max()
            assert found.ideal[layer, step] <= found.bound[layer, step] == found.read["best"][layer, step]
            assert found.read["best"][layer, step] <= min(found.read["hashed"][layer, step], found.read["even"][layer, step])
    assert found.proven == 1.0


def test_without_replicas_every_choice_is_the_same() -> None:
    routing = drawn(3, with_steps=False)[0]
    experts = routing.num_experts
    found = activation(routing, Placement([np.arange(experts)] * 2, experts), Deployment(experts, experts, experts), batch=8)
    for choice in CHOICES:
        assert (found.read[choice] == 1).all()
        assert (found.tokens[choice] == found.tokens["best"]).all()


def test_a_dead_gpu_reads_nothing_and_unequal_ones_are_refused() -> None:
    routing = RoutingTrace([[[0, 1]], [[0, 2]]], 3)
    alive, dead = Deployment(3, 4, 2), Deployment(3, 6, 3, dead_gpus=[1])
    whole = Placement([[0, 1, 0, 0, 2, 0]], 3)  # the slots of GPU 1 are filler
    found, known = activation(routing, whole, dead, 2), activation(routing, Placement([[0, 1, 2, 0]], 3), alive, 2)
    assert found.num_gpus == 2
    assert all((found.read[choice] == known.read[choice]).all() for choice in CHOICES)
    with pytest.raises(InputError, match="equally many on each"):
        activation(routing, Placement([[0, 1, 2]], 3), Deployment(3, 3, slots_per_gpu=[2, 1]), 2)


def test_turns_go_on_through_the_steps() -> None:
    assert in_turn(np.array([[0], [0], [1], [0]]), np.array([0, 1, 0]), 2).tolist() == [[0], [2], [1], [0]]


def test_batches_take_tokens_at_even_distances_within_a_step() -> None:
    routing = RoutingTrace([[[0]]] * 9, 1, step=[0, 0, 0, 0, 0, 3, 7, 7, 7])
    found = decode_steps(routing, 2)
    assert found.tokens.tolist() == [0, 2, 1, 3, 6, 7]
    assert found.step.tolist() == [0, 0, 1, 1, 2, 2]
    assert (found.count, found.left_out) == (3, 3)
    own = decode_steps(routing)
    assert own.step.tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 2]
    assert own.counts(routing, 0).tolist() == [[5], [1], [3]]


@pytest.mark.parametrize("batch", [0, -1, 4])
def test_a_batch_that_no_step_has_is_refused(batch: int) -> None:
    routing = RoutingTrace([[[0]]] * 3, 1)
    with pytest.raises(InputError, match=f"batch is {batch}; the trace has 3 tokens, and 1 to 3 are needed"):
        decode_steps(routing, batch)
    with pytest.raises(InputError, match=f"batch is {batch}; the longest step of the trace has 2 tokens"):
        decode_steps(replace(routing, step=np.array([0, 0, 1])), batch)
    with pytest.raises(InputError, match="batch is missing"):
        decode_steps(routing)


def test_what_does_not_belong_together_is_refused() -> None:
    routing, deployment = RoutingTrace([[[0, 1]]], 2), Deployment(2, 2, 2)
    good = Placement([[0, 1]], 2)
    assert isinstance(activation(routing, good, deployment, 1), Activation)
    with pytest.raises(InputError, match="routing has 1 layers; the map has 2"):
        activation(routing, Placement([[0, 1], [1, 0]], 2), deployment, 1)
    with pytest.raises(InputError, match="routing has 3 experts; the map has 2"):
        activation(RoutingTrace([[[0, 1]]], 3), good, deployment, 1)
    with pytest.raises(PlacementError):
        activation(routing, Placement([[0, 0]], 2), deployment, 1)
    rows, chosen, step = np.array([[0], [1]]), np.array([[0], [1]]), np.array([0, 0])
    assert [count.tolist() for count in read_by_tokens(rows, chosen, step, np.array([0, 1]), deployment)] == [[1], [1]]
    for wrong in ((rows, chosen[::-1], step), (rows, chosen + 1, step), (rows, chosen - 1, step)):
        with pytest.raises(InputError, match="does not hold"):
            read_by_tokens(*wrong, np.array([0, 1]), deployment)
    with pytest.raises(InputError, match="never fall"):
        read_by_tokens(rows, chosen, np.array([1, 0]), np.array([0, 1]), deployment)
    with pytest.raises(InputError, match="one entry a token"):
        read_by_tokens(rows, chosen, step[:1], np.array([0, 1]), deployment)
