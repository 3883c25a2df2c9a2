"""The pairing tree: valid against all counts of tiny instances, and hard to damage unseen."""

from __future__ import annotations

import base64
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eplb_gap.experiments.loads.random_instances import flat_instances
from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds import pairing_rows, pairing_tree
from eplb_gap.problem.bounds.pairing_dual import next_pair_sum
from eplb_gap.problem.bounds.pairing_rows import Rows, columns
from eplb_gap.problem.bounds.pairing_tree import Cut, Node, Tree, TreeLimitError, check_tree, rows_of, tree_value, tree_witness
from eplb_gap.solvers.engine import Limits
from eplb_gap.solvers.engines import pairing_search
from eplb_gap.solvers.engines.need_model import Relaxation
from eplb_gap.solvers.engines.oracle import best_map
from eplb_gap.solvers.engines.pairing import fold
from eplb_gap.solvers.engines.pairing_search import search_at

SHAPES = [(2, 4, 2), (3, 4, 2), (3, 6, 3), (4, 6, 3), (5, 6, 3), (4, 8, 4), (6, 8, 4), (1, 2, 1)]

THRESHOLD = Fraction(42358)


def lognormal(experts: int, slots: int, sigma: float, seed: int) -> Instance:
    """Return an instance with lognormal loads of sum 1e6."""
    values = np.exp(sigma * np.random.default_rng(seed).normal(size=experts))
    return Instance(tuple(int(w) for w in np.maximum(1, np.rint(values / values.sum() * 10**6))), slots, slots // 2)


CASE = lognormal(32, 48, 0.6, 1)


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


@pytest.fixture(scope="module")
def proof() -> Tree:
    """Return a tree with cuts and branchings for CASE at THRESHOLD."""
    limits = Limits(time.monotonic() + 60)
    relaxation = Relaxation(CASE, THRESHOLD, limits)
    assert not relaxation.refuted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing_search, "MOST_ADDED", 1)
        patch.setattr(pairing_search, "NODE_ROUNDS", 1)
        search = search_at(CASE, THRESHOLD, relaxation.multipliers, limits)
        assert search is not None
        assert search.branch(limits.deadline, 1000)
    tree = search.proof()
    assert len(tree.nodes) > 2
    assert tree.cuts
    assert any(cut.bases for cut in tree.cuts)
    return tree


def stored(tree: Tree) -> dict[str, Any]:
    """Return the witness of a tree as it comes out of a file."""
    return json.loads(json.dumps(tree_witness(THRESHOLD, tree)))


def squeezed(raw: bytes) -> str:
    """Return bytes as a witness stores them."""
    return base64.b64encode(zlib.compress(raw)).decode()


def packed(document: Any) -> str:
    """Return a document as a witness stores it."""
    return squeezed(json.dumps(document).encode())


def unpacked(tree: Tree) -> dict[str, Any]:
    """Return the document of a tree."""
    return json.loads(zlib.decompress(base64.b64decode(stored(tree)["tree"])))


def test_a_stored_tree_proves_the_next_pair_sum(proof: Tree) -> None:
    witness = stored(proof)
    assert tree_value(CASE, witness) == next_pair_sum(CASE, THRESHOLD)
    assert len(witness["tree"]) < 20_000


def first_inner(tree: Tree) -> int:
    """Return the number of the first node with children."""
    return next(number for number, node in enumerate(tree.nodes) if node.expert >= 0)


def first_leaf(tree: Tree) -> int:
    """Return the number of the first node without children."""
    return next(number for number, node in enumerate(tree.nodes) if node.expert < 0)


def with_node(tree: Tree, number: int, **changes: Any) -> Tree:
    """Return the tree with one node changed."""
    return replace(tree, nodes=[*tree.nodes[:number], replace(tree.nodes[number], **changes), *tree.nodes[number + 1 :]])


