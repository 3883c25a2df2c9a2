from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from eplb_gap.problem import PRESETS, Deployment, InputError


@pytest.mark.parametrize(
    ("name", "experts", "slots", "gpus", "nodes", "groups", "policy", "slots_per_gpu"),
    [
        ("dsv3-prefill-ep32", 256, 288, 32, 4, 8, "hierarchical", 9),
        ("dsv3-decode-ep144", 256, 288, 144, 1, 1, "global", 2),
        ("dsv3-decode-ep320", 256, 320, 320, 1, 1, "global", 1),
        ("gb200-ep36", 256, 288, 36, 1, 1, "global", 8),
        ("qwen3-235b-ep16", 128, 160, 16, 1, 1, "global", 10),
        ("kimi-k2-ep64", 384, 448, 64, 1, 1, "global", 7),
        ("olmoe-ep16", 64, 80, 16, 1, 1, "global", 5),
        ("mixtral-ep8", 8, 16, 8, 1, 1, "global", 2),
        ("deepseek-readme", 12, 16, 8, 2, 4, "hierarchical", 2),
    ],
)
def test_preset_has_the_numbers_of_its_system(
    name: str, experts: int, slots: int, gpus: int, nodes: int, groups: int, policy: str, slots_per_gpu: int
) -> None:
    deployment = Deployment.preset(name)
    assert deployment == Deployment(experts, slots, gpus, nodes, groups, "allowed")
    assert deployment.policy == policy
    assert deployment.slots_per_gpu == slots_per_gpu


def test_the_presets_are_the_nine_documented_ones() -> None:
    assert sorted(PRESETS) == [
        "deepseek-readme",
        "dsv3-decode-ep144",
        "dsv3-decode-ep320",
        "dsv3-prefill-ep32",
        "gb200-ep36",
        "kimi-k2-ep64",
        "mixtral-ep8",
        "olmoe-ep16",
        "qwen3-235b-ep16",
    ]


def test_unknown_preset_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(InputError) as caught:
        Deployment.preset("dsv4")
    assert "'dsv4'" in str(caught.value)
    assert all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize(
    ("nodes", "groups", "policy"),
    [
        (1, 1, "global"),
        (1, 4, "global"),  # one node: nothing to divide
        (2, 1, "global"),  # one group does not divide over two nodes
        (2, 3, "global"),
        (4, 6, "global"),
        (2, 2, "hierarchical"),
        (2, 6, "hierarchical"),
        (4, 4, "hierarchical"),
        (4, 12, "hierarchical"),
    ],
)
def test_policy_is_hierarchical_only_if_groups_divide_over_several_nodes(nodes: int, groups: int, policy: str) -> None:
    assert Deployment(12, 16, 8, nodes, groups).policy == policy


def test_derived_sizes_of_a_hierarchical_deployment() -> None:
    deployment = Deployment(24, 32, 8, num_nodes=2, num_groups=6)
    assert deployment.slots_per_gpu == 4
    assert deployment.gpus_per_node == 4
    assert deployment.slots_per_node == 16
    assert deployment.experts_per_group == 4
    assert deployment.groups_per_node == 3


def test_as_global_drops_nodes_and_groups_and_nothing_else() -> None:
    deployment = Deployment(12, 16, 8, 2, 4, "forbidden")
    assert deployment.as_global() == Deployment(12, 16, 8, 1, 1, "forbidden")


def test_a_deployment_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Deployment(4, 4, 2).num_gpus = 4  # type: ignore[misc]


@pytest.mark.parametrize("name", ["num_experts", "num_slots", "num_gpus", "num_nodes", "num_groups"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True, False])
def test_each_number_must_be_a_positive_integer(name: str, value: Any) -> None:
    numbers = {"num_experts": 4, "num_slots": 8, "num_gpus": 4, "num_nodes": 2, "num_groups": 2, name: value}
    with pytest.raises(InputError) as caught:
        Deployment(**numbers)
    assert str(caught.value) == f"{name} is {value!r}; a positive integer is needed"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((4, 10, 4), ["num_gpus is 4", "divisor of num_slots = 10 is needed: 2 or 5, or num_slots = 8 or 12"]),
        ((16, 32, 24), ["divisor of num_slots = 32 is needed: 16 or 32, or num_slots = 24 or 48"]),
        ((28, 32, 24), ["divisor of num_slots = 32 is needed: 16 or 32, or num_slots = 48"]),
        ((16, 32, 40), ["divisor of num_slots = 32 is needed: 32, or num_slots = 40"]),
        ((10**12, 10**12 + 7, 10**6), ["is needed: num_slots = 1000000000000 or 1000001000000"]),
        ((4, 3, 1), ["num_slots is 3", "num_experts = 4"]),
        ((4, 8, 4, 3), ["num_nodes is 3", "divisor of num_gpus = 4 is needed: 2 or 4"]),
        ((4, 8, 4, 1, 3), ["num_groups is 3", "divisor of num_experts = 4 is needed: 2 or 4"]),
        ((4, 8, 4, 1, 1, "maybe"), ["duplicates is 'maybe'", "'allowed' or 'forbidden'"]),
        ((4, 8, 4, 1, 1, True), ["duplicates is True", "'allowed' or 'forbidden'"]),
        ((3, 8, 2, 1, 1, "forbidden"), ["duplicates='forbidden'", "4 slots per GPU", "at most the 3"]),
        ((4, 12, 4, 2, 2, "forbidden"), ["duplicates='forbidden'", "3 slots per GPU", "at most the 2"]),
    ],
)
def test_a_contradiction_is_named_with_what_was_found_and_what_is_allowed(arguments: Any, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Deployment(*arguments)
    for part in parts:
        assert part in str(caught.value)


def test_forbidden_duplicates_are_feasible_up_to_the_experts_a_gpu_can_see() -> None:
    assert Deployment(4, 8, 2, duplicates="forbidden").slots_per_gpu == 4
    assert Deployment(4, 8, 4, 2, 2, "forbidden").slots_per_gpu == 2
    # Two nodes but three groups: global, so a GPU may hold any of the six experts.
    assert Deployment(6, 12, 2, 2, 3, "forbidden").slots_per_gpu == 6


def test_integers_of_numpy_are_integers_and_its_flags_are_not() -> None:
    assert Deployment(*map(np.int64, (12, 16, 8))) == Deployment(12, 16, 8)
    assert type(Deployment(np.int32(12), 16, 8).num_experts) is int
    assert Deployment(np.uint8(4), slots_per_gpu=np.array([1, 3, 2])) == Deployment(4, slots_per_gpu=[1, 3, 2])
    for wrong in (np.bool_(True), True, 12.0, np.float64(12), "12", None, np.array([12])):
        with pytest.raises(InputError, match=r"num_experts is .*; a positive integer is needed"):
            Deployment(wrong, 16, 8)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"num_slots is 6.0; a positive integer is needed"):
        Deployment(4, 6.0, slots_per_gpu=[1, 3, 2])  # type: ignore[arg-type]
