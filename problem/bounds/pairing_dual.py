"""Two slots per GPU: a dual certificate that no placement lies within a threshold, checked in integers.

With two slots a GPU holds a pair of replicas, and a makespan is the largest sum of a pair. At a threshold T call a replica
*big* if its load exceeds T/2, else *small*. Two big replicas never share a GPU, so in a placement within T every big replica
has a small companion of at most T minus its load, a companion of its own. Hence for every b > T/2 ::

    number of replicas of at least b  <=  number of replicas of at most T - b                                        (1)

Give every replica a *key* above or at T/2: its load v if it is big, T - v if it is small. Then (1) says that among the
replicas with a key of at least b, the big ones are no more than the small ones. Take breakpoints b_1 > b_2 > ... > T/2 with
numbers mu_i >= 0, add (1) times mu_i over all i, and write ``lambda(x)`` for the sum of the mu_i with ``b_i <= x``, a
nondecreasing step function::

    0  <=  sum over small replicas of lambda(T - v)  -  sum over big replicas of lambda(v)

Adding this to the number of replicas, S, and grouping the replicas by expert (expert e has c_e of load w_e / c_e)::

    S  >=  sum_e h_e(c_e)  >=  sum_e min_c h_e(c),     h_e(c) = c (1 - lambda(T - w_e/c))  if w_e/c <= T/2
                                                                c (1 + lambda(w_e/c))      otherwise

where c runs over the counts that e can have in a placement within T. So if the right side exceeds S, every placement has a
makespan above T, whatever its counts. Conversely the best lambda makes the right side the linear relaxation of the least
number of replicas that satisfy (1). The values ``lambda(b_i)`` are the *multipliers*: nonincreasing where the breakpoints
descend.

The argument uses neither equal loads nor distinct companions; it holds with duplicates allowed and forbidden.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import companion_load_at
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.files import fields
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

Multipliers = Sequence[tuple[Fraction, Fraction]]
"""Pairs (breakpoint, multiplier): breakpoints above T/2 and descending, multipliers nonincreasing and not negative."""

SAFE_BITS = 61  # products and sums of two of them stay within int64
FINE_BITS = 40
MAX_MULTIPLIERS = 1 << 17
"""Breakpoints of a witness."""
MAX_BITS = 1 << 16
"""Digits, in base 2, of the common denominator of a witness's breakpoints, and of that of its multipliers."""
MAX_TABLE_BITS = 1 << 32
"""Counts of all experts times digits of those denominators."""


@dataclass(frozen=True)
class CountTable:
    """The counts that every expert can have in a placement within a threshold, one row per expert and count.

    Parameters
    ----------
    expert, count : ndarray
        int64 [rows], experts ascending, counts ascending within an expert.
    starts : ndarray
        First row of every expert, int64 [experts].
    """

    expert: np.ndarray
    count: np.ndarray
    starts: np.ndarray


def count_table(instance: Instance, threshold: Fraction) -> CountTable | None:
    """Return the counts possible within a threshold; None if counting slots alone shows that there is no placement.

    A replica has a companion of at least ``s`` (:func:`eplb_gap.problem.bounds.bounds.companion_load_at`), so expert e needs
    ``ceil(w_e / (T - s))`` replicas, and all experts share the slots that those minimum counts leave.
    """
    _check_two_slots(instance)
    companion = companion_load_at(instance, threshold)
    if companion is None:
        return None
    largest = threshold - companion
    least = [max(1, math.ceil(w / largest)) if w else 1 for w in instance.loads]
    spare = instance.num_slots - sum(least)
    if spare < 0:
        return None
    most = [min(c + spare, instance.max_count) for c in least]
    if any(high < low for low, high in zip(least, most, strict=True)):
        return None
    widths = np.array([high - low + 1 for low, high in zip(least, most, strict=True)], dtype=np.int64)
    starts = np.cumsum(widths) - widths
    expert = np.repeat(np.arange(instance.num_experts), widths)
    count = np.arange(expert.size) - starts[expert] + np.array(least, dtype=np.int64)[expert]
    return CountTable(expert, count, starts)