DAMAGES: dict[str, tuple[Callable[[Tree], Tree], str]] = {
    "a child is missing": (lambda t: replace(t, nodes=t.nodes[:-1]), "cases are left open"),
    "no nodes": (lambda t: replace(t, nodes=[]), "cases are left open"),
    "a node too many": (lambda t: replace(t, nodes=[*t.nodes, t.nodes[-1]]), "0 cases are open"),
    "an inner node is called a leaf": (lambda t: replace(t, nodes=[Node(-1, 0, ())]), "possible count left"),
    "a leaf without its vectors": (lambda t: with_node(t, first_leaf(t), vectors=()), "possible count left"),
    "another distinction": (lambda t: with_node(t, first_inner(t), most=10**6), "possible count left"),
    "no such expert": (lambda t: with_node(t, first_inner(t), expert=32), "no such expert"),
    "a negative expert": (lambda t: with_node(t, first_inner(t), expert=-2), "no such expert"),
    "a leaf that distinguishes counts": (lambda t: with_node(t, first_leaf(t), most=1), "has no children and distinguishes"),
    "no such vector": (lambda t: with_node(t, first_leaf(t), vectors=(len(t.vectors),)), "names vector"),
    "a negative vector": (lambda t: with_node(t, first_leaf(t), vectors=(-1,)), "names vector"),
    "a negative weight": (lambda t: replace(t, vectors=[((0, -1),)] * len(t.vectors)), "weights >= 0"),
    "no such row": (lambda t: replace(t, vectors=[((10**6, 1),)] * len(t.vectors)), "rows 0 to"),
    "slots alone": (lambda t: replace(t, vectors=[((0, 1),)] * len(t.vectors)), "possible count left"),
    "twice the slots": (lambda t: replace(t, vectors=[(*v, v[0]) for v in t.vectors]), "possible count left"),
    "weights beyond 64 bits": (lambda t: replace(t, vectors=[((0, 2**49),) * 9999] * len(t.vectors)), "too large"),
    "a cut of itself": (lambda t: replace(t, cuts=[Cut(2, ((1 + len(t.points), 1),))] * len(t.cuts)), "rows 0 to"),
    "modulus 1": (lambda t: replace(t, cuts=[replace(cut, modulus=1) for cut in t.cuts]), "modulus is 1"),
    "modulus 65": (lambda t: replace(t, cuts=[replace(cut, modulus=65) for cut in t.cuts]), "modulus is 65"),
    "other cuts": (lambda t: replace(t, cuts=[replace(cut, weights=((1, 1),)) for cut in t.cuts]), "possible count left"),
    "too few cuts": (lambda t: replace(t, cuts=[]), "rows 0 to"),
    "a base too few": (lambda t: replace(t, base=t.base[1:]), "base has 31"),
    "an impossible base": (lambda t: replace(t, base=[30] * 32), "has no count 30"),
    "an impossible breakpoint": (lambda t: replace(t, points=[(0, 30)] * len(t.points)), "has no count 30"),
    "other breakpoints": (lambda t: replace(t, points=[(0, 9)] * len(t.points)), "possible count left"),
    "cuts in the first vector": (lambda t: replace(t, first=((1 + len(t.points), 1),)), "rows 0 to"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_trees_are_refused(damage: str, proof: Tree) -> None:
    change, message = DAMAGES[damage]
    with pytest.raises(InputError, match=message):
        tree_value(CASE, stored(change(proof)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": str(THRESHOLD + 400)}, "pairing tree"),
        ({"threshold": "1e999999999"}, "pairing tree: threshold is .*; a fraction"),
        ({"threshold": "1/0"}, "threshold is '1/0'; a fraction"),
        ({"threshold": 42358}, "threshold is 42358; a fraction"),
        ({"nodes": 1}, "nodes says 1"),
        ({"nodes": True}, "nodes says True"),
        ({"tree": 7}, "is a text"),
        ({"tree": "!"}, "no compressed JSON"),
        ({"tree": "AAAA"}, "no compressed JSON"),
        ({"tree": packed(list(range(9)))}, "exactly the fields"),
        ({"tree": packed({})}, "exactly the fields"),
        ({"tree": squeezed(b'{"first": [], "first": []}')}, "no compressed JSON .*an object holds a key twice"),
        ({"tree": squeezed(b'{"first": [NaN]}')}, "no compressed JSON .*NaN is no JSON number"),
        ({"tree": squeezed('"é"'.encode())}, "no compressed JSON .*can't decode"),
        ({"tree": squeezed(b" " * (33 << 20))}, "unpacks to over"),
        ({"tree": "A" * (9 << 20)}, "is a text of at most"),
        ({"more": 1}, "exactly the fields threshold, nodes and tree"),
    ],
)
def test_damaged_witnesses_are_refused(changes: dict[str, Any], message: str, proof: Tree) -> None:
    with pytest.raises(InputError, match=message):
        tree_value(CASE, {**stored(proof), **changes})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nodes", [[True, 0]]),
        ("nodes", [[-1, 0.0]]),
        ("nodes", [[-1]]),
        ("nodes", [[-1, 0]] * 200_001),
        ("nodes", 3),
        ("base", ["1"] * 32),
        ("points", [1, 2, 3]),
        ("first", [0, 2**50 + 1]),
        ("first", [0, 10**3000]),
        ("cuts", [[2, []]]),
        ("cuts", [[[2], [], []]]),
        ("vectors", {"0": 1}),
    ],
)
def test_damaged_documents_are_refused(name: str, value: Any, proof: Tree) -> None:
    with pytest.raises(InputError, match=r"^pairing tree: "):
        tree_value(CASE, {**stored(proof), "tree": packed({**unpacked(proof), name: value}), "nodes": len(proof.nodes)})


