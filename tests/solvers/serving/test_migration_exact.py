"""The best map within a number of moves: CP-SAT against exhaustive search, and the heuristic against both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations_with_replacement

import pytest
from migration_exact import best_within, count_moves

from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.problem import Deployment, InputError, Instance, Placement, PlacementError, verify

SHAPES = [(2, 2), (2, 3), (3, 2), (4, 2), (2, 4), (3, 3)]


def random_case(rng: random.Random) -> tuple[Instance, tuple[int, ...]]:
    """Draw a small instance and a legal map, planned on nothing."""
    gpus, k = rng.choice(SHAPES)
    duplicates = rng.choice(["allowed", "forbidden"])
    experts = rng.randint(max(k, gpus * k - 3), gpus * k)
    heavy = rng.random() < 0.5
    loads = tuple(int(10 * 2.5 ** rng.gauss(0, 1)) if heavy else rng.randint(0, 60) for _ in range(experts))
    instance = Instance(loads, gpus * k, gpus, duplicates)
    while True:
        slots = list(range(experts)) + [rng.randrange(experts) for _ in range(gpus * k - experts)]
        rng.shuffle(slots)
        rows = [slots[g * k : g * k + k] for g in range(gpus)]
        if duplicates == "allowed" or all(len(set(row)) == k for row in rows):
            return instance, tuple(slots)


def best_by_enumeration(instance: Instance, previous: tuple[int, ...]) -> list[Fraction]:
    """Return the least makespan by number of moves, from all maps; contents of the GPUs are enumerated one after the other."""
    k, experts = instance.slots_per_gpu, range(instance.num_experts)
    contents = list(combinations_with_replacement(experts, k))
    if instance.duplicates == "forbidden":
        contents = [c for c in contents if len(set(c)) == k]
    best: dict[int, Fraction] = {}

    def maps(gpu: int, used: tuple[int, ...], moves: int) -> Iterator[tuple[tuple[int, ...], int]]:
        if gpu == instance.num_gpus:
            if len(set(used)) == instance.num_experts:
                yield used, moves
            return
        before = Counter(previous[gpu * k : gpu * k + k])
        for content in contents:
            new = moves + sum((Counter(content) - before).values())
            if new <= 4:
                yield from maps(gpu + 1, used + content, new)

    for slots, moves in maps(0, (), 0):
        value = instance.makespan(slots)
        best[moves] = min(best.get(moves, value), value)
    return [min(value for moves, value in best.items() if moves <= budget) for budget in range(5)]


def heuristic(instance: Instance, previous: tuple[int, ...], budget: int) -> Fraction:
    deployment = Deployment(instance.num_experts, instance.num_slots, instance.num_gpus, duplicates=instance.duplicates)
    found = replan([instance.loads], deployment, Placement([previous], instance.num_experts), max_moves=budget)
    assert count_moves(found.phy2log[0].tolist(), previous, instance.slots_per_gpu) <= budget
    return verify(found, [instance.loads], deployment)[0]


def test_equals_exhaustive_search_and_the_heuristic_is_near() -> None:
    rng = random.Random(7)
    cases = [case for case in (random_case(rng) for _ in range(60)) if case[0].num_slots <= 6]
    gaps: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for instance, previous in cases:
        known = best_by_enumeration(instance, previous)
        for budget in range(5):
            found = best_within(instance, previous, budget)
            assert found.proven
            assert found.upper == known[budget]
            assert found.moves <= budget
            assert instance.makespan(found.slots) == found.upper
        for budget in gaps:
            value = heuristic(instance, previous, budget)
            assert value >= known[budget]
            # One move is tried in every way, but for a second replica on a GPU.
            assert budget > 1 or instance.duplicates == "allowed" or value == known[budget]
            gaps[budget].append(float(value / known[budget]) - 1 if known[budget] else 0.0)
    assert len(cases) >= 25
    for found_gaps in gaps.values():
        assert sum(found_gaps) / len(found_gaps) < 0.015


def test_nothing_moves_without_a_budget_and_everything_with_a_large_one() -> None:
    instance = Instance((90, 132, 40, 61, 104, 165), 8, 4)
    previous = (0, 1, 2, 3, 4, 5, 0, 1)
    still = best_within(instance, previous, 0)
    assert still.moves == 0
    assert still.upper == instance.makespan(previous)
    assert best_within(instance, previous, 8).upper == 151  # the optimum of the instance


@pytest.mark.parametrize("slots", [(0, 0, 1, 1), (0, 1, 2, 3), (0, 1, 2)])
def test_an_illegal_map_in_use_is_refused(slots: tuple[int, ...]) -> None:
    with pytest.raises(PlacementError):
        best_within(Instance((3, 2, 1), 4, 2), slots, 1)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(InputError, match="budget is -1"):
        best_within(Instance((3, 2, 1), 4, 2), (0, 1, 2, 0), -1)


def test_unequal_slots_are_refused_and_dead_gpus_left_out() -> None:
    with pytest.raises(InputError, match="the GPUs have 1 to 3 slots"):
        best_within(Instance.of_layer([40, 4, 10, 30], Deployment(4, slots_per_gpu=[1, 3, 2])), [0, 1, 2, 3, 0, 1], 2)
    left = Instance.of_layer([40, 10, 30], Deployment(3, 6, 3, active=[True, False, True]))
    assert best_within(left, [0, 1, 2, 0], 4, 20.0).upper == 40
