"""A checker of certificates written from their description alone: plain Python, fractions and nothing of eplb-gap.

It judges maps and the bounds of kind mean, capacity, apportionment, slot counting, forced counts, pairing dual, pattern dual and
hierarchical. A pairing tree and a replayed search are long case distinctions: it says that it leaves them to ``eplb-gap verify``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path


class Refused(Exception):
    """Something in the certificate does not hold."""


class LeftOut(Exception):
    """The kind of a bound that is not judged here."""


WITNESS = {
    "mean": "",
    "capacity": "",
    "apportionment": "counts?",
    "slot counting": "refuted above",
    "forced counts": "threshold?",
    "pairing dual": "threshold multipliers",
    "pairing tree": "threshold nodes tree",
    "pattern dual": "threshold proof next?",
    "replayed search": "threshold nodes log",
    "hierarchical": "nodes",
}
"""The keys of a witness by its kind; those with a question mark may be left out."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise Refused(what)


def up(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def fields(said, names: str):
    """An object with these keys, those with a question mark if they are there, and no others."""
    known = names.split()
    need(isinstance(said, dict), f"an object with {names} is needed")
    need(said.keys() <= {name.strip("?") for name in known}, f"a key that is not among {names}")
    need(all(name in said for name in known if not name.endswith("?")), f"a key of {names} is missing")
    return said


def exact(text) -> Fraction:
    found = re.fullmatch(r"(0|[1-9][0-9]*)(?:/([1-9][0-9]*))?", text) if isinstance(text, str) and len(text) <= 2000 else None
    need(found is not None, f"no fraction: {text!r}")
    value = Fraction(int(found[1]), int(found[2] or 1))
    need(value.denominator == int(found[2] or 1), f"not in lowest terms: {text}")
    return value


def integers(said, count, end) -> list[int]:
    need(isinstance(said, list) and len(said) == count, f"a list of {count} integers is needed")
    need(all(type(value) is int and 0 <= value < end for value in said), f"integers from 0 to {end - 1} are needed")
    return said


def pairs(said) -> list:
    need(isinstance(said, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in said), "pairs are needed")
    return said


def once(items):
    need(len(dict(items)) == len(items), "a key twice")
    return dict(items)


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
    low, high = exact(witness["refuted"]), exact(witness["above"])
    found = flat.limits(high)
    need(flat.limits(low) is None and found is not None, "slot counting: refuted is not refuted, or above is")
    return max(low, min(high, flat.apportionment() + found[2]))


def forced(flat, witness):
    T = exact(witness["threshold"]) if "threshold" in witness else None
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
    T = exact(witness["threshold"])
    steps = [(exact(b), exact(f)) for b, f in pairs(witness["multipliers"])]
    need(set(flat.k) == {2}, "pairing dual: two slots per GPU are needed")
    need(all(b > T / 2 for b, _ in steps), "pairing dual: a breakpoint")
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
    T, k = exact(witness["threshold"]), flat.k[0]
    need(set(flat.k) <= {3} or set(flat.k) <= {4}, "pattern dual: three or four slots per GPU are needed")

    def refuted(proof, ranges):
        if ranges is None:
            return True
        least, most = ranges
        if isinstance(proof, dict):
            fields(proof, "expert count below above")
            e, c = integers([proof["expert"]], 1, flat.E)[0], integers([proof["count"]], 1, 1 << 63)[0]
            below = narrowed(least, [min(b, c) if i == e else b for i, b in enumerate(most)], flat.S)
            above = narrowed([max(a, c + 1) if i == e else a for i, a in enumerate(least)], most, flat.S)
            return refuted(proof["below"], below) and refuted(proof["above"], above)
        steps = [(exact(v), p) for v, p in pairs(proof)]
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
    value = exact(witness["next"])
    need(value > T, "pattern dual: next is not above the threshold")
    found = ranges(value)
    if found is not None:  # no k replicas weigh more than T and less than the value
        loads = sorted({Fraction(w, c) for w, a, b in zip(flat.w, *found, strict=True) for c in range(a, b + 1)})
        for first in itertools.combinations_with_replacement(loads, k - 1):
            part = sum(first)
            need(not any(T < part + v < value for v in loads), "pattern dual: a load between threshold and next")
    return value


def apportionment(flat, witness):
    value = flat.apportionment()
    if "counts" in witness:
        counts = integers(witness["counts"], flat.E, flat.m + 1)
        need(min(counts) >= 1 and sum(counts) == flat.S, "apportionment: counts")
        need(max(Fraction(w, c) for w, c in zip(flat.w, counts, strict=True)) == value, "apportionment: counts are not the best")
    return value


KINDS = {
    "mean": lambda flat, _: Fraction(flat.W, flat.G),
    "capacity": capacity,
    "apportionment": apportionment,
    "slot counting": slot_counting,
    "forced counts": forced,
    "pairing dual": pairing_dual,
    "pattern dual": pattern_dual,
}


def rounded(flat, value, lower):
    """Whether a bound may be rounded up to another: no makespan lies from the one to below the other."""
    least, most, _ = flat.limits(lower) or ([1] * flat.E, [flat.m] * flat.E, 0)
    counts = [range(low, high + 1) for low, high in zip(least, most, strict=True)]
    unit = math.lcm(*(c for some in set(counts) for c in some))
    step = math.gcd(*(w * unit // c for w, some in zip(flat.w, counts, strict=True) for c in some))
    return step > 0 and lower <= Fraction(up(value * unit / step) * step, unit)


def judge_flat(flat, kind, witness, lower):
    need(isinstance(kind, str), "a kind")
    if kind in WITNESS:
        fields(witness, WITNESS[kind])
    if kind not in KINDS:
        raise LeftOut(kind)
    proven = KINDS[kind](flat, witness)
    need(proven >= lower or rounded(flat, proven, lower), f"{kind}: {lower} is said, {proven} is proven")


def judge_nodes(layer, w, shape, slots, forbidden, lower):
    nodes, groups, E = shape["num_nodes"], shape["num_groups"], len(w)
    size, each = E // groups, groups // nodes
    parts = [w[g * size : (g + 1) * size] for g in range(groups)]
    strong = set()
    said = fields(layer["witness"], WITNESS["hierarchical"])["nodes"]
    need(isinstance(said, list), "hierarchical: a list of nodes is needed")
    for node in said:
        chosen = tuple(integers(fields(node, "groups value kind witness")["groups"], each, groups))
        need(chosen not in strong and sorted(set(chosen)) == list(chosen), "hierarchical: groups ascend, and are listed once")
        need(exact(node["value"]) >= lower, "hierarchical: a node below the bound")
        need(node["kind"] != "hierarchical", "hierarchical: nodes have none")
        judge_flat(
            Flat([v for g in chosen for v in parts[g]], slots, forbidden), node["kind"], node["witness"], exact(node["value"])
        )
        strong.add(chosen)
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


def shaped(said):
    """Return the numbers of a deployment, the slots of every GPU and which of them are alive."""
    shape = fields(said, "num_experts num_slots num_gpus num_nodes num_groups duplicates slots_per_gpu? active?")
    E, S, G, N, groups = (shape[f"num_{what}"] for what in ("experts", "slots", "gpus", "nodes", "groups"))
    need(all(type(value) is int and value >= 1 for value in (E, S, G, N, groups)), "deployment: positive integers are needed")
    need(shape["duplicates"] in ("allowed", "forbidden") and E % groups == 0 and G % N == 0, "deployment")
    need(("slots_per_gpu" in shape) == ("active" in shape), "deployment: slots_per_gpu and active are given together")
    if "active" not in shape:
        need(S % G == 0, "deployment: GPUs have equally many slots")
        return shape, [S // G] * G, [True] * G
    active = shape["active"]
    of_gpu = integers(shape["slots_per_gpu"], G, S + 1)
    need(isinstance(active, list) and len(active) == G and all(type(alive) is bool for alive in active), "deployment: active")
    need(sum(of_gpu) == S and min(of_gpu) >= 1 and any(active), "deployment: slots")
    need(len(set(of_gpu)) > 1 or not all(active), "deployment: the GPUs are alike and alive")
    return shape, of_gpu, active


def judge(path):
    """Return how many layers were judged, and the kinds that were left out; raise Refused where something does not hold."""
    try:
        document = json.loads(Path(path).read_bytes().decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Refused("no JSON") from error
    fields(document, "schema deployment loads loads_sha256 phy2log layers")
    need(document["schema"] == "eplb-gap certificate 1", "schema")
    shape, of_gpu, active = shaped(document["deployment"])
    E, S, G, nodes = shape["num_experts"], shape["num_slots"], shape["num_gpus"], shape["num_nodes"]
    loads, maps, layers = document["loads"], document["phy2log"], document["layers"]
    need(all(isinstance(rows, list) and rows for rows in (loads, maps, layers)), "lists of layers are needed")
    need(len(loads) == len(maps) == len(layers), "loads, maps and bounds of the same layers are needed")
    digest = hashlib.sha256()
    for row in loads:
        digest.update(struct.pack(f"<{E}q", *integers(row, E, 1 << 63)))
    need(document["loads_sha256"] == digest.hexdigest(), "loads_sha256")
    forbidden, over_nodes = shape["duplicates"] == "forbidden", nodes > 1 and shape["num_groups"] % nodes == 0
    need(not over_nodes or S % nodes == 0, "deployment: nodes have equally many slots")
    judged, left = 0, []
    for w, slots, layer in zip(loads, maps, layers, strict=True):
        fields(layer, "upper lower proof witness")
        integers(slots, S, E)
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
            per, size = G // nodes, E // shape["num_groups"]
            home = [{g // per for g, held in enumerate(gpus) if e in held} for e in range(E)]
            groups = [set().union(*home[i : i + size]) for i in range(0, E, size)]
            need(all(len(of) == 1 for of in groups), "a group on two nodes")
            hosts = [min(of) for of in groups]
            need(all(hosts.count(node) == len(groups) // nodes for node in range(nodes)), "a node hosts too many groups")
        upper, lower = exact(layer["upper"]), exact(layer["lower"])
        need(max(sum(Fraction(w[e], counts[e]) for e in held) for held in gpus) == upper, "upper is not the makespan")
        need(lower <= upper, "lower is above upper")
        try:
            if layer["proof"] == "hierarchical":
                need(over_nodes, "hierarchical: the deployment has no nodes that hold groups")
                node = [S // G] * (G // nodes)
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
