from __future__ import annotations

import builtins
import logging
import pickle
import re
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import METHOD, SETTINGS, THRESHOLD, calls, planning, settings, vllm_ascend
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.problem import Deployment, Placement, verify

LAYERS, RANKS, SLOTS, EXPERTS = 3, 4, 4, 12
DEPLOYMENT = Deployment(EXPERTS, RANKS * SLOTS, RANKS, duplicates="forbidden")
SHAPE = LAYERS, RANKS, SLOTS
FIRST = torch.tensor([[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 10, 11, 0]]).repeat(LAYERS, 1, 1)
WORK = torch.from_numpy(np.random.default_rng(4).integers(1, 900, SHAPE) ** 2)
FACTORY = "vllm_ascend.eplb.core.policy.policy_factory"


class Own:
    """A policy of the host; its answer cannot be mistaken for ours."""

    answer = 1, [2, 0, 1], FIRST.tolist()

    def rebalance_experts(self, current_expert_table, expert_workload, is_node_redundant=False):
        return self.answer


class Other:
    def rebalance_experts(self, table): ...


class Refusing(Own):
    def rebalance_experts(self, current_expert_table, expert_workload):
        raise OSError("the host's own error")


@pytest.fixture(autouse=True)
def a_server(monkeypatch):
    """Every test is a server: no settings, nothing said yet, dynamic EPLB on."""
    for name in (*SETTINGS, *vllm_ascend.SWITCHES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DYNAMIC_EPLB", "true")
    settings.forget()
    COMPLAINTS.forget()
    planning.SERVED.clear()
    yield
    settings.forget()


@pytest.fixture
def factory(monkeypatch):
    """vLLM-Ascend's factory of policies, and a group of ranks of which the others say what this one does."""

    class PolicyFactory:
        @staticmethod
        def generate_policy(policy_type: int):
            return {0: Other, 2: Own, 3: Refusing}[policy_type]()

    put(monkeypatch, FACTORY, PolicyFactory=PolicyFactory)
    put(monkeypatch, "vllm.distributed", get_ep_group=lambda: SimpleNamespace(cpu_group=None))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda words, op, group: None)
    return PolicyFactory


def put(monkeypatch, name, **contents):
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:end]))
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(contents)


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, logger="eplb_gap")
    return lambda: [record.getMessage() for record in caplog.records]


def served(table, loads=WORK):
    """Return the loads of logical experts when every slot has served what it did."""
    found = np.zeros((LAYERS, EXPERTS), dtype=np.int64)
    for layer, expert, tokens in zip(np.indices(SHAPE)[0].ravel(), table.ravel(), loads.ravel(), strict=True):
        found[layer, expert] += tokens
    return found


def test_a_host_that_is_not_there_or_whose_eplb_is_off_is_left_alone(factory, monkeypatch, warnings):
    theirs = factory.generate_policy
    for switches in ({}, {"DYNAMIC_EPLB": "0"}, {"EXPERT_MAP_RECORD": "1"}):  # the host takes "true" alone there
        monkeypatch.delenv("DYNAMIC_EPLB", raising=False)
        for name, value in switches.items():
            monkeypatch.setenv(name, value)
        vllm_ascend.register()
        assert factory.generate_policy is theirs
    monkeypatch.setenv("EXPERT_MAP_RECORD", "true")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "vllm_ascend", None)
        for name in [name for name in sys.modules if name.startswith("vllm_ascend.")]:
            without.delitem(sys.modules, name)
        without.delitem(sys.modules, "vllm_ascend")
        vllm_ascend.register()
    assert factory.generate_policy is theirs
    assert warnings() == []
    vllm_ascend.register()
    assert factory.generate_policy is not theirs


def test_the_factory_hands_ours_out_once_and_it_can_be_sent_to_a_process(factory):
    vllm_ascend.register()
    ours = factory.generate_policy
    vllm_ascend.register()
    assert factory.generate_policy is ours
    policy = pickle.loads(pickle.dumps(ours(2)))
    assert isinstance(policy, vllm_ascend.Policy)
    assert isinstance(policy.own, Own)


