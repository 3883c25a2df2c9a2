from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.heuristics.programs.packing import Packing, diversity_lpt, epsilon_lpt, lpt, penalty_lpt
from eplb_gap.heuristics.programs.recommendations import RECOMMENDATIONS
from eplb_gap.heuristics.programs.replication import adams, fix_up, hamilton, hybrid_on_copies, hybrid_on_extras
from eplb_gap.heuristics.programs.seed_programs import SEED_PROGRAMS
from eplb_gap.heuristics.programs.swaps import best_of_candidates, extremes, nearest, refine
from eplb_gap.problem import Deployment, verify


def row(values):
    return torch.tensor([values], dtype=torch.float32)


def counts(rule, weights, slots):
    return rule(row(weights), slots).count[0].tolist()


@given(
    st.lists(st.integers(0, 60), min_size=2, max_size=6),
    st.lists(st.integers(0, 60), min_size=2, max_size=6),
    st.integers(1, 3),
)
def test_the_best_of_all_candidate_pairs_is_exchanged(heavy, light, k):
    difference = float(sum(heavy) - sum(light))
    if difference <= 0:
        return
    found = best_of_candidates(torch.tensor(heavy).float(), torch.tensor(light).float(), difference, k)
    left = {(a, b): abs(difference - 2 * (a - b)) for a in sorted(heavy, reverse=True)[:k] for b in sorted(light)[:k]}
    if min(left.values()) >= difference:
        assert found is None
    else:
        assert left[heavy[found[0]], light[found[1]]] == min(left.values())


def test_four_pairs_find_what_one_pair_misses_and_less_than_all():
    # 8 + 6 against 5 + 3: the extremes leave 4; of the four pairs, 8 with 5 leaves 0.
    heavy, light = torch.tensor([8.0, 6.0]), torch.tensor([5.0, 3.0])
    assert extremes(heavy, light, 6.0) == (0, 1)
    assert best_of_candidates(heavy, light, 6.0) == (0, 0)
    assert best_of_candidates(heavy, light, 6.0, 1) == (0, 1)
    # Difference 16: the four pairs leave |16 - 2 * 20| at least and are no help; all pairs know 8 with 0.
    heavy, light = torch.tensor([50.0, 40.0, 8.0]), torch.tensor([20.0, 10.0, 52.0])
    assert best_of_candidates(heavy, light, 16.0) is None
    assert nearest(heavy, light, 16.0) is None
    # With 28 in the light pack 40 for 28 leaves 8, but the two lightest are 20 and 10.
    light = torch.tensor([20.0, 10.0, 28.0])
    assert best_of_candidates(heavy, light, 40.0) == (1, 0)
    assert best_of_candidates(heavy, light, 16.0) is None
    assert nearest(heavy, light, 16.0) == (1, 2)


def test_a_second_step_goes_on_from_the_first():
    weights, start = [9.0, 8, 7, 1, 1, 1], [0, 0, 0, 1, 1, 1]
    packs = []
    for steps in (0, 1, 2):
        packing = Packing(torch.tensor([start]), torch.tensor([[0, 1, 2, 0, 1, 2]]))
        refine(row(weights), packing, 2, best_of_candidates, steps)
        packs.append(packing.pack[0].tolist())
    assert packs[0] == start
    # 24 against 3: 9 for 1 leaves 5. Then 16 against 11, heavier pack 8, 7, 1: nothing of the light pack 9, 1, 1 helps.
    assert packs[1] == [1, 0, 0, 0, 1, 1]
    assert packs[2] == packs[1]


def test_fix_up_moves_a_replica_from_the_coldest_to_the_hottest_expert():
    # 10 / 3 is the smallest of 3.3, 45 and 8, and 90 / 3 the largest after the move; 10 / 1 and 90 / 4 after a second.
    weights = row([10.0, 90.0, 8.0])
    start = replace(adams(weights, 6), count=torch.tensor([[3, 2, 1]]))
    assert fix_up(weights, start, 1).count.tolist() == [[2, 3, 1]]
    assert fix_up(weights, start, 9).count.tolist() == [[1, 4, 1]]
    assert fix_up(weights, start, 0).count.tolist() == [[3, 2, 1]]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(0, 12), st.integers(1, 3))
def test_fix_up_never_raises_the_largest_replica_and_cannot_improve_adams(weights, extra, moves):
    slots = len(weights) + extra
    loads = row(weights)
    for rule in (hamilton, hybrid_on_copies):
        before = rule(loads, slots)
        after = fix_up(loads, before, moves)
        assert int(after.count.sum()) == slots
        assert int(after.count.min()) >= 1
        assert float((loads / after.count).max()) <= float((loads / before.count).max())
        pairs = sorted(zip(after.expert[0].tolist(), after.rank[0].tolist(), strict=True))
        assert pairs == [(e, r) for e in range(len(weights)) for r in range(after.count[0, e])]
    before = adams(loads, slots)
    after = fix_up(loads, before, moves)
    assert (after.count == before.count).all()
    assert (after.expert == before.expert).all()


