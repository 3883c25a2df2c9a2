"""Copies over the network against a recount token by token, and the even spread of sources against its own meaning."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain

import numpy as np
import pytest

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing import traffic as counting
from eplb_gap.problem.routing.traffic import traffic


def drawn(seed: int, tokens: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Deployment]:
    """Return rows, chosen slots, map, sources and deployment."""
    rng = np.random.default_rng(seed)
    nodes, per_node, k = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    slots = nodes * per_node * k
    experts = int(rng.integers(1, slots + 1))
    deployment = Deployment(experts, slots, nodes * per_node, num_nodes=nodes)
    phy2log = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, slots - experts)]))
    topk = int(rng.integers(1, min(experts, 4) + 1))
    rows = np.stack([rng.permutation(experts)[:topk] for _ in range(tokens)])
    chosen = np.vectorize(lambda e: rng.choice(np.flatnonzero(phy2log == e)))(rows)
    return rows, chosen, phy2log, rng.integers(0, deployment.num_gpus, tokens), deployment


def slow(chosen: np.ndarray, source: np.ndarray, deployment: Deployment, dispatch: str) -> list[list[int]]:
    """Send every copy, hop by hop."""
    per_node = deployment.gpus_per_node
    into_nodes, out_of_nodes = [0] * deployment.num_nodes, [0] * deployment.num_nodes
    into, out = [0] * deployment.num_gpus, [0] * deployment.num_gpus

    def send(start: int, end: int) -> None:
        if start == end:
            return
        into[end] += 1
        out[start] += 1
        if start // per_node != end // per_node:
            into_nodes[end // per_node] += 1
            out_of_nodes[start // per_node] += 1

    for slots, start in zip(chosen.tolist(), source.tolist(), strict=True):
        gpus = [slot // deployment.slots_per_gpu for slot in slots]
        if dispatch == "none":
            for gpu in gpus:
                send(start, gpu)
        elif dispatch == "rank-dedup":
            for gpu in set(gpus):
                send(start, gpu)
        else:
            for node in {gpu // per_node for gpu in gpus}:
                gate = node * per_node + start % per_node
                send(start, gate)
                for gpu in {gpu for gpu in gpus if gpu // per_node == node}:
                    send(gate, gpu)
    return [into_nodes, out_of_nodes, into, out]


@pytest.mark.parametrize("dispatch", ["node-dedup", "rank-dedup", "none"])
@pytest.mark.parametrize("seed", range(12))
def test_every_copy_is_counted(seed: int, dispatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, chosen, phy2log, source, deployment = drawn(seed)
    if seed % 2:
        monkeypatch.setattr(counting, "BLOCK", 13 * deployment.num_gpus)  # the last block is not full
    found = traffic(rows, chosen, phy2log, deployment, dispatch, source)
    assert [list(part) for part in (found.into_nodes, found.out_of_nodes, found.into_gpus, found.out_of_gpus)] == slow(
        chosen, source, deployment, dispatch
    )
    gpus = [{slot // deployment.slots_per_gpu for slot in slots} for slots in chosen.tolist()]
    assert found.gpu_visits == sum(map(len, gpus))
    at = (chosen // deployment.slots_per_gpu).ravel().tolist()
    assert list(found.gpu_loads) == [at.count(gpu) for gpu in range(deployment.num_gpus)]
    assert found.node_visits == sum(len({gpu // deployment.gpus_per_node for gpu in some}) for some in gpus)
    average = [Fraction(0)] * (2 * deployment.num_nodes + 2 * deployment.num_gpus)
    for gpu in range(deployment.num_gpus):
        parts = chain(*slow(chosen, np.full(len(rows), gpu), deployment, dispatch))
        average = [a + Fraction(part, deployment.num_gpus) for a, part in zip(average, parts, strict=True)]
    even = traffic(rows, chosen, phy2log, deployment, dispatch)
    assert [*even.into_nodes, *even.out_of_nodes, *even.into_gpus, *even.out_of_gpus] == average


@pytest.mark.parametrize("block", [1, 1 << 18])
def test_what_is_no_choice_is_refused_by_its_place(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BLOCK", block)
    rows, chosen, phy2log, source, deployment = drawn(1)
    wrong = chosen.copy()
    wrong[5, 0] = np.flatnonzero(phy2log != rows[5, 0])[0]
    with pytest.raises(InputError, match=rf"chosen\[5, 0\] is slot {wrong[5, 0]}, which does not hold expert {rows[5, 0]}"):
        traffic(rows, wrong, phy2log, deployment, "none", source)
    wrong[5, 0] = -1
    with pytest.raises(InputError, match=r"chosen\[5, 0\] is slot -1"):
        traffic(rows, wrong, phy2log, deployment, "none", source)
    with pytest.raises(InputError, match="GPUs from 0 to"):
        traffic(rows, chosen, phy2log, deployment, "none", source + deployment.num_gpus)
    with pytest.raises(InputError, match="dispatch is 'all'"):
        traffic(rows, chosen, phy2log, deployment, "all", source)  # type: ignore[arg-type]
