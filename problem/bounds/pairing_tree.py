"""Two slots per GPU: a tree of case distinctions that proves a threshold infeasible, recounted in integers.

Every placement within the threshold has counts that satisfy the rows of :mod:`eplb_gap.problem.bounds.pairing_rows`. A *weight
vector* adds rows with whole weights of at least 0; the sum, ``sum_e f_e(c_e) + constant``, is at least 0 as well. If it is
negative with the largest f_e(c) of every expert, no counts are left. Else every c with ``f_e(c)`` so small that the sum is
negative with the largest values of all other experts is *ruled out*. With the slots' row at weight 1 and the breakpoints' rows
at the steps of its multipliers this is the pairing dual and its reduced costs; rounded rows make it stronger.

A tree starts with all counts that are possible within the threshold. Its *first* vector, over slots and breakpoints only, rules
out some of them. Then come the nodes, parents before children, the first child's whole subtree before the second child. The
vectors of a node, one after the other, rule out counts in its subtree. It has either two children, in one of which an expert e
has at most m replicas and in the other at least m + 1, or none: then its vectors must have ruled out every count of some expert.
Any counts lie in exactly one child, so by induction from the leaves no placement lies within the threshold.

The tree is stored as JSON of whole numbers, compressed, in base64::

    {"first": [row, weight, ...],                  over slots (row 0) and breakpoints (rows 1, 2, ...)
     "points": [expert, count, ...],               breakpoints: keys of these replicas
     "base": [count, ...],                         of every expert
     "cuts": [[modulus, [row, weight, ...], [expert, count, ...]], ...],      rounded rows of rows before them, with base counts
     "vectors": [[row, weight, ...], ...],                                    that differ from those of "base"
     "nodes": [[expert, m, vector, ...], ...]}                                expert -1: no children

Nothing read here can cost more than the stated limits: text, numbers, nodes, and rows times counts are bounded. What is beyond
them is not written either: :func:`tree_witness` and :func:`check_tree` raise a :class:`TreeLimitError`, so that whoever has found
such a tree can go on without it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.pairing_dual import next_pair_sum
from eplb_gap.problem.bounds.pairing_rows import Columns, Rows, Weights, columns
from eplb_gap.problem.errors import InputError, reason, shown
from eplb_gap.problem.files import strict_json
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

MAX_TEXT = 8 << 20
"""Characters of a stored tree."""
MAX_JSON = 32 << 20
"""Bytes of it when uncompressed."""
MAX_NODES = 200_000
MAX_ROWS = 4_000
MAX_VECTORS = 200_000
MAX_DEPTH = 2_000
"""Open cases at a time."""
MAX_WORK = 1 << 36
"""Products of a weight and a column that all cuts, and the vectors of all nodes, take together; a node itself counts as one."""
MAX_OPEN = 1 << 30
"""Columns of all cases that are open at a time."""
MAX_NUMBER = 1 << 50
FIELDS = ("first", "points", "base", "cuts", "vectors", "nodes")


class TreeLimitError(InputError):
    """A tree is beyond what is stored or checked, right or wrong."""


@dataclass(frozen=True)
class Cut:
    """A rounded row.

    Parameters
    ----------
    modulus : int
    weights : tuple of (int, int)
        Rows before it and their weights.
    bases : tuple of (int, int)
        Experts and counts at which their share of the sum is subtracted, where these differ from the tree's base.
    """

    modulus: int
    weights: tuple[tuple[int, int], ...]
    bases: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Node:
    """A case: the distinction of its two children, if it has any, and which vectors rule out counts in it.

    Parameters
    ----------
    expert, most : int
        In the first child the expert has at most ``most`` replicas, in the second more; expert -1: no children.
    vectors : tuple of int
        Numbers of the vectors.
    """

    expert: int
    most: int
    vectors: tuple[int, ...]


@dataclass
class Tree:
    """A proof by case distinction; see the module's text.

    Parameters
    ----------
    first : sequence of (int, int)
    points : list of (int, int)
        Expert and count of every breakpoint's replica.
    base : list of int
    cuts : list of Cut
    vectors : list of Weights
    nodes : list of Node
    """

    first: Weights
    points: list[tuple[int, int]]
    base: list[int]
    cuts: list[Cut] = field(default_factory=list)
    vectors: list[Weights] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def tree_witness(threshold: Fraction, tree: Tree) -> dict[str, Any]:
    """Return a tree as JSON-serialisable data for :func:`tree_value`.

    Raises
    ------
    TreeLimitError
        If it is larger than what is read.
    """
    _check_size(tree)
    document = {
        "first": _flat(tree.first),
        "points": _flat(tree.points),
        "base": tree.base,
        "cuts": [[cut.modulus, _flat(cut.weights), _flat(cut.bases)] for cut in tree.cuts],
        "vectors": [_flat(vector) for vector in tree.vectors],
        "nodes": [[node.expert, node.most, *node.vectors] for node in tree.nodes],
    }
    raw = json.dumps(document, separators=(",", ":")).encode("ascii")
    text = base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
    if len(raw) > MAX_JSON or len(text) > MAX_TEXT:
        raise TreeLimitError(
            f"pairing tree: {len(raw)} bytes, {len(text)} characters compressed; the limits are {MAX_JSON}, {MAX_TEXT}"
        )
    return {"threshold": str(threshold), "nodes": len(tree.nodes), "tree": text}


def tree_value(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    """Return the bound on the makespan that a witness proves: the next pair sum above the refuted threshold.

    Raises
    ------
    InputError
        If the witness is malformed, beyond the limits, or does not refute its threshold.
    """
    if not isinstance(witness, Mapping) or set(witness) != {"threshold", "nodes", "tree"}:
        raise InputError("pairing tree: a witness has exactly the fields threshold, nodes and tree")
    threshold = parse(witness["threshold"], "pairing tree: threshold")
    tree = _read(witness["tree"])
    if type(witness["nodes"]) is not int or len(tree.nodes) != witness["nodes"]:
        raise InputError(f"pairing tree: nodes says {shown(witness['nodes'])}; the tree has {len(tree.nodes)}")
    check_tree(instance, threshold, tree)
    return next_pair_sum(instance, threshold)


def check_tree(instance: Instance, threshold: Fraction, tree: Tree) -> None:
    """Raise InputError unless the tree proves that no placement lies within the threshold.

    Parameters
    ----------
    instance : Instance
        With two slots per GPU.
    threshold : Fraction
    tree : Tree

    Raises
    ------
    TreeLimitError
        If the check would exceed the limits of this module.
    InputError
        If the tree proves nothing.
    """
    _check_size(tree)
    everything = columns(instance, threshold)
    if everything is None:
        return  # counting slots alone refutes it
    try:
        rows = rows_of(everything, tree)
        if rows is not None:
            _check_nodes(rows, tree)
    except InputError as error:
        raise type(error)(f"pairing tree: {error}") from None


def _check_size(tree: Tree) -> None:
    """Refuse a tree with more rows, vectors or nodes than are read."""
    if 1 + len(tree.points) + len(tree.cuts) > MAX_ROWS:
        raise TreeLimitError(
            f"pairing tree: there are {len(tree.points)} breakpoints and {len(tree.cuts)} cuts; {MAX_ROWS} rows are the limit"
        )
    if len(tree.vectors) > MAX_VECTORS or len(tree.nodes) > MAX_NODES:
        raise TreeLimitError(
            f"pairing tree: {len(tree.nodes)} nodes, {len(tree.vectors)} vectors; the limits are {MAX_NODES}, {MAX_VECTORS}"
        )


def rows_of(everything: Columns, tree: Tree) -> Rows | None:
    """Return the rows of a tree over the counts that its first vector leaves; None if that leaves none.

    Raises
    ------
    InputError
        If the tree names counts, rows or experts that there are not.
    """
    points = [everything.point(expert, count) for expert, count in tree.points]
    among = everything
    if tree.first:
        possible = Rows(everything, points, 0).possible(tree.first, np.ones(everything.expert.size, dtype=bool))
        if not possible.any():
            return None
        among = everything.kept(possible)
    rows = Rows(among, points, len(tree.cuts))
    if len(tree.base) != among.num_experts:
        raise InputError(f"base has {len(tree.base)} counts for {among.num_experts} experts")
    base = np.array([among.find(expert, count) for expert, count in enumerate(tree.base)], dtype=np.int64)
    work = 0
    for cut in tree.cuts:
        work += (1 + len(cut.weights)) * among.expert.size
        if work > MAX_WORK:
            raise TreeLimitError(f"the cuts take {work} products; {MAX_WORK} are the limit")
        own = base.copy()
        for expert, count in cut.bases:
            own[expert] = among.find(expert, count)
        rows.append(*rows.rounded(cut.weights, own, cut.modulus))
    return rows


def _check_nodes(rows: Rows, tree: Tree) -> None:
    """Walk the nodes in their order; every open case is a mask of the columns that it allows."""
    expert, count = rows.columns.expert, rows.columns.count
    open_cases = [np.ones(expert.size, dtype=bool)]
    work = 0
    for number, node in enumerate(tree.nodes):
        if not 0 < len(open_cases) <= MAX_DEPTH:
            raise InputError(
                f"{len(open_cases)} cases are open at node {number} of {len(tree.nodes)}; 1 to {MAX_DEPTH} are needed"
            )
        work += expert.size
        if work > MAX_WORK or len(open_cases) * expert.size > MAX_OPEN:
            raise TreeLimitError(
                f"the first {number} nodes take {work} products and leave {len(open_cases)} cases of {expert.size} counts open; "
                f"{MAX_WORK} products and {MAX_OPEN} counts are the limit"
            )
        alive = open_cases.pop()
        for vector in node.vectors:
            if not 0 <= vector < len(tree.vectors):
                raise InputError(f"node {number} names vector {vector}; there are {len(tree.vectors)}")
            work += (1 + len(tree.vectors[vector])) * expert.size
            if work > MAX_WORK:
                raise TreeLimitError(f"the first {number} nodes take {work} products; {MAX_WORK} are the limit")
            alive = rows.possible(tree.vectors[vector], alive)
        if node.expert == -1:
            if node.most != 0:
                raise InputError(f"node {number} has no children and distinguishes the counts up to {node.most}; 0 is needed")
            if np.logical_or.reduceat(alive, rows.starts).all():
                raise InputError(f"node {number} has no children, but every expert has a possible count left")
        elif 0 <= node.expert < rows.columns.num_experts:
            own, few = expert == node.expert, count <= node.most
            open_cases += [alive & ~(own & few), alive & ~(own & ~few)]
        else:
            raise InputError(f"node {number} distinguishes the counts of expert {node.expert}; there is no such expert")
    if open_cases:
        raise InputError(f"{len(open_cases)} cases are left open")


def _read(text: Any) -> Tree:
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise InputError(f"pairing tree: the tree is a text of at most {MAX_TEXT} characters")
    try:
        unpacking = zlib.decompressobj()
        raw = unpacking.decompress(base64.b64decode(text, validate=True), MAX_JSON)
        if not unpacking.eof or unpacking.unused_data:
            raise InputError(f"pairing tree: the text does not end where its data does or unpacks to over {MAX_JSON} bytes")
        document = strict_json(raw.decode("ascii"))
    except InputError:
        raise
    except (binascii.Error, zlib.error, RecursionError, ValueError) as error:
        raise InputError(f"pairing tree: the text is no compressed JSON ({reason(error)})") from None
    if not isinstance(document, dict) or set(document) != set(FIELDS):
        raise InputError(f"pairing tree: exactly the fields {', '.join(FIELDS)} are needed")
    vectors, nodes, cuts = (_list(document[name], name) for name in ("vectors", "nodes", "cuts"))
    return Tree(
        _pairs(document["first"], "first"),
        _pairs(document["points"], "points"),
        _numbers(document["base"], "base"),
        [_cut(cut) for cut in cuts],
        [_pairs(vector, "vector") for vector in vectors],
        [_node(node) for node in nodes],
    )


def _node(entry: Any) -> Node:
    numbers = _numbers(entry, "node")
    if len(numbers) < 2:
        raise InputError(f"pairing tree: a node has {len(numbers)} numbers; expert and m are needed")
    return Node(numbers[0], numbers[1], tuple(numbers[2:]))


def _cut(entry: Any) -> Cut:
    parts = _list(entry, "cut")
    if len(parts) != 3:
        raise InputError(f"pairing tree: a cut has {len(parts)} parts; modulus, weights and bases are needed")
    (modulus,) = _numbers(parts[:1], "modulus")
    return Cut(modulus, tuple(_pairs(parts[1], "cut")), tuple(_pairs(parts[2], "cut")))


def _list(entry: Any, name: str) -> list[Any]:
    if not isinstance(entry, list):
        raise InputError(f"pairing tree: {name} is no list")
    return entry


def _numbers(entry: Any, name: str) -> list[int]:
    numbers = _list(entry, name)
    for number in numbers:
        if type(number) is not int or abs(number) > MAX_NUMBER:
            raise InputError(f"pairing tree: {name} holds {shown(number)}; whole numbers of at most {MAX_NUMBER} are needed")
    return numbers


def _pairs(entry: Any, name: str) -> list[tuple[int, int]]:
    numbers = _numbers(entry, name)
    if len(numbers) % 2:
        raise InputError(f"pairing tree: {name} has {len(numbers)} numbers; pairs are needed")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _flat(pairs: Any) -> list[int]:
    return [int(number) for pair in pairs for number in pair]
