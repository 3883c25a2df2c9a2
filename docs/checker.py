"""A checker of certificates written from their description alone: plain Python, fractions and nothing of eplb-gap.

It judges maps and the bounds of kind mean, capacity, apportionment, slot counting, forced counts, pairing dual, pattern dual and
hierarchical. A pairing tree and a replayed search are long case distinctions: it says that it leaves them to ``eplb-gap verify``.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from fractions import Fraction
from pathlib import Path


class Refused(Exception):
    """Something in the certificate does not hold."""


class LeftOut(Exception):
    """The kind of a bound that is not judged here."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


def up(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


class Flat:
    """One node: loads, GPUs by slots, and how many replicas an expert may have."""

    def __init__(self, loads, slots, forbidden):
        self.w, self.k, self.forbidden = loads, slots, forbidden
        self.E, self.S, self.G, self.W = len(loads), sum(slots), len(slots), sum(loads)
        self.m = min(self.S - self.E + 1, self.G if forbidden else self.S)

    def least_slots(self, r):
        """Replica counts so that no replica is above r, summed; None if one expert may not have so many."""
        counts = [max(1, up(Fraction(w) / r)) if w else 1 for w in self.w]
        return None if max(counts) > self.m else sum(counts)

    def apportionment(self):
        """The smallest largest replica: a quotient w / c."""
        values = sorted({Fraction(w, c) for w in self.w if w for c in range(1, self.m + 1)})
        low, high = 0, len(values) - 1
        while low < high:
            middle = (low + high) // 2
            total = self.least_slots(values[middle])
            low, high = (low, middle) if total is not None and total <= self.S else (middle + 1, high)
        return values[low] if values else Fraction(0)

    def limits(self, T):
        """Least and most replicas of every expert within T, and the load beside any replica; None: there is no placement."""
        s = Fraction(0)
        while True:
            least = [1] * self.E
            if T is not None:
                if T - s < 0 or (s == T and self.W):
                    return None
                least = [max(1, up(w / (T - s))) if w else 1 for w in map(Fraction, self.w)]
            spare = self.S - sum(least)
            if spare < 0 or max(least) > self.m:
                return None
            most = [min(c + spare, self.m) for c in least]
            missing = sum(most) - self.S
            least = [max(low, high - missing) for low, high in zip(least, most, strict=True)]
            copies = [(Fraction(w, c), 1 if self.forbidden else c) for w, c in zip(self.w, most, strict=True)]
            pool = sorted(v for v, times in copies for _ in range(min(times, min(self.k) - 1)))
            beside = sum(pool[: min(self.k) - 1], Fraction(0))
            if T is None or beside <= s:
                return least, most, max(beside, s)
            s = beside


def capacity(flat, _):
    best, slots, top = Fraction(flat.W, flat.G), 0, sorted(flat.w, reverse=True)
    for j, more in enumerate(sorted(flat.k)[:-1], 1):
        slots += more
        best = max(best, Fraction(flat.W - sum(top[:slots]), flat.G - j))
    return best


def slot_counting(flat, witness):
    low, high = Fraction(witness["refuted"]), Fraction(witness["above"])
    found = flat.limits(high)
    need(flat.limits(low) is None and found is not None, "slot counting: refuted is not refuted, or above is")
    return max(low, min(high, flat.apportionment() + found[2]))


def forced(flat, witness):
    T = Fraction(witness["threshold"]) if "threshold" in witness else None
    found = flat.limits(T)
    need(found is not None and found[0] == found[1] and len(set(flat.k)) == 1, "forced counts: counts are not forced")
    sizes = sorted((Fraction(w, c) for w, c in zip(flat.w, found[0], strict=True) for _ in range(c)), reverse=True)
    n, k, best = len(sizes), flat.k[0], Fraction(0)
    sums = [Fraction(0), *itertools.accumulate(sizes)]
    for gpus in range(1, flat.G + 1):
        for h in range(1, n + 1):
            held = gpus * (h // flat.G) + min(gpus, h % flat.G)
            rest = gpus * k - held
            load = sums[h] - sums[h - held] + sums[n] - sums[n - rest] if rest <= n - h else sums[n] - sums[n - gpus * k]
            best = max(best, load / gpus)
    return best if T is None else min(best, T)


def pairing_dual(flat, witness):
    T = Fraction(witness["threshold"])
    steps = [(Fraction(b), Fraction(f)) for b, f in witness["multipliers"]]
    need(set(flat.k) == {2}, "pairing dual: two slots per GPU are needed")
    need(all(b > T / 2 and f >= 0 for b, f in steps), "pairing dual: a breakpoint or a multiplier")
    need(all(a > b and f >= g for (a, f), (b, g) in itertools.pairwise(steps)), "pairing dual: order")

    def price(x):
        return next((f for b, f in steps if b <= x), Fraction(0))

    found, total = flat.limits(T), Fraction(0)
    if found is not None:
        spare = flat.S - sum(max(1, up(Fraction(w) / (T - found[2]))) if w else 1 for w in flat.w)
        for w in map(Fraction, flat.w):
            first = max(1, up(w / (T - found[2]))) if w else 1
            costs = []
            for c in range(first, min(first + spare, flat.m) + 1):
                small = w / c <= T / 2
                costs.append(c * (1 - price(T - w / c)) if small else c * (1 + price(w / c)))
            total += min(costs)
        need(total > flat.S, "pairing dual: the threshold is not refuted")
    loads = sorted({Fraction(w, c) for w in flat.w for c in range(1, flat.m + 1)})
    best = None
    high = len(loads) - 1
    for v in loads:  # the smallest sum above T
        while high >= 0 and v + loads[high] > T:
            high -= 1
        if high + 1 < len(loads):
            best = v + loads[high + 1] if best is None else min(best, v + loads[high + 1])
    return best


def narrowed(least, most, S):
    """Counts that the slots leave; None if nothing."""
    while True:
        spare, missing = S - sum(least), sum(most) - S
        if spare < 0 or missing < 0 or any(a > b for a, b in zip(least, most, strict=True)):
            return None
        lifted = [max(a, b - missing) for a, b in zip(least, most, strict=True)]
        lowered = [min(b, a + spare) for a, b in zip(least, most, strict=True)]
        if (lifted, lowered) == (least, most):
            return least, most
        least, most = lifted, lowered


def dearest(items, T, k):
    """The largest price of k items, with repetition, within T: items are the smallest load of every price."""
    best = None
    for first in itertools.combinations_with_replacement(items, k - 1):
        left = T - sum(v for v, _ in first)
        last = max((p for v, p in items if v <= left), default=None)
        if last is not None:
            total = last + sum(p for _, p in first)
            best = total if best is None else max(best, total)
    return best


def pattern_dual(flat, witness):
    T = Fraction(witness["threshold"])
    k = flat.k[0]
    need(set(flat.k) <= {3} or set(flat.k) <= {4}, "pattern dual: three or four slots per GPU are needed")

    def refuted(proof, ranges):
        if ranges is None:
            return True
        least, most = ranges
        if isinstance(proof, dict):
            e, c = proof["expert"], proof["count"]
            below = narrowed(least, [min(b, c) if i == e else b for i, b in enumerate(most)], flat.S)
            above = narrowed([max(a, c + 1) if i == e else a for i, a in enumerate(least)], most, flat.S)
            return refuted(proof["below"], below) and refuted(proof["above"], above)
        steps = [(Fraction(v), p) for v, p in proof]
        need(all(v < u and p <= q for (v, p), (u, q) in itertools.pairwise(steps)), "pattern dual: prices fall")
        need(all(type(p) is int and p >= 0 for _, p in steps), "pattern dual: a price")

        def price(x):
            return next((p for v, p in reversed(steps) if v <= x), 0)

        worth, cheapest = 0, {}
        for w, a, b in zip(map(Fraction, flat.w), least, most, strict=True):
            worth += min(c * price(w / c) for c in range(a, b + 1))
            for c in range(a, b + 1):
                p = price(w / c)
                cheapest[p] = min(cheapest.get(p, w / c), w / c)
        top = dearest([(v, p) for p, v in cheapest.items()], T, k)
        return top is None or worth > flat.G * top

    def ranges(T):
        found = flat.limits(T)
        if found is None:
            return None
        least = [max(1, up(Fraction(w) / (T - found[2]))) if w else 1 for w in flat.w]
        return narrowed(least, [flat.m] * flat.E, flat.S)

    need(refuted(witness["proof"], ranges(T)), "pattern dual: the threshold is not refuted")
    if "next" not in witness:
        return T
    value = Fraction(witness["next"])
    found = ranges(value)
    if found is not None:  # no k replicas weigh more than T and less than the value
        loads = sorted({Fraction(w, c) for w, a, b in zip(flat.w, *found, strict=True) for c in range(a, b + 1)})
        for first in itertools.combinations_with_replacement(loads, k - 1):
            part = sum(first)
            need(not any(T < part + v < value for v in loads), "pattern dual: a load between threshold and next")
    return value


KINDS = {
    "mean": lambda flat, _: Fraction(flat.W, flat.G),
    "capacity": capacity,
    "apportionment": lambda flat, _: flat.apportionment(),
    "slot counting": slot_counting,
    "forced counts": forced,
    "pairing dual": pairing_dual,
    "pattern dual": pattern_dual,
}


def rounded(flat, value, lower):
    """Whether a bound may be rounded up to another: no makespan lies from the one to below the other."""
    found = flat.limits(lower)
    most = found[1] if found else [flat.m] * flat.E
    unit = math.lcm(*(c for high in set(most) for c in range(1, high + 1)))
    step = math.gcd(*(w * unit // c for w, high in zip(flat.w, most, strict=True) for c in range(1, high + 1)))
    return step > 0 and lower <= Fraction(-(-(value * unit).numerator // ((value * unit).denominator * step)) * step, unit)


def judge_flat(flat, kind, witness, lower):
    if kind not in KINDS:
        raise LeftOut(kind)
    proven = KINDS[kind](flat, witness)
    need(proven >= lower or rounded(flat, proven, lower), f"{kind}: {lower} is said, {proven} is proven")


def judge_nodes(layer, w, shape, slots, forbidden, lower):
    nodes, groups, E = shape["num_nodes"], shape["num_groups"], len(w)
    size, each = E // groups, groups // nodes
    parts = [w[g * size : (g + 1) * size] for g in range(groups)]
    strong = set()
    for node in layer["witness"]["nodes"]:
        need(Fraction(node["value"]) >= lower, "hierarchical: a node below the bound")
        flat = Flat([v for g in node["groups"] for v in parts[g]], slots, forbidden)
        judge_flat(flat, node["kind"], node["witness"], Fraction(node["value"]))
        strong.add(tuple(node["groups"]))
    weak = set()
    for chosen in itertools.combinations(range(groups), each):
        flat = Flat([v for g in chosen for v in parts[g]], slots, forbidden)
        if chosen not in strong and Fraction(flat.W, flat.G) < lower:
            counts = [int(v // lower) + 1 for v in flat.w] if lower else [1]  # every replica below the bound
            if sum(counts) <= flat.S and max(counts) <= flat.m:
                weak.add(chosen)

    def covers(free):
        if not free:
            return True
        first = min(free)
        return any(first in one and set(one) <= free and covers(free - set(one)) for one in weak)

    need(lower == 0 or not covers(frozenset(range(groups))), "hierarchical: a partition has all its nodes below the bound")


def judge(path):
    """Return how many layers were judged, and the kinds that were left out; raise Refused where something does not hold."""
    document = json.loads(Path(path).read_text())
    shape, maps = document["deployment"], document["phy2log"]
    E, S, G = shape["num_experts"], shape["num_slots"], shape["num_gpus"]
    active = shape.get("active") or [True] * G
    of_gpu = shape.get("slots_per_gpu") or [S // G] * G
    forbidden = shape["duplicates"] == "forbidden"
    over_nodes = shape["num_nodes"] > 1 and shape["num_groups"] % shape["num_nodes"] == 0
    judged, left = 0, []
    for w, slots, layer in zip(document["loads"], maps, document["layers"], strict=True):
        counts, gpus, at = [0] * E, [], 0
        for width, alive in zip(of_gpu, active, strict=True):
            gpus.append(slots[at : at + width] if alive else [])
            at += width
        for held in gpus:
            need(not forbidden or len(set(held)) == len(held), "duplicates")
            for e in held:
                counts[e] += 1
        need(min(counts) >= 1, "an expert without a replica")
        if over_nodes:
            per, size = G // shape["num_nodes"], E // shape["num_groups"]
            home = [{g // per for g, held in enumerate(gpus) if e in held} for e in range(E)]
            groups = [set().union(*home[i : i + size]) for i in range(0, E, size)]
            need(all(len(of) == 1 for of in groups), "a group on two nodes")
        upper, lower = Fraction(layer["upper"]), Fraction(layer["lower"])
        need(max(sum(Fraction(w[e], counts[e]) for e in held) for held in gpus) == upper, "upper is not the makespan")
        need(lower <= upper, "lower is above upper")
        try:
            if layer["proof"] == "hierarchical":
                node = [S // shape["num_nodes"] // (G // shape["num_nodes"])] * (G // shape["num_nodes"])
                judge_nodes(layer, w, shape, node, forbidden, lower)
            else:
                flat = Flat(w, [width for width, alive in zip(of_gpu, active, strict=True) if alive], forbidden)
                judge_flat(flat, layer["proof"], layer["witness"], lower)
            judged += 1
        except LeftOut as kind:
            left.append(str(kind))
    return judged, left


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, *judge(name))
