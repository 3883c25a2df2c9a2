"""Unequal slots and dead GPUs: the deployment, the judge, the metrics and the bounds."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from eplb_gap.problem import Deployment, InputError, Instance, Placement, PlacementError, metrics, verify
from eplb_gap.problem.bounds.bounds import best_joint_bound, capacity_bound, joint_bounds
from eplb_gap.problem.certificate import CertificateError, check, write
from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead

DEAD = Deployment(3, 8, 4, active=[True, False, True, True])
UNEVEN = Deployment(3, slots_per_gpu=[1, 3])


def test_a_regular_deployment_knows_nothing_of_uneven_ones() -> None:
    regular = Deployment(12, 16, 8, 2, 4)
    assert regular.is_regular
    assert (
        repr(regular) == "Deployment(num_experts=12, num_slots=16, num_gpus=8, num_nodes=2, num_groups=4, duplicates='allowed')"
    )
    assert list(regular.as_dict()) == ["num_experts", "num_slots", "num_gpus", "num_nodes", "num_groups", "duplicates"]
    assert regular.live is regular
    assert regular.slots_by_gpu == (2,) * 8


def test_slots_and_gpus_follow_from_the_slots_of_every_gpu() -> None:
    assert not UNEVEN.is_regular
    assert (UNEVEN.num_slots, UNEVEN.num_gpus, UNEVEN.slots_by_gpu, UNEVEN.active) == (4, 2, (1, 3), (True, True))
    assert UNEVEN.live is UNEVEN
    assert Deployment(3, 4, 2, slots_per_gpu=np.array([1, 3])) == UNEVEN
    assert Deployment(3, slots_per_gpu=[3, 1]) != UNEVEN


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, replace, lambda d: pickle.loads(pickle.dumps(d))])
@pytest.mark.parametrize("deployment", [UNEVEN, DEAD, Deployment(3, 4, 2)])
def test_copies_are_equal(copied: Any, deployment: Deployment) -> None:
    assert copied(deployment) == deployment
    assert hash(copied(deployment)) == hash(deployment)
    assert Deployment(**deployment.as_dict()) == deployment
    assert eval(repr(deployment)) == deployment


def test_what_is_alike_and_alive_is_regular_however_it_is_said() -> None:
    regular = Deployment(3, 6, 3, 3, 3)
    assert Deployment(3, slots_per_gpu=[2, 2, 2], active=[True] * 3, num_nodes=3, num_groups=3) == regular
    assert Deployment(2, 6, 3, dead_gpus=[2, 0], unequal_slots=[]) == Deployment(2, 6, 3, active=[False, True, False])
    assert Deployment(3, 6, 3, dead_gpus=(2,)).active == (True, True, False)
    assert Deployment(3, slots_per_gpu=[1, 3], unequal_slots=[1, 3]) == UNEVEN


def test_a_changed_copy_keeps_what_is_dead_and_unequal() -> None:
    assert replace(DEAD, num_slots=12) == Deployment(3, 12, 4, active=[True, False, True, True])
    assert replace(UNEVEN, num_experts=2).slots_by_gpu == (1, 3)
    nodes = Deployment(3, 8, 4, 2, active=[True, False, True, True])
    assert nodes.policy == "global"
    assert nodes.as_global() == DEAD
    with pytest.raises(InputError, match="num_slots is 6; slots_per_gpu says 4"):
        replace(UNEVEN, num_slots=6)


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (UNEVEN, "the GPUs have 1 to 3 slots; this needs equally many on each"),
        (DEAD, "GPU 1 is dead; this needs all GPUs alive"),
        (Deployment(3, 12, 4, dead_gpus=[3, 1]), "GPU 1, 3 is dead"),
    ],
)
def test_who_asks_for_the_slots_of_one_gpu_is_told_of_unequal_and_dead_ones(deployment: Deployment, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _ = deployment.slots_per_gpu
    with pytest.raises(InputError, match=message):
        _ = deployment.slots_per_node


def test_dead_gpus_leave_a_smaller_deployment() -> None:
    assert DEAD.num_slots == 8
    assert DEAD.live == Deployment(3, 6, 3)
    mixed = Deployment(3, slots_per_gpu=[2, 3, 1], active=[True, False, True], duplicates="forbidden")
    assert mixed.live == Deployment(3, slots_per_gpu=[2, 1], duplicates="forbidden")
    assert live_slots(mixed).tolist() == [0, 1, 5]
    # One GPU left: whatever the slots, it is alike with itself.
    assert Deployment(3, slots_per_gpu=[2, 3], active=[False, True]).live.is_regular
    preset = replace(Deployment.preset("dsv3-prefill-ep32").as_global(), dead_gpus=(0,))
    assert preset.live == Deployment(256, 279, 31)


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((3,), {"slots_per_gpu": 4}, "slots_per_gpu is 4; a list"),
        ((3,), {"slots_per_gpu": [4, 0]}, r"slots_per_gpu\[1\] is 0; a positive integer"),
        ((3,), {"slots_per_gpu": [4, True]}, r"slots_per_gpu\[1\] is True"),
        ((3,), {"slots_per_gpu": [4, 2.0]}, r"slots_per_gpu\[1\] is 2.0"),
        ((3, 7), {"slots_per_gpu": [4, 4]}, "num_slots is 7; slots_per_gpu says 8"),
        ((3, 8, 3), {"slots_per_gpu": [4, 4]}, "num_gpus is 3; slots_per_gpu says 2"),
        ((3,), {"active": [True]}, "num_slots is None; a positive integer"),
        ((3, 7, 2), {"active": [True, True]}, "num_gpus is 2; a divisor of num_slots = 7"),
        ((3, 8, 2), {"active": [True]}, "active has 1 entries; one for each of the 2 GPUs"),
        ((3, 8, 2), {"active": True}, "active is True; a list"),
        ((3, 8, 2), {"active": [1, 1]}, r"active\[0\] is 1; True or False"),
        ((5, 8, 4), {"active": [True, False, False, True]}, "2 of 4 GPUs are active, with 4 slots; at least num_experts = 5"),
        ((3, 8, 4), {"active": [False] * 4}, "0 of 4 GPUs are active, with 0 slots"),
        ((5,), {"slots_per_gpu": [1, 3]}, "with 4 slots; at least num_experts = 5"),
        ((4, 8, 4, 2, 2), {"active": [True] * 3 + [False]}, "num_groups is 2 on 2 nodes, the hierarchical policy"),
        ((3, 8, 4), {"dead_gpus": [4]}, "dead_gpus names 4; different GPUs from 0 to 3"),
        ((3, 8, 4), {"dead_gpus": [1, 1]}, "dead_gpus names 1; different GPUs"),
        ((3, 8, 4), {"dead_gpus": ["1"]}, "dead_gpus names '1'"),
        ((3, 8, 4), {"dead_gpus": 1}, "dead_gpus is 1; a list of GPUs"),
        ((3, 8, 4), {"dead_gpus": [1], "active": [True] * 4}, "active and dead_gpus are both given and differ"),
        ((3,), {"unequal_slots": [1, 3], "slots_per_gpu": [3, 1]}, "slots_per_gpu and unequal_slots are both given and differ"),
        ((2, None, None, 1, 1, "forbidden"), {"slots_per_gpu": [1, 3]}, "3 slots per GPU; a GPU can hold at most the 2"),
    ],
)
def test_what_cannot_be_is_named(arguments: Any, named: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Deployment(*arguments, **named)


def test_a_dead_gpu_with_too_many_slots_does_not_matter() -> None:
    assert Deployment(2, slots_per_gpu=[2, 3], active=[True, False], duplicates="forbidden").live.num_slots == 2


def test_makespans_of_unequal_gpus_are_exact() -> None:
    # Expert 0 alone on the first GPU and once beside the others: 6/2 against 6/2 + 2 + 1.
    assert verify(Placement([[0, 0, 1, 2]], 3), [[6, 2, 1]], UNEVEN) == [6]
    assert verify(Placement([[1, 0, 2, 2]], 3), [[6, 5, 1]], UNEVEN) == [7]
    assert verify(Placement([[0, 0, 1, 2], [1, 0, 0, 2]], 3), [[7, 2, 1], [1, 1, 1]], UNEVEN) == [Fraction(13, 2), 2]


def test_what_dead_gpus_hold_is_ignored() -> None:
    loads = [[6, 4, 2]]
    filler = Placement([[0, 1, 0, 0, 0, 2, 1, 2]], 3)
    assert verify(filler, loads, DEAD) == verify(Placement([[0, 1, 0, 2, 1, 2]], 3), loads, DEAD.live) == [5]
    elsewhere = Placement([[0, 1, 2, 2, 0, 2, 1, 2]], 3)
    assert verify(elsewhere, loads, DEAD) == [5]
    lost = Placement([[0, 1, 2, 2, 0, 1, 1, 0]], 3)
    with pytest.raises(PlacementError, match="layer 0: expert 2 has no replica"):
        verify(lost, loads, DEAD)


def test_filler_is_no_replica() -> None:
    live = Placement([[0, 1, 0, 2, 1, 2]], 3, [[1, 0, 0, 0, 1, 1]])
    whole = with_dead(live, DEAD)
    assert whole.phy2log.tolist() == [[0, 1, 0, 0, 0, 2, 1, 2]]
    assert whole.counts().tolist() == [[2, 2, 2]]
    assert whole.log2phy().tolist() == [[[4, 0], [1, 6], [5, 7]]]  # no slot of the dead GPU, ranks as they were
    back = without_dead(whole, DEAD)
    assert (back.phy2log == live.phy2log).all() and (back.ranks == live.ranks).all()
    plain = without_dead(Placement(whole.phy2log, 3), DEAD)
    assert plain.ranks.tolist() == [[0, 0, 1, 0, 1, 1]]
    assert with_dead(live, DEAD.live) is live is without_dead(live, DEAD.live)


def test_metrics_count_the_live_gpus() -> None:
    loads = [[6, 4, 2]]
    whole = with_dead(Placement([[0, 1, 0, 2, 1, 2]], 3), DEAD)
    assert metrics.slot_loads(whole, loads).tolist() == [[3, 2, 0, 0, 3, 1, 2, 1]]
    assert metrics.gpu_loads(whole, loads, DEAD).tolist() == [[5, 4, 3]]
    assert metrics.balancedness_gpu(whole, loads, DEAD) == 4 / 5
    assert metrics.balancedness_expert(whole, loads) == 2 / 3
    uneven = Placement([[0, 0, 1, 0]], 3)
    assert metrics.gpu_loads(uneven, [[6, 2, 0]], UNEVEN).tolist() == [[2, 6]]
    assert metrics.duplicates(uneven, UNEVEN).tolist() == [1]
    assert metrics.duplicates(Placement(whole.phy2log, 3), DEAD).tolist() == [0]


def test_errors_name_slots_and_gpus_of_the_whole_map() -> None:
    deployment = replace(DEAD, duplicates="forbidden")
    with pytest.raises(PlacementError, match="layer 0, slot 7: GPU 3 holds expert 2 twice"):
        verify(Placement([[0, 1, 0, 0, 0, 1, 2, 2]], 3), [[1, 1, 1]], deployment)
    with pytest.raises(PlacementError, match="layer 0, slot 4: expert 9 does not exist"):
        verify(Placement([[0, 1, 0, 0, 9, 1, 2, 2]], 3), [[1, 1, 1]], deployment)
    wrong = with_dead(Placement([[0, 1, 0, 2, 1, 2]], 3), DEAD)
    wrong.ranks[0, 5] = 3
    with pytest.raises(PlacementError, match=r"layer 0, slot 5: replica rank 3|layer 0, slot 7: replica rank 1"):
        verify(wrong, [[1, 1, 1]], DEAD)


def test_engines_of_equal_slots_are_told_of_unequal_ones() -> None:
    instance = Instance.of_layer([6, 2, 1], UNEVEN)
    assert (instance.slots_by_gpu, instance.starts, instance.is_even) == ((1, 3), (0, 1, 4), False)
    with pytest.raises(InputError, match="the GPUs have 1 to 3 slots"):
        _ = instance.slots_per_gpu
    assert instance.makespan((0, 0, 1, 2)) == 6
    assert instance.digest != Instance((6, 2, 1), 4, 2).digest != Instance((6, 2, 1), 4, 2, "forbidden").digest
    assert Instance((6, 2, 1), 4, 2) == Instance((6, 2, 1), 4, 2, slots_by_gpu=(2, 2))
    assert Instance.of_layer([6, 4, 2], DEAD) == Instance((6, 4, 2), 6, 3)


def test_small_gpus_leave_load_to_the_others() -> None:
    # The GPU of one slot carries at most the largest load, 5: the other carries the remaining 10, the mean is 7.5.
    instance = Instance((5, 4, 3, 3), 5, 2, slots_by_gpu=(1, 4))
    assert capacity_bound(instance).value == 10
    assert best_joint_bound(instance).kind == "capacity"
    assert len(joint_bounds(instance)) == 4
    regular = Instance((5, 4, 3, 3), 6, 2)
    assert capacity_bound(regular).value == regular.mean
    assert len(joint_bounds(regular)) == 3


def test_a_certificate_of_an_uneven_deployment_is_checked(tmp_path: Any) -> None:
    deployment = Deployment(4, slots_per_gpu=[1, 2, 4], active=[True, False, True])
    placement = with_dead(Placement([[0, 1, 1, 2, 3]], 4), deployment)
    bound = capacity_bound(Instance.of_layer([5, 4, 3, 3], deployment))
    write(tmp_path / "c.json", [[5, 4, 3, 3]], deployment, placement, [bound])
    verdict = check(tmp_path / "c.json")
    assert verdict.upper == verdict.lower == [10]
    assert verdict.optimal == 1 and not verdict.claims
    text = (tmp_path / "c.json").read_text()
    (tmp_path / "c.json").write_text(text.replace('"proof": "capacity"', '"proof": "mean"'))
    with pytest.raises(CertificateError, match="lower is 10, its mean witness proves 15/2"):
        check(tmp_path / "c.json")