@pytest.mark.parametrize("name", ["MAX_ROWS", "MAX_VECTORS", "MAX_NODES", "MAX_WORK", "MAX_OPEN", "MAX_TEXT", "MAX_JSON"])
def test_a_tree_beyond_a_limit_is_neither_checked_nor_written(name: str, proof: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = stored(proof)
    monkeypatch.setattr(pairing_tree, name, 1)
    with pytest.raises(InputError, match=r"^pairing tree: .*(limit|at most|unpacks to over)"):
        tree_value(CASE, witness)
    with pytest.raises(TreeLimitError, match=r"^pairing tree: .*limit"):
        check_tree(CASE, THRESHOLD, proof)
        tree_witness(THRESHOLD, proof)


def test_more_weights_than_there_is_room_for_are_refused(proof: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing_rows, "MAX_CELLS", 1 << 15)
    many = replace(proof, points=[], cuts=[], first=(), vectors=[((0, 1),) * 20_000] * len(proof.vectors))
    with pytest.raises(InputError, match=r"weights over .* counts are more than"):
        check_tree(CASE, THRESHOLD, many)


def test_text_behind_the_data_or_a_cut_off_text_is_refused(proof: Tree) -> None:
    raw = base64.b64decode(stored(proof)["tree"])
    for changed in (raw + b"x", raw[:-9]):
        with pytest.raises(InputError, match="does not end where its data does"):
            tree_value(CASE, {**stored(proof), "tree": base64.b64encode(changed).decode()})


def test_a_tree_is_no_proof_for_other_loads(proof: Tree) -> None:
    with pytest.raises(InputError):
        tree_value(replace(CASE, loads=(CASE.loads[0] - 2000, *CASE.loads[1:])), stored(proof))
    with pytest.raises(InputError, match="the pairing bound needs 2"):
        tree_value(Instance(CASE.loads, 48, 16), stored(proof))


def test_half_the_threshold_is_no_breakpoint() -> None:
    instance = Instance((4, 4, 4), 4, 2)
    among = columns(instance, Fraction(8))
    assert among is not None
    with pytest.raises(InputError, match="not above half the threshold"):
        among.point(0, 1)


def test_rows_that_do_not_fit_are_refused() -> None:
    among = columns(CASE, THRESHOLD)
    assert among is not None
    with pytest.raises(InputError, match="are more than"):
        Rows(among, [], 10**6)
    with pytest.raises(InputError, match="4000 rows are the limit"):
        check_tree(CASE, THRESHOLD, Tree((), [], [1] * 32, [Cut(2, ((0, 1),))] * 4000, [], [Node(-1, 0, ())]))
