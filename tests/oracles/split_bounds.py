"""Lower bounds on the makespan of every map under every token split: what no placement with free shares can beat.

Bounds that say how small a *replica* can be (:func:`eplb_gap.problem.bounds.bounds.slot_counting_bound` and what builds on it) do
not carry over: a replica may take a tiny share. Two facts do:

* a replica takes at most the makespan T, so expert e needs replicas on ``max(1, ceil(w_e / T))`` GPUs;
* any n GPUs hold all replicas of at least ``k n - (S - E)`` experts: of their k n replicas at most ``c_e - 1`` belong to each of
  the experts that also live elsewhere, and ``sum (c_e - 1) = S - E``. Such an expert's whole load is on the n GPUs.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import accumulate

from eplb_gap.problem.bounds.bounds import Bound, apportionment_bound, mean_bound
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

BISECTION_STEPS = 40


def is_refuted(instance: Instance, threshold: Fraction) -> bool:
    """Whether no map has a split with a makespan of at most ``threshold``.

    Let A be the hottest j experts, n the number of GPUs that hold one of them: no more than the slots that the others' needs
    leave. These GPUs carry all of A's load and that of at least ``k n - (S - E) - j`` others. T is refuted if that exceeds
    ``n T`` for every possible n. All j are tried up to the number of experts that must be cut.
    """
    if threshold <= 0:
        return instance.total > 0
    loads = sorted(instance.loads, reverse=True)
    need = [max(1, math.ceil(w / threshold)) for w in loads]
    spare = instance.num_slots - sum(need)
    if spare < 0 or need[0] > instance.num_gpus:
        return True
    lightest = list(accumulate(reversed(loads), initial=0))
    extra = instance.num_slots - instance.num_experts
    hot = slots = 0
    for j, (load, least) in enumerate(zip(loads, need, strict=True), start=1):
        if least == 1:
            return False
        hot, slots = hot + load, slots + least
        most = min(instance.num_gpus, slots + spare)
        gpus = range(max(least, math.ceil(hot / threshold)), most + 1)
        if all(hot + lightest[max(0, instance.slots_per_gpu * n - extra - j)] > n * threshold for n in gpus):
            return True
    return False


def companions_value(instance: Instance, refuted: Fraction) -> Fraction:
    """Return ``refuted`` if :func:`is_refuted` says so of it.

    Raises
    ------
    InputError
        If it does not.
    """
    if not is_refuted(instance, refuted):
        raise InputError(f"companions: {refuted} is not refuted; it proves nothing")
    return refuted


def split_joint_bound(instance: Instance) -> Bound:
    """Return the strongest of these bounds: the mean, ``R*`` with at most one replica per GPU, and companions by bisection.

    The witness of kind "split companions" is the refuted threshold, for :func:`companions_value`.
    """
    if (
        instance.slots_per_gpu <= instance.num_experts
    ):  # with more, duplicates fill slots, and R* of the instance is what there is
        instance = Instance(instance.loads, instance.num_slots, instance.num_gpus, "forbidden")
    simple = max(mean_bound(instance), apportionment_bound(instance), key=lambda bound: bound.value)
    low, high = simple.value, simple.value
    while is_refuted(instance, high):
        low, high = high, 2 * high
    if low == high:
        return simple
    for _ in range(BISECTION_STEPS):
        middle = Fraction(math.floor((low + high) / 2 * 2**20), 2**20)  # short denominators keep the fractions small
        if not low < middle < high:
            break
        if is_refuted(instance, middle):
            low = middle
        else:
            high = middle
    return Bound(low, "split companions", {"refuted": str(low)})
