"""A lower bound on node visits from prices of sharing a node, one for every pair of experts of every token, and from vectors.

Every expert is on one node, all nodes hold c experts. Let ``z_ij`` be 1 where experts i and j share a node. A token visits as
many nodes as its experts make blocks. For any prices ``p``, one for every pair of every token, the visits V of all tokens
together are

    V  =  sum_t (blocks_t + sum_ij p_tij z_ij)  -  sum_{i<j} P_ij z_ij,        P_ij = sum_t p_tij.

The first sum is at least the sum over tokens of the least that any partition of its experts into at most ``num_nodes`` blocks
comes to, which is found by looking at all of them. For the second, let ``v`` be any numbers and ``f`` any vectors, one for every
expert. An expert shares its node with c - 1 others, so ``sum_{i<j} (v_i + v_j) z_ij = (c - 1) sum_i v_i``. And

    2 sum_{i<j} <f_i, f_j> z_ij + sum_i <f_i, f_i>  =  sum over nodes of |sum of its vectors|^2  >=  0,

so that with ``A_ij = -P_ij - v_i - v_j`` and ``z_ij <= 1``

    -sum_{i<j} P_ij z_ij  >=  (c - 1) sum_i v_i  -  1/2 sum_i <f_i, f_i>  -  sum_{i<j} max(0, <f_i, f_j> - A_ij).

Where no node may be sent more than L of the tokens' choices, ``sum_j w_j z_ij <= L - w_i`` for every expert, w being loads; any
rents ``y_i >= 0`` of that room add ``y_i w_j + y_j w_i`` to ``A_ij`` and ``sum_i y_i (w_i - L)`` to the bound.

Whatever prices, numbers, vectors and rents are handed over, the right sides are a bound. Good ones are found by solving the
relaxation of the partition to a matrix that has no negative eigenvalue (Karisch and Rendl, 1998) in which the experts of every
token are in a mixture of partitions. All is counted in integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.problem.errors import InputError

PRICE_BITS, VECTOR_BITS = 12, 20
"""Prices are in units of 2^-12 visits, vectors in 2^-20, numbers ``v`` in 2^-40."""
MOST_TOPK = 10
"""Experts of a token: the sets of them are looked at in pairs, 3^topk."""
BLOCK = 4096
LARGEST_PRICE, MOST_TOKENS = 1 << 20, 1 << 40
LARGEST_VECTOR, MOST_DIMENSIONS = 1 << 26, 1 << 10
LARGEST_NUMBER = 1 << 60
"""Prices of all tokens, and products of vectors, are summed in 64 bits."""


@dataclass(frozen=True)
class VisitDual:
    """What the bound is computed from.

    Parameters
    ----------
    prices : ndarray of int [sets, topk (topk - 1) / 2]
        Price of every pair of every set of experts, in 2^-12 visits of a token; pairs in the order (0, 1), (0, 2) to (1, 2) and
        on.
    numbers : ndarray of int [experts]
        In ``unit`` 2^-40 visits.
    vectors : ndarray of int [experts, dimensions]
        Their products are in ``unit`` 2^-40 visits.
    rents : ndarray of int [experts], optional
        In ``unit`` 2^-40 visits for one token's choice; none below zero. They prove something where nodes have a limit alone.
    unit : int, default 1
        Tokens that numbers, vectors and rents are for: many tokens need no larger ones.
    """

    prices: np.ndarray
    numbers: np.ndarray
    vectors: np.ndarray
    rents: np.ndarray | None = None
    unit: int = 1


def visit_dual_value(
    sets: np.ndarray, weights: np.ndarray, num_experts: int, num_nodes: int, dual: VisitDual, most_load: int | None = None
) -> Fraction:
    """Return a bound on the node visits of all tokens, summed, for every map without replicas, equally many experts on each node.

    Parameters
    ----------
    sets : ndarray of int [sets, topk]
        Experts of the tokens, no one twice in a row: :meth:`eplb_gap.problem.routing.trace.RoutingTrace.bundles`.
    weights : ndarray of int [sets]
        Tokens of every set.
    num_experts, num_nodes : int
        Experts divide over nodes.
    dual : VisitDual
    most_load : int, optional
        The bound is on maps alone that send no node more than so many of the tokens' choices, ``topk`` of each token.

    Returns
    -------
    Fraction
        At least the number of tokens, which every map reaches.

    Raises
    ------
    InputError
        If a shape does not fit, a number is too large to be counted in 64 bits, experts do not divide over nodes, or a token has
        more than ten of them.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap.problem.bounds.visit_dual import VisitDual, visit_dual_value
    >>> sets, weights = np.array([[0, 1], [1, 2], [0, 2]]), np.array([1, 1, 1])  # a triangle; two nodes hold two experts each
    >>> one = 1 << 12
    >>> nothing = VisitDual(np.full((3, 1), one), np.full(4, -one << 28), np.zeros((4, 1), dtype=np.int64))
    >>> visit_dual_value(sets, weights, 4, 2, nothing)  # prices of 1 make every token 2; A is 1 in the triangle, 2 elsewhere
    Fraction(3, 1)
    """
    _check(sets, weights, num_experts, num_nodes, dual, most_load)
    least = _least_blocks(sets, weights, dual.prices, num_nodes)
    together = _summed(sets, weights, dual.prices, num_experts)
    vectors = dual.vectors.astype(np.int64)
    products = vectors @ vectors.T
    # Python's integers from here on: sums may pass 64 bits.
    numbers = dual.numbers.astype(object) * dual.unit
    products = products.astype(object) * dual.unit
    allowed = -together.astype(object) * (1 << (2 * VECTOR_BITS - PRICE_BITS)) - np.add.outer(numbers, numbers)
    rent = 0
    if dual.rents is not None and most_load is not None:
        rents, loads = dual.rents.astype(object) * dual.unit, loads_of(sets, weights, num_experts).astype(object)
        allowed = allowed + np.multiply.outer(rents, loads) + np.multiply.outer(loads, rents)
        rent = int((rents * (loads - most_load)).sum())
    over = np.maximum(products - allowed, 0)
    np.fill_diagonal(over, 0)
    lengths = sum(np.diagonal(products).tolist())
    others = num_experts // num_nodes - 1
    rest = Fraction(2 * others * int(numbers.sum()) + 2 * rent - lengths - int(over.sum()), 2 << (2 * VECTOR_BITS))
    return max(Fraction(least, 1 << PRICE_BITS) + rest, Fraction(int(weights.sum())))


def loads_of(sets: np.ndarray, weights: np.ndarray, num_experts: int) -> np.ndarray:
    """Return the tokens of every expert, int64 [experts]."""
    loads = np.zeros(num_experts, dtype=np.int64)
    np.add.at(loads, sets, weights[:, None])
    return loads


def _least_blocks(sets: np.ndarray, weights: np.ndarray, prices: np.ndarray, num_nodes: int) -> int:
    """Return the least of blocks and prices of every set together, in units of a price."""
    topk = sets.shape[1]
    total = 0
    for start in range(0, len(sets), BLOCK):
        least = _least(prices[start : start + BLOCK].astype(np.int64), topk, min(num_nodes, topk))
        total += sum(w * x for w, x in zip(weights[start : start + BLOCK].tolist(), least.tolist(), strict=True))
    return total


def _least(prices: np.ndarray, topk: int, most_blocks: int) -> np.ndarray:
    """Return for every row of prices the cheapest partition of ``topk`` members, a block costing 1 and the prices inside it."""
    block = np.zeros((1 << topk, len(prices)), dtype=np.int64)
    for members in range(1, 1 << topk):
        first = (members & -members).bit_length() - 1
        others = members & (members - 1)
        block[members] = block[others] if others else 1 << PRICE_BITS
        for other in range(first + 1, topk):
            if others >> other & 1:
                block[members] += prices[:, first * (2 * topk - first - 1) // 2 + other - first - 1]
    cheapest = block.copy()
    cheapest[0] = 0
    for _ in range(most_blocks - 1):
        fewer = cheapest.copy()  # into one block less
        for members in range(1, 1 << topk):
            others = members & (members - 1)
            inside = others
            while inside:  # the block of the first member, not all of them, and the rest in one block less
                inside = (inside - 1) & others
                one = inside | (members & -members)
                np.minimum(cheapest[members], block[one] + fewer[members ^ one], out=cheapest[members])
    return np.asarray(cheapest[-1])


def _summed(sets: np.ndarray, weights: np.ndarray, prices: np.ndarray, num_experts: int) -> np.ndarray:
    """Return the prices of every two experts over all tokens, int64 [experts, experts], symmetric, zero on the diagonal."""
    total = np.zeros((num_experts, num_experts), dtype=np.int64)
    first, second = np.triu_indices(sets.shape[1], 1)
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        np.add.at(total, (sets[:, a], sets[:, b]), prices[:, pair].astype(np.int64) * weights)
    return total + total.T


def _check(
    sets: np.ndarray, weights: np.ndarray, num_experts: int, num_nodes: int, dual: VisitDual, most_load: int | None
) -> None:
    for name, number in (("num_experts", num_experts), ("num_nodes", num_nodes)):
        if type(number) is not int:
            raise InputError(f"{name} is {number!r}; an integer is needed")
    for name, array in (("sets", sets), ("weights", weights), ("prices", dual.prices), ("numbers", dual.numbers)):
        if not isinstance(array, np.ndarray):
            raise InputError(f"{name} is {type(array).__name__}; a NumPy array is needed")
    if num_nodes < 1 or num_experts % num_nodes:
        raise InputError(f"num_experts is {num_experts}; a multiple of num_nodes = {num_nodes} is needed")
    if sets.ndim != 2 or not sets.size or sets.dtype.kind not in "iu" or sets.shape[1] > MOST_TOPK:
        raise InputError(f"sets is {sets.dtype} of shape {sets.shape}; integers [sets, topk <= {MOST_TOPK}] are needed")
    if int(sets.min()) < 0 or int(sets.max()) >= num_experts or (np.diff(np.sort(sets, axis=1), axis=1) == 0).any():
        raise InputError(f"sets must name different experts of 0 to {num_experts - 1} in every row")
    if weights.shape != (len(sets),) or weights.dtype.kind not in "iu" or (weights < 0).any():
        raise InputError(f"weights is {weights.dtype} of shape {weights.shape}; {len(sets)} numbers of tokens are needed")
    topk = sets.shape[1]
    for name, array, shape, largest in (
        ("prices", dual.prices, (len(sets), topk * (topk - 1) // 2), LARGEST_PRICE),
        ("numbers", dual.numbers, (num_experts,), LARGEST_NUMBER),
        ("vectors", dual.vectors, (num_experts, dual.vectors.shape[-1] if dual.vectors.ndim == 2 else 0), LARGEST_VECTOR),
    ):
        if array.shape != shape or array.dtype.kind not in "iu":
            raise InputError(f"{name} is {array.dtype} of shape {array.shape}; integers {list(shape)} are needed")
        if array.size and (int(array.min()) < -largest or int(array.max()) > largest):
            raise InputError(f"{name} go from {array.min()} to {array.max()}; at most {largest} either way can be counted")
    if dual.rents is not None:
        if dual.rents.shape != (num_experts,) or dual.rents.dtype.kind not in "iu" or (dual.rents < 0).any():
            raise InputError(f"rents is {dual.rents.dtype} of shape {dual.rents.shape}; {num_experts} integers >= 0 are needed")
        if most_load is None:
            raise InputError("rents are given without most_load; they prove something about maps within a limit alone")
    if type(dual.unit) is not int or not 1 <= dual.unit <= MOST_TOKENS:
        raise InputError(f"unit is {dual.unit!r}; 1 to {MOST_TOKENS} tokens are needed")
    tokens = sum(weights.tolist())
    if tokens > MOST_TOKENS or dual.vectors.shape[1] > MOST_DIMENSIONS:
        raise InputError(
            f"{tokens} tokens and {dual.vectors.shape[1]} dimensions of vectors; at most {MOST_TOKENS} and "
            f"{MOST_DIMENSIONS} can be counted"
        )
