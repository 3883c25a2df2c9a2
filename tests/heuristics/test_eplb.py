from __future__ import annotations

import numpy as np
import pytest
import torch

import eplb_gap
from eplb_gap.heuristics.eplb import rebalance_experts
from eplb_gap.problem import Deployment, InputError, Placement, verify

README = torch.tensor(
    [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
)
PHY2LOG = [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]]
LOGCNT = [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_deepseeks_readme_example_exactly(dtype):
    phy2log, log2phy, logcnt = rebalance_experts(README.to(dtype), 16, 4, 2, 8, method="initial_program")
    assert phy2log.tolist() == PHY2LOG
    assert logcnt.tolist() == LOGCNT
    assert log2phy.shape == (2, 12, 2)
    assert log2phy[0].tolist()[1] == [15, 13]  # the first replica that replication listed is on slot 15
    assert log2phy[0].tolist()[0] == [12, -1]
    assert {t.dtype for t in (phy2log, log2phy, logcnt)} == {torch.int64}
    Placement.from_tensors(phy2log, log2phy, logcnt)


def test_public_name_is_the_same_object():
    assert eplb_gap.rebalance_experts is rebalance_experts
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = eplb_gap.no_such_name


@pytest.mark.parametrize("method", ["fast", "initial_program", "eplb_snake_pipeline", "rr_waterfill_hare"])
def test_tensors_describe_one_legal_map(method):
    weight = torch.rand(3, 64, generator=torch.Generator().manual_seed(6)) ** 3
    tensors = rebalance_experts(weight, 80, 8, 2, 8, method=method)
    placement = Placement.from_tensors(*tensors)
    verify(placement, (weight * 1e6).to(torch.int64).numpy(), Deployment(64, 80, 8, num_nodes=2, num_groups=8))


class VllmPolicy:
    """The first generation of vLLM's policy class, as an outside policy would fill it."""

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None):
        return rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices)


SHAPES = [(64, 80, 8, 2, 8), (64, 64, 1, 1, 8), (8, 8, 1, 1, 1), (6, 12, 1, 1, 12), (12, 16, 3, 2, 8), (16, 32, 4, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["random", "zero", "hot", "equal", "integers"])
def test_called_as_deepseeks_users_and_vllms_first_policy_call_theirs(shape, kind):
    experts, num_replicas, num_groups, num_nodes, num_gpus = shape
    weight = torch.rand(3, experts, generator=torch.Generator().manual_seed(8))
    weight = {
        "random": weight,
        "zero": torch.zeros_like(weight),
        "hot": torch.where(torch.arange(experts) == 1, 1e6, weight),
        "equal": torch.ones_like(weight),
        "integers": (weight[:1] * 1000).to(torch.int32),
    }[kind]
    deployment = Deployment(experts, num_replicas, num_gpus, num_nodes=num_nodes, num_groups=num_groups)
    loads = (weight.double() * 1024).round().to(torch.int64).numpy()
    old = torch.zeros(len(weight), num_replicas, dtype=torch.int64)
    for tensors in (
        rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus),
        rebalance_experts(weight, num_replicas, num_groups=num_groups, num_nodes=num_nodes, num_gpus=num_gpus),
        VllmPolicy.rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus, old),
    ):
        phy2log, log2phy, logcnt = tensors
        assert phy2log.shape == (len(weight), num_replicas)
        assert log2phy.shape[:2] == logcnt.shape == (len(weight), experts)
        assert {t.dtype for t in tensors} == {torch.int64}
        verify(Placement.from_tensors(*tensors), loads, deployment)


def test_scaling_by_a_power_of_two_changes_nothing():
    weight = torch.rand(2, 64, generator=torch.Generator().manual_seed(7))
    for factor in (0.25, 1024.0):
        assert (rebalance_experts(weight * factor, 80, 8, 2, 8)[0] == rebalance_experts(weight, 80, 8, 2, 8)[0]).all()


@pytest.mark.parametrize(
    ("weight", "text"),
    [
        (torch.tensor([[1.0, float("nan")]]), r"weight\[0, 1\] is nan; loads must be finite"),
        (torch.tensor([[1.0, float("inf")]]), r"weight\[0, 1\] is inf"),
        (torch.tensor([[-1, 2]]), r"weight\[0, 0\] is -1; loads must be non-negative"),
        (torch.ones(2), "weight is torch.float32 of shape"),
        (torch.ones(0, 2), "weight is"),
    ],
)
def test_bad_weights_are_one_clear_error(weight, text):
    with pytest.raises(InputError, match=text):
        rebalance_experts(weight, 4, 1, 1, 2)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((5, 1, 1, 2), "num_gpus"), ((1, 1, 1, 1), "num_slots"), ((4, 3, 1, 2), "num_groups"), ((4, 1, 3, 2), "num_nodes")],
)
def test_numbers_that_do_not_divide_are_named(numbers, text):
    with pytest.raises(InputError, match=text):
        rebalance_experts(np.ones((1, 2)), *numbers)
