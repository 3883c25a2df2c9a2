"""Simulated annealing over maps: fewest node visits while no GPU and no node is sent more than a limit, compiled.

A move exchanges two replicas, on one node or on two, or replaces a replica of one expert by one of another. A token above a limit
costs as many visits as told, so that the search may pass through maps that are none; of all that it met the map counts
that has fewest tokens above the limits, and of these fewest visits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import below, borrower, copy, entry, random, seed_random
from eplb_gap.heuristics.locality.dispatched_map import Dispatched, Tokens, has, move, per_gpu, per_node, visits_gained

BACK = 0.3
"""Share of the moves that bring back a replica of the map in use, where moves are limited: else few of them would be undone."""


class Rules(NamedTuple):
    """What maps are looked for.

    Parameters
    ----------
    gpu_limit, node_limit : int
        Tokens that a GPU and a node may be sent.
    distinct : bool
        Whether a GPU may not hold two replicas of one expert.
    in_use : ndarray
        Expert of every slot of the map that moves are counted from, int64 [slots].
    held : ndarray
        Its replicas of every expert on every GPU, int16 [experts, gpus].
    most_moves : int
        Replicas that may be on a GPU that did not hold them in that map.
    """

    gpu_limit: int
    node_limit: int
    distinct: bool
    in_use: np.ndarray
    held: np.ndarray
    most_moves: int


class Cooling(NamedTuple):
    """How maps are looked for.

    Parameters
    ----------
    inside, transfers : float
        Shares of the moves that exchange replicas of one node, and that change counts.
    guided : float
        Share of the other exchanges that bring an expert of a random token to a node of another expert of the same token.
    hot, cold : float
        First and last temperature, in visits.
    price : float
        Visits that a token above a limit costs.
    steps : int
        Moves that are tried.
    """

    inside: float
    transfers: float
    guided: float
    hot: float
    cold: float
    price: float
    steps: int


@entry
def anneal_visits(tokens: Tokens, state: Dispatched, rules: Rules, cooling: Cooling, seed: int, found: np.ndarray) -> None:
    """Search by one cooling from a map on, and write the best map met.

    Parameters
    ----------
    tokens : Tokens
    state : Dispatched
        The first map; afterwards the last one.
    rules : Rules
    cooling : Cooling
    seed : int
    found : ndarray
        int64 [slots]; overwritten.
    """
    seed_random(seed)
    visits, excess, moves = total_visits(state), excess_of(state, rules), _moves_of(state, rules)
    best, least = visits, excess
    copy(state.slots, found)
    for step in range(cooling.steps):
        one, other, come = _propose(tokens, state, rules, cooling)
        if not _permitted(state, rules, one, other, come):
            continue
        more = _moves_gained(state, rules, one, other, come)
        if more > 0 and moves + more > rules.most_moves:
            continue
        warmth = cooling.hot * (cooling.cold / cooling.hot) ** (step / cooling.steps)
        allowed = -warmth * math.log(1.0 - random())  # the Metropolis rule, drawn before the costly count
        gain = visits_gained(tokens, state, one, other, come)
        if gain + cooling.price * _excess_gained(state, rules, one, other) > allowed:
            continue
        gone = state.slots[one]
        move(tokens, state, one, other, come)
        now = excess_of(state, rules)
        if gain + cooling.price * (now - excess) > allowed:  # replicas of one expert share its tokens in another way than before
            move(tokens, state, one, other, gone)
            continue
        visits, excess, moves = visits + gain, now, moves + more
        if excess < least or (excess == least and visits < best):
            best, least = visits, excess
            copy(state.slots, found)


@borrower
def _propose(tokens: Tokens, state: Dispatched, rules: Rules, cooling: Cooling) -> tuple[int, int, int]:
    """Draw a move: see :func:`eplb_gap.heuristics.locality.dispatched_map.move`."""
    one, kind = below(state.slots.size), random()
    if rules.most_moves < state.slots.size and random() < BACK:
        come = rules.in_use[one]
        return one, state.places[come, below(state.counts[come])], come
    if kind < cooling.transfers:
        return one, -1, below(state.counts.size)
    if kind < cooling.transfers + cooling.inside:
        node = one // per_node(state)
        other = node * per_node(state) + below(per_node(state))
    elif random() < cooling.guided:
        row = tokens.rows[below(state.visits.size)]
        a, b = row[below(row.size)], row[below(row.size)]
        one = state.places[a, below(state.counts[a])]
        node = state.places[b, below(state.counts[b])] // per_node(state)
        other = node * per_node(state) + below(per_node(state))
        if node == one // per_node(state) or has(row, state.slots[other]):
            return one, one, a  # nothing
    else:
        other = below(state.slots.size)
        if other // per_node(state) == one // per_node(state):
            return one, one, state.slots[one]
    return one, other, state.slots[other]


@borrower
def _permitted(state: Dispatched, rules: Rules, one: int, other: int, come: int) -> bool:
    gone, here = state.slots[one], one // per_gpu(state)
    if gone == come or (rules.distinct and state.on_gpu[come, here]):
        return False
    if other < 0:
        return bool(state.counts[gone] > 1)
    there = other // per_gpu(state)
    return here != there and not (rules.distinct and state.on_gpu[gone, there])


@borrower
def _moves_of(state: Dispatched, rules: Rules) -> int:
    moves = 0
    for e in range(state.counts.size):
        for gpu in range(state.gpus.size):
            moves += max(0, state.on_gpu[e, gpu] - rules.held[e, gpu])
    return moves


@borrower
def _moves_gained(state: Dispatched, rules: Rules, one: int, other: int, come: int) -> int:
    """Return how many more replicas would be where the map in use does not hold them."""
    gone, here = state.slots[one], one // per_gpu(state)
    more = int(state.on_gpu[come, here] >= rules.held[come, here]) - int(state.on_gpu[gone, here] > rules.held[gone, here])
    if other >= 0:
        there = other // per_gpu(state)
        more += int(state.on_gpu[gone, there] >= rules.held[gone, there])
        more -= int(state.on_gpu[come, there] > rules.held[come, there])
    return more


@entry
def total_visits(state: Dispatched) -> int:
    """Return the node visits of all tokens."""
    total = 0
    for visits in state.visits:
        total += visits
    return total


@entry
def excess_of(state: Dispatched, rules: Rules) -> int:
    """Return the tokens above the limits, of GPUs and of nodes."""
    excess = 0
    for load in state.gpus:
        excess += max(0, load - rules.gpu_limit)
    for load in state.nodes:
        excess += max(0, load - rules.node_limit)
    return excess


@borrower
def _excess_gained(state: Dispatched, rules: Rules, one: int, other: int) -> int:
    """Return by how much an exchange would raise the excess if replicas kept their tokens; of a change of counts, 0."""
    if other < 0:
        return 0
    shift = state.loads[other] - state.loads[one]
    change = _shifted(state.gpus[one // per_gpu(state)], state.gpus[other // per_gpu(state)], shift, rules.gpu_limit)
    here, there = one // per_node(state), other // per_node(state)
    if here != there:
        change += _shifted(state.nodes[here], state.nodes[there], shift, rules.node_limit)
    return change


@borrower
def _shifted(here: int, there: int, shift: int, limit: int) -> int:
    """Return by how much the excess of two loads grows as one gives the other some of its tokens."""
    after = max(0, here + shift - limit) + max(0, there - shift - limit)
    return after - max(0, here - limit) - max(0, there - limit)
