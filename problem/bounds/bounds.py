"""Every closed-form lower bound on the makespan, once.

Two kinds, never to be mixed. *Joint* bounds take an :class:`eplb_gap.problem.Instance` and hold whatever the replica counts.
Bounds *for given counts* take replica sizes and hold for packings of those replicas only: computed with the counts of one
heuristic they can exceed the optimum over all counts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

BISECTION_STEPS = 40
MAX_MULTIPLE = 1 << 64
"""Loads are not rounded to a lattice finer than this many points a token: nothing to gain, and the numbers get long."""
SAFE = 1 << 62
"""Sums below this are taken in 64-bit integers."""


@dataclass(frozen=True)
class Bound:
    """A lower bound on the makespan of an instance.

    Parameters
    ----------
    value : Fraction
        No placement has a smaller largest GPU load.
    kind : str
        How it is proven: a key of :data:`eplb_gap.problem.proofs.PROOFS`, or of the lists of other bounds.
    witness : dict
        What a reader needs to check it again, JSON-serialisable.
    """

    value: Fraction
    kind: str
    witness: dict[str, Any] = field(default_factory=dict)


def mean_bound(instance: Instance) -> Bound:
    """Return ``W / G``: the fullest GPU carries at least the mean, whatever the counts."""
    return Bound(instance.mean, "mean")


def capacity_bound(instance: Instance) -> Bound:
    """Return ``max_j (W - P(K_j)) / (G - j)``: what the j smallest GPUs can't carry is on the others.

    K_j is how many slots those j GPUs have together. However the replicas are counted, n slots hold at most n experts and of each
    no more than all its load, so at most P(n), the sum of the n largest loads. With ``j = 0`` it is the mean, and with equally
    many slots on all GPUs no j gives more.
    """
    most = [0, *itertools.accumulate(sorted(instance.loads, reverse=True))]
    slots = 0
    best = instance.mean
    for gpus, more in enumerate(sorted(instance.slots_by_gpu)[:-1], start=1):
        slots = min(slots + more, instance.num_experts)
        best = max(best, Fraction(instance.total - most[slots], instance.num_gpus - gpus))
    return Bound(best, "capacity")


def adams_counts(loads: Sequence[int], num_slots: int, max_count: int) -> list[int]:
    """Return the replica counts of Adams' divisor method in exact arithmetic, at most ``max_count`` each.

    They minimise ``max w_e / c_e`` for ``sum c_e = num_slots`` (Balinski and Young, *Fair Representation*). Ties go to the
    lower logical expert.
    """
    counts = [1] * len(loads)
    if not len(loads) <= num_slots:
        raise InputError(f"num_slots is {num_slots}; at least one for each of the {len(loads)} experts is needed")
    if max_count * len(loads) < num_slots:
        raise InputError(f"num_slots is {num_slots}; {len(loads)} experts with at most {max_count} replicas fill fewer")
    queue = [(-Fraction(load), expert) for expert, load in enumerate(loads)] if max_count > 1 else []
    heapq.heapify(queue)
    for _ in range(num_slots - len(loads)):
        _, expert = heapq.heappop(queue)
        counts[expert] += 1
        if counts[expert] < max_count:
            heapq.heappush(queue, (-Fraction(loads[expert], counts[expert]), expert))
    return counts


def apportionment_bound(instance: Instance) -> Bound:
    """Return ``R*``, the smallest possible largest replica: some GPU holds that replica.

    ``R* = min { r : sum_e max(1, ceil(w_e / r)) <= S }``, attained by Adams' method; the counts are the witness. With
    duplicates forbidden no expert has more replicas than GPUs.
    """
    limit = instance.max_count
    counts = adams_counts(instance.loads, instance.num_slots, limit)
    value = max(Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True))
    return Bound(value, "apportionment", {"counts": counts})


def counts_below(loads: Sequence[int], value: Fraction) -> list[int]:
    """Return the fewest replicas of every expert that are each below a positive value: ``floor(w / value) + 1``.

    The apportionment bound is at least the value if and only if these counts are more than there are slots, or more than one
    expert may have.
    """
    return [load * value.denominator // value.numerator + 1 for load in loads]


def companion_load_at(instance: Instance, threshold: Fraction) -> Fraction | None:
    """Return a lower bound on the load beside any replica in a placement within ``threshold``; None if there is none.

    Suppose a placement has a makespan of at most ``threshold``. Every replica shares its GPU with at least ``k - 1`` companions,
    k being the slots of the smallest GPU, so none is larger than ``threshold - s`` where ``s`` bounds the load of any ``k - 1``
    companions from below; then expert e needs ``ceil(w_e / (threshold - s))`` replicas. Those minimum counts limit how many
    replicas any expert can have, hence how small a companion can be, hence ``s``: the argument is repeated until nothing changes.
    It is a contradiction when the minimum counts exceed the slots.
    """
    limits = count_limits(instance, threshold)
    return None if limits is None else limits.companions


@dataclass(frozen=True)
class CountLimits:
    """What a placement within a threshold can be: counts of every expert, and the least load beside any replica.

    Parameters
    ----------
    least, most : list of int [experts]
    companions : Fraction
    """

    least: list[int]
    most: list[int]
    companions: Fraction

    @property
    def forced(self) -> bool:
        """Whether there is one count vector only."""
        return self.least == self.most


def count_limits(instance: Instance, threshold: Fraction | None) -> CountLimits | None:
    """Return the limits of the placements within a threshold (:func:`companion_load_at`); None if there is none.

    Without a threshold they are what the slots and the rule on duplicates leave.
    """
    companions = Fraction(0)
    highest = instance.max_count
    while True:
        least = [1] * instance.num_experts
        if threshold is not None:
            largest = threshold - companions
            if largest < 0 or (largest == 0 and instance.total > 0):
                return None
            above, below = largest.numerator, largest.denominator
            least = [-(-w * below // above) if w else 1 for w in instance.loads]
        spare = instance.num_slots - sum(least)
        if spare < 0 or max(least) > highest:
            return None
        most = [min(c + spare, highest) for c in least]
        missing = sum(most) - instance.num_slots
        least = [max(low, high - missing) for low, high in zip(least, most, strict=True)]
        tightened = companion_load(instance, most)
        if threshold is None or tightened <= companions:
            return CountLimits(least, most, max(tightened, companions))
        companions = tightened


def companion_load(instance: Instance, most: Sequence[int]) -> Fraction:
    """Return a lower bound on the load of ``k - 1`` replicas on one GPU when expert e has at most ``most[e]`` of them.

    With ``c <= most[e]`` replicas, expert e has at most ``c`` companions there, of load ``w_e / c`` each. So companions can be
    sent, one to one, to no larger elements of the multiset that holds ``w_e / most[e]`` for every expert ``most[e]`` times: all
    together they weigh at least its ``k - 1`` smallest elements. With duplicates forbidden every expert is there once.
    """
    companions = min(instance.slots_by_gpu) - 1
    # Floats only find the candidates: k - 1 experts, and all that the rounding could confuse with them.
    floats = [w / c for w, c in zip(instance.loads, most, strict=True)]
    edge = heapq.nsmallest(companions, floats)[-1:] or [-1.0]
    near = [e for e, size in enumerate(floats) if size <= edge[0] * (1 + 1e-9)]
    total, free = Fraction(0), companions
    for size, copies in sorted((Fraction(instance.loads[e], most[e]), most[e]) for e in near):
        taken = min(free, copies if instance.duplicates == "allowed" else 1)
        total += taken * size
        free -= taken
    return total


def slot_counting_value(instance: Instance, refuted: Fraction, above: Fraction) -> Fraction:
    """Return the bound that a pair of thresholds proves by slot counting.

    ``refuted`` must be refuted by :func:`companion_load_at`. A placement with a makespan T in ``(refuted, above)`` has
    companions of at least the load s that ``above`` implies (s falls as T rises), hence ``R* <= T - s``. So every placement
    has ``T >= min(above, R* + s)``.

    Raises
    ------
    InputError
        If ``refuted`` is not refuted or ``above`` is.
    """
    companions = companion_load_at(instance, above)
    if companions is None or companion_load_at(instance, refuted) is not None:
        raise InputError(f"slot counting: {refuted} is not refuted or {above} is; the pair proves nothing")
    return max(refuted, min(above, apportionment_bound(instance).value + companions))


def slot_counting_bound(instance: Instance) -> Bound:
    """Return the bound by slot counting (:func:`companion_load_at`), located by bisection; never below ``R*``.

    The witness is the pair of thresholds of :func:`slot_counting_value`. Else it is the bound by apportionment.
    """
    smallest = apportionment_bound(instance)
    low, high = smallest.value, smallest.value
    while companion_load_at(instance, high) is None:
        low, high = high, 2 * high
    if low == high:
        return smallest
    for _ in range(BISECTION_STEPS):
        # Short denominators keep the fractions small.
        middle = Fraction(math.floor((low + high) / 2 * 2**20), 2**20)
        if not low < middle < high:
            break
        if companion_load_at(instance, middle) is None:
            low = middle
        else:
            high = middle
    value = slot_counting_value(instance, low, high)
    return Bound(value, "slot counting", {"refuted": str(low), "above": str(high)})


def forced_counts_value(instance: Instance, threshold: Fraction | None) -> Fraction:
    """Return the bound that holds because the placements within a threshold have all the same counts.

    Those have a makespan of at least :func:`lifted_bound` of the counts, a bound *for given counts*; all others have one above
    the threshold. Without a threshold the counts must be forced by the slots alone, as they are for ``S = E``.

    Raises
    ------
    InputError
        If the counts are not forced, or the GPUs have unequal slots, for which the lifted bound does not hold.
    """
    if not instance.is_even:
        fewest, most = min(instance.slots_by_gpu), max(instance.slots_by_gpu)
        raise InputError(f"forced counts: GPUs with {fewest} to {most} slots found; equally many on each are needed")
    limits = count_limits(instance, threshold)
    if limits is None or not limits.forced:
        within = "" if threshold is None else f" within {threshold}"
        raise InputError(f"forced counts: the placements{within} have more than one count vector, or there is none")
    sizes = [Fraction(w, c) for w, c in zip(instance.loads, limits.least, strict=True) for _ in range(c)]
    value = lifted_bound(sizes, instance.num_gpus)
    return value if threshold is None else min(value, threshold)


def forced_counts_bound(instance: Instance, known: Fraction) -> Bound | None:
    """Return a bound by forced counts (:func:`forced_counts_value`) if there is one above a known bound, else None.

    The counts are forced up to some threshold, which is located by bisection if it lies below their lifted bound.
    """
    if not instance.is_even:
        return None
    if instance.num_slots in (instance.num_experts, instance.num_experts * instance.max_count):
        value = forced_counts_value(instance, None)
        return Bound(value, "forced counts") if value > known else None
    low, limits = _not_refuted(instance, known)
    if not limits.forced:
        return None
    sizes = [Fraction(w, c) for w, c in zip(instance.loads, limits.least, strict=True) for _ in range(c)]
    high = lifted_bound(sizes, instance.num_gpus)
    if high <= low:
        return None
    threshold = high
    for _ in range(BISECTION_STEPS):
        within = count_limits(instance, threshold)
        if within is not None and within.forced:
            low = threshold
        else:
            high = threshold
        threshold = Fraction(math.floor((low + high) / 2 * 2**20), 2**20)
        if not low < threshold < high:
            break
    value = forced_counts_value(instance, low)
    return Bound(value, "forced counts", {"threshold": str(low)}) if value > known else None


def reachable(instance: Instance, value: Fraction, above: bool = False) -> Fraction:
    """Return a value such that no placement has a makespan from ``value`` (``above``: beyond it) up to below it.

    In a placement within x, every replica is a multiple of the greatest common divisor g of ``w_e / c`` over all counts that
    :func:`count_limits` leaves within x, so the makespan is one, too. Let x be the larger of some first threshold and of
    ``value`` rounded up to the lattice of that threshold, and y be ``value`` rounded up to the lattice of x: it contains the
    other lattice, hence ``y <= x``. A makespan from ``value`` up to below y would lie within x, so on the lattice of x, where
    there is nothing between ``value`` and y.

    Where the least common multiple of the counts exceeds :data:`MAX_MULTIPLE`, it is ``value`` itself.
    """
    edge, limits = _not_refuted(instance, value)
    unit = _lattice(instance, limits)
    if unit is None:
        return value
    rounded = _next_multiple(unit, value, above)
    if rounded <= edge:
        return rounded
    found = _rounded_within(instance, value, above, rounded)
    while True:  # a smaller x has the coarser lattice: its y may be larger
        better = _rounded_within(instance, value, above, _rounded_within(instance, value, above, found))
        if better <= found:
            return found
        found = better


def _rounded_within(instance: Instance, value: Fraction, above: bool, threshold: Fraction) -> Fraction:
    """Return a value rounded up to the lattice of the placements within a threshold."""
    unit = _lattice(instance, count_limits(instance, threshold))
    return value if unit is None else _next_multiple(unit, value, above)


def _next_multiple(unit: Fraction, value: Fraction, above: bool) -> Fraction:
    return unit * (math.floor(value / unit) + 1 if above else math.ceil(value / unit))


def _not_refuted(instance: Instance, value: Fraction) -> tuple[Fraction, CountLimits]:
    """Return a threshold that slot counting does not refute, and its limits: the bound itself, or one not far above it."""
    limits, edge, step = count_limits(instance, value), value, Fraction(2, 2**20)  # the bisections end within such a step
    while limits is None:
        edge = min(value + step, Fraction(instance.total))
        limits = count_limits(instance, edge)
        step *= 8
    return edge, limits


def _lattice(instance: Instance, limits: CountLimits | None) -> Fraction | None:
    """Return g of :func:`reachable`: by expert it is w_e over the least common multiple of its counts."""
    if limits is None:
        return None
    loaded = [(w, low, high) for w, low, high in zip(instance.loads, limits.least, limits.most, strict=True) if w]
    # Every number up to 65 divides one of 65 consecutive ones: their multiple alone exceeds the largest allowed.
    multiples = {(low, high): math.lcm(*range(low, min(high, low + 64) + 1)) for low, high in {r[1:] for r in loaded}}
    common = math.lcm(*multiples.values())
    if common > MAX_MULTIPLE or not loaded:
        return None
    return Fraction(math.gcd(*(w * (common // multiples[low, high]) for w, low, high in loaded)), common)


def joint_bounds(instance: Instance) -> list[Bound]:
    """Return every closed-form joint bound of the instance."""
    bounds = [mean_bound(instance), apportionment_bound(instance), slot_counting_bound(instance)]
    if not instance.is_even:
        return [*bounds, capacity_bound(instance)]
    forced = forced_counts_bound(instance, max(bound.value for bound in bounds))
    return bounds if forced is None else [*bounds, forced]


def best_joint_bound(instance: Instance) -> Bound:
    """Return the strongest closed-form joint bound, rounded up to what is :func:`reachable`; the simpler one wins ties."""
    best = mean_bound(instance)
    if max(instance.loads) > best.value:  # else no replica is larger than the mean
        best = max(best, apportionment_bound(instance), key=lambda bound: bound.value)
    if not instance.is_even:
        best = max(best, capacity_bound(instance), key=lambda bound: bound.value)
    if count_limits(instance, best.value) is None:  # else slot counting doesn't refute that value: it proves no larger one
        best = max(best, slot_counting_bound(instance), key=lambda bound: bound.value)
    best = forced_counts_bound(instance, best.value) or best
    return replace(best, value=reachable(instance, best.value))


def _scaled(sizes: Sequence[Fraction], num_gpus: int) -> tuple[list[int], int, int]:
    """Sort sizes in descending order as integers over one denominator; return them, the denominator and k."""
    if not sizes or len(sizes) % num_gpus:
        raise InputError(f"sizes has {len(sizes)} entries; a positive multiple of num_gpus = {num_gpus} is needed")
    scale = math.lcm(*(size.denominator for size in sizes))
    return sorted((int(size * scale) for size in sizes), reverse=True), scale, len(sizes) // num_gpus


def cardinality_bound(sizes: Sequence[Fraction], num_gpus: int) -> Fraction:
    """Return, for given counts, the largest replica plus the ``k - 1`` smallest: its GPU is full.

    Parameters
    ----------
    sizes : sequence of Fraction
        Loads ``w_e / c_e`` of all ``G k`` replicas, in any order.
    num_gpus : int
    """
    items, scale, k = _scaled(sizes, num_gpus)
    return Fraction(items[0] + sum(items[len(items) - (k - 1) :]), scale)


def pigeonhole_bound(sizes: Sequence[Fraction], num_gpus: int) -> Fraction:
    """Return, for given counts, ``max_q``: among the ``q G + 1`` largest replicas, ``q + 1`` share a GPU.

    Their load is at least that of the ``q + 1`` smallest of those, and the GPU's other slots hold at least the smallest
    replicas of all (Dell'Amico and Martello, 2001).
    """
    items, scale, k = _scaled(sizes, num_gpus)
    best = 0
    for q in range(k):
        top = q * num_gpus + 1
        best = max(best, sum(items[top - q - 1 : top]) + sum(items[len(items) - (k - q - 1) :]))
    return Fraction(best, scale)


def lifted_bound(sizes: Sequence[Fraction], num_gpus: int) -> Fraction:
    """Return the lifted bound for given counts, which contains the mean, cardinality and pigeonhole bounds.

    Of the ``h`` largest replicas, the ``l`` GPUs that hold most of them hold at least ``lam`` (h dealt evenly); those weigh
    at least the ``lam`` smallest of the h, the remaining slots of the l GPUs at least the smallest of all
    (Dell'Amico, Iori, Martello, Monaci, 2006, for k_i-partitioning).
    """
    items, scale, k = _scaled(sizes, num_gpus)
    n = len(items)
    dtype = np.int64 if sum(items) < SAFE else object
    prefix = np.array([0, *itertools.accumulate(items)], dtype=dtype)
    h = np.arange(1, n + 1)
    best = Fraction(0)
    for gpus in range(1, num_gpus + 1):
        lam = gpus * (h // num_gpus) + np.minimum(gpus, h % num_gpus)
        rest = gpus * k - lam
        # Where fewer items than rest are behind the h largest, the l GPUs hold at least the l k smallest of all.
        apart = prefix[h] - prefix[h - lam] + prefix[n] - prefix[n - rest]
        load = np.where(rest <= n - h, apart, prefix[n] - prefix[n - gpus * k])
        best = max(best, Fraction(int(load.max()), gpus))
    return best / scale
