"""The bound on what tiles and reads cost, against every map of small instances."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.problem import Deployment, InputError, Instance
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.bounds.tile_cost import TileCost, tile_cost_bound


def cheapest(instance: Instance, cost: TileCost) -> Fraction:
    """Return the cost of the busiest GPU of the best map, all maps tried, each cost taken row by row."""
    best = None
    for slots in itertools.product(range(instance.num_experts), repeat=instance.num_slots):
        gpus = [slots[a:b] for a, b in itertools.pairwise(instance.starts)]
        counts = [slots.count(e) for e in range(instance.num_experts)]
        if min(counts) == 0 or any(list(gpu) != sorted(gpu) for gpu in gpus):
            continue
        if instance.duplicates == "forbidden" and any(len(set(gpu)) < len(gpu) for gpu in gpus):
            continue
        busiest = max(sum((replica(instance.loads[e], counts[e], cost) for e in gpu), Fraction(0)) for gpu in gpus)
        best = busiest if best is None else min(best, busiest)
    assert best is not None
    return best


def replica(load: int, count: int, cost: TileCost) -> Fraction:
    """Return the cost of a replica by counting the tiles that are started for its share."""
    share, tiles = Fraction(load, count), 0
    while tiles * cost.rows < share:
        tiles += 1
    return max(cost.read, cost.tile * tiles) if load else Fraction(0)


def instances(number: int) -> list[tuple[Instance, TileCost]]:
    """Return small instances: loads of a few tiles, zero, tied and one-hot; duplicates allowed or not; unequal GPUs."""
    rng = np.random.default_rng(11)
    made: list[tuple[Instance, TileCost]] = []
    while len(made) < number:
        experts, per_gpu = int(rng.integers(2, 4)), [int(n) for n in rng.integers(1, 4, int(rng.integers(2, 4)))]
        rule = ("allowed", "forbidden")[int(rng.integers(2))]
        if not experts <= sum(per_gpu) <= 5:
            continue
        try:
            deployment = Deployment(experts, slots_per_gpu=per_gpu, duplicates=rule)
        except InputError:  # distinct experts cannot fill these GPUs
            continue
        loads = tuple(int(w) for w in rng.integers(0, 30, experts) * rng.integers(0, 2, experts))
        cost = TileCost(Fraction(int(rng.integers(0, 9)), 2), Fraction(int(rng.integers(1, 5))), int(rng.integers(1, 9)))
        made.append((Instance.of_layer(np.array(loads), deployment), cost))
    return made


def test_no_map_of_300_instances_is_below_the_bound_and_many_reach_it() -> None:
    ratios = []
    for instance, cost in instances(300):
        bound, best = tile_cost_bound(instance, cost), cheapest(instance, cost)
        assert bound <= best, (instance, cost)
        ratios.append(float(bound / best) if best else 1.0)
    # A bound of nothing would pass the line above.
    assert np.mean(ratios) > 0.9 and np.mean(np.array(ratios) == 1.0) > 0.6


def test_spare_slots_cost_their_reads() -> None:
    read_alone = TileCost(Fraction(5), Fraction(1), 100)
    loads = (90, 80, 70, 60)
    assert tile_cost_bound(Instance(loads, 4, 2), read_alone) == 10
    assert tile_cost_bound(Instance(loads, 8, 2), read_alone) == 20


def test_rows_alone_make_it_the_mean_load_in_tiles() -> None:
    assert tile_cost_bound(Instance((8, 4, 4), 4, 2), TileCost(Fraction(0), Fraction(1), 1)) == 8


def test_an_expert_that_cannot_be_split_enough_counts() -> None:
    assert tile_cost_bound(Instance((90, 1), 3, 3, "forbidden"), TileCost(Fraction(0), Fraction(1), 10)) == 5


ODD = [(1.5, 1, 4), (float("nan"), 1, 4), (1, True, 4), (1, 1, 2.0), (1, 1, True)]
"""What is no exact number."""


@pytest.mark.parametrize(
    "wrong", [(Fraction(-1), Fraction(1), 1), (Fraction(1), Fraction(-1), 1), (Fraction(1), Fraction(1), 0), *ODD]
)
def test_impossible_costs_are_refused(wrong: tuple[Fraction, Fraction, int]) -> None:
    with pytest.raises(InputError, match=r"(read|tile|rows) is "):
        TileCost(*wrong)


def test_costs_of_any_allowed_size_are_bounded_and_larger_ones_refused() -> None:
    for large in (10**400, 10**5000, Fraction(1, 10**400)):
        with pytest.raises(InputError, match=r"tile has a numerator or denominator of \d+ bits; at most 900"):
            TileCost(1, large, 4)
    most = (1 << 900) - 1
    instance = Instance((1 << 50, 1), 6, 2)
    assert tile_cost_bound(instance, TileCost(most, 0, 4)) == 3 * most
    assert tile_cost_bound(instance, TileCost(0, most, 1)) >= most << 49
    with pytest.raises(InputError, match=r"read has .* of \d+ bits"):
        tile_cost_bound(instance, TileCost(Fraction(most, most - 1), Fraction(most, most - 2), 1))


def test_a_layer_of_256_experts_is_bounded_in_a_moment() -> None:
    loads = tuple(np.random.default_rng(0).multinomial(1 << 20, np.random.default_rng(1).dirichlet(np.full(256, 0.5))).tolist())
    start = time.process_time()
    bound = tile_cost_bound(Instance(loads, 320, 320), TileCost(Fraction(3e-5), Fraction(2.9e-5), 128))
    assert time.process_time() - start < 1.0
    # One slot a GPU: the dearest replica is all that counts, and it is that of the largest share.
    counts = adams_counts(loads, 320, 65)
    assert bound == max(TileCost(Fraction(3e-5), Fraction(2.9e-5), 128).of(w, c) for w, c in zip(loads, counts, strict=True))
