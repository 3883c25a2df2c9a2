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


def fewest_visits(rows: list[tuple[int, ...]], experts: int, per_node: int, nodes: int) -> int:
    """Return the node visits under the best map, with the smallest cover of every token."""

    def cover(token: set[int], node_sets: tuple[frozenset[int], ...]) -> int:
        for size in range(1, len(node_sets) + 1):
            if any(token <= frozenset().union(*some) for some in combinations(node_sets, size)):
                return size
        raise AssertionError

    return min(sum(cover(set(row), held) for row in rows) for held in contents(experts, per_node, nodes))


SHAPES = [(4, 2, 2, 2), (6, 3, 2, 3), (6, 2, 3, 2), (6, 4, 2, 3), (5, 3, 2, 2), (6, 3, 3, 4), (8, 4, 2, 4), (4, 3, 2, 4)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("experts", "per_node", "nodes", "topk"), SHAPES)
def test_no_map_visits_fewer_nodes(experts: int, per_node: int, nodes: int, topk: int, seed: int) -> None:
    rng = np.random.default_rng([experts, per_node, nodes, topk, seed])
    liking = rng.exponential(size=(3, experts)) ** 2 + 1e-3  # tokens of three kinds, so that some pairs are common
    rows = []
    for _ in range(int(rng.integers(3, 30))):
        shares = liking[rng.integers(0, 3)]
        rows.append(tuple(int(e) for e in rng.choice(experts, topk, replace=False, p=shares / shares.sum())))
    routing = RoutingTrace([[row] for row in rows], experts)
    bound = star_bound(routing.co_activation(0), topk, per_node * nodes, nodes)
    best = fewest_visits(rows, experts, per_node, nodes)
    assert len(rows) <= bound <= best
    assert room_bound(np.array(rows), per_node) <= best
    if nodes == 1 or per_node >= experts:
        assert bound == best == len(rows)


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


def test_slots_that_do_not_fit_are_refused() -> None:
    pairs = RoutingTrace([[[0, 1]]], 4).co_activation(0)
    for slots, nodes in product((3, 5), (2,)):
        with pytest.raises(InputError, match="multiple of num_nodes"):
            star_bound(pairs, 2, slots, nodes)
