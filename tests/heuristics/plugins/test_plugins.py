from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from enum import Enum, auto
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import CONFIG, METHOD, THRESHOLD, settings, sglang, vllm
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


class FirstAbstract:
    @classmethod
    def rebalance_experts(
        cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


class SecondAbstract:
    @classmethod
    def rebalance_experts(
        cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None
    ) -> torch.Tensor: ...


class ThirdAbstract:
    def create_state(self, num_moe_layers): ...

    def plan_rebalance(self, context, policy_state): ...

    def on_layer_committed(self, policy_state, plan, layer_idx): ...


class UnknownAbstract:
    @classmethod
    def rebalance_experts(cls, weight): ...


def test_the_third_generation_hands_its_window_over_as_history(monkeypatch):
    monkeypatch.setenv(METHOD, "sample-average")
    generator = np.random.default_rng(2)
    hot = np.zeros((2, 1, 16))
    hot[0, 0, :8], hot[1, 0, 8:] = 900.0, 900.0
    window = np.repeat(hot, [10, 10], axis=0) + generator.integers(1, 9, (20, 1, 16))
    context = SimpleNamespace(
        load_window_cpu=torch.from_numpy(window),
        physical_to_logical_map_cpu=None,
        topology=SimpleNamespace(num_groups=1, num_nodes=1, num_ranks=8),
        num_replicas=24,
        cpu_group=None,
    )
    planned = vllm.PlanningPolicy().plan_rebalance(context, None).physical_to_logical_map.numpy()
    parts = np.array_split(window, 8)
    deployment = Deployment(16, 24, 8)
    expected = rebalance(np.stack([part.sum(axis=0) for part in parts]).astype(np.int64), deployment, "sample-average")
    assert (planned == expected.phy2log).all()
    assert (planned != rebalance(window.sum(axis=0).astype(np.int64), deployment, "sample-average").phy2log).any()


def test_a_history_map_in_use_stays_where_its_windows_gain_nothing(monkeypatch):
    monkeypatch.setenv(METHOD, "sample-average")
    loads = LOADS.numpy()
    first = vllm.replan(loads, DEPLOYMENT, None)
    assert (vllm.replan(loads, DEPLOYMENT, first).phy2log == first.phy2log).all()


@dataclass(frozen=True)
class TheirPlan:
    physical_to_logical_map: torch.Tensor


class TheirState:
    pass


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


def fake_vllm(monkeypatch, abstract: type, **more) -> dict[str, type]:
    policies = {"default": object}
    put_modules(monkeypatch, "vllm.distributed.eplb.policy", AbstractEplbPolicy=abstract, EPLB_POLICIES=policies, **more)
    return policies


def context(window, old, **change) -> SimpleNamespace:
    return SimpleNamespace(
        load_window_cpu=window,
        physical_to_logical_map_cpu=old,
        topology=SimpleNamespace(num_groups=4, num_nodes=2, num_ranks=8),
        cpu_group=object(),
        **{"num_replicas": 24, **change},
    )


@pytest.fixture
def old() -> torch.Tensor:
    return torch.from_numpy(rebalance(LOADS[0].numpy(), DEPLOYMENT).phy2log)


@pytest.mark.parametrize(
    ("abstract", "policy"),
    [(FirstAbstract, vllm.TriplePolicy), (SecondAbstract, vllm.MapPolicy), (ThirdAbstract, vllm.PlanningPolicy)],
)
def test_register_takes_the_key_over_with_the_generation_that_is_installed(monkeypatch, abstract, policy):
    policies = fake_vllm(monkeypatch, abstract)
    vllm.register()
    assert policies == {"default": policy}
    assert {name for name in vars(abstract) if not name.startswith("_")} <= set(dir(policy))


def test_register_without_vllm_and_with_one_that_does_not_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"vllm\.distributed\.eplb\.policy cannot be imported .*; a vLLM that has them"):
        vllm.register()
    put_modules(monkeypatch, "vllm.distributed.eplb.policy", AbstractEplbPolicy=FirstAbstract)
    with pytest.raises(InputError, match="EPLB_POLICIES"):
        vllm.register()
    policies = fake_vllm(monkeypatch, UnknownAbstract)
    with pytest.raises(InputError, match=r"AbstractEplbPolicy returns .*; a vLLM whose policies return a tuple"):
        vllm.register()
    fake_vllm(monkeypatch, object)
    with pytest.raises(InputError, match="returns no rebalance_experts"):
        vllm.register()
    assert policies == {"default": object}


