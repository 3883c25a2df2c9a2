"""One replica of every expert: equal-cardinality scheduling on identical machines (``P | | Cmax`` with k jobs on each).

With counts of one the lifted bound holds for every map, and it is nearly always attained after rounding. It says of which
experts on how many GPUs it is the mean: the *core*. So a map at the bound is a balanced map of the core, and of the other
experts, which are small enough, any map on the other GPUs. Up to ``COVERED`` slots per GPU the core's maps are exact covers;
where the core is the whole instance, a search that finds none proves a larger bound. For more slots per GPU the exchange of a
few experts between two GPUs can move nearly any load there is: see :mod:`eplb_gap.solvers.engines.exact_exchange`.
(k-partitioning: Babel, Kellerer, Kotov, 1998; Dell'Amico, Iori, Martello, Monaci, 2006.)
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

import numpy as np

from eplb_gap.heuristics.kernels.local_search import SAFE_TOTAL
from eplb_gap.problem.bounds.bounds import mean_bound
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import Engine, Finding, Incumbent, Limits
from eplb_gap.solvers.engines import exact_cover
from eplb_gap.solvers.engines.cover_search import FOUND, RUNNING
from eplb_gap.solvers.engines.exact_exchange import settle

COVERED = range(3, 6)
"""Slots per GPU for which the core is searched as an exact cover."""
FIRST_TRIES, TRIES = 100, 400
"""Pairs of GPUs that one call of compiled code tries, before the exact cover and after it: a tenth of a second."""
NEIGHBOURHOOD, MOST_NODES = 48, 20_000
"""Slots of the GPUs that are covered anew where the core is too large, and the nodes of such a search."""
FIRST_COVERS = 60
"""Such searches before the core is searched: they end within a few tokens of the bound, where few patterns are left."""
SHARE = 0.9
"""Of the time left; the rest is for the engine of the shape."""
NEAR_BOUND, FAR_SHARE = 10, 0.3
"""A map that is more tokens above the bound after those says that the bound is weak: other engines have better ones."""


@dataclass(frozen=True)
class Core:
    """The experts of which a lifted bound is the mean load, on so many GPUs; ``outside`` are the others, on the other GPUs."""

    num_gpus: int
    inside: list[int]
    outside: list[int]


def core(instance: Instance) -> Core:
    """Return the core of an instance with one replica each: where :func:`eplb_gap.problem.bounds.bounds.lifted_bound` is largest.

    Examples
    --------
    >>> core(Instance((9, 9, 8, 8, 7, 1), 6, 3))
    Core(num_gpus=2, inside=[1, 2, 3, 4], outside=[0, 5])
    """
    order = sorted(range(instance.num_experts), key=lambda e: (-instance.loads[e], e))
    prefix = list(itertools.accumulate((instance.loads[e] for e in order), initial=0))
    n, num_gpus, k = instance.num_experts, instance.num_gpus, instance.slots_per_gpu
    best, chosen = instance.mean, (num_gpus, n, 0)
    for gpus, largest in itertools.product(range(1, num_gpus), range(1, n + 1)):
        held = gpus * (largest // num_gpus) + min(gpus, largest % num_gpus)
        rest = gpus * k - held
        if rest > n - largest:
            continue
        load = prefix[largest] - prefix[largest - held] + prefix[n] - prefix[n - rest]
        if load * best.denominator > best.numerator * gpus:
            best, chosen = Fraction(load, gpus), (gpus, largest, rest)
    gpus, largest, rest = chosen
    inside = order[largest - (gpus * k - rest) : largest] + order[n - rest :]
    return Core(gpus, sorted(inside), sorted(set(order) - set(inside)))


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps, and bounds where an exact cover of the whole instance is refuted.

    Parameters
    ----------
    instance : Instance
        With as many slots as experts; on others it ends at once.
    incumbent : Incumbent
        Its bound is what is aimed at, its map where the search starts.
    limits : Limits

    Yields
    ------
    tuple of int or Bound
        Bounds of the kinds of :mod:`eplb_gap.solvers.engines.exact_cover`.
    """
    if instance.num_slots != instance.num_experts or instance.total >= SAFE_TOTAL or instance.num_gpus == 1:
        return
    limits = replace(limits, deadline=time.monotonic() + SHARE * limits.seconds_left)
    part = core(instance)
    if part.outside:
        yield from _by_core(instance, part, incumbent, limits)
    yield from _balance(instance, incumbent, limits)


