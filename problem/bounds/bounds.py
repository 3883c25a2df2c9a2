"""Every closed-form lower bound on the makespan, once.

Two kinds, never to be mixed. *Joint* bounds take an :class:`problem.Instance` and hold whatever the replica counts. Bounds
*for given counts* take replica sizes and hold for packings of those replicas only: computed with the counts of one
heuristic they can exceed the optimum over all counts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

BISECTION_STEPS = 40


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


def companion_load_at(instance: Instance, threshold: Fraction) -> Fraction | None:
    """Return a lower bound on the load beside any replica in a placement within ``threshold``; None if there is none.

    Suppose a placement has a makespan of at most ``threshold``. Every replica shares its GPU with at least ``k - 1`` companions,
    k being the slots of the smallest GPU, so none is larger than ``threshold - s`` where ``s`` bounds the load of any ``k - 1``
    companions from below; then expert e needs ``ceil(w_e / (threshold - s))`` replicas. Those minimum counts limit how many
    replicas any expert can have, hence how small a companion can be, hence ``s``: the argument is repeated until nothing changes.
    It is a contradiction when the minimum counts exceed the slots.
    """
    companions = Fraction(0)
    while True:
        largest = threshold - companions
        if largest < 0 or (largest == 0 and instance.total > 0):
            return None
        least = [max(1, math.ceil(w / largest)) if w else 1 for w in instance.loads]
        spare = instance.num_slots - sum(least)
        if spare < 0 or max(least) > instance.max_count:
            return None
        tightened = _companion_load(instance, [min(c + spare, instance.max_count) for c in least])
        if tightened <= companions:
            return companions
        companions = tightened


def _companion_load(instance: Instance, most: Sequence[int]) -> Fraction:
    """Smallest possible load of ``k - 1`` replicas on one GPU when expert e has at most ``most[e]`` of them."""
    companions = min(instance.slots_by_gpu) - 1
    smallest = heapq.nsmallest(
        1 if instance.duplicates == "allowed" else companions,
        (Fraction(w, c) for w, c in zip(instance.loads, most, strict=True)),
    )
    return companions * smallest[0] if instance.duplicates == "allowed" else sum(smallest, Fraction(0))


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

    The witness is the pair of thresholds of :func:`slot_counting_value`.
    """
    smallest = apportionment_bound(instance)
    low, high = smallest.value, smallest.value
    while companion_load_at(instance, high) is None:
        low, high = high, 2 * high
    if low == high:
        return Bound(smallest.value, "slot counting", smallest.witness)
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


def joint_bounds(instance: Instance) -> list[Bound]:
    """Return every closed-form joint bound of the instance."""
    bounds = [mean_bound(instance), apportionment_bound(instance), slot_counting_bound(instance)]
    return bounds if instance.is_even else [*bounds, capacity_bound(instance)]


def best_joint_bound(instance: Instance) -> Bound:
    """Return the strongest closed-form joint bound; the simpler one wins ties."""
    simple = max(mean_bound(instance), apportionment_bound(instance), key=lambda bound: bound.value)
    if not instance.is_even:
        simple = max(simple, capacity_bound(instance), key=lambda bound: bound.value)
    if companion_load_at(instance, simple.value) is not None:
        return simple  # slot counting does not refute that value, so it proves no larger one
    return max(simple, slot_counting_bound(instance), key=lambda bound: bound.value)


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
    prefix = [0]
    for item in items:
        prefix.append(prefix[-1] + item)
    best = Fraction(0)
    for h in range(1, n + 1):
        for gpus in range(1, num_gpus + 1):
            lam = gpus * (h // num_gpus) + min(gpus, h % num_gpus)
            rest = gpus * k - lam
            if rest <= n - h:
                load = prefix[h] - prefix[h - lam] + prefix[n] - prefix[n - rest]
            else:
                load = prefix[n] - prefix[n - gpus * k]
            best = max(best, Fraction(load, gpus))
    return best / scale