def test_register_refuses_settings_that_no_call_could_use(monkeypatch):
    policies = fake_vllm(monkeypatch, SecondAbstract)
    monkeypatch.setenv(METHOD, "no_such")
    with pytest.raises(InputError, match="no_such"):
        vllm.register()
    assert policies == {"default": object}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64])
def test_first_and_second_generation_plan_what_the_project_plans(dtype):
    weight = LOADS[1].to(dtype)
    expected = rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log.tolist()
    triple = vllm.TriplePolicy.rebalance_experts(weight, 24, 4, 2, 8)
    assert triple[0].tolist() == expected
    verify(Placement.from_tensors(*triple), LOADS[1].numpy(), DEPLOYMENT)
    single = vllm.MapPolicy.rebalance_experts(weight=weight, **ARGUMENTS, old_global_expert_indices=None)
    assert single.tolist() == expected
    assert {t.dtype for t in (*triple, single)} == {torch.int64}


def test_all_generations_relabel_alike_and_positions_are_keywords(monkeypatch, old):
    fake_vllm(monkeypatch, ThirdAbstract, EplbPlan=TheirPlan, EplbPolicyState=TheirState)
    weight = LOADS[1]
    second = vllm.MapPolicy.rebalance_experts(weight, 24, 4, 2, 8, old)
    first = vllm.TriplePolicy.rebalance_experts(weight=weight, **ARGUMENTS, old_global_expert_indices=old.to(torch.int32))
    policy = vllm.PlanningPolicy()
    state = policy.create_state(num_moe_layers=LAYERS)
    window = torch.stack([weight - 1, torch.ones_like(weight)])
    plan = policy.plan_rebalance(context=context(window, old), policy_state=state)
    assert isinstance(state, TheirState)
    assert isinstance(plan, TheirPlan)
    assert first[0].tolist() == second.tolist() == plan.physical_to_logical_map.tolist()
    assert policy.on_layer_committed(state, plan, 0) is None
    fresh = Placement(rebalance(weight.numpy(), DEPLOYMENT).phy2log, 16)
    previous, found = Placement(old.numpy(), 16), Placement(second.numpy(), 16)
    assert verify(found, weight.numpy(), DEPLOYMENT) <= verify(fresh, weight.numpy(), DEPLOYMENT)
    assert moved(found, previous, DEPLOYMENT).sum() < moved(fresh, previous, DEPLOYMENT).sum()
    assert (second != old).sum() == moved(found, previous, DEPLOYMENT).sum()


def test_third_generation_without_vllm(monkeypatch, old):
    monkeypatch.setitem(sys.modules, "vllm", None)
    policy = vllm.PlanningPolicy()
    plan = policy.plan_rebalance(context(LOADS, old))
    assert isinstance(plan, vllm.EplbPlan)
    assert isinstance(policy.create_state(LAYERS), vllm.EplbPolicyState)
    assert policy.rebalance_experts(context(LOADS, old), None).physical_to_logical_map.equal(plan.physical_to_logical_map)
    verify(Placement(plan.physical_to_logical_map.numpy(), 16), LOADS.sum(dim=0).numpy(), DEPLOYMENT)


def test_layers_below_the_threshold_stay_and_an_illegal_map_goes(monkeypatch, old):
    def plan(previous):
        return vllm.MapPolicy.rebalance_experts(LOADS[1], 24, 4, 2, 8, previous)

    assert (plan(old) != old).any(dim=1).all()
    monkeypatch.setenv(THRESHOLD, "0.99")
    assert plan(old).equal(old)
    illegal = torch.arange(24).remainder(16).repeat(LAYERS, 1)  # vLLM's first map: groups are on both nodes
    verify(Placement(plan(illegal).numpy(), 16), LOADS[1].numpy(), DEPLOYMENT)
    monkeypatch.setenv(THRESHOLD, "")
    assert vllm.MapPolicy.rebalance_experts(LOADS[0], 24, 4, 2, 8, old).equal(old)  # planned on these loads: nothing to gain


