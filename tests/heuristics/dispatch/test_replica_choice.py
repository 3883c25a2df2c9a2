"""Rules of dispatchers against their definitions, token by token."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.traffic import traffic


def drawn(seed: int, tokens: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, Deployment]:
    """Return rows, map, sources and deployment."""
    rng = np.random.default_rng(seed)
    nodes, per_node, k = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    slots = nodes * per_node * k
    experts = int(rng.integers(1, slots + 1))
    phy2log = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, slots - experts)]))
    rows = np.stack([rng.permutation(experts)[: min(experts, 4)] for _ in range(tokens)])
    return rows, phy2log, rng.integers(0, nodes * per_node, tokens), Deployment(experts, slots, nodes * per_node, num_nodes=nodes)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("seed", range(15))
def test_every_token_goes_where_the_rule_says(seed: int, told: bool) -> None:
    rows, phy2log, source, deployment = drawn(seed)
    per_gpu, per_node = deployment.slots_per_gpu, deployment.slots_per_node
    homes = source if told else None
    for rule in ("hashed", "local-first", "smallest-cover"):
        chosen = choose_replicas(rows, phy2log, deployment, rule, homes)
        traffic(rows, chosen, phy2log, deployment, "none")  # refuses slots that do not hold the expert
        for token, slots in enumerate(chosen.tolist()):
            where = [{s for s in np.flatnonzero(phy2log == e).tolist()} for e in rows[token]]
            if rule == "local-first" and told:
                for slot, all_of in zip(slots, where, strict=True):
                    near = [s for s in all_of if s // per_gpu == source[token]]
                    near = near or [s for s in all_of if s // per_node == source[token] // deployment.gpus_per_node]
                    assert slot in (near or all_of)
            if rule == "smallest-cover":
                free = {int(source[token]) // deployment.gpus_per_node} if told else set()
                nodes = [{s // per_node for s in all_of} for all_of in where]
                least = next(
                    size
                    for size in range(deployment.num_nodes + 1)
                    for some in combinations(range(deployment.num_nodes), size)
                    if all(here & (set(some) | free) for here in nodes)
                )
                assert len({s // per_node for s in slots} - free) == least


def test_the_hash_spreads_tokens_evenly_over_replicas() -> None:
    deployment = Deployment(3, 8, 8, num_nodes=8)
    rows = np.zeros((6000, 1), dtype=np.int64)
    counts = np.bincount(choose_replicas(rows, np.array([0, 0, 1, 0, 0, 2, 0, 0]), deployment, "hashed").ravel(), minlength=8)
    assert counts[[2, 5]].tolist() == [0, 0]
    assert abs(counts[[0, 1, 3, 4, 6, 7]] - 1000).max() < 20
    covers = choose_replicas(rows, np.array([0, 0, 1, 0, 0, 2, 0, 0]), deployment, "smallest-cover")
    assert abs(np.bincount(covers.ravel(), minlength=8)[[0, 1, 3, 4, 6, 7]] - 1000).max() < 20


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 4), (2, 4), (4, 16)])
def test_covers_and_the_replicas_inside_them_are_chosen_apart(nodes: int, gpus: int) -> None:
    deployment = Deployment(1, gpus, gpus, num_nodes=nodes)
    chosen = choose_replicas(np.zeros((10_000, 1), dtype=np.int64), np.zeros(gpus, dtype=np.int64), deployment, "smallest-cover")
    counts = np.bincount(chosen.ravel(), minlength=gpus)
    assert abs(counts * gpus / 10_000 - 1).max() < 0.03


def test_rules_without_covers_take_any_number_of_nodes() -> None:
    deployment = Deployment(2, 128, 128, num_nodes=128)
    phy2log = np.arange(128) % 2
    chosen = choose_replicas(np.array([[0, 1]] * 6400), phy2log, deployment, "local-first", np.arange(6400) % 128)
    own = np.arange(6400) % 128
    assert (chosen[np.arange(6400), own % 2] == own).all()  # the replica on a token's own GPU
    other = np.bincount(chosen[np.arange(6400), 1 - own % 2], minlength=128)
    assert abs(other - 50).max() < 15


def test_what_cannot_be_chosen_is_refused() -> None:
    rows, phy2log, source, deployment = drawn(1)
    for changed, says in (
        ({"rows": np.array([[-1, 0]])}, "rows name experts -1"),
        ({"rows": np.array([0, 1])}, r"integers \[tokens, topk\]"),
        ({"phy2log": np.append(phy2log, 0)}, f"experts of {deployment.num_slots} slots"),
        ({"source": source[:1]}, "a GPU for each of"),
    ):
        given = {"rows": rows, "phy2log": phy2log, "source": source} | changed
        with pytest.raises(InputError, match=says):
            choose_replicas(given["rows"], given["phy2log"], deployment, "local-first", given["source"])
    with pytest.raises(InputError, match="rule is 'nearest'"):
        choose_replicas(rows, phy2log, deployment, "nearest", source)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="phy2log must hold every one"):
        choose_replicas(rows + deployment.num_experts, phy2log, deployment, "hashed", source)
    with pytest.raises(InputError, match=r"0 to [0-9]+ are there"):
        choose_replicas(rows, phy2log, deployment, "hashed", source + deployment.num_gpus)
    many = Deployment(25, 25, 25, num_nodes=25)
    with pytest.raises(InputError, match="at most 24"):
        choose_replicas(np.array([[0]]), np.arange(25), many, "smallest-cover")
