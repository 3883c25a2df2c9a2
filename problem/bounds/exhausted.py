"""A search for placements within a threshold, done again from the log of its branchings: if it finds none, there is none.

The loads of the G GPUs sum to W whatever the counts are. So in a placement within T no GPU carries less than ``W - (G - 1) T``,
and the *slacks* ``T - load`` of all GPUs sum to ``G T - W``, the budget. A placement is a choice of G *patterns*, each what one
GPU may hold: k replicas, all replicas of an expert with the same count, with a load in that band. The patterns of a placement
give every expert as many copies as its count says.

The search fills one GPU after the other. At every node it branches on an expert that lacks copies: some GPU holds one of them, so
every placement below the node has one of the remaining patterns with that expert. All of them are tried, one after the other; a
pattern that was tried is left out below its later siblings, where its placements would only be found again.

A node ends when no pattern is left for its expert, or when one of these shows that it holds no placement. They are repeated
until none drops anything any more. A *type* is an expert with one of its counts; once copies are placed, only one is left.

* A pattern is dropped if its slack exceeds the budget that the placed patterns leave, or if it needs more copies of a type than
  are missing.
* The slack of each pattern is split among its replicas, by any weights, rounded down. Every placement pays for every missing copy
  the share of the pattern that the copy comes from. So a type costs at least the sum of the cheapest shares on offer, as many as
  it lacks copies, where a pattern offers its shares as often as it can be used; it is dropped if there are not so many, or if it
  costs more than the budget. An expert costs at least its cheapest type; a node ends if all experts together exceed the budget.
* A type is dropped if its excess over the cheapest type of its expert exceeds what is then left of the budget; a pattern, if the
  excesses of its types do, together with the excess of its shares over the dearest ones counted for their types.
* The missing copies must fill the free slots: a type is dropped if it has more copies than the others can leave room for, or
  fewer than they need.

Weights follow the costs of the experts; whatever they are, all this holds. Large slacks are rounded down once more, to multiples
of a power of two, the budget with them: sums of whole multiples within the budget stay within the rounded one.

**What the log is for.** It names the expert of every node that does not end at once. A wrong name costs time, never truth: the
patterns tried, and all that ends a node, follow from the instance. A log that does not fit the nodes is refused.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import reachable
from eplb_gap.problem.bounds.gpu_patterns import Patterns, patterns_within
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

MAX_REPLAYED_NODES = 1 << 22
"""Nodes that a log may hold."""
MAX_WORK = 1 << 33
"""Patterns that all nodes together may look at."""
CHUNK = 1 << 17
"""Patterns and types of all nodes that are looked at together."""
SHARE_BITS, WEIGHT_BITS, COST_BITS = 12, 10, 36
WEIGHT_FLOOR = 307
NEVER = np.iinfo(np.int64).max // 4


def replay_witness(threshold: Fraction, branchings: Sequence[bytes]) -> dict[str, Any]:
    """Return the witness of :func:`replayed_value` as JSON-serialisable data.

    Parameters
    ----------
    threshold : Fraction
        Refuted by the search.
    branchings : sequence of bytes
        By depth, the experts branched on by the nodes that did not end at once, in the order in which they were searched.
    """
    log = base64.b64encode(zlib.compress(b"".join(branchings), 9)).decode("ascii")
    return {"threshold": str(threshold), "nodes": [len(experts) for experts in branchings], "log": log}


def replayed_value(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    """Return the bound that the log of a search proves: the next makespan above its threshold (:func:`reachable`).

    Raises
    ------
    InputError
        If the witness is malformed or damaged, the search finds a placement, or it exceeds the limits of this module.
    """
    threshold, branchings = _from_data(witness)
    if len(branchings) > instance.num_gpus:
        raise InputError(f"replayed search: nodes has {len(branchings)} depths; a search fills {instance.num_gpus} GPUs")
    if not search_refutes(instance, threshold, branchings):
        raise InputError(f"replayed search: there is a placement within {threshold}")
    return reachable(instance, threshold, above=True)


def record(instance: Instance, threshold: Fraction) -> list[bytes] | None:
    """Search without a log, branching on the expert in the fewest patterns; return the log, or None if a placement is found.

    Meant for a dozen slots: for more, engines have compiled code.

    Raises
    ------
    InputError
        If the search exceeds the limits of this module.
    """
    patterns = patterns_within(instance, threshold)
    if patterns is None:
        return []
    replay = _Replay(patterns, None)
    return None if replay.finds_placement() else [b"".join(experts) for experts in replay.written]


def search_refutes(instance: Instance, threshold: Fraction, branchings: Sequence[bytes]) -> bool:
    """Return whether the search with these branchings finds no placement within a threshold.

    Parameters
    ----------
    instance : Instance
        With equally many slots on all GPUs.
    threshold : Fraction
    branchings : sequence of bytes
        See :func:`replay_witness`.

    Raises
    ------
    InputError
        If the log does not fit the search, or the search exceeds the limits of this module.
    """
    patterns = patterns_within(instance, threshold)
    if patterns is None:
        if any(branchings):
            raise InputError("replayed search: the log has nodes, but no pattern fits the threshold")
        return True
    replay = _Replay(patterns, branchings)
    if replay.finds_placement():
        return False
    replay.check_end()
    return True


def _from_data(witness: Mapping[str, Any]) -> tuple[Fraction, list[bytes]]:
    if set(witness) != {"threshold", "nodes", "log"}:
        raise InputError(f"replayed search: the witness has {sorted(map(str, witness))}; threshold, nodes and log are needed")
    threshold, nodes, log = parse(witness["threshold"], "replayed search: threshold"), witness["nodes"], witness["log"]
    counts = isinstance(nodes, list) and all(type(n) is int and 0 <= n <= MAX_REPLAYED_NODES for n in nodes)
    if not counts or sum(nodes) > MAX_REPLAYED_NODES:
        raise InputError(
            f"replayed search: nodes {str(nodes)[:40]} found; {MAX_REPLAYED_NODES} at most are read, counted by depth"
        )
    if not isinstance(log, str):
        raise InputError(f"replayed search: log {str(log)[:40]!r} found; a text is needed")
    total = sum(nodes)
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(base64.b64decode(log.encode("ascii"), validate=True), total + 1)
    except (zlib.error, binascii.Error, UnicodeEncodeError) as error:
        raise InputError(f"replayed search: the log is damaged ({error})") from None
    if len(content) != total or not inflate.eof or inflate.unused_data:
        raise InputError(f"replayed search: the log has not the {total} entries that nodes says")
    ends = list(itertools.accumulate(nodes, initial=0))
    return threshold, [content[a:b] for a, b in itertools.pairwise(ends)]


@dataclass
class _Nodes:
    """Nodes of one depth, in the order of the search.

    ``room[i, t]`` are the missing copies of type t (0: dropped), ``done[i, e]`` says that expert e has all its copies,
    ``rest[i]`` is the load still to be placed; ``pattern[start[i] : start[i + 1]]`` remain.
    """

    room: np.ndarray
    weight: np.ndarray
    done: np.ndarray
    rest: np.ndarray
    start: np.ndarray
    pattern: np.ndarray

    def __len__(self) -> int:
        return len(self.rest)


class _Replay:
    """One search."""

    def __init__(self, patterns: Patterns, branchings: Sequence[bytes] | None) -> None:
        self.p = patterns
        self.log = None if branchings is None else [np.frombuffer(experts, dtype=np.uint8) for experts in branchings]
        self.read = [0] * len(branchings or ())
        self.written: list[list[bytes]] = [[] for _ in range(patterns.gpus)]
        self.work = 0
        self.first_type = np.flatnonzero(np.diff(patterns.expert, prepend=-1))
        self.num_experts = len(self.first_type)
        self.of_expert = patterns.expert[patterns.types]
        self.repeats = bool((patterns.need > 1).any())
        budget = patterns.gpus * patterns.threshold - patterns.total
        self.round_off = max(0, budget.bit_length() - COST_BITS)

    def finds_placement(self) -> bool:
        """Search; return whether a placement is found."""
        p, experts = self.p, self.num_experts
        root = _Nodes(
            room=p.copies[None, :].copy(),
            weight=np.full((1, experts), 1 << WEIGHT_BITS, dtype=np.int64),
            done=np.zeros((1, experts), dtype=bool),
            rest=np.array([p.total]),
            start=np.array([0, len(p.load)]),
            pattern=np.arange(len(p.load)),
        )
        owner = np.zeros(len(p.load), dtype=np.int64)
        return self._below(self._reduced(root, owner, root.pattern, np.array([len(p.load)]), 0), 0)

    def check_end(self) -> None:
        """Refuse a log with entries that no node has read."""
        if self.log is not None and self.read != [len(experts) for experts in self.log]:
            raise InputError("replayed search: the log has more nodes than the search")

    def _below(self, nodes: _Nodes, depth: int) -> bool:
        if not len(nodes):
            return False
        owner = np.repeat(np.arange(len(nodes)), np.diff(nodes.start))
        branch = self._scarcest(nodes, owner, depth) if self.log is None else self._branchings(self.log, nodes, depth)
        covers = (self.of_expert[nodes.pattern] == branch[owner][:, None]).any(axis=1)
        children = np.flatnonzero(covers)
        if depth == self.p.gpus - 1:
            return bool(self._complete(nodes, owner[children], nodes.pattern[children]).any())
        for chosen, length in self._chunks(nodes, owner, children, depth):
            if self._below(self._children(nodes, owner, covers, chosen, length, depth + 1), depth + 1):
                return True
        return False

    def _branchings(self, log: list[np.ndarray], nodes: _Nodes, depth: int) -> np.ndarray:
        """Return the experts that the log names for the next nodes of a depth."""
        at = self.read[depth] if depth < len(log) else 0
        branch = log[depth][at : at + len(nodes)].astype(np.int64) if depth < len(log) else np.empty(0, dtype=np.int64)
        if len(branch) < len(nodes):
            raise InputError(f"replayed search: the log has too few nodes at depth {depth}")
        self.read[depth] += len(nodes)
        if branch.max() >= self.num_experts or nodes.done[np.arange(len(nodes)), branch].any():
            raise InputError(f"replayed search: the log branches at depth {depth} on an expert that lacks no copy")
        return branch

    def _scarcest(self, nodes: _Nodes, owner: np.ndarray, depth: int) -> np.ndarray:
        """Return for every node the expert in the fewest patterns, and note it."""
        held = np.where(self.p.need[nodes.pattern] == 1, self.of_expert[nodes.pattern], self.num_experts)
        width = self.num_experts + 1
        counts = np.bincount((owner[:, None] * width + held).ravel(), minlength=len(nodes) * width).reshape(-1, width)[:, :-1]
        branch: np.ndarray = np.where(nodes.done, NEVER, counts).argmin(axis=1)
        self.written[depth].append(branch.astype(np.uint8).tobytes())
        return branch

    def _complete(self, nodes: _Nodes, parent: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        """Return which patterns, as the last ones, give all experts all their copies."""
        room, finished = nodes.room[parent], nodes.done[parent].copy()
        rows = np.arange(len(parent))
        for j in range(self.p.k):
            t = self.p.types[pattern, j]
            room[rows, t] -= 1
            finished[rows, self.p.expert[t]] |= room[rows, t] == 0
        complete: np.ndarray = finished.all(axis=1)
        return complete

    def _chunks(
        self, nodes: _Nodes, owner: np.ndarray, children: np.ndarray, depth: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield groups of children, and how many patterns of their parent do not exceed their budget."""
        p = self.p
        slack = p.threshold - p.load[nodes.pattern]
        budget = (p.gpus - depth) * p.threshold - nodes.rest
        allowed = children[slack[children] <= budget[owner[children]]]
        left = budget[owner[allowed]] - slack[allowed]
        length = np.empty(len(allowed), dtype=np.int64)
        ends = np.searchsorted(owner[allowed], np.arange(len(nodes) + 1))
        for node, (a, b) in enumerate(itertools.pairwise(ends)):
            length[a:b] = np.searchsorted(slack[nodes.start[node] : nodes.start[node + 1]], left[a:b], side="right")
        self.work += int(length.sum())
        if self.work > MAX_WORK:
            raise InputError(f"replayed search: more than {MAX_WORK} patterns looked at")
        group = np.cumsum(length + len(p.copies)) // CHUNK
        edges = np.flatnonzero(np.diff(group, prepend=-1, append=-2)) if len(group) else [0]
        for a, b in itertools.pairwise(edges):
            yield allowed[a:b], length[a:b]

    def _children(
        self, nodes: _Nodes, owner: np.ndarray, covers: np.ndarray, chosen: np.ndarray, length: np.ndarray, depth: int
    ) -> _Nodes:
        """Return the children that place the chosen entries of their parents, without those that end at once."""
        p, parent, placed = self.p, owner[chosen], nodes.pattern[chosen]
        rows = np.arange(len(chosen))
        room, done = nodes.room[parent], nodes.done[parent]
        for j in range(p.k):
            t = p.types[placed, j]
            room[rows, t] -= 1
        for j in range(p.k):
            t = p.types[placed, j]
            missing, expert = room[rows, t], p.expert[t]
            room[p.expert[None, :] == expert[:, None]] = 0
            room[rows, t] = missing
            done[rows, expert] = missing == 0
        entries = np.arange(int(length.sum())) + np.repeat(nodes.start[parent] - (np.cumsum(length) - length), length)
        child = np.repeat(rows, length)
        tried = covers[entries] & (entries < chosen[child])
        entries, child = entries[~tried], child[~tried]
        started = _Nodes(room, nodes.weight[parent], done, nodes.rest[parent] - p.load[placed], nodes.start, nodes.pattern)
        return self._reduced(started, child, nodes.pattern[entries], np.diff(nodes.start)[parent], depth)

    def _reduced(self, nodes: _Nodes, owner: np.ndarray, pattern: np.ndarray, length: np.ndarray, depth: int) -> _Nodes:
        """Drop patterns and types until nothing changes; return the nodes that are left."""
        p = self.p
        room, weight, done, rest = nodes.room, nodes.weight, nodes.done, nodes.rest
        number = np.arange(len(nodes))
        free, over = p.slots - depth * p.k, None
        parts: list[tuple[np.ndarray, ...]] = []
        while len(number):
            cap = ((p.gpus - depth) * p.threshold - rest) >> self.round_off
            types = p.types[pattern]
            place = owner[:, None] * len(p.copies) + types
            spare = room.ravel().take(place)
            uses = (spare // p.need[pattern] if self.repeats else spare).min(axis=1)
            keep = uses > 0
            if over is not None:
                keep &= ~over
            left = np.flatnonzero(keep)
            owner, pattern, uses = owner.take(left), pattern.take(left), uses.take(left)
            types, place = types.take(left, axis=0), place.take(left, axis=0)
            kept = np.bincount(owner, minlength=len(number))
            share = self._shares(weight, owner, pattern, types)
            cost, dearest = _costs(place, share, uses, room)
            before = (room > 0).sum(axis=1)
            room, excess, paid, least, alive = self._drop_types(room, done, cost, cap, free)
            changed = (kept < length) | ((room > 0).sum(axis=1) < before)
            ready = alive & ~changed
            if ready.any():
                stay = ready[owner]
                parts.append((number[ready], room[ready], weight[ready], done[ready], rest[ready], kept[ready], pattern[stay]))
            going = alive & changed
            limit = cap - least
            beyond = np.maximum(share - dearest.ravel().take(place), 0) + excess.ravel().take(place)
            if self.repeats:
                beyond[p.need[pattern] > 1] = 0
            over = beyond.sum(axis=1) > limit[owner]
            stay = going[owner]
            renumbered = np.cumsum(going) - 1
            owner, pattern, over = renumbered[owner[stay]], pattern[stay], over[stay]
            scale = (self.num_experts << WEIGHT_BITS) * paid // np.maximum(least, 1)[:, None]
            weight = np.where((least > 0)[:, None], np.maximum(scale, WEIGHT_FLOOR), weight)[going]
            room, done, rest, number, length = room[going], done[going], rest[going], number[going], kept[going]
        return _in_order(parts, nodes)

    def _shares(self, weight: np.ndarray, owner: np.ndarray, pattern: np.ndarray, types: np.ndarray) -> np.ndarray:
        """Return the slack of every pattern split among its replicas, int64 [patterns, k]."""
        own = weight.ravel().take(owner[:, None] * self.num_experts + self.p.expert.take(types))
        slack = (self.p.threshold - self.p.load[pattern]) >> self.round_off
        share: np.ndarray = ((slack << SHARE_BITS) // own.sum(axis=1))[:, None] * own >> SHARE_BITS
        return share

    def _drop_types(
        self, room: np.ndarray, done: np.ndarray, cost: np.ndarray, cap: np.ndarray, free: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what is left of room, the excess of types, what experts and all together pay, and which nodes are left."""
        first, expert = self.first_type, self.p.expert
        cap = cap[:, None]
        usable = (room > 0) & (cost <= cap)
        paid = np.minimum.reduceat(np.where(usable, cost, NEVER), first, axis=1)
        fewest = np.minimum.reduceat(np.where(usable, room, free + 1), first, axis=1)
        most = np.maximum.reduceat(np.where(usable, room, 0), first, axis=1)
        alive = ((most > 0) | done).all(axis=1)
        paid = np.where(done | (most == 0), 0, paid)
        fewest = np.where(done, 0, fewest)
        least, low, high = paid.sum(axis=1), fewest.sum(axis=1), most.sum(axis=1)
        alive &= (low <= free) & (high >= free) & (least <= cap[:, 0])
        excess = np.where(usable, cost - paid[:, expert], 0)
        usable &= room <= (fewest + (free - low)[:, None])[:, expert]
        usable &= room >= (most - (high - free)[:, None])[:, expert]
        usable &= excess <= cap - least[:, None]
        alive &= (np.logical_or.reduceat(usable, first, axis=1) | done).all(axis=1)
        return np.where(usable, room, 0), excess, paid, least, alive


def _costs(place: np.ndarray, share: np.ndarray, uses: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every node and type, the sum and the largest of the cheapest shares on offer, as many as copies are missing.

    ``NEVER`` where there are fewer.
    """
    place, share = place.ravel(), share.ravel()
    if (uses > 1).any():
        times = np.repeat(uses, place.size // len(uses))
        place, share = np.repeat(place, times), np.repeat(share, times)
    offered = np.bincount(place, minlength=room.size)
    share = np.sort((place << COST_BITS) | share) & ((1 << COST_BITS) - 1)  # by type, then by share
    sums = np.concatenate([[0], np.cumsum(share)])
    missing = room.ravel()
    enough = np.flatnonzero((missing > 0) & (offered >= missing))
    first = (np.cumsum(offered) - offered)[enough]
    last = first + missing[enough]
    cost, dearest = np.full(room.size, NEVER), np.zeros(room.size, dtype=np.int64)
    cost[enough] = sums[last] - sums[first]
    dearest[enough] = share[last - 1]
    return cost.reshape(room.shape), dearest.reshape(room.shape)


def _in_order(parts: list[tuple[np.ndarray, ...]], empty: _Nodes) -> _Nodes:
    """Put nodes that were left in several passes into the order of the search."""
    if not parts:
        return _Nodes(empty.room[:0], empty.weight[:0], empty.done[:0], empty.rest[:0], np.zeros(1, np.int64), empty.pattern[:0])
    number, room, weight, done, rest, kept, pattern = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(number, kind="stable")
    start = np.concatenate([[0], np.cumsum(kept)])
    entries = np.concatenate([np.arange(start[i], start[i + 1]) for i in order])
    new_start = np.concatenate([[0], np.cumsum(kept[order])])
    return _Nodes(room[order], weight[order], done[order], rest[order], new_start, pattern[entries])