def test_the_rank_that_made_a_policy_is_that_of_its_records(factory, monkeypatch):
    told = []
    monkeypatch.setattr(calls, "record_call", lambda *given, rank: told.append(rank))
    with monkeypatch.context() as worker:
        worker.setattr(torch.distributed, "is_initialized", lambda: True)
        worker.setattr(torch.distributed, "get_rank", lambda: 5)
        vllm_ascend.register()
        policy = factory.generate_policy(2)
    monkeypatch.setenv("SLURM_PROCID", "0")  # of the task that started all ranks of a machine
    pickle.loads(pickle.dumps(policy)).rebalance_experts(FIRST, WORK)
    assert told == [5]


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (lambda policy_type, config: None, r"keeps its own EPLB; .* 0\.23\.0 .*: TypeError: .* takes \(policy_type, config\)"),
        (None, "keeps its own EPLB; .* AttributeError: .*generate_policy"),
    ],
)
def test_a_factory_of_another_interface_stays(factory, warnings, signature, message):
    if signature is None:
        del factory.generate_policy
    else:
        factory.generate_policy = staticmethod(signature)
    vllm_ascend.register()
    assert getattr(factory, "generate_policy", None) is signature
    (line,) = warnings()
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("policy_type", "environment", "others", "message"),
    [
        (0, {}, None, "answers every call: TypeError: its Other.rebalance_experts takes table; tested was"),
        (2, {METHOD: "no_such_method"}, None, "answers every call: InputError: EPLB_GAP_METHOD is 'no_such_method'"),
        (2, {}, [2, -1], "answers every call: ranks differ in their EPLB_GAP_ settings or in eplb-gap"),
        (2, {}, RuntimeError("a rank is gone"), "ranks cannot be asked .*: RuntimeError: a rank is gone"),
    ],
)
def test_a_rank_that_cannot_plan_or_differs_keeps_the_hosts_policy(
    factory, monkeypatch, warnings, policy_type, environment, others, message
):
    told = []

    def all_reduce(words, op, group):
        told.append(words.tolist())
        if isinstance(others, Exception):
            raise others
        if others is not None:
            words[:] = torch.maximum(words, torch.tensor(others))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    vllm_ascend.register()
    policy = factory.generate_policy(policy_type)
    assert isinstance(policy, Own | Other)
    (line,) = warnings()
    assert re.search(message, line)
    assert (told == [[0, 0]]) == (others is None)  # a rank that has failed says so: the others wait for its word


def test_where_only_maps_are_written_the_hosts_policy_stays(factory, monkeypatch, warnings):
    vllm_ascend.register()
    for path, ours in ((None, True), ("map.json", False)):
        config = SimpleNamespace(eplb_config=SimpleNamespace(expert_map_record_path=path))
        put(monkeypatch, "vllm_ascend.ascend_config", get_ascend_config=lambda config=config: config)
        assert isinstance(factory.generate_policy(2), vllm_ascend.Policy) == ours
    (line,) = warnings()
    assert "expert_map_record_path is set" in line


def test_the_hosts_own_errors_are_its_own(factory):
    vllm_ascend.register()
    with pytest.raises(KeyError):
        factory.generate_policy(7)
    with pytest.raises(OSError, match="the host's own error"):
        factory.generate_policy(3).rebalance_experts(FIRST - 1, WORK)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_it_plans_for_the_tokens_of_logical_experts_and_moves_no_more_than_it_must(dtype):
    changed, priority, table = vllm_ascend.Policy(Own()).rebalance_experts(FIRST, WORK.to(dtype))
    loads = served(FIRST)
    planned, before = Placement(table.flatten(1).numpy(), EXPERTS), Placement(FIRST.flatten(1).numpy(), EXPERTS)
    fresh = rebalance(loads, DEPLOYMENT)
    assert table.dtype == torch.int64
    assert changed == 1
    assert verify(planned, loads, DEPLOYMENT) == verify(fresh, loads, DEPLOYMENT)
    assert moved(planned, before, DEPLOYMENT).sum() == (table != FIRST).sum() < moved(fresh, before, DEPLOYMENT).sum()
    ratio = [
        float(new / old) for new, old in zip(verify(planned, loads, DEPLOYMENT), verify(before, loads, DEPLOYMENT), strict=True)
    ]
    assert priority.tolist() == sorted(range(LAYERS), key=lambda layer: ratio[layer])


