"""Exact-cover branch and bound for small instances: patterns for one GPU, a slack budget, tightening in place.

Loads are integers over M, the least common multiple of the possible counts. A *pattern* is what one GPU may hold: k replicas, one
count per expert. The loads of the G GPUs sum to W whatever the counts, so in a map within a threshold T no GPU carries less than
``W - (G - 1) T``. Few patterns lie in that band, and a map is an exact cover of the experts, each by as many copies as its count
says, with G patterns whose slacks ``T - load`` sum to ``G T - W``: the budget.

The threshold rises from the closed-form bound until a cover is found. From then on it follows the best cover downwards within the
same search, so the search that finds the optimum is also the one that proves it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound, count_limits, reachable
from eplb_gap.problem.bounds.exhausted import MAX_REPLAYED_NODES, replay_witness
from eplb_gap.problem.bounds.gpu_patterns import MAX_EXPERTS
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Finding, Incumbent, Limits
from eplb_gap.solvers.engines.cover_search import (
    COST_BITS,
    EXHAUSTED,
    FOUND,
    RUNNING,
    WEIGHT_BITS,
    Patterns,
    State,
    advance,
    occurrences,
)
from eplb_gap.solvers.engines.gpu_contents import enumerate_patterns
from eplb_gap.solvers.engines.improvement import Improvement

LARGEST_TOTAL = 2**61
"""G + 1 times the scaled total stays below this, so that no sum overflows int64."""
MAX_PATTERNS = 400_000
MAX_ENUMERATION_STEPS = 50_000_000
"""A fifth of a second; an instance that needs more steps has too many patterns to search anyway."""
ROUNDS = 1
"""Of annealing and neighbourhood search before the proof: the nearer the best map, the fewer thresholds are tried in vain."""
FEW_PATTERNS = 24_000
"""With so many patterns or fewer just below the best map, that threshold is searched at once."""
FIRST_STEP = Fraction(1, 64)
"""The first threshold, as a fraction of the way from the bound to the best map."""
CHEAP_NODES = 300
TARGET_GROWTH = 4.0
"""Thresholds double while a search is cheap, then rise so that a search is expected to take this many times the nodes."""
LOG_ROOM = 1 << 18
"""Far more nodes than one call of compiled code visits; doubled when half full."""
CHUNK_SECONDS = 0.05
"""Aimed at for one call of compiled code, which neither the clock nor Ctrl-C can stop."""


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps, then the thresholds that an exhausted search refutes, up to the proof of the optimum.

    Meant for up to about 48 slots. Where the scaled loads would overflow 64-bit integers or the patterns exceed
    ``MAX_PATTERNS``, it ends with what was found until then.

    Parameters
    ----------
    instance : Instance
    incumbent : Incumbent
        Its map is where the search starts.
    limits : Limits

    Yields
    ------
    tuple of int or Bound
        A bound of kind "exhausted search" names the largest refuted threshold and the nodes searched so far. The count ranges
        that fix M hold for every map better than the best one known before the search.
    """
    if limits.seconds_left <= 0:
        return
    best = incumbent.slots
    if best is None:
        best = greedy_map(instance)
        yield best
    bound = best_joint_bound(instance)
    yield bound
    lower, upper = max(bound.value, incumbent.bound.value), instance.makespan(best)
    if lower < upper:
        above = Improvement(instance, tuple(best), limits.seed)
        for _ in range(ROUNDS):
            if above.upper > lower and above.round(lower):
                upper = above.upper
                yield above.best
    if lower < upper:
        yield from _proof(instance, lower, upper, limits)


