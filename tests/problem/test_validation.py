from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, verify
from eplb_gap.problem.dead_ranks import live_slots, without_dead
from eplb_gap.problem.validation import check, legal_layers

# The rules once more, as plainly as they can be written; nothing here comes from the package but the deployment's numbers.


def naive_is_legal(slots: Sequence[int], d: Deployment) -> bool:
    if set(slots) != set(range(d.num_experts)):
        return False
    per_gpu = d.num_slots // d.num_gpus
    if d.duplicates == "forbidden":
        for gpu in range(d.num_gpus):
            held = slots[gpu * per_gpu : (gpu + 1) * per_gpu]
            if len(set(held)) < per_gpu:
                return False
    if d.num_nodes > 1 and d.num_groups % d.num_nodes == 0:
        per_node, group_size = d.num_slots // d.num_nodes, d.num_experts // d.num_groups
        groups_on = [{e // group_size for e in slots[n * per_node : (n + 1) * per_node]} for n in range(d.num_nodes)]
        if any(len(groups) != d.num_groups // d.num_nodes for groups in groups_on):
            return False
        if sum(len(groups) for groups in groups_on) != len(set().union(*groups_on)):
            return False
    return True


def naive_makespan(loads: Sequence[int], slots: Sequence[int], num_gpus: int) -> Fraction:
    counts = Counter(slots)
    per_gpu = len(slots) // num_gpus
    totals = [Fraction(0)] * num_gpus
    for slot, expert in enumerate(slots):
        totals[slot // per_gpu] += Fraction(loads[expert], counts[expert])
    return max(totals)


@pytest.mark.parametrize(
    ("deployment", "legal_maps"),
    [
        # E! S(S, E) surjections where everything is allowed; the others follow from the rules by counting.
        (Deployment(3, 4, 2), 36),
        (Deployment(3, 4, 2, duplicates="forbidden"), 24),
        (Deployment(3, 4, 4), 36),
        (Deployment(2, 4, 2), 14),
        (Deployment(2, 4, 2, duplicates="forbidden"), 4),
        (Deployment(1, 3, 3), 1),
        (Deployment(3, 6, 3, duplicates="forbidden"), 6**3 - 3 * 2**3),
        (Deployment(3, 4, 2, 2, 3), 36),  # three groups on two nodes: global
        (Deployment(4, 4, 2, 2, 2), 2 * 2 * 2),
        (Deployment(4, 4, 2, 2, 4), 24),
        (Deployment(4, 6, 2, 2, 2), 2 * 6 * 6),
        (Deployment(4, 6, 2, 2, 4), 6 * 6 * 6),
        (Deployment(4, 4, 2, 2, 2, "forbidden"), 2 * 2 * 2),
        (Deployment(2, 6, 2, 2, 2), 2),
    ],
    ids=str,
)
def test_exactly_the_legal_maps_are_accepted_and_their_makespans_exact(deployment: Deployment, legal_maps: int) -> None:
    experts = deployment.num_experts
    loads = (97, 31, 10, 5)[:experts]
    values = range(-1, experts + 1) if (experts + 2) ** deployment.num_slots <= 20_000 else range(experts)
    accepted = 0
    for slots in itertools.product(values, repeat=deployment.num_slots):
        try:
            makespan = verify(Placement([slots], experts), [loads], deployment)
        except PlacementError:
            assert not naive_is_legal(slots, deployment), slots
        else:
            assert naive_is_legal(slots, deployment), slots
            assert makespan == [naive_makespan(loads, slots, deployment.num_gpus)], slots
            accepted += 1
    assert accepted == legal_maps


def test_duplicates_on_the_gpus_of_a_hierarchical_deployment() -> None:
    # Per node: two experts on two GPUs of two slots. All maps of the first node, the second node's fixed to a legal one.
    deployment = Deployment(4, 8, 4, 2, 2, "forbidden")
    accepted = set()
    for first in itertools.product(range(4), repeat=4):
        slots = (*first, 2, 3, 3, 2)
        try:
            verify(Placement([slots], 4), [[1, 2, 3, 4]], deployment)
        except PlacementError:
            assert not naive_is_legal(slots, deployment), slots
        else:
            assert naive_is_legal(slots, deployment), slots
            accepted.add(first)
    assert accepted == {(0, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1), (1, 0, 1, 0)}


# Messages


@pytest.mark.parametrize(
    ("deployment", "second", "message"),
    [
        (Deployment(3, 4, 2), [0, 1, 2, 3], "layer 1, slot 3: expert 3 does not exist; experts are 0 to 2"),
        (Deployment(3, 4, 2), [0, -1, 2, 1], "layer 1, slot 1: expert -1 does not exist; experts are 0 to 2"),
        (Deployment(3, 4, 2), [0, 2, 2, 0], "layer 1: expert 1 has no replica; every expert needs at least one"),
        (
            Deployment(3, 4, 2, duplicates="forbidden"),
            [0, 1, 2, 2],
            "layer 1, slot 3: GPU 1 holds expert 2 twice; duplicates are forbidden",
        ),
    ],
)
def test_the_message_names_layer_and_slot_or_expert(deployment: Deployment, second: list[int], message: str) -> None:
    with pytest.raises(PlacementError) as caught:
        verify(Placement([[0, 1, 2, 0], second], 3), [[1, 1, 1], [1, 1, 1]], deployment)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("groups", "second", "parts"),
    [
        (2, [0, 1, 1, 2, 3, 0], ["layer 1, slot 5: expert 0 of group 0 is on node 1", "group on node 0"]),
        (2, [0, 2, 2, 1, 3, 3], ["layer 1, slot 3: expert 1 of group 0 is on node 1", "group on node 0"]),
        (4, [0, 1, 2, 3, 3, 3], ["layer 1: node 0 hosts 3 groups", "puts 2 on each"]),
        (4, [0, 0, 0, 1, 2, 3], ["layer 1: node 0 hosts 1 groups", "puts 2 on each"]),
    ],
)
def test_a_map_that_breaks_the_node_rules_is_located(groups: int, second: list[int], parts: list[str]) -> None:
    deployment = Deployment(4, 6, 2, 2, groups)
    with pytest.raises(PlacementError) as caught:
        verify(Placement([[2, 3, 3, 0, 1, 0], second], 4), [[1] * 4, [1] * 4], deployment)
    for part in parts:
        assert part in str(caught.value)


def test_a_map_that_mixes_nodes_is_legal_under_the_global_policy() -> None:
    deployment = Deployment(4, 6, 2, 2, 2).as_global()
    assert verify(Placement([[0, 1, 1, 2, 3, 0]], 4), [[2, 2, 1, 1]], deployment) == [Fraction(3)]


@pytest.mark.parametrize("ranks", [[0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 2, 0], [0, 1, 1, 0], [-1, 0, 0, 0], [0, 0, 1, 5]])
def test_ranks_that_are_not_dense_are_refused(ranks: list[int]) -> None:
    with pytest.raises(PlacementError, match=r"layer 0, slot \d: replica rank -?\d of expert \d .* once each"):
        verify(Placement([[0, 1, 0, 2]], 3, [ranks]), [[1, 1, 1]], Deployment(3, 4, 2))


def test_ranks_in_any_order_are_legal() -> None:
    deployment = Deployment(2, 4, 2)
    for order in itertools.permutations(range(3)):
        ranks = [[order[0], order[1], 0, order[2]]]
        assert verify(Placement([[0, 0, 1, 0]], 2, ranks), [[3, 4]], deployment) == [Fraction(5)]


@pytest.mark.parametrize(
    ("placement", "loads", "part"),
    [
        (Placement([[0, 1, 2, 0]], 3), [[1, 1]], "loads has 2 experts; the deployment has 3"),
        (Placement([[0, 1, 2, 0]], 3), [[1, 1, 1], [1, 1, 1]], "placement has shape (1, 4)"),
        (Placement([[0, 1, 2]], 3), [[1, 1, 1]], "placement has shape (1, 3)"),
        (Placement([[0, 1, 2, 0]], 4), [[1, 1, 1]], "for 4 experts"),
        (Placement([[0, 1, 2, 0]], 3), [1, 1, 1], "loads has shape (3,)"),
        (Placement([[0, 1, 2, 0]], 3), [[1, 1, -1]], "loads[0, 2] is -1"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(placement: Placement, loads: Any, part: str) -> None:
    with pytest.raises(InputError) as caught:
        verify(placement, loads, Deployment(3, 4, 2))
    assert part in str(caught.value)


# Exact arithmetic

SLOTS = (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0)  # counts 6, 3, 2, 1


@given(st.lists(st.integers(0, (2**63 - 1) // 4), min_size=4, max_size=4), st.permutations(SLOTS))
def test_makespans_of_huge_loads_are_exact(loads: list[int], slots: list[int]) -> None:
    assert verify(Placement([slots], 4), [loads], Deployment(4, 12, 3)) == [naive_makespan(loads, slots, 3)]


@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_makespans_are_exact_on_both_sides_of_the_integer_limits(offset: int) -> None:
    for limit in (2**62, 2**63, 2**64):
        loads = [limit // 6 // 4 + offset, limit // 24, limit // 24 + 1, limit // 24]
        assert verify(Placement([SLOTS], 4), [loads], Deployment(4, 12, 3)) == [naive_makespan(loads, SLOTS, 3)]


@pytest.mark.parametrize("load", [0, 1])
def test_counts_whose_common_multiple_is_beyond_int64_are_judged(load: int) -> None:
    experts = 47
    slots = [expert for expert in range(experts) for _ in range(expert + 1)]
    deployment = Deployment(experts, len(slots), 2)
    loads = [load] * experts
    assert verify(Placement([slots], experts), [loads], deployment) == [naive_makespan(loads, slots, 2)]


LEGAL = Placement([[0, 1, 2, 0, 0, 1], [2, 2, 1, 0, 1, 0]], 3)
SMALL_LOADS = st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=2, max_size=2)


@given(SMALL_LOADS, st.permutations(range(3)))
def test_renaming_the_experts_changes_nothing(loads: list[list[int]], names: list[int]) -> None:
    deployment = Deployment(3, 6, 3)
    renamed_loads = np.empty((2, 3), dtype=int)
    renamed_loads[:, names] = loads
    renamed = Placement(np.array(names)[LEGAL.phy2log], 3)
    assert verify(renamed, renamed_loads, deployment) == verify(LEGAL, loads, deployment)


@given(SMALL_LOADS, st.integers(0, 10**12))
def test_scaled_loads_scale_the_makespan(loads: list[list[int]], factor: int) -> None:
    deployment = Deployment(3, 6, 3)
    scaled = [[factor * w for w in row] for row in loads]
    assert verify(LEGAL, scaled, deployment) == [factor * value for value in verify(LEGAL, loads, deployment)]


@given(SMALL_LOADS, st.permutations(range(3)), st.permutations(range(2)))
def test_the_order_of_gpus_and_of_slots_on_them_does_not_matter(loads: Any, gpus: list[int], within: list[int]) -> None:
    deployment = Deployment(3, 6, 3)
    moved = Placement(LEGAL.by_gpu(3)[:, gpus][:, :, within].reshape(2, 6), 3)
    assert verify(moved, loads, deployment) == verify(LEGAL, loads, deployment)


def test_every_layer_is_judged_on_its_own_loads() -> None:
    loads = [[6, 2, 1], [4, 4, 4]]
    separate = [verify(Placement(LEGAL.phy2log[[i]], 3), [loads[i]], Deployment(3, 6, 3))[0] for i in range(2)]
    assert verify(LEGAL, loads, Deployment(3, 6, 3)) == separate == [Fraction(3), Fraction(4)]


def is_legal(slots: list[int], ranks: list[int], deployment: Deployment) -> bool:
    """Judge one layer by the definition, slot by slot."""
    ends = list(itertools.accumulate(deployment.slots_by_gpu))
    held = [(gpu, slots[slot], ranks[slot]) for slot, gpu in enumerate(bisect_right(ends, slot) for slot in range(len(slots)))]
    held = [one for one in held if deployment.active[one[0]]]
    experts = set(range(deployment.num_experts))
    if {expert for _, expert, _ in held} != experts:
        return False
    if any(sorted(r for _, x, r in held if x == e) != list(range(sum(x == e for _, x, _ in held))) for e in experts):
        return False
    if deployment.duplicates == "forbidden" and len({(gpu, expert) for gpu, expert, _ in held}) < len(held):
        return False
    if deployment.policy == "global":
        return True
    homes = {(expert // deployment.experts_per_group, gpu // deployment.gpus_per_node) for gpu, expert, _ in held}
    nodes = [node for _, node in homes]
    return len(homes) == deployment.num_groups and all(
        nodes.count(node) == deployment.groups_per_node for node in range(deployment.num_nodes)
    )


@pytest.mark.parametrize(
    "deployment",
    [
        Deployment(3, 4, 2),
        Deployment(3, 4, 2, duplicates="forbidden"),
        Deployment(2, 4, 4, 2, 2),
        Deployment(4, 4, 2, 2, 4),
        Deployment(2, slots_per_gpu=[1, 2, 1], duplicates="forbidden"),
        Deployment(2, slots_per_gpu=[1, 2, 1], active=[True, False, True]),
        Deployment(2, 6, 3, active=[True, False, True], duplicates="forbidden"),
    ],
    ids=str,
)
def test_what_is_legal_is_what_the_definition_says(deployment: Deployment) -> None:
    generator = np.random.default_rng(1)
    shape = (600, deployment.num_slots)
    maps = np.sort(generator.integers(-1 if deployment.num_experts < 4 else 0, deployment.num_experts + 1, shape), axis=1)
    maps[::2] = generator.integers(0, deployment.num_experts, maps[::2].shape)
    placement = Placement(maps, deployment.num_experts)
    damaged = generator.random(shape) < 0.05
    placement.ranks[damaged] = generator.integers(-1, 4, shape)[damaged]
    left = without_dead(placement, deployment).ranks  # numbered anew where filler is not marked
    ranks = placement.ranks.copy()
    ranks[:, live_slots(deployment)] = left
    expected = [is_legal(*layer, deployment) for layer in zip(maps.tolist(), ranks.tolist(), strict=True)]
    assert legal_layers(placement, deployment).tolist() == expected
    assert 10 < sum(expected) < 590
    for layer, legal in enumerate(expected):
        one = Placement(maps[layer : layer + 1], deployment.num_experts, placement.ranks[layer : layer + 1])
        if legal:
            check(one, deployment)
        else:
            with pytest.raises(PlacementError, match="layer 0"):
                check(one, deployment)


@pytest.mark.parametrize("wrong", [None, "map.json", [[0, 1]], 3])
def test_what_is_no_placement_or_no_deployment_is_named(wrong):
    for judged in (verify, lambda placement, _, deployment: check(placement, deployment)):
        with pytest.raises(InputError, match=r"placement is .*; a Placement is needed"):
            judged(wrong, [[1, 1]], Deployment(2, 2, 2))
        with pytest.raises(InputError, match=r"deployment is .*; a Deployment is needed"):
            judged(Placement([[0, 1]], 2), [[1, 1]], wrong)
