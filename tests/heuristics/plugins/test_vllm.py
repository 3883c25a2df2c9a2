"""The policy that vLLM calls plans what the project plans, and whatever fails, vLLM's own policy answers."""

from __future__ import annotations

import builtins
import logging
import re
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.control.contiguous import contiguous_map
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import CONFIG, CONTROLLER, METHOD, RECORD, THRESHOLD, calls, hosted, vllm
from eplb_gap.heuristics.plugins.planning import replan
from eplb_gap.problem import Deployment, Placement, verify
from eplb_gap.problem.validation import check

LAYERS = 3
DEPLOYMENT = Deployment(16, 24, 8, num_nodes=2, num_groups=4)
ARGUMENTS = {"num_replicas": 24, "num_groups": 4, "num_nodes": 2, "num_ranks": 8}
LOADS = torch.from_numpy(np.random.default_rng(5).integers(1, 1000, (2, LAYERS, 16)))


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


@dataclass(frozen=True)
class TheirPlan:
    physical_to_logical_map: torch.Tensor


class Own:
    """The policy of the host; its answers cannot be mistaken for ours."""

    @classmethod
    def rebalance_experts(cls, *given):
        return "own", given


class OwnPlanning:
    def create_state(self, num_moe_layers):
        return {"layers": num_moe_layers, "committed": []}

    def plan_rebalance(self, context, policy_state):
        return "own", policy_state

    def on_layer_committed(self, policy_state, plan, layer_idx):
        policy_state["committed"].append(layer_idx)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Let vLLM's own policies stand behind ours; no vLLM is installed."""
    vllm._warm_up_once.cache_clear()  # noqa: SLF001
    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(calls, "begin", lambda kernels: None)
    for policy, own in ((vllm.TriplePolicy, Own), (vllm.MapPolicy, Own), (vllm.PlanningPolicy, OwnPlanning)):
        monkeypatch.setattr(policy, "own", own)


