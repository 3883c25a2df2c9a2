"""Two slots per GPU, for given counts: the fold and the conditions of the pairing bound against every pairing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engines.pairing import fold


def pairings(items: list[Fraction]) -> Iterator[list[tuple[Fraction, Fraction]]]:
    """Yield every way to pair the items."""
    if not items:
        yield []
        return
    first, *others = items
    for i, partner in enumerate(others):
        for rest in pairings(others[:i] + others[i + 1 :]):
            yield [(first, partner), *rest]


def random_case(generator: np.random.Generator) -> tuple[Instance, list[int]]:
    """Return at most eight slots, two on a GPU, and counts that fill them."""
    gpus = int(generator.integers(1, 5))
    experts = int(generator.integers(1, 2 * gpus + 1))
    counts = 1 + np.bincount(generator.integers(experts, size=2 * gpus - experts), minlength=experts)
    loads = generator.choice([generator.integers(0, 20, experts), generator.integers(1, 1000, experts)])
    return Instance(tuple(int(w) for w in loads), 2 * gpus, gpus), counts.tolist()


def meets_the_conditions(items: list[Fraction], threshold: Fraction) -> bool:
    """Whether for every load b above half the threshold there are as many companions of at most the threshold less b."""
    return all(sum(v >= b for v in items) <= sum(v <= threshold - b for v in items) for b in items if 2 * b > threshold)


def test_the_fold_is_the_best_pairing_and_the_conditions_hold_from_its_makespan_on() -> None:
    generator = np.random.default_rng(21)
    for _ in range(150):
        instance, counts = random_case(generator)
        items = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True) for _ in range(c)]
        best = min(max(a + b for a, b in pairing) for pairing in pairings(items))
        assert instance.makespan(fold(instance, counts)) == best
        for threshold in {a + b for a in items for b in items} | {best - Fraction(1, 10**6)}:
            assert meets_the_conditions(items, threshold) == (threshold >= best)


def test_one_more_replica_of_a_small_expert_keeps_the_conditions() -> None:
    generator = np.random.default_rng(22)
    for _ in range(150):
        instance, counts = random_case(generator)
        sizes = [Fraction(w, c) for w, c in zip(instance.loads, counts, strict=True)]
        threshold = instance.makespan(fold(instance, counts))
        small = [e for e, size in enumerate(sizes) if 2 * size <= threshold]
        assert small
        for e in small:
            more = [c + (i == e) for i, c in enumerate(counts)]
            items = [Fraction(w, c) for w, c in zip(instance.loads, more, strict=True) for _ in range(c)]
            assert meets_the_conditions(items, threshold)