def _by_core(instance: Instance, part: Core, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield a map that balances the core."""
    outside = _of(instance, part.outside, instance.num_gpus - part.num_gpus)
    beside = greedy_map(outside)
    if outside.makespan(beside) > incumbent.bound.value:
        return
    inside = _of(instance, part.inside, part.num_gpus)
    balanced = Incumbent(inside)
    balanced.offer_bound(mean_bound(inside))
    balanced.offer_map(greedy_map(inside))
    if inside.num_gpus > 1:
        limits = replace(limits, deadline=time.monotonic() + limits.seconds_left / 2)
        for finding in _balance(inside, balanced, limits):
            balanced.offer(finding)
            if balanced.closed(limits):
                break
    assert balanced.slots is not None  # it has been given a map
    yield tuple([part.inside[e] for e in balanced.slots] + [part.outside[e] for e in beside])


def _balance(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield better maps by exchanges, maps and bounds by exact covers, and maps by exchanges until the clock ends."""
    state = _Exchanges(instance, incumbent.slots or greedy_map(instance), limits.seed)
    covered = instance.slots_per_gpu in COVERED
    for _ in range(FIRST_COVERS if covered else 0):
        target = _target(incumbent, limits)
        if limits.seconds_left > 0 and (state.lower_to(target, FIRST_TRIES) or state.cover_some(target)):
            yield state.best
    if covered and instance.makespan(state.best) > _target(incumbent, limits) + NEAR_BOUND:
        limits = replace(limits, deadline=time.monotonic() + FAR_SHARE * limits.seconds_left)
    if covered and limits.seconds_left > 0:
        yield from exact_cover.prove(instance, incumbent.bound.value, instance.makespan(state.best), limits)
    while limits.seconds_left > 0 and not incumbent.closed(limits):
        target = _target(incumbent, limits)
        if state.lower_to(target, TRIES) or (covered and state.cover_some(target)):
            yield state.best


def _target(incumbent: Incumbent, limits: Limits) -> int:
    """Return the makespan that needs no improvement, whatever is allowed."""
    target = incumbent.bound.value * (1 + Fraction(limits.target_gap))
    return math.floor(max(target, limits.enough or target))


def _of(instance: Instance, experts: list[int], num_gpus: int) -> Instance:
    return Instance(tuple(instance.loads[e] for e in experts), len(experts), num_gpus)


class _Exchanges:
    """A map that exact exchanges lower, and the best one so far."""

    def __init__(self, instance: Instance, slots: tuple[int, ...], seed: int) -> None:
        self.best = tuple(slots)
        self._value = int(instance.makespan(slots))
        self._instance, self._num_gpus = instance, instance.num_gpus
        self._slots = np.array(slots, dtype=np.int64)
        self._sizes = np.array([instance.loads[e] for e in slots], dtype=np.int64)
        self._seeds = np.random.default_rng(seed)

    def lower_to(self, target: int, tries: int) -> bool:
        """Try so many exchanges towards a makespan; return whether the map is better than before."""
        settle(self._slots, self._sizes, self._num_gpus, target, tries, int(self._seeds.integers(2**31)))
        return self._keep_if_better()

    def cover_some(self, target: int) -> bool:
        """Search for a cover of the fullest GPUs and some others; return whether the map is better than before.

        The threshold lies between the target and the best makespan: none may be at the target.
        """
        k, loads = self._instance.slots_per_gpu, self._sizes.reshape(self._num_gpus, -1).sum(axis=1)
        threshold = target + int(self._seeds.integers(max(1, self._value - target)))
        full = np.flatnonzero(loads > threshold)
        others = self._seeds.permutation(np.flatnonzero(loads <= threshold))
        if self._seeds.random() < 0.5:
            others = others[np.argsort(loads[others] == threshold, kind="stable")]  # those with room first
        some = np.sort(np.concatenate([full[: NEIGHBOURHOOD // k // 2], others])[: NEIGHBOURHOOD // k])
        slots = (some[:, None] * k + np.arange(k)).ravel()
        if not len(full) or loads[some].sum() > threshold * len(some):
            return False
        held = self._slots[slots]
        cover = exact_cover.CoverSearch(_of(self._instance, held.tolist(), len(some)), Fraction(threshold))
        while cover.status == RUNNING and not cover.too_large and cover.nodes < MOST_NODES:
            cover.run()
        if cover.status != FOUND:
            return False
        order = np.array(cover.map(), dtype=np.int64)
        self._slots[slots], self._sizes[slots] = held[order], self._sizes[slots][order]
        return self._keep_if_better()

    def _keep_if_better(self) -> bool:
        value = int(self._sizes.reshape(self._num_gpus, -1).sum(axis=1).max())
        if value >= self._value:
            return False
        self.best, self._value = tuple(self._slots.tolist()), value
        return True


@cache
def compile_kernels() -> None:
    """Compile what is needed, once per installation."""
    exact_cover.compile_kernels()
    loads = np.arange(8)
    settle(loads.copy(), loads, 2, 0, 1, 0)


ENGINE = Engine(
    "equal-cardinality", search, range(2, 2**20), exact=False, swept=False, compile=lambda deployment: compile_kernels()
)