def put_modules(monkeypatch, name: str, **contents) -> ModuleType:
    """Make a module and its parents importable."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        module = sys.modules.get(full) or ModuleType(full)
        monkeypatch.setitem(sys.modules, full, module)
        if end > 1:
            setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
    vars(module).update(contents)
    return module


def fake_vllm(monkeypatch, abstract: type, **more) -> dict[str, type]:
    policies = {"default": Own}
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


def plan(weight=LOADS[1], old=None) -> torch.Tensor:
    return vllm.MapPolicy.rebalance_experts(weight, 24, 4, 2, 8, old)


@pytest.fixture
def old() -> torch.Tensor:
    return torch.from_numpy(rebalance(LOADS[0].numpy(), DEPLOYMENT).phy2log)


@pytest.mark.parametrize(
    ("abstract", "policy"),
    [(FirstAbstract, vllm.TriplePolicy), (SecondAbstract, vllm.MapPolicy), (ThirdAbstract, vllm.PlanningPolicy)],
)
def test_register_takes_the_key_over_with_the_generation_that_is_installed(monkeypatch, caplog, abstract, policy):
    policies = fake_vllm(monkeypatch, abstract)
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        vllm.register()
        vllm.register()
    assert policies == {"default": policy}
    assert policy.own is Own
    assert {name for name in vars(abstract) if not name.startswith("_")} <= set(dir(policy))
    assert {line.levelno for line in caplog.records} == {logging.INFO}


def test_a_folder_to_record_into_is_a_setting(monkeypatch, asked_for, caplog):
    policies = fake_vllm(monkeypatch, SecondAbstract)
    asked_for(**{RECORD: "calls2"})
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        vllm.register()
        policies["other"] = policies.pop("default")
        vllm.register()
    assert "if EPLB is on: method fast, records into calls2; settings " in caplog.messages[0]
    assert [line.levelno for line in caplog.records] == [logging.INFO, logging.WARNING]  # the second finds no "default"


@pytest.mark.parametrize("somebody", [False, True])
def test_lines_go_where_vllms_go_unless_somebody_has_said_where(monkeypatch, somebody):
    class Kept(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    lines: list[str] = []
    theirs = logging.Logger("vllm", logging.INFO)
    theirs.addHandler(Kept())
    monkeypatch.setitem(logging.Logger.manager.loggerDict, "vllm", theirs)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()] if somebody else [])
    monkeypatch.setattr(vllm.LOG, "handlers", [])
    fake_vllm(monkeypatch, SecondAbstract)
    level = vllm.LOG.level
    vllm.register()
    vllm.register()
    vllm.LOG.setLevel(level)
    assert len(lines) == (0 if somebody else 2)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("found", ["nothing", "no policies", "no key", "unknown", "no method", "broken"])
def test_a_vllm_that_does_not_fit_keeps_its_own_and_one_line_says_so(monkeypatch, asked_for, caplog, found, asked):
    if asked:
        asked_for(**{METHOD: "fast"})
    message = {
        "nothing": "No module named 'vllm.distributed'",
        "no policies": "cannot import name 'EPLB_POLICIES'",
        "no key": "its EPLB_POLICIES have no 'default' but other",
        "unknown": "its AbstractEplbPolicy returns .*, which is neither a tuple, nor a Tensor, nor a plan",
        "no method": "its AbstractEplbPolicy returns no rebalance_experts",
        "broken": "its own error",
    }[found]
    if found == "no policies":
        put_modules(monkeypatch, "vllm.distributed.eplb.policy")
    elif found == "broken":
        real = builtins.__import__

        def broken(name, *given):
            if name.startswith("vllm."):
                raise RuntimeError("its own\nerror")
            return real(name, *given)

        monkeypatch.setattr(builtins, "__import__", broken)
    elif found != "nothing":
        policies = fake_vllm(monkeypatch, {"unknown": UnknownAbstract, "no method": object}.get(found, SecondAbstract))
        if found == "no key":
            policies["other"] = policies.pop("default")
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        vllm.register()
    [line] = caplog.records
    assert line.levelno == (logging.WARNING if asked else logging.INFO)  # who has no EPLB on reads no warning
    pattern = rf"eplb-gap: vLLM \S+.* keeps its own EPLB: .*{message}.*; the plug-in was tested with 0\.15\.1 to 0\.33\.0"
    assert re.fullmatch(pattern, line.getMessage())
    assert found in ("nothing", "no policies", "broken") or set(policies.values()) == {Own}


def test_with_bad_settings_vllms_own_policy_answers_and_one_line_says_so(monkeypatch, asked_for, caplog):
    policies = fake_vllm(monkeypatch, SecondAbstract)
    asked_for(**{METHOD: "no_such"})
    vllm.register()
    given = (LOADS[1], 24, 4, 2, 8, None)
    for _ in range(3):
        assert policies["default"].rebalance_experts(*given) == ("own", given)
    [line] = caplog.messages
    assert line.startswith(
        "eplb-gap: vLLM's own EPLB policy answers every call: InputError: EPLB_GAP_METHOD is 'no_such'; 'host' and"
    )


def test_where_numba_is_broken_vllms_own_policy_answers(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "eplb_gap.heuristics.plugins.calls", None)
    assert plan()[0] == "own"
    assert plan()[0] == "own"
    assert len(caplog.messages) == 1


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
    assert plan(weight.T.contiguous().T).tolist() == expected


def test_all_generations_relabel_alike_and_positions_are_keywords(monkeypatch, old):
    fake_vllm(monkeypatch, ThirdAbstract, EplbPlan=TheirPlan)
    weight = LOADS[1]
    second = plan(weight, old)
    first = vllm.TriplePolicy.rebalance_experts(weight=weight, **ARGUMENTS, old_global_expert_indices=old.to(torch.int32))
    policy = vllm.PlanningPolicy()
    state = policy.create_state(num_moe_layers=LAYERS)
    window = torch.stack([weight - 1, torch.ones_like(weight)])
    third = policy.plan_rebalance(context=context(window, old), policy_state=state)
    assert isinstance(third, TheirPlan)
    assert first[0].tolist() == second.tolist() == third.physical_to_logical_map.tolist()
    policy.on_layer_committed(state, third, 0)
    assert state == {"layers": LAYERS, "committed": [0]}  # that of vLLM's own policy, which may have to answer the next call
    fresh = Placement(rebalance(weight.numpy(), DEPLOYMENT).phy2log, 16)
    previous, found = Placement(old.numpy(), 16), Placement(second.numpy(), 16)
    assert verify(found, weight.numpy(), DEPLOYMENT) <= verify(fresh, weight.numpy(), DEPLOYMENT)
    assert moved(found, previous, DEPLOYMENT).sum() < moved(fresh, previous, DEPLOYMENT).sum()
    assert (second != old).sum() == moved(found, previous, DEPLOYMENT).sum()


def test_the_third_generation_falls_back_with_the_state_of_vllms_own_policy(monkeypatch, old, caplog):
    policy = vllm.PlanningPolicy()
    state = policy.create_state(LAYERS)
    assert policy.plan_rebalance(context(LOADS, old), state) == ("own", state)  # there is no EplbPlan to answer with
    fake_vllm(monkeypatch, ThirdAbstract, EplbPlan=TheirPlan)
    assert policy.rebalance_experts(context(LOADS, old), state).physical_to_logical_map.shape == (LAYERS, 24)
    assert policy.plan_rebalance(context(LOADS[0], old), state) == ("own", state)
    assert len(caplog.messages) == 1


def test_the_third_generation_hands_its_window_over_as_history(monkeypatch, asked_for):
    fake_vllm(monkeypatch, ThirdAbstract, EplbPlan=TheirPlan)
    asked_for(**{METHOD: "sample-average"})
    generator = np.random.default_rng(2)
    hot = np.zeros((2, 1, 16))
    hot[0, 0, :8], hot[1, 0, 8:] = 900.0, 900.0
    window = np.repeat(hot, [10, 10], axis=0) + generator.integers(1, 9, (20, 1, 16))
    given = context(torch.from_numpy(window), None)
    given.topology = SimpleNamespace(num_groups=1, num_nodes=1, num_ranks=8)
    planned = vllm.PlanningPolicy().plan_rebalance(given, None).physical_to_logical_map.numpy()
    parts = np.array_split(window, 8)
    deployment = Deployment(16, 24, 8)
    expected = rebalance(np.stack([part.sum(axis=0) for part in parts]).astype(np.int64), deployment, "sample-average")
    assert (planned == expected.phy2log).all()
    assert (planned != rebalance(window.sum(axis=0).astype(np.int64), deployment, "sample-average").phy2log).any()


def test_a_history_map_in_use_stays_where_its_windows_gain_nothing(asked_for):
    asked_for(**{METHOD: "sample-average"})
    first = replan(LOADS.numpy(), DEPLOYMENT, None)
    assert (replan(LOADS.numpy(), DEPLOYMENT, first).phy2log == first.phy2log).all()


def test_layers_below_the_threshold_stay_and_an_illegal_map_goes(asked_for, old):
    assert (plan(old=old) != old).any(dim=1).all()
    asked_for(**{THRESHOLD: "0.99"})
    assert plan(old=old).equal(old)
    illegal = torch.arange(24).remainder(16).repeat(LAYERS, 1)  # vLLM's first map: groups are on both nodes
    verify(Placement(plan(old=illegal).numpy(), 16), LOADS[1].numpy(), DEPLOYMENT)
    asked_for(**{THRESHOLD: ""})
    assert plan(LOADS[0], old).equal(old)  # planned on these loads: nothing to gain


@pytest.mark.parametrize("kind", ["fewer slots", "more slots", "fewer layers", "flat", "new slots", "all new", "nowhere"])
def test_maps_in_use_that_cannot_be_kept(caplog, old, kind):
    given = {
        "fewer slots": old[:, :16],
        "more slots": torch.cat([old, old], dim=1),
        "fewer layers": old[:1],
        "flat": old.flatten(),
        "new slots": old.masked_fill(torch.arange(24) >= 18, -1),  # two ranks joined
        "all new": torch.full_like(old, -1),
        "nowhere": old.masked_fill(old == 3, 16),
    }[kind]
    found = Placement(plan(old=given).numpy(), 16)
    assert verify(found, LOADS[1].numpy(), DEPLOYMENT) == verify(
        rebalance(LOADS[1].numpy(), DEPLOYMENT), LOADS[1].numpy(), DEPLOYMENT
    )
    assert not caplog.messages
    if given.shape == old.shape:
        assert moved(found, Placement(given.numpy(), 16), DEPLOYMENT).sum() == (found.phy2log != given.numpy()).sum()


def test_vllm_measures_its_memory_without_loads_and_the_planner_is_warmed_up(monkeypatch, old, caplog):
    warmed = []
    monkeypatch.setattr(calls, "warm_up", lambda: warmed.append(1))
    for _ in range(2):
        assert plan(torch.zeros_like(LOADS[1]), old).shape == (LAYERS, 24)
    assert warmed == [1]
    assert not caplog.messages


@pytest.mark.parametrize("controller", ["", "none", "budgeted:interval=1,moves=0.05"])
def test_without_loads_a_legal_map_stays_and_new_slots_are_filled_with_few_moves(asked_for, old, controller):
    # vLLM 0.33 adopts it where it scales and its last reshuffle had no loads.
    asked_for(**{CONTROLLER: controller})
    zero, first = torch.zeros_like(LOADS[1]), torch.arange(24).remainder(16).repeat(LAYERS, 1)
    for legal in (old, first):  # the second as vLLM makes it at its start: groups are on both nodes
        hosted.MODELS.clear()
        assert plan(zero, legal).equal(legal)
    joined = old.masked_fill(torch.arange(24) >= 18, -1)
    for given in (joined, old[:, :16], torch.cat([old, old], dim=1), None):
        hosted.MODELS.clear()
        found = Placement(plan(zero, given).numpy(), 16)
        check(found, DEPLOYMENT)
        if given is joined:
            unplaced = Placement(joined.numpy(), 16)
            again = contiguous_map(DEPLOYMENT, LAYERS)
            assert moved(found, unplaced, DEPLOYMENT).sum() < moved(again, unplaced, DEPLOYMENT).sum()


def test_the_moves_are_reported(old, caplog):
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        found = plan(torch.stack([LOADS[1][0], *LOADS[0][1:]]), old)
    fresh, previous = (Placement(rows, 16) for rows in (rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log, old.numpy()))
    moves = moved(Placement(found.numpy(), 16), previous, DEPLOYMENT)
    would = moved(fresh, previous, DEPLOYMENT)[0]
    assert moves[0] > 0 == moves[1:].sum()
    assert caplog.messages == [
        f"2 of 3 layers keep their map; in the others {moves[0]} of 24 replicas move, without relabelling {would} would"
    ]


def test_settings_choose_method_and_configuration(asked_for, tmp_path):
    asked_for(**{METHOD: "initial_program"})
    assert (
        plan().tolist()
        == rebalance(LOADS[1].numpy(), DEPLOYMENT, "initial_program").phy2log.tolist()
        != rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log.tolist()
    )
    path = tmp_path / "lpt.toml"
    path.write_text('[fast]\neffort = "lpt"\n')
    asked_for(**{METHOD: "", CONFIG: str(path)})
    assert plan().tolist() == rebalance(LOADS[1].numpy(), DEPLOYMENT, "fast-lpt").phy2log.tolist()
    asked_for(**{METHOD: "host", CONFIG: ""})
    assert plan()[0] == "own"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": LOADS}, "weight is torch.int64 of shape (2, 3, 16); real numbers [layers, experts] are needed"),
        ({"weight": -LOADS[1]}, "loads must be non-negative"),
        ({"weight": LOADS[1] / 0}, "weight[0, 0] is inf; loads must be finite"),
        ({"weight": None}, "RuntimeError"),
        ({"num_replicas": 25}, "num_gpus is 8; a divisor of num_slots = 25"),
        ({"num_replicas": 8}, "num_slots is 8"),
        ({"num_nodes": 0}, "num_nodes is 0"),
        (
            {"old_global_expert_indices": torch.zeros(3, 24)},
            "the map in use is torch.float32; integers [layers, slots] are needed",
        ),
    ],
)
def test_arguments_that_are_none_of_ours_are_vllms(caplog, change, message):
    for policy in (vllm.TriplePolicy, vllm.MapPolicy):
        assert policy.rebalance_experts(**{"weight": LOADS[1], **ARGUMENTS, **change})[0] == "own"
    [line] = caplog.messages
    assert line.startswith("eplb-gap: vllm's own policy answers: ")
    assert message in line


@pytest.mark.parametrize("largest", [None, 0, 1])
def test_ranks_compare_their_maps_in_one_all_reduce(monkeypatch, caplog, largest):
    asked = []

    def all_reduce(words, op, group):
        asked.append((words.tolist(), group))
        if largest is not None:
            words[largest] += 1  # another rank has another word

    group = SimpleNamespace(cpu_group="the group")
    put_modules(monkeypatch, "vllm.distributed.parallel_state", get_eplb_group=lambda: group)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    found = plan()
    [([word, opposite], where)] = asked
    assert word == -opposite > 0
    assert where == "the group"
    if largest is None:
        assert found.equal(torch.from_numpy(rebalance(LOADS[1].numpy(), DEPLOYMENT).phy2log))
        assert plan(None)[0] == "own"
        assert asked[1][0] == [0, 0]
        assert len(caplog.messages) == 1  # what failed
    else:
        assert found[0] == "own"
        assert caplog.messages == [f"eplb-gap: vllm's own policy answers: {calls.DIFFERENT}"]


def test_ranks_that_cannot_be_asked_count_as_differing(monkeypatch, caplog):
    def all_reduce(*given, **named):
        raise RuntimeError("a rank is gone")

    put_modules(monkeypatch, "vllm.distributed.parallel_state", get_eplb_group=lambda: SimpleNamespace(cpu_group="the group"))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    assert plan()[0] == "own"
    assert caplog.messages == [
        "eplb-gap: ranks cannot be asked whether they agree; vllm's own policy answers: RuntimeError: a rank is gone"
    ]
