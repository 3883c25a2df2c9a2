"""The pattern certificate by hand, against brute force, and against tampering."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import pytest

from eplb_gap.problem.bounds import pattern_dual
from eplb_gap.problem.bounds.pattern_dual import (
    Branch,
    Proof,
    counts_within,
    pattern_refutes,
    pattern_value,
    pattern_witness,
    previous_pattern_load,
)
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance

# Two experts of 8 and four of 2 on two GPUs without spare slots: the optimum puts an 8 and two 2s on each.
EVEN = Instance((8, 8, 2, 2, 2, 2), 6, 2)
# Three of 6 on two GPUs: two meet, and the third slot is a 1.
CROWDED = Instance((6, 6, 6, 1, 1, 1), 6, 2)
PRICES = [(Fraction(6), 1)]


def random_instance(rng: random.Random) -> Instance:
    """Return an instance with at most 8 slots on 1 or 2 GPUs."""
    gpus, k = rng.choice([(1, 3), (2, 3), (1, 4), (2, 4)])
    duplicates = rng.choice(["allowed", "forbidden"])
    experts = rng.randint(k, gpus * k)
    kinds = [lambda: rng.randint(1, 100), lambda: rng.choice([0, 1, 2]), lambda: rng.choice([1, 3, 60])]
    return Instance(tuple(rng.choice(kinds)() for _ in range(experts)), gpus * k, gpus, duplicates)


def optimum(instance: Instance) -> Fraction:
    """Return the optimum by enumerating all splits of all count vectors over at most two GPUs."""
    k = instance.slots_per_gpu
    best = None
    for extra in itertools.combinations_with_replacement(range(instance.num_experts), instance.num_slots - instance.num_experts):
        replicas = sorted([*range(instance.num_experts), *extra])
        for first in set(itertools.combinations(replicas, k)):
            rest = list(replicas)
            for expert in first:
                rest.remove(expert)
            if instance.duplicates == "forbidden" and (len(set(first)) < k or len(set(rest)) < len(rest)):
                continue
            value = instance.makespan([*first, *rest])
            best = value if best is None else min(best, value)
    assert best is not None
    return best


def test_by_hand() -> None:
    # Replicas of at least 6 cost 1: three must be placed, a GPU within 12.9 has room for one beside a 1, within 13 for two.
    assert pattern_refutes(CROWDED, Fraction(129, 10), PRICES)
    assert not pattern_refutes(CROWDED, Fraction(13), PRICES)
    assert pattern_value(CROWDED, pattern_witness(Fraction(129, 10), PRICES)) == Fraction(129, 10)
    assert pattern_value(CROWDED, pattern_witness(Fraction(129, 10), PRICES, Fraction(13))) == 13
    assert optimum(CROWDED) == 13


def test_nothing_fits() -> None:
    assert pattern_refutes(EVEN, Fraction(5), PRICES)
    assert pattern_refutes(EVEN, Fraction(-1), PRICES)
    assert not pattern_refutes(Instance((0,) * 6, 6, 2), Fraction(0), PRICES)
    assert pattern_refutes(Instance((0,) * 6, 6, 2), Fraction(-1), PRICES)


def test_no_prices_refute_the_optimum() -> None:
    rng = random.Random(1)
    refuted = 0
    for _ in range(80):
        instance = random_instance(rng)
        value = optimum(instance)
        for _ in range(15):
            sizes = sorted(
                {Fraction(w, rng.randint(1, 4)) for w in rng.sample(instance.loads, 2)} | {Fraction(rng.randint(0, 9))}
            )
            prices = list(zip(sizes, sorted(rng.choice([0, 1, 2, 3, 10**6]) for _ in sizes), strict=True))
            proof: Any = prices
            if rng.random() < 0.4:
                proof = Branch(rng.randrange(instance.num_experts), rng.randint(1, 2), prices, [(sizes[0], 1)])
            assert not pattern_refutes(instance, value, proof)
            assert not pattern_refutes(instance, value * Fraction(rng.randint(100, 200), 100), proof)
            refuted += pattern_refutes(instance, value * Fraction(rng.randint(50, 99), 100), proof)
    assert refuted > 50


def test_counts_within_holds_the_counts_of_every_optimum() -> None:
    rng = random.Random(2)
    for _ in range(60):
        instance = random_instance(rng)
        value = optimum(instance)
        ranges = counts_within(instance, value)
        assert ranges is not None
        possible = False
        spare = instance.num_slots - instance.num_experts
        for extra in itertools.combinations_with_replacement(range(instance.num_experts), spare):
            counts = [1 + extra.count(e) for e in range(instance.num_experts)]
            inside = all(low <= c <= high for low, c, high in zip(ranges.least, counts, ranges.most, strict=True))
            possible |= inside
        assert possible


def test_large_loads_and_prices_are_exact() -> None:
    unit = 10**25
    scaled = Instance(tuple(w * unit for w in CROWDED.loads), 6, 2)
    prices = [(Fraction(6 * unit), 10**30)]
    assert pattern_refutes(scaled, Fraction(13 * unit - 1), prices)
    assert not pattern_refutes(scaled, Fraction(13 * unit), prices)
    assert not pattern_refutes(scaled, Fraction(13 * unit - 1), [(Fraction(6 * unit) + 1, 10**30)])
    assert pattern_value(scaled, pattern_witness(Fraction(13 * unit - 1), prices, Fraction(13 * unit))) == 13 * unit


def test_previous_pattern_load() -> None:
    assert previous_pattern_load(CROWDED, Fraction(13)) == 8
    assert previous_pattern_load(CROWDED, Fraction(3)) is None
    four = Instance((9, 5, 3, 2, 1, 1, 1), 8, 2)
    value = Fraction(12)
    ranges = counts_within(four, value)
    assert ranges is not None
    sizes = [Fraction(w, c) for e, w in enumerate(four.loads) for c in range(ranges.least[e], ranges.most[e] + 1)]
    sums = {sum(items) for items in itertools.combinations_with_replacement(sizes, 4)}
    assert previous_pattern_load(four, value) == max(total for total in sums if total < value)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "13"},
        {"threshold": "nine"},
        {"threshold": None},
        {"threshold": "1/0"},
        {"next": "131/10"},
        {"next": "x"},
        {"proof": [["6", 0]]},
        {"proof": [["13/2", 1]]},
        {"proof": [["1", 1]]},
        {"proof": [["6", -1]]},
        {"proof": [["6", 1.0]]},
        {"proof": [["6", True]]},
        {"proof": [["6", "1"]]},
        {"proof": [["6", 2], ["7", 1]]},
        {"proof": [["6", 1], ["6", 2]]},
        {"proof": [["7", 1], ["6", 2]]},
        {"proof": []},
        {"proof": 3},
        {"proof": {"expert": 0}},
        {"proof": {"expert": 6, "count": 1, "below": [["6", 1]], "above": [["6", 1]]}},
        {"proof": {"expert": "0", "count": 1, "below": [["6", 1]], "above": [["6", 1]]}},
        {"proof": {"expert": 0, "count": 0, "below": [["6", 1]], "above": [["6", 1]]}},
        {"proof": {"expert": 0, "count": 1, "below": [["6", 0]], "above": [["6", 1]]}},
        {"proof": {"expert": False, "count": 1, "below": [["6", 1]], "above": [["6", 1]]}},
        {"proof": {"expert": 0, "count": 1, "below": [["6", 1]], "above": [["6", 1]], "more": 1}},
        {"proof": ["61"]},
        {"proof": [["6", 1 << 257]]},
        {"proof": [[f"1/{10**1990 + n}", 1] for n in range(12, 0, -1)]},
        {"next": "129/10"},
        {"next": "1"},
        {"more": 1},
    ],
)
def test_tampered_witnesses_are_rejected(change: dict[str, Any]) -> None:
    witness = {"threshold": "129/10", "proof": [["6", 1]], "next": "13"}
    assert pattern_value(CROWDED, witness) == 13
    with pytest.raises(InputError):
        pattern_value(CROWDED, {**witness, **change})


def test_both_sides_of_a_branch_are_needed() -> None:
    useless = [(Fraction(0), 0)]
    threshold = Fraction(129, 10)
    # No expert of the crowded instance can have two replicas, so the case above is empty.
    assert pattern_refutes(CROWDED, threshold, Branch(0, 1, PRICES, useless))
    assert not pattern_refutes(CROWDED, threshold, Branch(0, 1, useless, PRICES))
    spare = Instance((6, 6, 6, 1, 1), 6, 2)
    assert not pattern_refutes(spare, Fraction(9), PRICES)
    # One price refutes any unsplit 6 beside another, the other one any split: together they refute what neither does alone.
    unsplit: Proof = PRICES
    split = [(Fraction(1, 2), 1), (Fraction(1), 2), (Fraction(3), 6), (Fraction(6), 12)]
    proof: Proof = unsplit
    for expert in range(3):
        proof = Branch(expert, 1, proof, split)
    assert pattern_refutes(spare, Fraction(199, 20), proof)
    assert not pattern_refutes(spare, Fraction(10), proof)
    assert not pattern_refutes(spare, Fraction(199, 20), Branch(0, 1, useless, split))


def test_prices_that_take_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    branch = {"expert": 0, "count": 1, "below": [["6", 1]], "above": [["6", 1]]}
    assert pattern_value(CROWDED, {"threshold": "129/10", "proof": branch}) == Fraction(129, 10)
    monkeypatch.setattr(pattern_dual, "MAX_WORK", 7)
    assert pattern_value(CROWDED, {"threshold": "129/10", "proof": [["6", 1]]}) == Fraction(129, 10)
    with pytest.raises(InputError, match="more than 7 pairs"):
        pattern_value(CROWDED, {"threshold": "129/10", "proof": branch})


def test_nested_too_deep() -> None:
    proof: Any = [["6", 1]]
    for _ in range(300):
        proof = {"expert": 0, "count": 1, "below": proof, "above": [["6", 1]]}
    with pytest.raises(InputError, match="nested"):
        pattern_value(CROWDED, {"threshold": "129/10", "proof": proof})


@pytest.mark.parametrize(("slots", "gpus"), [(6, 6), (6, 3), (10, 2)])
def test_wrong_number_of_slots(slots: int, gpus: int) -> None:
    instance = Instance((3, 2, 1, 1, 1), slots, gpus)
    with pytest.raises(InputError, match="3 or 4"):
        pattern_refutes(instance, Fraction(1), PRICES)
    with pytest.raises(InputError, match="3 or 4"):
        previous_pattern_load(instance, Fraction(1))