def test_a_map_of_another_shape_is_not_compared_with(old):
    fresh = vllm.MapPolicy.rebalance_experts(LOADS[1], 24, 4, 2, 8)
    assert vllm.MapPolicy.rebalance_experts(LOADS[1], 24, 4, 2, 8, old[:, :16]).equal(fresh)


def test_the_moves_are_reported(old, caplog):
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        found = vllm.MapPolicy.rebalance_experts(torch.stack([LOADS[1][0], *LOADS[0][1:]]), 24, 4, 2, 8, old)
    fresh, previous = (Placement(rows, 16) for rows in (rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log, old.numpy()))
    moves = moved(Placement(found.numpy(), 16), previous, DEPLOYMENT)
    would = moved(fresh, previous, DEPLOYMENT)[0]
    assert moves[0] > 0 == moves[1:].sum()
    assert caplog.messages == [
        f"2 of 3 layers keep their map; in the others {moves[0]} of 24 replicas move, without relabelling {would} would"
    ]


def test_settings_choose_method_and_configuration(monkeypatch, tmp_path):
    def plan():
        return vllm.MapPolicy.rebalance_experts(LOADS[1], 24, 4, 2, 8).tolist()

    monkeypatch.setenv(METHOD, "initial_program")
    assert (
        plan()
        == rebalance(LOADS[1].numpy(), DEPLOYMENT, "initial_program").phy2log.tolist()
        != rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log.tolist()
    )
    monkeypatch.setenv(METHOD, "")
    path = tmp_path / "lpt.toml"
    path.write_text('[fast]\neffort = "lpt"\n')
    monkeypatch.setenv(CONFIG, str(path))
    assert plan() == rebalance(LOADS[1].numpy(), DEPLOYMENT, "fast-lpt").phy2log.tolist()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (METHOD, "no_such", "EPLB_GAP_METHOD or EPLB_GAP_CONFIG: method is 'no_such'; the heuristics are"),
        (CONFIG, "/no/such/file.toml", "EPLB_GAP_CONFIG: config file /no/such/file.toml does not exist"),
        (THRESHOLD, "much", "EPLB_GAP_THRESHOLD is 'much'; a finite number of at least 0 is needed"),
        (THRESHOLD, "-0.1", "EPLB_GAP_THRESHOLD is '-0.1'"),
        (THRESHOLD, "inf", "EPLB_GAP_THRESHOLD is 'inf'"),
        (THRESHOLD, "nan", "EPLB_GAP_THRESHOLD is 'nan'"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        settings()
    with pytest.raises(InputError, match=message):
        vllm.MapPolicy.rebalance_experts(LOADS[1], 24, 4, 2, 8)


def test_method_and_configuration_exclude_each_other(monkeypatch):
    monkeypatch.setenv(METHOD, "initial_program")
    monkeypatch.setenv(CONFIG, "some.toml")
    with pytest.raises(InputError, match="only one of the two"):
        settings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": LOADS}, r"weight is torch.int64 of shape \(2, 3, 16\); real numbers \[layers, experts\] are needed"),
        ({"weight": -LOADS[1]}, r"weight\[0, 0\] is -\d+; loads must be non-negative"),
        ({"weight": LOADS[1] / 0}, r"weight\[0, 0\] is inf; loads must be finite"),
        ({"num_replicas": 25}, "num_gpus is 8; a divisor of num_slots = 25"),
        ({"old_global_expert_indices": torch.zeros(3, 24)}, "old_global_expert_indices is torch.float32; integers"),
    ],
)
def test_bad_arguments_of_vllm(change, message):
    for policy in (vllm.TriplePolicy, vllm.MapPolicy):
        with pytest.raises(InputError, match=message):
            policy.rebalance_experts(**{"weight": LOADS[1], **ARGUMENTS, **change})


def test_bad_context_of_vllm(old):
    with pytest.raises(InputError, match=r"load_window_cpu is .*; real numbers \[samples, layers, experts\] are needed"):
        vllm.PlanningPolicy().plan_rebalance(context(LOADS[0], old))
    with pytest.raises(InputError, match=r"physical_to_logical_map_cpu is torch\.bool"):
        vllm.PlanningPolicy().plan_rebalance(context(LOADS, old > 3))


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
