"""The evolved programs: what their descriptions say, on examples by hand and against the seed programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.heuristics import METHODS, rebalance
from eplb_gap.heuristics.programs.evolved_programs import EVOLVED_PROGRAMS
from eplb_gap.heuristics.programs.packing import heap_lpt, lpt, spread_lpt, thue_morse
from eplb_gap.heuristics.programs.replication import adams, adams_top_k, hamilton, hamilton_or_threshold, threshold
from eplb_gap.problem import Deployment, InputError, verify
from eplb_gap.problem.metrics import duplicates

FLAGSHIP = Deployment.preset("dsv3-prefill-ep32")
GLOBAL = FLAGSHIP.as_global()


def skewed(layers=6, seed=1):
    generator = np.random.default_rng(seed)
    group = np.repeat(generator.normal(size=(layers, 8)) * 0.5, 32, axis=1)
    return generator.poisson(np.exp(group + 0.6 * generator.normal(size=(layers, 256))) * 5000)


def counts(rule, weights, slots):
    return rule(torch.tensor([weights], dtype=torch.float32), slots).count[0].tolist()


def packs(rule, weights, number, labels=None):
    label = torch.arange(len(weights)) if labels is None else torch.tensor(labels)
    return rule(torch.tensor([weights], dtype=torch.float32), label[None], number).pack[0].tolist()


def largest_replica(loads, placement):
    return (loads / placement.counts()).max(axis=1)


@pytest.mark.parametrize("deployment", [FLAGSHIP, GLOBAL], ids=["hierarchical", "global"])
def test_openevolve_is_the_snake_pipeline(deployment):
    loads = skewed()
    evolved, snake = rebalance(loads, deployment, "openevolve"), rebalance(loads, deployment, "eplb_snake_pipeline")
    assert (evolved.phy2log == snake.phy2log).all()
    assert (evolved.ranks == snake.ranks).all()


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 9))
def test_top_k_gives_adams_counts_also_where_loads_tie(weights, extra):
    slots = len(weights) + extra
    assert counts(adams_top_k, weights, slots) == counts(adams, weights, slots)


def test_top_k_gives_adams_counts_on_realistic_loads():
    weight = torch.tensor(skewed(), dtype=torch.float32)
    assert (adams_top_k(weight, 288).count == adams(weight, 288).count).all()


def test_thue_morse_goes_backwards_in_rounds_with_an_odd_count_of_one_bits():
    # Rounds 0 to 3 have 0, 1, 1, 2 one bits: forwards, backwards, backwards, forwards.
    assert packs(thue_morse, [8, 7, 6, 5, 4, 3, 2, 1], 2) == [0, 1, 1, 0, 1, 0, 0, 1]


@given(st.lists(st.integers(0, 400), min_size=1, max_size=8), st.integers(0, 12))
def test_the_threshold_is_the_smallest_largest_replica(weights, extra):
    slots = len(weights) + extra
    found, best = counts(threshold, weights, slots), counts(adams, weights, slots)
    assert sum(found) == slots
    largest, optimum = (max(w / c for w, c in zip(weights, vector, strict=True)) for vector in (found, best))
    assert largest == pytest.approx(optimum, rel=1e-6)


def test_spare_slots_of_the_threshold_go_to_the_largest_replicas():
    # T = 4 needs 2 + 1 + 1 slots; any smaller T needs a slot more for each of the three.
    assert counts(threshold, [8, 4, 4], 5) == [3, 1, 1]
    assert counts(threshold, [0, 0, 0], 7) == [3, 2, 2]


def test_gepa_keeps_hamilton_only_where_it_is_within_six_percent():
    # Mean slot load 6.2; Hamilton's largest replica, 6.5, is 4.8 % above.
    near = [76, 32, 78]
    assert counts(hamilton_or_threshold, near, 30) == counts(hamilton, near, 30) == [12, 6, 12]
    assert counts(threshold, near, 30) == [12, 5, 13]
    far = [100, 26, 26, 26]
    assert counts(hamilton, far, 6) == [2, 2, 1, 1]
    assert counts(hamilton_or_threshold, far, 6) == [3, 1, 1, 1]


@given(st.lists(st.integers(0, 30), min_size=12, max_size=12), st.sampled_from([1, 2, 3, 4, 6]))
def test_the_heap_packs_as_the_scan_does(weights, number):
    assert packs(heap_lpt, weights, number) == packs(lpt, weights, number)


def test_spreading_puts_replicas_on_the_lightest_distinct_packs_before_the_rest():
    # Expert 1 (3 each) first: packs 0 and 1. Then expert 0 (2 each): pack 2, then 0. Then the single experts by LPT.
    assert packs(spread_lpt, [2, 2, 3, 3, 9, 1], 3, [0, 0, 1, 1, 2, 3]) == [2, 0, 0, 1, 2, 1]


def test_replicas_share_a_pack_only_where_too_few_have_room():
    assert packs(spread_lpt, [5, 5, 5, 1], 2, [0, 0, 0, 1]) == [0, 1, 0, 1]
    loads = skewed()
    assert (
        duplicates(rebalance(loads, GLOBAL, "spread-replica"), 32).sum()
        < duplicates(rebalance(loads, GLOBAL, "initial_program"), 32).sum()
    )


@pytest.mark.parametrize("method", ["shinkaevolve", "adaevolve", "gepa", "levi", "spread-replica"])
def test_their_largest_replica_is_that_of_adams(method):
    loads = skewed()
    best = largest_replica(loads, rebalance(loads, GLOBAL, "initial_program"))
    assert largest_replica(loads, rebalance(loads, GLOBAL, method)) == pytest.approx(best, rel=1e-6)


def test_levi_sees_what_float32_cannot():
    loads = np.array([[2**40, 2**40 + 1, 1, 1]])
    deployment = Deployment(4, 5, 5)
    assert rebalance(loads, deployment, "levi").counts().tolist() == [[1, 2, 1, 1]]
    assert rebalance(loads, deployment, "openevolve").counts().tolist() == [[2, 1, 1, 1]]


def test_gepa_falls_back_to_the_hierarchical_plan_where_it_is_as_good():
    deployment = Deployment(8, 8, 4, num_nodes=2, num_groups=2)
    even = np.array([[4, 3, 2, 1, 4, 3, 2, 1]])
    placement = rebalance(even, deployment, "gepa")
    assert verify(placement, even, deployment) == [5]
    uneven = np.array([[8, 8, 8, 8, 1, 1, 1, 1]])
    with pytest.raises(InputError, match="'gepa', which plans under the global policy only"):
        rebalance(uneven, deployment, "gepa")
    assert verify(rebalance(uneven, deployment.as_global(), "gepa"), uneven, deployment.as_global()) == [9]


@pytest.mark.parametrize("method", ["levi", "adaevolve", "spread-replica"])
def test_programs_without_nodes_refuse_a_hierarchical_deployment(method):
    with pytest.raises(InputError, match=f"'{method}', which plans under the global policy only"):
        rebalance(skewed(1), FLAGSHIP, method)


@pytest.mark.parametrize("method", EVOLVED_PROGRAMS)
@pytest.mark.parametrize("factor", [2**-12, 2**20])
def test_scaling_the_loads_changes_nothing(method, factor):
    loads = skewed(3).astype(float)
    plan = METHODS[method]
    assert (plan(loads, GLOBAL).phy2log == plan(loads * factor, GLOBAL).phy2log).all()