def _proof(instance: Instance, lower: Fraction, upper: Fraction, limits: Limits) -> Iterator[Finding]:
    multiple = denominator(count_ranges(instance, upper))
    if instance.total * multiple * (instance.num_gpus + 1) >= LARGEST_TOTAL:
        return
    best = int(upper * multiple)
    base = refuted = math.ceil(lower * multiple) - 1
    reach = (best - base) * FIRST_STEP
    nodes = previous = 0
    growth = 2.0
    proven = lower
    while proven < Fraction(best, multiple):
        threshold = best - 1
        cover = CoverSearch(instance, Fraction(threshold, multiple))
        if cover.num_patterns > FEW_PATTERNS:
            threshold = min(max(refuted + 1, base + int(reach)), best - 1)
            cover = CoverSearch(instance, Fraction(threshold, multiple))
        while cover.status != EXHAUSTED:
            if cover.too_large or limits.seconds_left <= 0:
                return
            cover.run()
            if cover.status == FOUND:
                slots = cover.map()
                yield slots
                best = int(instance.makespan(slots) * multiple)
                cover.lower_threshold(Fraction(best - 1, multiple))
        nodes += cover.nodes
        refuted = min(threshold, best - 1)
        proven = Fraction(refuted + 1, multiple)
        if proven == Fraction(best, multiple):
            yield _last_bound(instance, cover, Fraction(refuted, multiple), nodes, limits)
            return
        yield Bound(proven, "exhausted search", {"threshold": str(Fraction(refuted, multiple)), "nodes": nodes})
        growth = _next_growth(growth, cover.nodes, previous)
        previous = cover.nodes
        reach *= Fraction(growth)


def _last_bound(instance: Instance, cover: CoverSearch, threshold: Fraction, nodes: int, limits: Limits) -> Bound:
    """Return the bound of the refuted threshold, with the log of a search for it alone where that is short enough to be replayed.

    A search that lowered its threshold as it went is done once more.
    """
    if not cover.replayable and cover.nodes <= MAX_REPLAYED_NODES:
        cover = CoverSearch(instance, threshold)
        while cover.status == RUNNING and limits.seconds_left > 0:
            cover.run()
    value = reachable(instance, threshold, above=True)
    if cover.status != EXHAUSTED or not cover.replayable:
        return Bound(value, "exhausted search", {"threshold": str(threshold), "nodes": nodes})
    return Bound(value, "replayed search", replay_witness(threshold, cover.branchings()))


def _next_growth(growth: float, nodes: int, previous: int) -> float:
    """Return the factor to the next threshold, given that the last one multiplied the nodes by ``nodes / previous``."""
    if nodes < CHEAP_NODES or nodes <= previous:
        return 2.0
    steepness = math.log(nodes / max(previous, 1)) / math.log(growth)
    return float(min(2.0, max(1.2, TARGET_GROWTH ** (1.0 / steepness))))


@cache
def compile_kernels() -> None:
    """Prove a tiny instance: the first call of an installation compiles for some ten seconds, later ones load from the disk."""
    instance = Instance((9, 8, 7, 3, 1), 9, 3)  # its optimum is above the closed forms, so that nothing is skipped
    incumbent = Incumbent(instance)
    for _ in search(instance, incumbent, Limits(time.monotonic() + 60)):
        pass


