"""Lower bounds on the nodes that tokens visit, whatever the map: counts of pairs of experts are all they look at.

A token visits as many nodes as ``sum_e 1 / m_e`` over its experts, ``m_e`` being how many of them, itself included, the node
that serves expert e serves for this token. Over all tokens of an expert the mean of ``1 / m_e`` is at least ``h`` of the mean of
``m_e``, where h interpolates ``1 / m`` between the integers, which is convex and falls (Jensen's inequality). The mean of ``m_e``
is one and, for every other expert that a node of e holds, at most the share of e's tokens that go to that expert too. A node with
c slots holds at most c - 1 others, so an expert on r nodes meets at most r (c - 1), and the best of them have the largest counts.
"""

from __future__ import annotations

import heapq
from fractions import Fraction

import numpy as np

from eplb_gap.problem.errors import InputError


def star_bound(co_activation: np.ndarray, topk: int, num_slots: int, num_nodes: int) -> Fraction:
    """Return a bound on the node visits of all tokens, summed, that holds for every map and every choice of replicas.

    Replicas are given to the experts whose term they lessen most: terms are convex in the number of nodes, so that no other
    way to spend ``num_slots - num_experts`` replicas comes out lower.

    Parameters
    ----------
    co_activation : ndarray of int [experts, experts]
        Tokens that went to both of two experts, loads on the diagonal:
        :meth:`eplb_gap.problem.routing.trace.RoutingTrace.co_activation`.
    topk : int
        Experts of a token.
    num_slots, num_nodes : int
        Slots of all nodes together, equally many on each.

    Raises
    ------
    InputError
        If counts are not symmetric or too large to add up, rows do not sum to ``topk`` times their diagonal, or slots do not
        divide over nodes.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap.problem.bounds.node_visits import star_bound
    >>> pairs = np.array([[4, 4, 0, 0], [4, 4, 0, 0], [0, 0, 6, 6], [0, 0, 6, 6]])  # 4 tokens to {0, 1}, 6 to {2, 3}
    >>> star_bound(pairs, topk=2, num_slots=4, num_nodes=2)  # each pair on its own node: one visit a token
    Fraction(10, 1)
    """
    counts = _checked(co_activation, topk)
    experts = len(counts)
    if num_nodes < 1 or num_slots % num_nodes or num_slots < experts:
        raise InputError(f"num_slots is {num_slots}; a multiple of num_nodes = {num_nodes} of at least {experts} is needed")
    others = num_slots // num_nodes - 1
    terms = [_Star(counts, e, topk, others, min(num_nodes, num_slots - experts + 1)) for e in range(experts)]
    total = sum((term.at(1) for term in terms), Fraction(0))
    gains = [(term.at(2) - term.at(1), e, 1) for e, term in enumerate(terms)]
    heapq.heapify(gains)
    for _ in range(num_slots - experts):
        change, e, nodes = gains[0]
        total += change
        heapq.heapreplace(gains, (terms[e].at(nodes + 2) - terms[e].at(nodes + 1), e, nodes + 1))
    return total


def room_bound(kinds: np.ndarray, room: int) -> int:
    """Return a bound on the visits of all tokens, summed: what a token needs of k kinds is on at least k / room nodes.

    Parameters
    ----------
    kinds : ndarray of int [tokens, topk]
        The experts of every token, or their groups where a group is on one node.
    room : int
        Most experts, or groups, that a node holds.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap.problem.bounds.node_visits import room_bound
    >>> room_bound(np.array([[0, 1, 1], [2, 1, 0]]), room=2)  # groups: the second token has three
    3
    """
    in_order = np.sort(kinds, axis=1)
    needed = 1 + np.count_nonzero(np.diff(in_order, axis=1), axis=1)
    return int((-(-needed // room)).sum())


class _Star:
    """What an expert's tokens cost at least, by the number of nodes that hold it."""

    def __init__(self, counts: np.ndarray, expert: int, topk: int, others: int, most_nodes: int) -> None:
        met = np.sort(np.delete(counts[expert], expert))[::-1]
        self.load, self.topk, self.others, self.most = int(counts[expert, expert]), topk, others, most_nodes
        self.best = np.concatenate([[0], np.cumsum(met)]).tolist()

    def at(self, nodes: int) -> Fraction:
        if not self.load:
            return Fraction(0)
        met = self.best[min(min(nodes, self.most) * self.others, len(self.best) - 1)]
        return self.load * one_over(1 + min(Fraction(self.topk - 1), Fraction(met, self.load)))


def one_over(mean: Fraction) -> Fraction:
    """Return the interpolation of ``1 / m`` between the integers, at a number of at least 1."""
    low = mean.numerator // mean.denominator
    return Fraction(1, low) - (mean - low) * Fraction(1, low * (low + 1))


def _checked(co_activation: np.ndarray, topk: int) -> np.ndarray:
    counts = np.asarray(co_activation)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(f"co_activation is {counts.dtype} of shape {counts.shape}; integers [experts, experts] >= 0 are needed")
    # A row's sum, and topk times a load, are to be what int64 holds.
    most = np.iinfo(np.int64).max // max(len(counts), topk, 1)
    if counts.size and int(counts.max()) > most:
        raise InputError(f"co_activation has a count of {counts.max()}; at most {most} can be summed over {len(counts)} experts")
    counts = counts.astype(np.int64)
    if (counts != counts.T).any():
        raise InputError("co_activation is not symmetric; every pair of experts has one count")
    if (counts.sum(axis=1) != topk * np.diagonal(counts)).any():
        e = int(np.argmax(counts.sum(axis=1) != topk * np.diagonal(counts)))
        raise InputError(
            f"co_activation[{e}] sums to {counts[e].sum()}; topk = {topk} times its load {counts[e, e]} is needed, "
            "as every token of an expert has topk - 1 others"
        )
    return counts
