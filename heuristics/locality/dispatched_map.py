"""One layer's map, the nodes that its tokens visit and the loads that its dispatcher makes: brought up to date move by move.

Every token goes to a smallest set of nodes that holds its experts, as the rule ``smallest-cover`` of
:mod:`eplb_gap.heuristics.dispatch.replica_choice` says; loads count the tokens that the rule sends to each slot. All that is
derived depends on the map alone, not on the maps before it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import borrower, entry
from eplb_gap.heuristics.dispatch.covers import chosen_cover, cover_size, hashed_within, ones


class Tokens(NamedTuple):
    """Recorded tokens.

    Parameters
    ----------
    rows : ndarray
        Experts of every token, uint16 [tokens, topk].
    starts, of : ndarray
        The tokens of every expert, one expert after the other: int64 [experts + 1] and int32 [tokens times topk].
    """

    rows: np.ndarray
    starts: np.ndarray
    of: np.ndarray


class Dispatched(NamedTuple):
    """A map and what its dispatcher makes of the tokens.

    Parameters
    ----------
    slots : ndarray
        Expert of every slot, int64 [slots], GPU-major.
    counts : ndarray
        Replicas of every expert, int64 [experts].
    places : ndarray
        Slots of every expert, ascending, int64 [experts, most]; defined up to its count.
    on_gpu : ndarray
        Replicas of every expert on every GPU, int16 [experts, gpus].
    held : ndarray
        Nodes of every expert as bits, int64 [experts].
    alone : ndarray
        Experts of a token that a node holds and no other node does, uint8 [tokens, nodes].
    choices : ndarray
        Experts of a token that are on several nodes, and that have several replicas: uint8 [tokens, 2].
    visits : ndarray
        Nodes of every token, uint8 [tokens].
    picked : ndarray
        Slot of every replica that a token was sent to, int32 [tokens, topk]; kept for experts of several replicas alone.
    loads : ndarray
        Tokens sent to every slot, int64 [slots].
    gpus, nodes : ndarray
        And to every GPU and node, int64 [gpus] and [nodes].
    """

    slots: np.ndarray
    counts: np.ndarray
    places: np.ndarray
    on_gpu: np.ndarray
    held: np.ndarray
    alone: np.ndarray
    choices: np.ndarray
    visits: np.ndarray
    picked: np.ndarray
    loads: np.ndarray
    gpus: np.ndarray
    nodes: np.ndarray


def tokens_of(rows: np.ndarray, num_experts: int) -> Tokens:
    """Return recorded tokens with those of every expert."""
    flat = rows.ravel().astype(np.uint16)
    starts = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=num_experts))])
    of = np.argsort(flat, kind="stable") // rows.shape[1]
    return Tokens(flat.reshape(rows.shape), starts, of.astype(np.int32))


def dispatched(tokens: Tokens, slots: np.ndarray, num_gpus: int, num_nodes: int) -> Dispatched:
    """Return a map with all that is derived from it; ``slots`` is copied."""
    (number, topk), experts = tokens.rows.shape, tokens.starts.size - 1
    most, counted = slots.size - experts + 1, np.uint8 if topk < 1 << 8 else np.uint16
    state = Dispatched(
        slots.astype(np.int64),
        np.zeros(experts, np.int64),
        np.zeros((experts, most), np.int64),
        np.zeros((experts, num_gpus), np.int16),
        np.zeros(experts, np.int64),
        np.zeros((number, num_nodes), counted),
        np.zeros((number, 2), counted),
        np.zeros(number, np.uint8),
        np.zeros((number, topk), np.int32),
        np.zeros(slots.size, np.int64),
        np.zeros(num_gpus, np.int64),
        np.zeros(num_nodes, np.int64),
    )
    _fill(tokens, state)
    return state


@entry
def _fill(tokens: Tokens, state: Dispatched) -> None:
    for slot in range(state.slots.size):
        _add_replica(state, state.slots[slot], slot)
    for e in range(state.counts.size):
        _count_in(tokens, state, e, 1)
    _send(tokens, state, 0, tokens.rows.shape[0], np.arange(tokens.rows.shape[0]).astype(np.int32), -1)


@borrower
def per_gpu(state: Dispatched) -> int:
    """Return the slots of a GPU."""
    return state.slots.size // state.gpus.size


@borrower
def per_node(state: Dispatched) -> int:
    """Return the slots of a node."""
    return state.slots.size // state.nodes.size


@borrower
def _add_replica(state: Dispatched, expert: int, slot: int) -> None:
    at = state.counts[expert]
    while at > 0 and state.places[expert, at - 1] > slot:
        state.places[expert, at] = state.places[expert, at - 1]
        at -= 1
    state.places[expert, at] = slot
    state.counts[expert] += 1
    state.slots[slot] = expert
    state.on_gpu[expert, slot // per_gpu(state)] += 1
    state.held[expert] |= 1 << (slot // per_node(state))


@borrower
def _drop_replica(state: Dispatched, expert: int, slot: int) -> None:
    state.counts[expert] -= 1
    nodes, passed = 0, 0
    for at in range(state.counts[expert]):
        if state.places[expert, at] == slot:
            passed = 1
        state.places[expert, at] = state.places[expert, at + passed]
        nodes |= 1 << (state.places[expert, at] // per_node(state))
    state.on_gpu[expert, slot // per_gpu(state)] -= 1
    state.held[expert] = nodes


@borrower
def _load(state: Dispatched, slot: int, tokens: int) -> None:
    state.loads[slot] += tokens
    state.gpus[slot // per_gpu(state)] += tokens
    state.nodes[slot // per_node(state)] += tokens


@borrower
def _count_in(tokens: Tokens, state: Dispatched, expert: int, sign: int) -> None:
    """Count an expert in, or out, where its tokens are counted by what it is: alone or not, single or not."""
    nodes = state.held[expert]
    first, end = tokens.starts[expert], tokens.starts[expert + 1]
    if nodes & (nodes - 1):
        for i in range(first, end):
            state.choices[tokens.of[i], 0] += sign
    else:
        node = state.places[expert, 0] // per_node(state)
        for i in range(first, end):
            state.alone[tokens.of[i], node] += sign
    if state.counts[expert] > 1:
        for i in range(first, end):
            state.choices[tokens.of[i], 1] += sign
    else:
        _load(state, state.places[expert, 0], sign * (end - first))


@borrower
def _send(tokens: Tokens, state: Dispatched, first: int, end: int, of: np.ndarray, but: int) -> None:
    """Count the nodes of tokens, and send them to replicas of their experts that have several; not those of an expert, or -1."""
    rows, alone, held, counts, places = tokens.rows, state.alone, state.held, state.counts, state.places
    loads, gpus, nodes, k, per = state.loads, state.gpus, state.nodes, per_gpu(state), per_node(state)
    for i in range(first, end):
        token = of[i]
        row = rows[token]
        if but >= 0 and has(row, but):
            continue
        if not state.choices[token, 0]:
            size = 0
            for node in range(nodes.size):
                size += alone[token, node] > 0
            state.visits[token] = size
            cover = -1
        else:
            cover = chosen_cover(row, held, 0, token)
            state.visits[token] = ones(cover)
        if not state.choices[token, 1]:
            continue
        for j in range(row.size):
            e = row[j]
            if counts[e] == 1:
                continue
            near = 0
            for at in range(counts[e]):
                near += cover >> (places[e, at] // per) & 1
            wanted = hashed_within(token, near)
            for at in range(counts[e]):
                slot = places[e, at]
                if cover >> (slot // per) & 1:
                    if not wanted:
                        state.picked[token, j] = slot
                        loads[slot] += 1
                        gpus[slot // k] += 1
                        nodes[slot // per] += 1
                        break
                    wanted -= 1


@borrower
def _call_back(tokens: Tokens, state: Dispatched, first: int, end: int, but: int) -> None:
    """Take tokens from the replicas that they were sent to; not those of an expert, or -1."""
    rows, of, picked, counts = tokens.rows, tokens.of, state.picked, state.counts
    loads, gpus, nodes, k, per = state.loads, state.gpus, state.nodes, per_gpu(state), per_node(state)
    for i in range(first, end):
        token = of[i]
        if state.choices[token, 1] and not (but >= 0 and has(rows[token], but)):
            for j in range(rows.shape[1]):
                if counts[rows[token, j]] > 1:
                    slot = picked[token, j]
                    loads[slot] -= 1
                    gpus[slot // k] -= 1
                    nodes[slot // per] -= 1


@borrower
def has(row: np.ndarray, expert: int) -> bool:
    """Whether a token goes to an expert."""
    for e in row:  # noqa: SIM110 - any() over a generator does not compile
        if e == expert:
            return True
    return False


@borrower
def nodes_after(state: Dispatched, expert: int, leaves: int, comes: int) -> int:
    """Return the nodes of an expert, as bits, once a replica left one slot, or none (-1), and another came to one, or none."""
    nodes = 0 if comes < 0 else 1 << (comes // per_node(state))
    for at in range(state.counts[expert]):
        if state.places[expert, at] != leaves:
            nodes |= 1 << (state.places[expert, at] // per_node(state))
    return nodes


@borrower
def visits_gained(tokens: Tokens, state: Dispatched, one: int, other: int, come: int) -> int:
    """Return by how much all visits would grow by a move, see :func:`move`; the map stays as it is."""
    gone = state.slots[one]
    was_gone, was_come = state.held[gone], state.held[come]
    new_gone, new_come = nodes_after(state, gone, one, other), nodes_after(state, come, other, one)
    if new_gone == was_gone and new_come == was_come:
        return 0
    # Experts on one node alone, before and after: then counts say enough of most tokens.
    lone_gone = other >= 0 and not (_several(was_gone) or _several(new_gone))
    lone_come = other >= 0 and not (_several(was_come) or _several(new_come))
    state.held[gone], state.held[come] = new_gone, new_come
    expert, another, lone, other_lone = gone, come, lone_gone, lone_come
    here, there = one // per_node(state), other // per_node(state)
    rows, of, held, alone, choices, visits = tokens.rows, tokens.of, state.held, state.alone, state.choices, state.visits
    change = 0
    for turn in range(2):
        for i in range(tokens.starts[expert], tokens.starts[expert + 1]):
            token = of[i]
            stays, known = alone[token, here] > 1, alone[token, there] > 0
            if lone and stays and known and (other_lone or not has(rows[token], another)):
                continue  # others of its experts keep it on both nodes
            if lone and other_lone and not choices[token, 0]:
                if not known:
                    change += stays
                elif not has(rows[token], another):
                    change -= 1
            elif turn == 0 or not has(rows[token], another):
                change += cover_size(rows[token], held) - visits[token]
        expert, another, lone, other_lone, here, there = come, gone, lone_come, lone_gone, there, here
    state.held[gone], state.held[come] = was_gone, was_come
    return change


@borrower
def _several(nodes: int) -> bool:
    return nodes & (nodes - 1) != 0


@borrower
def move(tokens: Tokens, state: Dispatched, one: int, other: int, come: int) -> None:
    """Put a replica of ``come`` into the slot ``one``, and what was there into ``other``, a slot of ``come``, unless it is -1."""
    gone = state.slots[one]
    if other // per_node(state) == one // per_node(state) and state.counts[gone] == 1 and state.counts[come] == 1:
        _exchange_inside(state, one, other)
        return
    of_gone, of_come = (tokens.starts[gone], tokens.starts[gone + 1]), (tokens.starts[come], tokens.starts[come + 1])
    _call_back(tokens, state, of_gone[0], of_gone[1], -1)
    _call_back(tokens, state, of_come[0], of_come[1], gone)
    _count_in(tokens, state, gone, -1)
    _count_in(tokens, state, come, -1)
    _drop_replica(state, gone, one)
    if other >= 0:
        _drop_replica(state, come, other)
        _add_replica(state, gone, other)
    _add_replica(state, come, one)
    _count_in(tokens, state, gone, 1)
    _count_in(tokens, state, come, 1)
    _send(tokens, state, of_gone[0], of_gone[1], tokens.of, -1)
    _send(tokens, state, of_come[0], of_come[1], tokens.of, gone)


@borrower
def _exchange_inside(state: Dispatched, one: int, other: int) -> None:
    """Exchange the only replicas of two experts on one node: no token goes to another node."""
    a, b, shift = state.slots[one], state.slots[other], state.loads[other] - state.loads[one]
    state.slots[one], state.slots[other] = b, a
    state.places[a, 0], state.places[b, 0] = other, one
    here, there = one // per_gpu(state), other // per_gpu(state)
    state.on_gpu[a, here] -= 1
    state.on_gpu[a, there] += 1
    state.on_gpu[b, there] -= 1
    state.on_gpu[b, here] += 1
    state.loads[one] += shift
    state.loads[other] -= shift
    state.gpus[here] += shift
    state.gpus[there] -= shift
