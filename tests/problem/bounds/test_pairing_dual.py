"""The pairing bound: valid against the oracle, exact against a linear program, and hard to tamper with."""

from __future__ import annotations

import json
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eplb_gap.problem import InputError, Instance
from eplb_gap.problem.bounds.pairing_dual import (
    count_table,
    next_pair_sum,
    pairing_need,
    pairing_value,
    pairing_witness,
    previous_pair_sum,
)
from eplb_gap.solvers.engines.oracle import best_map

CERTIFIED = Instance(
    (462, 602, 579, 1205, 840, 1093, 1804, 1823, 1395, 729, 590, 565, 786, 965, 506, 452), num_slots=20, num_gpus=10
)
WITNESS = {"threshold": "5965/4", "multipliers": [["1205", "5/8"], ["1093", "1/2"], ["902", "1/4"]]}


def two_slot_instances(count: int, seed: int) -> list[Instance]:
    """Return small instances with lognormal loads, zeros, ties, a hot expert or all alike, duplicates both ways."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        slots = 2 * int(generator.integers(1, 5))
        experts = int(generator.integers(2 if slots > 2 else 1, slots + 1))
        values = np.rint(np.exp(generator.normal(size=experts)) * 40).astype(int)
        kind = number % 5
        if kind == 1:
            values[generator.random(experts) < 0.4] = 0
        elif kind == 2:
            values = generator.integers(1, 4, size=experts)
        elif kind == 3:
            values[generator.integers(experts)] *= 12
        elif kind == 4:
            values[:] = generator.integers(0, 3)
        forbidden = number // 5 % 2 == 1 and experts >= 2
        found.append(Instance(tuple(int(w) for w in values), slots, slots // 2, "forbidden" if forbidden else "allowed"))
    return found


def candidates(instance: Instance) -> list[Fraction]:
    """Return all candidate sums, by enumeration."""
    sizes = {Fraction(w, c) for w in instance.loads for c in range(1, instance.max_count + 1)}
    return sorted({a + b for a in sizes for b in sizes})


def random_multipliers(
    instance: Instance, threshold: Fraction, generator: np.random.Generator
) -> list[tuple[Fraction, Fraction]]:
    """Return breakpoints at replica loads and complements, with falling random multipliers."""
    sizes = [Fraction(w, c) for w in instance.loads for c in range(1, instance.max_count + 1)]
    points = sorted({p for v in sizes for p in (v, threshold - v) if 2 * p > threshold}, reverse=True)
    chosen = [p for p in points if generator.random() < 0.6]
    factors = sorted((Fraction(int(generator.integers(0, 1200)), 1000) for _ in chosen), reverse=True)
    return list(zip(chosen, factors, strict=True))


def literal_need(instance: Instance, threshold: Fraction, multipliers: list[tuple[Fraction, Fraction]]) -> Fraction:
    """Return the bound term by term from its definition."""
    table = count_table(instance, threshold)
    assert table is not None

    def factor(key: Fraction) -> Fraction:
        return max((f for point, f in multipliers if point <= key), default=Fraction(0))

    least: dict[int, Fraction] = {}
    for expert, count in zip(table.expert.tolist(), table.count.tolist(), strict=True):
        size = Fraction(instance.loads[expert], count)
        small = 2 * size <= threshold
        cost = count * (1 - factor(threshold - size) if small else 1 + factor(size))
        least[expert] = min(cost, least.get(expert, cost))
    return sum(least.values(), Fraction(0))


def test_equals_its_definition_and_never_refutes_a_feasible_threshold() -> None:
    generator = np.random.default_rng(5)
    refutations = 0
    for instance in two_slot_instances(70, seed=11):
        optimum = instance.makespan(best_map(instance))
        for factor in (Fraction(7, 10), Fraction(9, 10), Fraction(99, 100), Fraction(1), Fraction(11, 10)):
            threshold = optimum * factor
            for _ in range(4):
                multipliers = random_multipliers(instance, threshold, generator)
                need = pairing_need(instance, threshold, multipliers)
                if count_table(instance, threshold) is not None:
                    assert need == literal_need(instance, threshold, multipliers)
                if threshold >= optimum:
                    assert need <= instance.num_slots, (instance, threshold, multipliers)
                else:
                    refutations += need > instance.num_slots
    assert refutations > 100


def test_next_and_previous_sum_against_enumeration() -> None:
    generator = np.random.default_rng(6)
    for instance in two_slot_instances(40, seed=12):
        sums = candidates(instance)
        for _ in range(5):
            threshold = sums[generator.integers(len(sums))] + Fraction(int(generator.integers(-1, 2)), 1000)
            above = [s for s in sums if s > threshold]
            below = [s for s in sums if s < threshold]
            if above:
                assert next_pair_sum(instance, threshold) == above[0]
            else:
                with pytest.raises(InputError, match="no two replicas"):
                    next_pair_sum(instance, threshold)
            assert previous_pair_sum(instance, threshold) == (below[-1] if below else None)


def test_sums_and_needs_of_huge_loads_are_exact() -> None:
    loads = tuple(w * 10**18 + w for w in (7, 3, 2, 1))
    instance = Instance(loads, 6, 3)
    threshold = Fraction(5 * 10**18)
    assert next_pair_sum(instance, threshold) == min(s for s in candidates(instance) if s > threshold)
    multipliers = [(Fraction(3) * 10**18, Fraction(1, 3))]
    assert pairing_need(instance, threshold, multipliers) == literal_need(instance, threshold, multipliers)


def test_certificate_of_an_example() -> None:
    # Found by the pairing engine, which also found a map of makespan 1492; the closed-form bounds end at 1439.6.
    assert pairing_value(CERTIFIED, json.loads(json.dumps(WITNESS))) == 1492
    threshold = Fraction(WITNESS["threshold"])
    multipliers = [(Fraction(point), Fraction(factor)) for point, factor in WITNESS["multipliers"]]
    assert pairing_witness(threshold, multipliers) == WITNESS
    assert pairing_need(CERTIFIED, threshold, multipliers) == literal_need(CERTIFIED, threshold, multipliers) > 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multipliers": [["1205", "5/8"], ["1093", "1/2"], ["902", "7/8"]]}, "must not rise"),
        ({"multipliers": [["1093", "1/2"], ["1205", "5/8"]]}, "must descend"),
        ({"multipliers": [["1093", "1/2"], ["1093", "1/2"]]}, "must descend"),
        ({"multipliers": [["1205", "5/8"], ["1093", "-1/2"]]}, "at least 0"),
        ({"multipliers": [["1205", "5/8"], ["740", "1/2"]]}, "more than half"),
        ({"multipliers": []}, "refute it"),
        ({"multipliers": [["1205", "0"]]}, "refute it"),
        ({"threshold": "1492"}, "refute it"),
        ({"threshold": "3000"}, "more than half"),
        ({"threshold": "1/0"}, "threshold is '1/0'; a fraction"),
        ({"threshold": None}, "threshold is None; a fraction"),
        ({"multipliers": [["1205"]]}, "a breakpoint and a multiplier are needed"),
        ({"multipliers": ["12"]}, "a breakpoint and a multiplier are needed"),
        ({"multipliers": {"1205": "1"}}, "a list of at most"),
        ({"more": 1}, "unknown field 'more'"),
        ({"multipliers": [[str(Fraction(1, 10**1990 + n)), "1"] for n in range(12)]}, "more than 65536 digits"),
    ],
)
def test_tampered_witnesses_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pairing_value(CERTIFIED, {**WITNESS, **changes})


def test_another_shape_or_a_missing_field_is_rejected() -> None:
    for slots, gpus in ((20, 5), (16, 16)):
        with pytest.raises(InputError, match="the pairing bound needs 2"):
            pairing_value(Instance(CERTIFIED.loads, slots, gpus), WITNESS)
    with pytest.raises(InputError, match="refute it"):
        pairing_value(Instance(CERTIFIED.loads, 22, 11), WITNESS)
    with pytest.raises(InputError, match="no field 'multipliers'"):
        pairing_value(CERTIFIED, {"threshold": WITNESS["threshold"]})


def test_counting_slots_alone_refutes() -> None:
    assert count_table(CERTIFIED, Fraction(900)) is None
    assert pairing_need(CERTIFIED, Fraction(900), []) == 21
    assert pairing_value(CERTIFIED, {"threshold": "900", "multipliers": []}) == next_pair_sum(CERTIFIED, Fraction(900))


def test_threshold_above_the_optimum_is_never_refuted_by_a_shifted_witness() -> None:
    for instance in two_slot_instances(60, seed=13):
        optimum = instance.makespan(best_map(instance))
        for bumped in (optimum, optimum + Fraction(1, 7)):
            points = [(bumped * Fraction(6, 10), Fraction(1)), (bumped * Fraction(51, 100), Fraction(1, 2))]
            if bumped > 0:
                assert pairing_need(instance, bumped, points) <= instance.num_slots


def test_checks_quickly() -> None:
    generator = np.random.default_rng(3)
    loads = np.exp(0.3 * generator.normal(size=256))
    instance = Instance(tuple(int(w) for w in np.rint(loads / loads.sum() * 10**6)), 288, 144)
    threshold = Fraction(7000 * 2**30 + 1, 2**30)
    multipliers = [(threshold * Fraction(200 - i, 200), Fraction(100 - i, 100)) for i in range(90)]
    pairing_need(instance, threshold, multipliers)
    started = time.process_time()
    pairing_need(instance, threshold, multipliers)
    next_pair_sum(instance, threshold)
    assert time.process_time() - started < 0.2
