"""Three or four slots per GPU: a dual certificate that no placement lies within a threshold, checked in integers.

Suppose a placement has a makespan of at most T. Expert e then has one of the counts c that :func:`counts_within` leaves, and c
replicas of the load ``w_e / c``. Put any nonnegative price ``pi(v)`` on a replica of load v. The price of all replicas, summed
by expert, is ::

    sum_e c_e pi(w_e / c_e)  >=  sum_e min_c c pi(w_e / c)                                                            (1)

Summed by GPU it is at most ::

    G P,     P = the largest price of any k replicas whose loads sum to at most T                                     (2)

since every GPU holds such k replicas. So if the right side of (1) exceeds ``G P``, there is no such placement, whatever its
counts: the optimum is above T. That is Farley's bound for the linear relaxation of the cover of all experts by *patterns*, the
contents of one GPU; the best prices are its dual solution.

P is taken over more than the contents of real GPUs: the k replicas may be any that some expert could have, with several counts
of one expert, and one replica any number of times. That only raises P, so the argument holds with duplicates allowed and
forbidden. In exchange, nothing is lost by prices that never fall with the load: replacing ``pi(v)`` by the largest price of any
load up to v leaves P as it is, for a replica may be exchanged for a smaller one. Hence prices are a nondecreasing step function,
given by the loads where it rises. All replicas of one step cost the same, and only the smallest of them matters in (2).

All loads are rounded down to multiples of a common unit in (2). Loads that sum to at most T still do so when rounded down, so
this again only raises P. In (1) nothing is rounded.

The relaxation mixes counts of one expert. A *branch* forbids that: every placement has at most c replicas of expert e, or at
least c + 1, so if both cases are refuted, each with prices (or branches) of its own, there is no placement. In every case the
counts are limited further by what the slots leave: no expert has fewer than S less the largest counts of the others, nor more
than S less their least counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.bounds.bounds import companion_load_at
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.files import fields
from eplb_gap.problem.fractions import parse
from eplb_gap.problem.instance import Instance

Prices = Sequence[tuple[Fraction, int]]
"""Pairs (load, price), both ascending: a replica costs the price at the largest of these loads up to its own, or nothing."""


@dataclass(frozen=True)
class Branch:
    """Two cases that cover all placements, each with its refutation.

    Parameters
    ----------
    expert, count : int
    below : Proof
        Refutes placements with at most ``count`` replicas of the expert.
    above : Proof
        Refutes those with more.
    """

    expert: int
    count: int
    below: Proof
    above: Proof


Proof = Prices | Branch

SAFE_BITS = 61  # sums of few such numbers stay within int64
UNIT_BITS = 30  # loads are rounded to so many binary places more than the prices need, where int64 has the room
MAX_PAIRS = 1 << 23
MAX_LARGE_PAIRS = 1 << 18  # of numbers beyond int64
MAX_PRICES = 1 << 12
MAX_DEPTH = 200
MAX_PRICE = 1 << 256
MAX_BITS = 1 << 14
"""Digits, in base 2, of the common denominator of the loads of some prices."""
MAX_WORK = 1 << 34
"""Pairs of steps of the prices of all cases, each times the words that the common denominator takes."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class CountRanges:
    """The least and the largest count that every expert can have.

    Parameters
    ----------
    least, most : ndarray
        int64 [experts].
    """

    least: np.ndarray
    most: np.ndarray

    def narrowed(self, num_slots: int) -> CountRanges | None:
        """Return what the slots leave of the ranges; None if nothing."""
        least, most = self.least, self.most
        while True:
            spare, missing = num_slots - int(least.sum()), int(most.sum()) - num_slots
            if spare < 0 or missing < 0 or (least > most).any():
                return None
            lifted, lowered = np.maximum(least, most - missing), np.minimum(most, least + spare)
            if (lifted == least).all() and (lowered == most).all():
                return CountRanges(least, most)
            least, most = lifted, lowered

    def divided(self, expert: int, count: int) -> tuple[CountRanges, CountRanges]:
        """Return the ranges with at most ``count`` replicas of the expert, and with more."""
        most, least = self.most.copy(), self.least.copy()
        most[expert] = min(most[expert], count)
        least[expert] = max(least[expert], count + 1)
        return CountRanges(self.least, most), CountRanges(least, self.most)

    def types(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return expert and count of every possible replica, experts and counts ascending, and the first one of every expert."""
        widths = self.most - self.least + 1
        starts = np.cumsum(widths) - widths
        expert = np.repeat(np.arange(widths.size), widths)
        return expert, np.arange(expert.size) - starts[expert] + self.least[expert], starts


def counts_within(instance: Instance, threshold: Fraction) -> CountRanges | None:
    """Return the counts that experts can have within a threshold; None if the slots alone exclude a placement.

    A replica shares its GPU with companions of at least ``s`` (:func:`eplb_gap.problem.bounds.bounds.companion_load_at`), so
    expert e needs ``ceil(w_e / (T - s))`` replicas, and all experts share the slots that those minimum counts leave.
    """
    companions = companion_load_at(instance, threshold)
    if companions is None:
        return None
    largest = threshold - companions
    if largest < 0 or (largest == 0 and instance.total > 0):
        return None
    least = np.array([max(1, math.ceil(w / largest)) if w else 1 for w in instance.loads])
    return CountRanges(least, np.full(instance.num_experts, instance.max_count)).narrowed(instance.num_slots)


def pattern_refutes(instance: Instance, threshold: Fraction, proof: Proof) -> bool:
    """Return whether a proof shows that every placement has a makespan above the threshold.

    It is exact arithmetic and needs no solver; the module's text proves it. Where counting slots alone shows that there is no
    placement, or where no k replicas fit a GPU, any prices do.

    Parameters
    ----------
    instance : Instance
        With three or four slots per GPU.
    threshold : Fraction
    proof : sequence of (Fraction, int), or Branch
        Loads at which the price rises, ascending, and the integer prices from there on, nonnegative and never falling.

    Raises
    ------
    InputError
        If a GPU has not three or four slots or the proof is not as described.
    """
    _check_slots(instance)
    _check_proof(instance, proof)
    return _refutes(instance, threshold, proof, counts_within(instance, threshold))


def prices_refute(instance: Instance, threshold: Fraction, prices: Prices, ranges: CountRanges) -> bool:
    """Return whether prices exclude placements within the threshold whose counts are in given ranges."""
    expert, count, starts = ranges.types()
    common = math.lcm(*(load.denominator for load, _ in prices))
    largest = max(max(instance.loads), math.ceil(threshold), *(math.ceil(load) for load, _ in prices), 1)
    scale = common << max(0, min(UNIT_BITS, SAFE_BITS - (4 * largest * common).bit_length()))
    dtype = _dtype(4 * largest * scale)
    # A replica reaches a step, whose load is a multiple of 1 / scale, exactly when its rounded load does.
    loads = np.array([w * scale for w in instance.loads], dtype=dtype)[expert] // count.astype(dtype)
    step = np.searchsorted(np.array([int(load * scale) for load, _ in prices], dtype=dtype), loads, side="right")
    values = [0, *(price for _, price in prices)]
    levels: np.ndarray = np.array(values, dtype=_dtype(4 * values[-1] * instance.num_slots * instance.num_experts))
    worth = int(np.minimum.reduceat(count.astype(levels.dtype) * levels[step], starts).sum())
    order = np.argsort(loads, kind="stable")
    smallest = order[np.flatnonzero(np.diff(step[order], prepend=-1))]
    dearest = _dearest(loads[smallest], levels[step[smallest]], math.floor(threshold * scale), instance.slots_per_gpu)
    return dearest is None or worth > instance.num_gpus * dearest


def previous_pattern_load(instance: Instance, value: Fraction) -> Fraction | None:
    """Return the largest load below ``value`` that any k replicas could have, or None if there is none.

    The replicas are those of all counts that :func:`counts_within` leaves at ``value``: every makespan below ``value`` is
    among the loads considered.

    Raises
    ------
    InputError
        If a GPU has not three or four slots, or there are more than 2**23 pairs of replicas (2**18 where int64 is too small).
    """
    _check_slots(instance)
    ranges = counts_within(instance, value)
    if ranges is None:
        return None
    expert, count, _ = ranges.types()
    multiple = math.lcm(*(int(c) for c in np.unique(count)))
    dtype = _dtype(4 * max(max(instance.loads), math.ceil(value)) * multiple)
    if expert.size * (expert.size + 1) // 2 > (MAX_PAIRS if dtype is np.int64 else MAX_LARGE_PAIRS):
        raise InputError(f"pattern dual: the makespan is among the sums of {expert.size} replicas, too many to enumerate")
    loads = np.unique(np.array([w * multiple for w in instance.loads], dtype=dtype)[expert] // count.astype(dtype))
    found = _dearest(loads, loads, math.ceil(value * multiple) - 1, instance.slots_per_gpu)
    return None if found is None else Fraction(found, multiple)


def pattern_witness(threshold: Fraction, proof: Proof, optimum: Fraction | None = None) -> dict[str, Any]:
    """Return the witness of :func:`pattern_value` as JSON-serialisable data.

    Parameters
    ----------
    threshold : Fraction
        Refuted by the proof.
    proof : sequence of (Fraction, int), or Branch
    optimum : Fraction, optional
        A larger value such that no k replicas have a load between the threshold and it.
    """
    witness = {"threshold": str(threshold), "proof": _as_data(proof)}
    return witness if optimum is None else {**witness, "next": str(optimum)}


def pattern_value(instance: Instance, witness: Mapping[str, Any]) -> Fraction:
    """Return the bound on the makespan that a witness proves.

    It is the refuted threshold; or the value given as "next", if no k replicas have a load strictly between the two.

    Raises
    ------
    InputError
        If the witness is malformed or does not prove its bound.
    """
    fields(witness, "the witness of the pattern dual bound", ("threshold", "proof"), ("next",))
    threshold = parse(witness["threshold"], "pattern dual: threshold")
    proof = _from_data(witness["proof"], 0)
    value = parse(witness["next"], "pattern dual: next") if "next" in witness else threshold
    if "next" in witness and value <= threshold:
        raise InputError(f"pattern dual: next is {value}; a value above the threshold {threshold} is needed")
    _check_work(proof)
    if not pattern_refutes(instance, threshold, proof):
        raise InputError(f"pattern dual: the prices do not prove that no placement has a makespan of at most {threshold}")
    if value > threshold:
        previous = previous_pattern_load(instance, value)
        if previous is not None and previous > threshold:
            raise InputError(f"pattern dual: a makespan of {previous} is not excluded, so the bound is not {value}")
    return value


def _check_work(proof: Proof) -> None:
    """Refuse a proof whose prices would take too long to check."""
    work, stack = 0, [proof]
    while stack:
        case = stack.pop()
        if isinstance(case, Branch):
            stack += [case.below, case.above]
            continue
        common = 1
        for load, _ in case:
            common = math.lcm(common, load.denominator)
            if common.bit_length() > MAX_BITS:
                raise InputError(f"pattern dual: the loads have a common denominator of more than {MAX_BITS} digits in base 2")
        work += (1 + len(case)) ** 2 * (1 + common.bit_length() // SAFE_BITS)
        if work > MAX_WORK:
            raise InputError(f"pattern dual: the prices of all cases take more than {MAX_WORK} pairs of replicas")


def _refutes(instance: Instance, threshold: Fraction, proof: Proof, ranges: CountRanges | None) -> bool:
    if ranges is None:
        return True
    if not isinstance(proof, Branch):
        return prices_refute(instance, threshold, proof, ranges)
    return all(
        _refutes(instance, threshold, case, part.narrowed(instance.num_slots))
        for case, part in zip((proof.below, proof.above), ranges.divided(proof.expert, proof.count), strict=True)
    )


def _as_data(proof: Proof) -> Any:
    if isinstance(proof, Branch):
        return {
            "expert": proof.expert,
            "count": proof.count,
            "below": _as_data(proof.below),
            "above": _as_data(proof.above),
        }
    return [[str(load), price] for load, price in proof]


def _from_data(data: Any, depth: int) -> Proof:
    if depth > MAX_DEPTH:
        raise InputError(f"pattern dual: branches are nested more than {MAX_DEPTH} deep")
    if isinstance(data, dict):
        fields(data, "pattern dual: a branch", ("expert", "count", "below", "above"))
        return Branch(data["expert"], data["count"], _from_data(data["below"], depth + 1), _from_data(data["above"], depth + 1))
    if not isinstance(data, list):
        raise InputError(f"pattern dual: proof is {shown(data)}; prices or a branch are needed")
    for number, entry in enumerate(data):
        if not isinstance(entry, list) or len(entry) != 2:
            raise InputError(f"pattern dual: price {number} is {shown(entry)}; a load and a price are needed")
    return [(parse(load, "pattern dual: a load"), price) for load, price in data]


def _dtype(largest: int) -> type:
    return np.int64 if largest.bit_length() <= SAFE_BITS else object


def _check_slots(instance: Instance) -> None:
    if instance.slots_per_gpu not in (3, 4):
        raise InputError(f"a GPU has {instance.slots_per_gpu} slots; the pattern bound needs 3 or 4")


def _check_proof(instance: Instance, proof: Proof) -> None:
    if not isinstance(proof, Branch):
        _check_prices(proof)
        return
    whole = all(type(number) is int for number in (proof.expert, proof.count))
    if not whole or not 0 <= proof.expert < instance.num_experts or not 1 <= proof.count < instance.num_slots:
        raise InputError(
            f"pattern dual: a branch on expert {shown(proof.expert)} and count {shown(proof.count)}; "
            f"there are {instance.num_experts} experts and {instance.num_slots} slots"
        )
    _check_proof(instance, proof.below)
    _check_proof(instance, proof.above)


def _check_prices(prices: Prices) -> None:
    if not 1 <= len(prices) <= MAX_PRICES:
        raise InputError(f"pattern dual: {len(prices)} prices found; 1 to {MAX_PRICES} are allowed")
    for _, price in prices:
        if not isinstance(price, int) or isinstance(price, bool) or not 0 <= price <= MAX_PRICE:
            raise InputError(f"pattern dual: price {shown(price)} found; an integer from 0 to {MAX_PRICE} is needed")
    for (load, price), (larger, dearer) in itertools.pairwise(prices):
        if larger <= load:
            raise InputError(f"pattern dual: load {larger} follows {load}; they must ascend")
        if dearer < price:
            raise InputError(f"pattern dual: price {dearer} follows {price}; they must not fall")


def _dearest(loads: np.ndarray, prices: np.ndarray, limit: int, k: int) -> int | None:
    """Return the largest price of k items, each taken any number of times, whose loads sum to at most the limit, or None.

    Loads and prices ascend. With two items given the best third is the largest that fits; with four items, the best partner
    of a pair is the dearest pair among those that fit.
    """
    best: int | None = None
    partners, worths = loads, prices
    if k == 4:
        pairs = list(_pairs(loads, prices))
        partners, worths = np.concatenate([pair for pair, _ in pairs]), np.concatenate([worth for _, worth in pairs])
        order = np.argsort(partners, kind="stable")
        partners, worths = partners[order], np.maximum.accumulate(worths[order])
    for sums, values in _pairs(loads, prices):
        fitting = np.searchsorted(partners, limit - sums, side="right")
        inside = np.flatnonzero(fitting)
        if inside.size:
            value = int((values[inside] + worths[fitting[inside] - 1]).max())
            best = value if best is None else max(best, value)
    return best


def _pairs(loads: np.ndarray, prices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield loads and prices of all pairs of items, also of an item with itself, some rows at a time."""
    rows = max(1, CHUNK // loads.size)
    for start in range(0, loads.size, rows):
        own = slice(start, start + rows)
        keep = np.arange(loads.size)[None, :] >= np.arange(loads.size)[own, None]
        yield np.add.outer(loads[own], loads)[keep], np.add.outer(prices[own], prices)[keep]