def test_hybrid_schedules_differ_from_adams_in_either_direction():
    # The first of two extra replicas goes to the hot expert in all schedules; the last is Sainte-Laguë's.
    # On copies: 100 / 5 against 55 / 3, where Adams sees 100 / 2 against 55.
    assert counts(adams, [100.0, 55.0], 4) == [2, 2]
    assert counts(hybrid_on_copies, [100.0, 55.0], 4) == [3, 1]
    # On extras: 100 / 3 against 49, where Adams sees 100 / 2 against 49.
    assert counts(adams, [100.0, 49.0], 4) == [3, 1]
    assert counts(hybrid_on_extras, [100.0, 49.0], 4) == [2, 2]


def test_the_tail_is_a_tenth_of_the_extras_and_at_least_one():
    # Ten extras of [100, 49]: nine by Adams (w / c), then one by w / (2c - 1); eleven have one in the tail, twenty two.
    for extra, tail in ((1, 1), (10, 1), (11, 1), (20, 2)):
        count = [1, 1]
        for number in range(extra):
            priority = [w / (2 * c - 1 if number >= extra - tail else c) for w, c in zip((100, 49), count, strict=True)]
            count[0 if priority[0] >= priority[1] else 1] += 1
        assert counts(hybrid_on_extras, [100.0, 49.0], 2 + extra) == count
    assert counts(hybrid_on_extras, [100.0, 49.0], 2) == [1, 1]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(0, 30))
def test_no_schedule_beats_adams_on_the_largest_replica(weights, extra):
    slots = len(weights) + extra
    loads = row(weights)
    best = float((loads / adams(loads, slots).count).max())
    for rule in (hybrid_on_copies, hybrid_on_extras):
        replication = rule(loads, slots)
        assert int(replication.count.sum()) == slots
        assert float((loads / replication.count).max()) >= best


def test_diversity_as_a_tie_breaker():
    labels = torch.tensor([[0, 1, 0, 2]])
    weights = row([4.0, 9.0, 4.0, 3.0])
    # Expert 1 (9) goes to pack 0, the first replica of expert 0 to pack 1 (4 against 9). The second: LPT takes pack 1 again.
    assert lpt(weights, labels, 2).pack.tolist() == [[1, 0, 1, 0]]
    assert diversity_lpt(weights, labels, 2).pack.tolist() == [[1, 0, 0, 1]]
    # The packs differ by 5, which is half of the mean pack load 10.
    for share, packs in ((0.49, [[1, 0, 1, 0]]), (0.51, [[1, 0, 0, 1]])):
        assert epsilon_lpt(weights, labels, 2, share).pack.tolist() == packs
        assert penalty_lpt(weights, labels, 2, share).pack.tolist() == packs


@pytest.mark.parametrize("rule", [epsilon_lpt, penalty_lpt])
def test_without_epsilon_and_penalty_it_is_lpt(rule):
    weights = torch.randint(1, 10**6, (4, 24), generator=torch.Generator().manual_seed(8)).float()
    labels = torch.arange(24).expand(4, 24)
    assert (rule(weights, labels, 6).pack == lpt(weights, labels, 6).pack).all()


@pytest.mark.parametrize("name", RECOMMENDATIONS)
def test_recommendations_are_methods_with_legal_maps(name):
    assert set(RECOMMENDATIONS[name].bases) <= SEED_PROGRAMS.keys()
    assert hash(RECOMMENDATIONS[name].config) == hash(replace(RECOMMENDATIONS[name].config))
    assert name in METHODS
    generator = np.random.default_rng(9)
    for deployment in (Deployment(24, 32, 8, num_nodes=2, num_groups=4), Deployment(24, 36, 4)):
        loads = generator.poisson(np.exp(generator.normal(size=(3, 24))) * 500)
        verify(rebalance(loads, deployment, name), loads, deployment)


def test_every_recommendation_can_differ_from_its_first_base_except_where_that_is_proven():
    deployment = Deployment(64, 96, 32, num_nodes=2, num_groups=4)
    generator = np.random.default_rng(10)
    loads = generator.poisson(np.exp(1.2 * generator.normal(size=(24, 64))) * 500)
    same = {
        name: bool((rebalance(loads, deployment, name).phy2log == rebalance(loads, deployment, r.bases[0]).phy2log).all())
        for name, r in RECOMMENDATIONS.items()
    }
    assert [name for name, equal in same.items() if equal] == ["adams-fix-up"]