def replica_keys(instance: Instance, threshold: Fraction, table: CountTable, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of all rows in whole multiples of ``1 / scale``, rounded down, and which rows are small.

    For a breakpoint b that is such a multiple, ``key >= b`` holds for the rounded key exactly when it does for the exact one.

    Parameters
    ----------
    scale : int
        A multiple of the threshold's denominator.
    """
    limit = int(threshold * scale)
    largest = max(2 * max(instance.loads) * scale, limit, max(instance.loads) * threshold.denominator, 1)
    dtype = np.int64 if (largest * int(table.count.max())).bit_length() <= SAFE_BITS else object
    loads = np.array(instance.loads, dtype=dtype)[table.expert] * scale
    count = table.count.astype(dtype)
    small = (2 * loads <= limit * count).astype(bool)
    return np.where(small, limit - -(-loads // count), loads // count), small


def pairing_costs(instance: Instance, threshold: Fraction, multipliers: Multipliers, table: CountTable) -> tuple[np.ndarray, int]:
    """Return ``h_e(c)`` of every row of the table as integers over a common denominator, and that denominator.

    Raises
    ------
    InputError
        If the breakpoints do not descend or are not above half the threshold, or the multipliers rise or are negative.
    """
    _check_multipliers(threshold, multipliers)
    scale = math.lcm(threshold.denominator, *(point.denominator for point, _ in multipliers))
    unit = math.lcm(*(factor.denominator for _, factor in multipliers))
    keys, small = replica_keys(instance, threshold, table, scale)
    beyond = int(keys.max()) + 1  # breakpoints that no key reaches are alike, and need not fit the keys' type
    points = np.array([min(int(point * scale), beyond) for point, _ in reversed(multipliers)], dtype=keys.dtype)
    whole = [0, *(int(factor * unit) for _, factor in reversed(multipliers))]
    safe = (2 * max(*whole, unit) * int(table.count.max()) * instance.num_experts).bit_length() <= SAFE_BITS
    factors = np.array(whole, dtype=np.int64 if safe else object)[np.searchsorted(points, keys, side="right")]
    return table.count * np.where(small, unit - factors, unit + factors), unit


def pairing_need(instance: Instance, threshold: Fraction, multipliers: Multipliers) -> Fraction:
    """Return a lower bound on the replicas that a placement within the threshold has, ``sum_e min_c h_e(c)``.

    It is exact arithmetic and needs no solver; the module's text proves it. If counting slots alone shows that there is no
    placement, it is one more than the slots.

    Parameters
    ----------
    instance : Instance
        With two slots per GPU.
    threshold : Fraction
    multipliers : sequence of (Fraction, Fraction)
        Breakpoints, descending and above half the threshold, each with its multiplier; those never rise and are not negative.

    Raises
    ------
    InputError
        If a GPU has not two slots or the multipliers are not as described.
    """
    _check_multipliers(threshold, multipliers)
    table = count_table(instance, threshold)
    if table is None:
        return Fraction(instance.num_slots + 1)
    costs, unit = pairing_costs(instance, threshold, multipliers, table)
    return Fraction(int(np.minimum.reduceat(costs, table.starts).sum()), unit)


def next_pair_sum(instance: Instance, threshold: Fraction) -> Fraction:
    """Return the smallest makespan above the threshold that any two replicas could have.

    The candidates are ``w_e / c + w_f / d`` for all experts e and f, also e = f, and all counts from 1 to the largest that
    the slots leave to one expert. Every makespan is among them, so if none is at most the threshold, the optimum is at
    least this. Some candidates belong to no placement, which only makes the bound smaller.

    Raises
    ------
    InputError
        If a GPU has not two slots or no candidate is above the threshold.
    """
    found = _next_sum(*_replicas(instance), threshold)
    if found is None:
        raise InputError(f"threshold is {threshold}; no two replicas have a larger load")
    return found


def previous_pair_sum(instance: Instance, threshold: Fraction) -> Fraction | None:
    """Return the largest candidate of :func:`next_pair_sum` below the threshold; None if there is none."""
    loads, counts = _replicas(instance)
    found = _next_sum(-loads, counts, -threshold)
    return None if found is None else -found


def pairing_witness(threshold: Fraction, multipliers: Multipliers) -> dict[str, Any]:
    """Return the witness of :func:`pairing_value` as JSON-serialisable data."""
    return {"threshold": str(threshold), "multipliers": [[str(point), str(factor)] for point, factor in multipliers]}


def pairing_value(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    """Return the bound on the makespan that a witness proves: the next pair sum above the refuted threshold.

    Raises
    ------
    InputError
        If the witness is malformed or does not refute its threshold.
    """
    threshold, multipliers = _from_data(witness)
    table = count_table(instance, threshold)
    bits = _bits([threshold, *(point for point, _ in multipliers)]) + _bits([factor for _, factor in multipliers])
    if table is not None and bits * table.count.size > MAX_TABLE_BITS:
        raise InputError(f"pairing dual: {table.count.size} counts times {bits} digits; {MAX_TABLE_BITS} are the limit")
    need = pairing_need(instance, threshold, multipliers)
    if need <= instance.num_slots:
        raise InputError(
            f"pairing dual: the multipliers prove that a makespan of {threshold} needs {shown(math.floor(need))} replicas; "
            f"more than num_slots = {instance.num_slots} refute it"
        )
    return next_pair_sum(instance, threshold)


def _from_data(witness: Mapping[str, Any]) -> tuple[Fraction, list[tuple[Fraction, Fraction]]]:
    where = "the witness of the pairing dual bound"
    fields(witness, where, ("threshold", "multipliers"))
    threshold, entries = parse(witness["threshold"], "pairing dual: threshold"), witness["multipliers"]
    if not isinstance(entries, list) or len(entries) > MAX_MULTIPLIERS:
        raise InputError(f"pairing dual: multipliers is {shown(entries)}; a list of at most {MAX_MULTIPLIERS} pairs is needed")
    multipliers = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, list) or len(entry) != 2:
            raise InputError(f"pairing dual: multipliers[{number}] is {shown(entry)}; a breakpoint and a multiplier are needed")
        point, factor = entry
        multipliers.append((parse(point, "pairing dual: a breakpoint"), parse(factor, "pairing dual: a multiplier", signed=True)))
    return threshold, multipliers


def _bits(values: Sequence[Fraction]) -> int:
    """Return the digits of the common denominator in base 2; InputError beyond the limit, before it is worked out."""
    common = 1
    for value in values:
        common = math.lcm(common, value.denominator)
        if common.bit_length() > MAX_BITS:
            raise InputError(f"pairing dual: the fractions have a common denominator of more than {MAX_BITS} digits in base 2")
    return common.bit_length()


def _check_two_slots(instance: Instance) -> None:
    if instance.slots_per_gpu != 2:
        raise InputError(f"a GPU has {instance.slots_per_gpu} slots; the pairing bound needs 2")


def _check_multipliers(threshold: Fraction, multipliers: Multipliers) -> None:
    for (point, factor), (lower, next_factor) in itertools.pairwise(multipliers):
        if lower >= point:
            raise InputError(f"pairing dual: breakpoint {lower} follows {point}; they must descend")
        if next_factor > factor:
            raise InputError(f"pairing dual: multiplier {next_factor} follows {factor}; they must not rise")
    if multipliers and (2 * multipliers[-1][0] <= threshold or multipliers[-1][1] < 0):
        raise InputError(
            f"pairing dual: the last breakpoint is {multipliers[-1][0]} with multiplier {multipliers[-1][1]}; "
            f"more than half of {threshold} and at least 0 are needed"
        )


def _replicas(instance: Instance) -> tuple[np.ndarray, np.ndarray]:
    """Return all distinct replica loads ``w / c`` as numerators and denominators, reduced."""
    _check_two_slots(instance)
    dtype = np.int64 if max(instance.loads).bit_length() <= SAFE_BITS else object
    counts = np.arange(1, instance.max_count + 1).astype(dtype)
    loads = np.array(sorted(set(instance.loads)), dtype=dtype)
    divisors = np.gcd.outer(loads, counts)
    numerators, denominators = (loads[:, None] // divisors).ravel(), (counts[None, :] // divisors).ravel()
    order = np.lexsort((denominators, numerators)) if dtype is np.int64 else np.arange(numerators.size)
    numerators, denominators = numerators[order], denominators[order]
    fresh = np.ones(numerators.size, dtype=bool)
    fresh[1:] = (numerators[1:] != numerators[:-1]) | (denominators[1:] != denominators[:-1])
    return numerators[fresh], denominators[fresh]


def _next_sum(numerators: np.ndarray, denominators: np.ndarray, threshold: Fraction) -> Fraction | None:
    """Return the smallest sum of two of the fractions (one may be taken twice) above the threshold, or None.

    With ``v' = floor(v scale)`` the sum u + v lies in ``[u' + v', u' + v' + 2) / scale``: integers leave a short list of
    pairs that are compared as fractions.
    """
    largest = max(int(abs(numerators).max()), math.ceil(abs(threshold)), 1)
    bits = SAFE_BITS - largest.bit_length() - 1
    dtype, scale = (np.int64, 1 << bits) if bits >= FINE_BITS // 2 else (object, 1 << FINE_BITS)
    floors = numerators.astype(dtype) * scale // denominators
    order = np.argsort(floors, kind="stable")
    floors, numerators, denominators = floors[order], numerators[order], denominators[order]
    limit = math.floor(threshold * scale)
    # Sums of at least limit + 1 are surely above; the least of them bounds the answer.
    sure = np.searchsorted(floors, limit + 1 - floors)
    inside = np.flatnonzero(sure < floors.size)
    ceiling = int((floors[inside] + floors[sure[inside]]).min()) + 1 if inside.size else 2 * int(floors[-1])
    best: Fraction | None = None
    first = np.searchsorted(floors, limit - 1 - floors)
    last = np.searchsorted(floors, ceiling - floors, side="right")
    for i in np.flatnonzero(first < last):
        own = Fraction(int(numerators[i]), int(denominators[i]))
        for j in range(max(first[i], i), last[i]):
            value = own + Fraction(int(numerators[j]), int(denominators[j]))
            if value > threshold and (best is None or value < best):
                best = value
    return best
