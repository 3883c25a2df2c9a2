from __future__ import annotations

import sys
from enum import Enum, auto
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.plugins import CONFIG, METHOD, THRESHOLD, sglang
from eplb_gap.heuristics.tensors import as_weight
from eplb_gap.problem import Deployment, InputError, Placement, verify

LAYERS = 3
DEPLOYMENT = Deployment(16, 24, 8, num_nodes=2, num_groups=4)
ARGUMENTS = {"num_replicas": 24, "num_groups": 4, "num_nodes": 2, "num_ranks": 8}
LOADS = torch.from_numpy(np.random.default_rng(5).integers(1, 1000, (2, LAYERS, 16)))


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (METHOD, CONFIG, THRESHOLD):
        monkeypatch.delenv(name, raising=False)


def put_modules(monkeypatch, name: str, **contents) -> ModuleType:
    """Make a module and its parents importable."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:end]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        if end > 1:
            setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
    vars(module).update(contents)
    return module


class Algorithm(Enum):
    deepseek = auto()
    deepseek_hierarchical = auto()
    deepseek_vec = auto()
    deepseek_vec_hierarchical = auto()
    elasticity_aware = auto()
    topology_aware = auto()


@pytest.mark.parametrize(
    ("algorithm", "num_groups", "policy"),
    [
        (Algorithm.deepseek, 4, "global"),
        (Algorithm.deepseek, None, "global"),
        (Algorithm.deepseek_vec, 4, "global"),
        (Algorithm.elasticity_aware, 4, "global"),
        (Algorithm.deepseek_hierarchical, 4, "hierarchical"),
        (Algorithm.deepseek_vec_hierarchical, 4, "hierarchical"),
        ("deepseek_hierarchical", 4, "hierarchical"),
        ("auto", 4, "hierarchical"),
        ("auto", 1, "global"),
        ("auto", None, "global"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_sglang_is_hierarchical_only_where_the_algorithm_says_so(algorithm, num_groups, policy, dtype):
    deployment = DEPLOYMENT if policy == "hierarchical" else DEPLOYMENT.as_global()
    total = LOADS.sum(dim=0).numpy()
    expected = rebalance(total, deployment)
    for tensors in (
        sglang.rebalance_experts(LOADS.to(dtype), 24, 3, num_groups, 2, algorithm),
        sglang.rebalance_experts(
            tokens_per_expert=LOADS.to(dtype),
            num_physical_experts=24,
            num_local_physical_experts=3,
            num_groups=num_groups,
            num_nodes=2,
            algorithm=algorithm,
            active_ranks=torch.ones(8, dtype=torch.bool),
        ),
    ):
        assert tensors[0].tolist() == expected.phy2log.tolist()
        verify(Placement.from_tensors(*tensors), total, deployment)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens_per_expert": LOADS[0]}, r"tokens_per_expert is .*\[steps, layers, experts\] are needed"),
        ({"num_local_physical_experts": 5}, "num_local_physical_experts is 5; a positive divisor of num_physical_experts = 24"),
        ({"num_local_physical_experts": 0}, "num_local_physical_experts is 0"),
        ({"num_nodes": 0}, "num_nodes is 0; a positive integer"),
        ({"num_nodes": 3}, "num_groups is 4; a multiple of num_nodes = 3 is needed for algorithm 'deepseek_hierarchical'"),
        ({"num_groups": None}, "num_groups is None; a multiple of num_nodes = 2"),
        ({"num_groups": 0}, "num_groups is 0; a positive integer"),
        ({"algorithm": Algorithm.topology_aware}, "algorithm is 'topology_aware'; one of auto, deepseek_hierarchical, "),
        ({"active_ranks": [True] * 7}, r"active_ranks has shape \(7,\); one entry for each of the 8 ranks"),
        ({"active_ranks": torch.tensor([1, 1, 0, 0, 1, 1, 0, 0])}, "with 12 slots; at least num_experts = 16 slots are needed"),
    ],
)
def test_bad_arguments_of_sglang(change, message):
    given = {
        "tokens_per_expert": LOADS,
        "num_physical_experts": 24,
        "num_local_physical_experts": 3,
        "num_groups": 4,
        "num_nodes": 2,
        "algorithm": Algorithm.deepseek_hierarchical,
    }
    with pytest.raises(InputError, match=message):
        sglang.rebalance_experts(**{**given, **change})


def test_install_replaces_sglangs_function(monkeypatch):
    algorithms = put_modules(monkeypatch, sglang.MODULE, rebalance_experts=None, EplbAlgorithm=Algorithm)
    sglang.install()
    given = {"num_physical_experts": 24, "num_local_physical_experts": 3, "num_groups": 4, "num_nodes": 2}
    found = algorithms.rebalance_experts(tokens_per_expert=LOADS, **given, algorithm=Algorithm.deepseek_hierarchical)
    assert found[0].equal(sglang.rebalance_experts(LOADS, 24, 3, 4, 2, "auto")[0])


def test_install_asks_sglang_which_ranks_are_alive(monkeypatch):
    algorithms = put_modules(monkeypatch, sglang.MODULE, rebalance_experts=None)
    sglang.install()
    alive = torch.ones(8, dtype=torch.int32)
    elastic = ModuleType("sglang.srt.elastic_ep.elastic_ep")
    elastic.get_elastic_ep_state = lambda: SimpleNamespace(active_ranks=alive)
    monkeypatch.setitem(sys.modules, "sglang.srt.elastic_ep", ModuleType("sglang.srt.elastic_ep"))
    monkeypatch.setitem(sys.modules, elastic.__name__, elastic)
    found = algorithms.rebalance_experts(LOADS, 24, 3, 4, 2, Algorithm.elasticity_aware)
    assert found[0].equal(sglang.rebalance_experts(LOADS, 24, 3, 4, 2, "deepseek")[0])
    alive[5] = 0
    phy2log, log2phy, counts = algorithms.rebalance_experts(LOADS, 24, 3, 4, 2, Algorithm.elasticity_aware)
    left = Deployment(16, slots_per_gpu=[3] * 8, active=[gpu != 5 for gpu in range(8)])
    assert phy2log[:, 15:18].eq(0).all()
    assert counts.sum(dim=1).tolist() == [21] * LAYERS
    assert not torch.isin(log2phy, torch.arange(15, 18)).any()
    verify(Placement(phy2log.numpy(), 16), LOADS.sum(dim=0).numpy(), left)
    assert phy2log.tolist() == rebalance(LOADS.sum(dim=0).numpy(), left).phy2log.tolist()


def test_install_without_sglang_without_its_function_and_with_bad_settings(monkeypatch):
    monkeypatch.setitem(sys.modules, "sglang", None)
    with pytest.raises(InputError, match=r"sglang\.srt\.eplb\.eplb_algorithms cannot be imported .*; a SGLang that has it"):
        sglang.install()
    algorithms = put_modules(monkeypatch, sglang.MODULE)
    with pytest.raises(InputError, match="has no rebalance_experts"):
        sglang.install()
    algorithms.rebalance_experts = theirs = object()
    monkeypatch.setenv(THRESHOLD, "x")
    with pytest.raises(InputError, match=THRESHOLD):
        sglang.install()
    assert algorithms.rebalance_experts is theirs


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16])
def test_weights_of_any_type_arrive_in_full_width(dtype):
    weight = as_weight(torch.ones(2, 3, dtype=dtype, requires_grad=dtype.is_floating_point), "weight", "layers, experts")
    assert weight.tolist() == [[1, 1, 1]] * 2
    assert weight.dtype == (np.float64 if dtype.is_floating_point else np.int64)


@pytest.mark.parametrize("value", [torch.ones(2, 0), torch.ones(2, 3, dtype=torch.complex64), torch.tensor(1.0)])
def test_weights_that_are_none_are_refused(value):
    with pytest.raises(InputError, match=r"weight is .*; real numbers"):
        as_weight(value, "weight", "layers, experts")
