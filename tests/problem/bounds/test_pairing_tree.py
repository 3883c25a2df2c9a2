"""The pairing tree: valid against all counts of tiny instances, and hard to damage unseen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds.pairing_rows import columns
from eplb_gap.problem.bounds.pairing_tree import Cut, Node, Tree, check_tree, rows_of
from eplb_gap.solvers.engines.oracle import best_map
from eplb_gap.solvers.engines.pairing import fold

SHAPES = [(2, 4, 2), (3, 4, 2), (3, 6, 3), (4, 6, 3), (5, 6, 3), (4, 8, 4), (6, 8, 4), (1, 2, 1)]


def count_vectors(instance: Instance) -> Iterator[tuple[int, ...]]:
    """Yield all counts of a placement."""
    for counts in itertools.product(range(1, instance.max_count + 1), repeat=instance.num_experts):
        if sum(counts) == instance.num_slots:
            yield counts


def random_tree(instance: Instance, threshold: Fraction, generator: np.random.Generator, nodes: int = 7) -> Tree | None:
    """Return a tree of random breakpoints, cuts, vectors and distinctions; None if there is no count to choose from."""
    among = columns(instance, threshold)
    if among is None:
        return None
    big = np.flatnonzero(among.keys > among.half)
    chosen = big[generator.random(big.size) < 0.5]
    points = [(int(among.expert[j]), int(among.count[j])) for j in chosen]

    def counts_of(expert: int) -> np.ndarray:
        return among.count[among.expert == expert]

    def weights(rows: int, largest: int) -> tuple[tuple[int, int], ...]:
        return tuple((row, int(generator.integers(1, largest))) for row in range(rows) if generator.random() < 0.4)

    experts = range(instance.num_experts)
    base = [int(generator.choice(counts_of(e))) for e in experts]
    cuts = []
    for _ in range(6):
        bases = tuple((e, int(generator.choice(counts_of(e)))) for e in experts if generator.random() < 0.3)
        cuts.append(Cut(int(generator.integers(2, 6)), weights(1 + len(points) + len(cuts), 5), bases))
    vectors = [weights(1 + len(points) + len(cuts), 30) for _ in range(5)]
    cases: list[Node] = []
    while len(cases) < nodes:
        expert = int(generator.integers(instance.num_experts))
        used = tuple(generator.integers(0, 5, size=generator.integers(3)).tolist())
        if generator.random() < 0.6 and instance.num_experts > 1:
            cases.append(Node(expert, int(generator.choice(counts_of(expert))), used))
        else:
            cases.append(Node(-1, 0, used))
    return Tree((), points, base, cuts, vectors, closed(cases))


def closed(cases: list[Node]) -> list[Node]:
    """Cut the nodes off where they make a whole tree, or end it by leaves."""
    missing, kept = 1, []
    for node in cases:
        if not missing:
            break
        kept.append(node)
        missing += 1 if node.expert >= 0 else -1
    return kept + [Node(-1, 0, (number % 5,)) for number in range(missing)]


def test_every_row_holds_for_all_counts_within_the_threshold() -> None:
    generator = np.random.default_rng(1)
    tight = 0
    for instance in flat_instances(50, 31, SHAPES):
        if instance.num_slots > 6:
            continue
        optimum = instance.makespan(best_map(instance))
        for threshold in (optimum, optimum + Fraction(1, 7), optimum * Fraction(5, 4)):
            tree = random_tree(instance, threshold, generator)
            among = columns(instance, threshold)
            assert tree is not None
            assert among is not None
            rows = rows_of(among, tree)
            assert rows is not None
            for counts in count_vectors(instance):
                if instance.makespan(fold(instance, counts)) > threshold:
                    continue
                at = [among.find(expert, count) for expert, count in enumerate(counts)]
                sums = rows.values[: len(rows.constants), at].sum(axis=1) + rows.constants
                assert sums.min() >= 0, (instance, threshold, counts, tree)
                tight += int((sums == 0).sum())
    assert tight > 500


def test_no_tree_refutes_a_feasible_threshold_and_many_refute_infeasible_ones() -> None:
    generator = np.random.default_rng(2)
    refuted = 0
    for instance in flat_instances(80, 32, SHAPES):
        optimum = instance.makespan(best_map(instance))
        for factor in (Fraction(9, 10), Fraction(99, 100), Fraction(1), Fraction(1001, 1000)):
            threshold = optimum * factor
            for _ in range(5):
                tree = random_tree(instance, threshold, generator)
                if tree is None:
                    continue
                if threshold >= optimum:
                    with pytest.raises(InputError, match="every expert has a possible count left"):
                        check_tree(instance, threshold, tree)
                else:
                    refuted += holds(instance, threshold, tree)
    assert refuted > 15


def holds(instance: Instance, threshold: Fraction, tree: Tree) -> bool:
    """Return whether the kernel accepts the tree."""
    try:
        check_tree(instance, threshold, tree)
    except InputError:
        return False
    return True
