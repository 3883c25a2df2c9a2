"""Bounds on node visits against the best of all maps."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, pairwise, product

import numpy as np
import pytest

from eplb_gap.problem.bounds.node_visits import one_over, room_bound, star_bound
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.trace import RoutingTrace


def contents(experts: int, per_node: int, nodes: int) -> Iterator[tuple[frozenset[int], ...]]:
    """Yield what the nodes can hold so that every expert is somewhere; orders of nodes once."""

    def go(left: int, least: tuple[int, ...], held: frozenset[int]) -> Iterator[tuple[frozenset[int], ...]]:
        if not left:
            if len(held) == experts:
                yield ()
            return
        for some in combinations(range(experts), per_node):
            if some >= least:
                for rest in go(left - 1, some, held | set(some)):
                    yield (frozenset(some), *rest)

    yield from go(nodes, (), frozenset())


def fewest_visits(rows: np.ndarray, maps: np.ndarray) -> int:
    """Return the node visits under the best of maps, bool [maps, nodes, experts], with the smallest cover of every token."""
    nodes = maps.shape[1]
    least = np.full((len(maps), len(rows)), nodes + 1)
    for size in range(nodes, 0, -1):
        for some in combinations(range(nodes), size):
            held = maps[:, some].any(axis=1)
            least[held[:, rows].all(axis=2)] = size
    return int(least.sum(axis=1).min())


SHAPES = [(4, 2, 2, 2), (6, 3, 2, 3), (6, 2, 3, 2), (6, 4, 2, 3), (5, 3, 2, 2), (6, 3, 3, 4), (8, 4, 2, 4), (4, 3, 2, 4)]


@pytest.mark.parametrize(("experts", "per_node", "nodes", "topk"), SHAPES)
def test_no_map_of_304_instances_visits_fewer_nodes(experts: int, per_node: int, nodes: int, topk: int) -> None:
    held = [[[e in node for e in range(experts)] for node in some] for some in contents(experts, per_node, nodes)]
    maps = np.array(held)
    for seed in range(38):
        rng = np.random.default_rng([experts, per_node, nodes, topk, seed])
        liking = rng.exponential(size=(3, experts)) ** 2 + 1e-3  # tokens of three kinds, so that some pairs are common
        kinds = liking[rng.integers(0, 3, int(rng.integers(3, 30)))]
        rows = np.argsort(rng.exponential(size=kinds.shape) / kinds, axis=1)[:, :topk]
        bound = star_bound(RoutingTrace(rows[:, None], experts).co_activation(0), topk, per_node * nodes, nodes)
        best = fewest_visits(rows, maps)
        assert len(rows) <= bound <= best
        assert room_bound(rows, per_node) <= best


def test_pairs_that_fit_a_node_cost_one_visit_and_split_ones_two() -> None:
    apart = RoutingTrace([[[0, 1]]] * 4 + [[[2, 3]]] * 6, 4)
    assert star_bound(apart.co_activation(0), 2, 4, 2) == 10
    assert star_bound(apart.co_activation(0), 2, 4, 4) == 20


def test_groups_that_nodes_have_no_room_for_cost_visits() -> None:
    rng = np.random.default_rng(0)
    rows = np.array([rng.permutation(6)[:3] for _ in range(40)])  # groups of one expert, two of them on each of three nodes
    held = [some for some in contents(6, 2, 3)]
    best = min(sum(len({node for node, own in enumerate(some) if own & set(row)}) for row in rows.tolist()) for some in held)
    assert room_bound(rows, 2) == 80 <= best
    assert room_bound(rows // 2, 1) == sum(len(set(row)) for row in (rows // 2).tolist())  # a group on each node: exact


def test_the_interpolation_is_exact_at_integers_and_convex() -> None:
    assert [one_over(Fraction(m)) for m in range(1, 6)] == [Fraction(1, m) for m in range(1, 6)]
    points = [one_over(1 + Fraction(i, 6)) for i in range(30)]
    falls = [a - b for a, b in pairwise(points)]
    assert falls == sorted(falls, reverse=True) and falls[-1] > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c[:, :3], "integers \\[experts, experts\\]"),
        (lambda c: c + np.triu(np.ones_like(c), 1), "not symmetric"),
        (lambda c: c + np.eye(4, dtype=np.int64), "sums to"),
        (lambda c: c.astype(float), "float64"),
    ],
)
def test_counts_of_no_routing_are_refused(change: object, says: str) -> None:
    pairs = RoutingTrace([[[0, 1]]] * 4 + [[[2, 3]]] * 6, 4).co_activation(0)
    with pytest.raises(InputError, match=says):
        star_bound(change(pairs), 2, 4, 2)  # type: ignore[operator]


def test_counts_that_64_bits_cannot_add_up_are_refused_and_the_largest_are_exact() -> None:
    pair = np.ones((2, 2), dtype=np.int64)
    with pytest.raises(InputError, match="a count of 4611686018427387904; at most 4611686018427387903"):
        star_bound(pair << 62, 2, 2, 2)
    with pytest.raises(InputError, match="a count of 9223372036854775808"):
        star_bound(pair.astype(np.uint64) << np.uint64(63), 2, 2, 2)
    assert star_bound(pair * ((1 << 62) - 1), 2, 2, 2) == 2 * ((1 << 62) - 1)


def test_slots_that_do_not_fit_are_refused() -> None:
    pairs = RoutingTrace([[[0, 1]]], 4).co_activation(0)
    for slots, nodes in product((3, 5), (2,)):
        with pytest.raises(InputError, match="multiple of num_nodes"):
            star_bound(pairs, 2, slots, nodes)
