"""Exact-cover branch and bound for small instances: patterns for one GPU, a slack budget, thresholds that close in.

Loads are integers over M, the least common multiple of the possible counts. A *pattern* is what one GPU may hold: k replicas, one
count per expert. The loads of the G GPUs sum to W whatever the counts, so in a map within a threshold T no GPU carries less than
``W - (G - 1) T``. Few patterns lie in that band, and a map is an exact cover of the experts, each by as many copies as its count
says, with G patterns whose slacks ``T - load`` sum to ``G T - W``: the budget.

The threshold is just below the best cover, until no cover is left: covers far above the optimum are found at once, and the last
search is the proof. One that takes long shares its time with thresholds that rise from the closed-form bound: below the optimum
they are exhausted in a fraction of the time, just above it they give the optimum or a map near it. Every search that finds no
cover leaves the log of its branchings, from which the kernel searches anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound, count_limits, reachable
from eplb_gap.problem.bounds.exhausted import MAX_REPLAYED_NODES, MAX_WORK, replay_witness
from eplb_gap.problem.bounds.gpu_patterns import MAX_EXPERTS
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.compact.counts import count_ranges, denominator
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits
from eplb_gap.solvers.engines.cover_search import (
    COST_BITS,
    EXHAUSTED,
    FOUND,
    RUNNING,
    WEIGHT_BITS,
    Patterns,
    State,
    advance,
    experts_held,
    occurrences,
)
from eplb_gap.solvers.engines.gpu_contents import enumerate_patterns
from eplb_gap.solvers.engines.improvement import Improvement

LARGEST_TOTAL = 2**61
"""G + 1 times the scaled total stays below this, so that no sum overflows int64."""
MAX_PATTERNS = 400_000
MAX_ENUMERATION_STEPS = 50_000_000
"""A fifth of a second; an instance that needs more steps has too many patterns to search anyway."""
ROUNDS, LONG_ROUNDS, LONG_SLOTS = 1, 12, 32
"""Rounds of annealing and neighbourhood search before the proof, the latter beyond so many slots, where proofs take seconds."""
MAX_ROUNDS = 6
"""While many patterns are left just below the best map."""
FEW_PATTERNS = 40_000
"""With so many patterns or fewer just below the best map, that threshold is searched at once."""
NODES_ABOVE = 30_000
"""A search just below the best map that visits so many has been unlucky or is the proof: lower thresholds have their turn."""
LOW_SHARE = 1.0
"""How many nodes lower thresholds get per node of those just below the best map."""
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
        Bounds of kind "replayed search"; of kind "exhausted search", a claim, where the log is too long.
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
        near = False
        rounds = ROUNDS if instance.num_slots <= LONG_SLOTS else LONG_ROUNDS
        for number in range(max(rounds, MAX_ROUNDS)):
            if above.upper <= lower or (near and number >= rounds) or limits.seconds_left <= 0:
                break
            if above.round(lower):
                upper = above.upper
                yield above.best
                near = _is_near(instance, upper)
    if lower < upper:
        yield from prove(instance, lower, upper, limits)


def _is_near(instance: Instance, upper: Fraction) -> bool:
    """Return whether few patterns are left just below a makespan, or its loads do not fit anyway."""
    multiple = denominator(count_ranges(instance, upper))
    return _overflows(instance, multiple) or CoverSearch(instance, upper - Fraction(1, multiple)).num_patterns <= FEW_PATTERNS


def _overflows(instance: Instance, multiple: int) -> bool:
    return instance.total * multiple * (instance.num_gpus + 1) >= LARGEST_TOTAL


def prove(instance: Instance, lower: Fraction, upper: Fraction, limits: Limits) -> Iterator[Finding]:
    """Yield better maps than ``upper`` and bounds above ``lower`` by the search alone, until they meet or it gives up.

    Parameters
    ----------
    instance : Instance
    lower : Fraction
        No map is below it.
    upper : Fraction
        Maps below it are looked for.
    limits : Limits
    """
    multiple = denominator(count_ranges(instance, upper))
    if _overflows(instance, multiple):
        return
    best = int(upper * multiple)
    base = refuted = math.ceil(lower * multiple) - 1
    reach, growth, previous = (best - base) * FIRST_STEP, 2.0, 0
    high: CoverSearch | None = None
    low: CoverSearch | None = None
    above = below = since = 0
    while refuted < best - 1:
        if high is None:
            high, since = CoverSearch(instance, Fraction(best - 1, multiple)), 0
        if high.num_patterns > FEW_PATTERNS or (since > NODES_ABOVE and below < LOW_SHARE * above):
            if low is None:
                threshold = max(refuted + 1, base + int(reach))
                low = high if threshold >= best - 1 else CoverSearch(instance, Fraction(threshold, multiple))
            cover = low
        else:
            cover = high
        if cover.too_large or limits.seconds_left <= 0:
            return
        if cover.status == RUNNING:
            before = cover.nodes
            cover.run()
            visited = cover.nodes - before
            if cover is high:
                above, since = above + visited, since + visited
            else:
                below += visited
        if cover.status == FOUND:
            slots = cover.map()
            yield slots
            best, high = int(instance.makespan(slots) * multiple), None
            if low is not None and (low is cover or low.threshold >= Fraction(best - 1, multiple)):
                low = None
        elif cover.status == EXHAUSTED:
            refuted = int(cover.threshold * multiple)
            yield _bound(instance, cover, above + below)
            if cover is low:
                growth = _next_growth(growth, cover.nodes, previous)
                low, previous = None, cover.nodes
                reach *= Fraction(growth)


def _bound(instance: Instance, cover: CoverSearch, nodes: int) -> Bound:
    """Return the bound of a threshold that a search refutes, with its log where that is short enough to be replayed."""
    threshold = cover.threshold
    value = reachable(instance, threshold, above=True)
    log = cover.branchings()
    if log is None:
        return Bound(value, "exhausted search", {"threshold": str(threshold), "nodes": nodes})
    return Bound(value, "replayed search", replay_witness(threshold, log))


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
    """One search for a cover within a threshold.

    Parameters
    ----------
    instance : Instance
    threshold : Fraction
    """

    def __init__(self, instance: Instance, threshold: Fraction) -> None:
        self.instance = instance
        self.threshold = threshold
        self.nodes = 0
        self.too_large = False
        self.num_patterns = 0
        self.status = EXHAUSTED
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
        self.patterns = Patterns(
            load[order], sorted_types, occurrences(sorted_types), experts_held(sorted_types, expert), expert, count
        )
        self.state = State(
            lists=np.zeros((gpus + 1) * n, dtype=np.int32),
            unit=np.zeros((gpus + 1) * n, dtype=np.int64),
            ranked=np.zeros(gpus * n * k, dtype=np.int64),
            first=np.zeros((gpus, len(types) + 1), dtype=np.int64),
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
            control=np.array([high, 0, 0, 0, max(0, budget.bit_length() - COST_BITS), 0], dtype=np.int64),
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

    def branchings(self) -> list[bytes] | None:
        """Return, by depth, the experts branched on in the order in which nodes were searched; None if they are too many."""
        if self.num_patterns == 0:
            return []
        entries = self.log[: self.state.control[3]]
        if self.instance.num_experts > MAX_EXPERTS or len(entries) > MAX_REPLAYED_NODES or self.state.control[5] > MAX_WORK:
            return None
        return [entries[entries[:, 0] == depth, 1].tobytes() for depth in range(self.instance.num_gpus)]


ENGINE = Engine("exact-cover", search, compile=lambda deployment: compile_kernels())