class CoverSearch:
    """One search for covers within a threshold that may be lowered as it goes.

    Parameters
    ----------
    instance : Instance
    threshold : Fraction
    """

    def __init__(self, instance: Instance, threshold: Fraction) -> None:
        self.instance = instance
        self.nodes = 0
        self.too_large = False
        self.num_patterns = 0
        self.status = EXHAUSTED
        self.replayable = instance.num_experts <= MAX_EXPERTS
        self.log = np.zeros((LOG_ROOM, 2), dtype=np.uint8)
        gpus, k = instance.num_gpus, instance.slots_per_gpu
        within = count_limits(instance, threshold)
        if within is None or threshold < instance.mean:
            return
        ranges = [range(low, high + 1) for low, high in zip(within.least, within.most, strict=True)]
        self.multiple = denominator(ranges)
        high = math.floor(threshold * self.multiple)
        total = instance.total * self.multiple
        types = sorted(
            (-load * self.multiple // count, expert, count)
            for expert, (load, counts) in enumerate(zip(instance.loads, ranges, strict=True))
            for count in counts
        )
        size = np.array([-negative for negative, _, _ in types], dtype=np.int64)
        expert = np.array([e for _, e, _ in types], dtype=np.int64)
        count = np.array([c for _, _, c in types], dtype=np.int64)
        most = np.ones_like(count) if instance.duplicates == "forbidden" else count
        found = np.empty((MAX_PATTERNS, k), dtype=np.uint16)
        budget = gpus * high - total
        n = enumerate_patterns(size, expert, most, high - budget, high, MAX_ENUMERATION_STEPS, found)
        self.too_large = n < 0
        self.num_patterns = MAX_PATTERNS + 1 if n < 0 else n
        if n == 0:
            return
        self.status = RUNNING
        if self.too_large:
            return
        load = size[found[:n]].sum(axis=1)
        order = np.argsort(-load, kind="stable")
        sorted_types = found[order]
        self.patterns = Patterns(load[order], sorted_types, occurrences(sorted_types), expert, count)
        self.state = State(
            lists=np.zeros((gpus + 1) * n, dtype=np.int32),
            start=np.zeros(gpus + 2, dtype=np.int64),
            alive=np.zeros((gpus + 1, len(types)), dtype=np.uint16),
            num_alive=np.full(gpus + 1, len(types), dtype=np.int64),
            room=np.zeros((gpus + 1, len(types)), dtype=np.int64),
            weight=np.full((gpus + 1, len(types)), 1 << WEIGHT_BITS, dtype=np.int64),
            rest=np.full(gpus + 1, total, dtype=np.int64),
            branch=np.full(gpus + 1, -1, dtype=np.int64),
            position=np.zeros(gpus + 1, dtype=np.int64),
            chosen=np.zeros(gpus + 1, dtype=np.int64),
            fixed=np.zeros(instance.num_experts, dtype=np.int64),
            placed=np.zeros(instance.num_experts, dtype=np.int64),
            control=np.array([high, 0, 0, 0, max(0, budget.bit_length() - COST_BITS)], dtype=np.int64),
        )
        self.state.lists[:n] = np.arange(n)
        self.state.start[1] = n
        self.state.alive[0] = np.argsort(expert, kind="stable")
        self.state.room[0] = count
        self.visits = 500_000

    def run(self) -> None:
        """Go on for about ``CHUNK_SECONDS``, or until a cover is found or none is left."""
        started = time.perf_counter()
        if 2 * self.state.control[3] > len(self.log):
            self.log = np.concatenate([self.log, np.zeros_like(self.log)])
        self.status = advance(self.patterns, self.state, self.log, self.instance.num_gpus, self.instance.num_slots, self.visits)
        seconds = time.perf_counter() - started
        if self.status == RUNNING:
            self.visits = max(10_000, min(2 * self.visits, int(self.visits * CHUNK_SECONDS / seconds)))
        self.nodes = int(self.state.control[2])

    def map(self) -> tuple[int, ...]:
        """Return the cover that was just found as a map."""
        chosen = self.state.chosen[: self.instance.num_gpus]
        return tuple(self.patterns.expert[self.patterns.types[chosen]].ravel().tolist())

    def lower_threshold(self, threshold: Fraction) -> None:
        """Go on for covers within a smaller threshold, one that the cover just found exceeds."""
        self.state.control[0] = math.floor(threshold * self.multiple)
        self.status = RUNNING
        self.replayable = False

    def branchings(self) -> list[bytes]:
        """Return, by depth, the experts branched on, in the order in which their nodes were searched."""
        if self.num_patterns == 0:
            return []
        entries = self.log[: self.state.control[3]]
        depths = range(self.instance.num_gpus)
        return [entries[entries[:, 0] == depth, 1].tobytes() for depth in depths]