def test_what_gains_nothing_or_too_little_stays_exactly(monkeypatch):
    policy = vllm_ascend.Policy(Own())
    _, _, table = policy.rebalance_experts(FIRST, WORK)
    again = torch.gather(torch.from_numpy(served(FIRST)), 1, table.flatten(1)).reshape(SHAPE)
    again //= torch.stack([torch.bincount(row, minlength=EXPERTS)[row] for row in table.flatten(1)]).reshape(SHAPE)
    changed, priority, same = policy.rebalance_experts(table, again)
    assert (changed, priority.tolist(), same.tolist()) == (0, [0, 1, 2], table.tolist())
    again[1] = again[1].flip(0)
    changed, priority, same = policy.rebalance_experts(table, again)
    assert changed == 1
    assert priority[0] == 1
    assert (same != table).flatten(1).any(dim=1).tolist() == [False, True, False]
    assert policy.rebalance_experts(table, torch.zeros(SHAPE))[0] == 0
    monkeypatch.setenv(THRESHOLD, "0.99")
    settings.forget()
    assert policy.rebalance_experts(FIRST, WORK)[2].equal(FIRST)


def test_steps_are_a_history(monkeypatch):
    monkeypatch.setenv(METHOD, "sample-average")
    steps = torch.from_numpy(np.random.default_rng(5).integers(0, 3, (6, *SHAPE)) * 1000)
    _, _, table = vllm_ascend.Policy(Own()).rebalance_experts(FIRST, steps)
    history = np.stack([served(FIRST, step) for step in steps])
    expected = rebalance(history, DEPLOYMENT, "sample-average")
    planned = Placement(table.flatten(1).numpy(), EXPERTS)
    assert sum(sum(verify(planned, step, DEPLOYMENT)) for step in history) == sum(
        sum(verify(expected, step, DEPLOYMENT)) for step in history
    )


@pytest.mark.parametrize("method", ["host", "initial_program"])
def test_a_plan_that_the_host_would_put_back_and_the_method_host_leave_it_to_the_host(monkeypatch, warnings, method):
    monkeypatch.setenv(METHOD, method)
    hot = torch.ones(SHAPE, dtype=torch.int64)
    hot[:, 0, 0] = 10**6  # the method puts two replicas of it on one device
    assert vllm_ascend.Policy(Own()).rebalance_experts(FIRST, hot) is Own.answer
    assert len(warnings()) == (method != "host")


def changed_table(value):
    table = FIRST.clone()
    table[1, 2, 3] = value
    return table


WITHOUT_EXPERT = FIRST.clone()
WITHOUT_EXPERT[2][WITHOUT_EXPERT[2] == 5] = 1


@pytest.mark.parametrize(
    ("table", "work", "more", "message"),
    [
        (changed_table(-1), WORK, (), r"current_expert_table\[1, 2, 3\] is -1; an expert is needed in every slot"),
        (FIRST[0], WORK, (), r"shape \(4, 4\); integers \[layers, ranks, slots\] are needed"),
        (FIRST.float(), WORK, (), "current_expert_table is torch.float32"),
        (FIRST[:0], WORK, (), "integers"),
        (changed_table(2**40), WORK, (), "names expert 1099511627776; it has 16 slots in a layer"),
        (WITHOUT_EXPERT, WORK, (), r"current_expert_table\[2\] has no slot with expert 5"),
        (FIRST, WORK[:2], (), r"expert_workload has shape \(2, 4, 4\); that of the table, \(3, 4, 4\), is needed"),
        (FIRST, WORK - 10**6, (), "loads must be non-negative"),
        (FIRST, WORK * float("nan"), (), "loads must be finite"),
        (FIRST, None, (), "TypeError|RuntimeError"),
        ("no table", WORK, (), "TypeError"),
        (FIRST, WORK, (True,), "positional argument"),
    ],
)
def test_a_call_that_is_not_understood_is_the_hosts_and_one_line(warnings, table, work, more, message):
    policy = vllm_ascend.Policy(Own())
    for _ in range(2):
        assert policy.rebalance_experts(table, work, *more) is Own.answer
    (line,) = warnings()
    assert re.search(rf"vllm-ascend's own policy answers: .*({message})", line)


@pytest.mark.parametrize("broken", ["plan", "import"])
def test_a_planner_that_fails_leaves_the_call_to_the_host(monkeypatch, warnings, broken):
    real = builtins.__import__

    def no_calls(name, *more):
        if name == "eplb_gap.heuristics.plugins.calls":
            raise ImportError("half an installation")
        return real(name, *more)

    def no_plan(*given):
        raise MemoryError("nothing left")

    if broken == "plan":
        monkeypatch.setattr("eplb_gap.heuristics.plugins.calls.replan", no_plan)
    else:
        monkeypatch.setattr(builtins, "__import__", no_calls)
    assert vllm_ascend.Policy(Own()).rebalance_experts(FIRST, WORK) is Own.answer
    assert len(warnings()) == 1
