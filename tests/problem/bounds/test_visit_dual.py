"""Whatever prices, numbers and vectors are handed over, no map has fewer node visits than they prove."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb_gap.problem.bounds.visit_dual import MOST_TOPK, PRICE_BITS, VECTOR_BITS, VisitDual, visit_dual_value
from eplb_gap.problem.errors import InputError
from eplb_gap.solvers.locality.visit_bound import visit_bound


def equal_partitions(experts: tuple[int, ...], per_node: int):
    """Yield every way to put experts on nodes that hold ``per_node`` each, as lists of sets."""
    if not experts:
        yield []
        return
    first, others = experts[0], experts[1:]
    for mates in combinations(others, per_node - 1):
        node = {first, *mates}
        for rest in equal_partitions(tuple(e for e in others if e not in node), per_node):
            yield [node, *rest]


def fewest_visits(sets: np.ndarray, weights: np.ndarray, num_experts: int, num_nodes: int, most_load: int | None = None) -> int:
    """Return the least over all maps, within the limit if there is one, token by token in plain Python."""
    tokens = [(set(row), w) for row, w in zip(sets.tolist(), weights.tolist(), strict=True)]
    return min(
        (
            sum(w * sum(bool(token & node) for node in nodes) for token, w in tokens)
            for nodes in equal_partitions(tuple(range(num_experts)), num_experts // num_nodes)
            if most_load is None or max(sum(w * len(token & node) for token, w in tokens) for node in nodes) <= most_load
        ),
        default=1 << 60,
    )


def instance(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, int]:
    num_experts, num_nodes = [(4, 2), (6, 2), (6, 3), (8, 2), (8, 4)][rng.integers(5)]
    topk = int(rng.integers(2, min(5, num_experts) + 1))
    favour = rng.dirichlet(np.ones(num_experts), size=2) + 1e-3
    rows = [rng.choice(num_experts, topk, replace=False, p=(f := favour[rng.integers(2)]) / f.sum()) for _ in range(12)]
    sets, weights = np.unique(np.sort(rows, axis=1), axis=0, return_counts=True)
    return sets, weights, num_experts, num_nodes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 30, 3000]), st.sampled_from([0, 100, 1 << 20]))
def test_any_witness_is_below_every_map(seed: int, prices: int, vectors: int) -> None:
    rng = np.random.default_rng(seed)
    sets, weights, num_experts, num_nodes = instance(rng)
    topk = sets.shape[1]
    one = 1 << PRICE_BITS
    dual = VisitDual(
        rng.integers(-prices // 3, prices + 1, (len(sets), topk * (topk - 1) // 2)) + (one // topk if prices else 0),
        rng.integers(-(one << 26), (one << 24) + 1, num_experts),
        rng.integers(-vectors, vectors + 1, (num_experts, 3)),
    )
    assert visit_dual_value(sets, weights, num_experts, num_nodes, dual) <= fewest_visits(sets, weights, num_experts, num_nodes)
    most_load = int(weights.sum()) * topk * 11 // (10 * num_nodes)
    rented = replace(dual, rents=rng.integers(0, 1 << 38, num_experts) * rng.integers(0, 2, num_experts))
    value = visit_dual_value(sets, weights, num_experts, num_nodes, rented, most_load)
    assert value <= fewest_visits(sets, weights, num_experts, num_nodes, most_load)


def test_bounds_found_are_below_brute_force_and_near_it_and_so_are_300_others_around_them() -> None:
    rng = np.random.default_rng(20261128)
    ratios, above_trivial = [], 0
    for _ in range(12):
        sets, weights, num_experts, num_nodes = instance(rng)
        best = fewest_visits(sets, weights, num_experts, num_nodes)
        bound = visit_bound(sets, weights, num_experts, num_nodes)
        assert weights.sum() <= bound.value <= best
        assert bound.value == visit_dual_value(sets, weights, num_experts, num_nodes, bound.dual)
        ratios.append(float(bound.value / best))
        for _ in range(25):
            dual = VisitDual(
                bound.dual.prices + rng.integers(-200, 201, bound.dual.prices.shape),
                bound.dual.numbers + rng.integers(-(1 << 35), 1 << 35, num_experts),
                bound.dual.vectors + rng.integers(-(1 << 15), 1 << 15, bound.dual.vectors.shape),
            )
            value = visit_dual_value(sets, weights, num_experts, num_nodes, dual)
            assert value <= best
            above_trivial += value > weights.sum()
    assert np.mean(ratios) > 0.9, ratios
    assert above_trivial > 200


def test_many_tokens_lose_nothing() -> None:
    sets, weights, num_experts, num_nodes = instance(np.random.default_rng(3))
    few, many = (visit_bound(sets, weights * times, num_experts, num_nodes).value / times for times in (1, 10**9))
    assert abs(float(many / few) - 1) < 1e-3 and few > weights.sum()


def test_alone_on_their_nodes_experts_cost_a_visit_each() -> None:
    sets, weights = np.array([[0, 1, 2], [1, 2, 3]]), np.array([5, 10**9])
    assert visit_bound(sets, weights, 4, 4).value == 3 * (5 + 10**9)


def test_a_limit_on_loads_raises_the_bound() -> None:
    """Experts 0 and 1 are asked together and carry most: no node may hold both when loads are limited."""
    sets, weights = np.array([[0, 1], [3, 4], [3, 5], [4, 5]]), np.array([50, 10, 10, 10])
    free, held = (visit_bound(sets, weights, 6, 3, limit) for limit in (None, 70))
    best = fewest_visits(sets, weights, 6, 3), fewest_visits(sets, weights, 6, 3, 70)
    assert best == (100, 150) and free.value <= 100 and 110 < held.value <= 150
    assert held.value == visit_dual_value(sets, weights, 6, 3, held.dual, 70)


def test_value_by_hand() -> None:
    """A triangle on two nodes of two: prices p, numbers v and no vectors give 3 min(2, 1 + p) + 2 (sum of v) / 2 - missing."""
    sets, weights = np.array([[0, 1], [0, 2], [1, 2]]), np.array([1, 1, 1])
    price, number = 1 << (PRICE_BITS - 1), -(1 << (2 * VECTOR_BITS - 2))  # a half, and minus a quarter
    dual = VisitDual(np.full((3, 1), price), np.full(4, number), np.zeros((4, 1), dtype=np.int64))
    # Tokens 3/2 each; A is -1/2 + 1/2 = 0 in the triangle and 1/2 elsewhere, so nothing is missing; numbers take 1 * 4 * 1/4.
    assert visit_dual_value(sets, weights, 4, 2, dual) == max(Fraction(9, 2) - 1, Fraction(3))
    vectors = np.zeros((4, 1), dtype=np.int64)
    vectors[:2, 0] = 1 << (VECTOR_BITS - 1)  # halves: lengths of 1/4 each, and a product of 1/4 above A of experts 0 and 1
    dual = VisitDual(dual.prices, dual.numbers, vectors)
    assert visit_dual_value(sets, weights, 4, 2, dual) == Fraction(9, 2) - 1 - Fraction(1, 4) - Fraction(1, 4)


def test_nodes_limit_blocks() -> None:
    """Prices that make lonely members cheapest are worth two blocks on two nodes, not four."""
    sets, weights = np.array([[0, 1, 2, 3]]), np.array([1])
    dual = VisitDual(np.full((1, 6), 4 << PRICE_BITS), np.zeros(4, dtype=np.int64), np.full((4, 1), 0))
    free = visit_dual_value(sets, weights, 4, 4, dual)
    held = visit_dual_value(sets, weights, 4, 2, dual)
    # On two nodes two pairs cost 2 + 2 * 4, and all pairs pay -6 * 4 at most; on four nodes no pair is ever together.
    assert (free, held) == (Fraction(1), Fraction(1))
    numbers = np.full(4, -2 << (2 * VECTOR_BITS))
    held = visit_dual_value(sets, weights, 4, 2, VisitDual(dual.prices, numbers, dual.vectors))
    assert held == 2  # 10 for the token, (2 - 1) * 4 * -2 for the numbers, and nothing missing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": np.array([[0, 0], [1, 2]])}, "different experts"),
        ({"sets": np.array([[0, 4], [1, 2]])}, "0 to 3"),
        ({"sets": np.arange(2 * (MOST_TOPK + 1)).reshape(2, -1), "num_experts": 24}, "topk"),
        ({"weights": np.array([1])}, "weights"),
        ({"num_nodes": 3}, "multiple"),
        ({"prices": np.zeros((2, 3), dtype=np.int64)}, "prices"),
        ({"numbers": np.full(4, 1 << 61)}, "numbers"),
        ({"vectors": np.full((4, 1), 1 << 27)}, "vectors"),
        ({"vectors": np.zeros((4, 1))}, "vectors"),
        ({"rents": np.zeros(4, dtype=np.int64)}, "without most_load"),
        ({"rents": np.full(4, -1)}, "rents"),
        ({"weights": np.full(2, 1 << 62)}, "tokens"),
    ],
)
def test_what_cannot_be_counted_is_refused(change: dict, message: str) -> None:
    given = {
        "sets": np.array([[0, 1], [1, 2]]),
        "weights": np.array([1, 1]),
        "num_experts": 4,
        "num_nodes": 2,
        "prices": np.zeros((2, 1), dtype=np.int64),
        "numbers": np.zeros(4, dtype=np.int64),
        "vectors": np.zeros((4, 1), dtype=np.int64),
    } | change
    dual = VisitDual(given["prices"], given["numbers"], given["vectors"], given.get("rents"))
    with pytest.raises(InputError, match=message):
        visit_dual_value(given["sets"], given["weights"], given["num_experts"], given["num_nodes"], dual)
