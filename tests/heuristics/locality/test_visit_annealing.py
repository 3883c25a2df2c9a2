"""Annealing for few node visits: what is kept up to date is what a recount says, within limits on loads and moves."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics.compiled import entry
from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.heuristics.locality.dispatched_map import Dispatched, Tokens, dispatched, move, tokens_of, visits_gained
from eplb_gap.heuristics.locality.visit_annealing import Cooling, Rules, anneal_visits, excess_of, total_visits
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.traffic import traffic


@entry
def moved_by(tokens: Tokens, state: Dispatched, one: int, other: int, come: int) -> int:
    """Make a move, and return the visits that it was said to add."""
    gain = visits_gained(tokens, state, one, other, come)
    move(tokens, state, one, other, come)
    return int(gain)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, Deployment]:
    """Return rows, a map and its deployment."""
    rng = np.random.default_rng(seed)
    nodes, per_node, k = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    size = nodes * per_node * k
    experts = int(rng.integers(max(1, size // 2), size + 1))
    slots = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, size - experts)]))
    rows = np.stack([rng.permutation(experts)[: min(experts, 4)] for _ in range(80)])
    return rows, slots, Deployment(experts, size, nodes * per_node, num_nodes=nodes)


def check_counts(state: Dispatched, rows: np.ndarray, deployment: Deployment) -> None:
    """Compare what was brought up to date with the dispatcher's rule and the judge of traffic, from the map alone."""
    chosen = choose_replicas(rows, state.slots, deployment, "smallest-cover")
    assert total_visits(state) == traffic(rows, chosen, state.slots, deployment, "node-dedup").node_visits
    loads = np.bincount(chosen.ravel(), minlength=deployment.num_slots)
    assert state.loads.tolist() == loads.tolist()
    assert state.gpus.tolist() == loads.reshape(deployment.num_gpus, -1).sum(axis=1).tolist()
    assert state.nodes.tolist() == loads.reshape(deployment.num_nodes, -1).sum(axis=1).tolist()


@pytest.mark.parametrize("seed", range(12))
def test_counts_after_moves_are_those_of_a_recount(seed: int) -> None:
    rows, slots, deployment = drawn(seed)
    rng, tokens = np.random.default_rng(seed), tokens_of(rows, deployment.num_experts)
    state = dispatched(tokens, slots, deployment.num_gpus, deployment.num_nodes)
    check_counts(state, rows, deployment)
    for _ in range(60):
        one, other = (int(s) for s in rng.integers(0, deployment.num_slots, 2))
        come = int(state.slots[other])
        if rng.random() < 0.3:
            other, come = -1, int(rng.integers(0, deployment.num_experts))
        gone = state.slots[one]
        if gone == come or (other < 0 and state.counts[gone] < 2):
            continue
        before = total_visits(state)
        assert before + moved_by(tokens, state, one, other, come) == total_visits(state)
        check_counts(state, rows, deployment)
    anew = dispatched(tokens, state.slots, deployment.num_gpus, deployment.num_nodes)
    assert all((getattr(anew, name) == getattr(state, name)).all() for name in ("held", "alone", "choices", "visits", "on_gpu"))


@pytest.mark.parametrize("seed", range(8))
def test_the_best_map_met_is_returned_within_limits_and_moves(seed: int) -> None:
    rows, slots, deployment = drawn(40 + seed)
    tokens, found = tokens_of(rows, deployment.num_experts), np.empty_like(slots)
    first = dispatched(tokens, slots, deployment.num_gpus, deployment.num_nodes)
    mean = rows.size / deployment.num_gpus
    for most in (0, 2, 5, deployment.num_slots):
        rules = Rules(int(1.2 * mean), int(1.1 * rows.size / deployment.num_nodes), False, slots, first.on_gpu.copy(), most)
        state = dispatched(tokens, slots, deployment.num_gpus, deployment.num_nodes)
        anneal_visits(tokens, state, rules, Cooling(0.2, 0.1, 0.5, 2.0, 0.1, 1.0, 1500), seed, found)
        check_counts(state, rows, deployment)
        last = dispatched(tokens, found, deployment.num_gpus, deployment.num_nodes)
        ranks = [(excess_of(one, rules), total_visits(one)) for one in (last, first)]
        assert ranks[0] <= ranks[1]
        assert (np.bincount(found, minlength=deployment.num_experts) > 0).all()
        new, old = (Placement(one[None], deployment.num_experts) for one in (found, slots))
        assert moved(new, old, deployment)[0] <= most
