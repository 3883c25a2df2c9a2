"""The planner in SGLang's place, on a stand-in of what it asks SGLang for; the released modules are driven in ``tests/hosts``."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from enum import Enum, auto
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from eplb_gap.analysis.replay.replay import replay
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.control.contiguous import contiguous_map
from eplb_gap.heuristics.control.controllers_file import parse_controller
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import CONTROLLER, METHOD, THRESHOLD, calls, hosted, sglang
from eplb_gap.problem import Deployment, LoadTrace, Placement, verify
from eplb_gap.problem.dead_ranks import with_dead

LAYERS, EXPERTS, SLOTS, GPUS, LOCAL = 2, 32, 40, 8, 5
HIERARCHICAL = Deployment(EXPERTS, SLOTS, GPUS, num_nodes=2, num_groups=4)
GLOBAL = HIERARCHICAL.as_global()
LOADS = np.random.default_rng(5).poisson(
    300 * np.exp(np.cumsum(np.random.default_rng(11).normal(0, 0.5, (24, LAYERS, EXPERTS)), axis=0))
)


WARM_UP_ONCE = sglang.warm_up_once
ALGORITHMS = "sglang.srt.eplb.eplb_algorithms"


class Algorithm(Enum):
    deepseek = auto()
    deepseek_hierarchical = auto()
    deepseek_vec = auto()
    deepseek_vec_hierarchical = auto()
    elasticity_aware = auto()
    elasticity_aware_hierarchical = auto()
    topology_aware = auto()


class Server:
    """What stands for SGLang: the map that it serves, the state of its ranks, the row its recorder writes next."""

    def __init__(self):
        self.map, self.ranks, self.recorder, self.own_calls = None, None, SimpleNamespace(), 0

    def own(self, *given, **named):
        self.own_calls += 1
        return torch.zeros(LAYERS, SLOTS), "their own", None

    @property
    def metadata(self):
        return None if self.map is None else SimpleNamespace(physical_to_logical_map_cpu=torch.from_numpy(self.map))

    def write_at(self, row):
        step = SimpleNamespace(_curr_index=row)
        self.recorder = SimpleNamespace(_accumulator=SimpleNamespace(_global_physical_count_of_buffered_step=step))

    def plan(self, steps, algorithm=Algorithm.elasticity_aware, num_groups=4, num_nodes=2, **change):
        """Call SGLang's function by its name, as it does itself."""
        given = {
            "tokens_per_expert": torch.as_tensor(steps),
            "num_physical_experts": SLOTS,
            "num_local_physical_experts": LOCAL,
            "num_groups": num_groups,
            "num_nodes": num_nodes,
            "algorithm": algorithm,
            **change,
        }
        return sys.modules[ALGORITHMS].rebalance_experts(**given)


def put(monkeypatch, name: str, **contents) -> ModuleType:
    """Make a module and its parents importable."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        parent = ".".join(parts[:end])
        if parent not in sys.modules or end == len(parts):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        if end > 1:
            monkeypatch.setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], sys.modules[parent], raising=False)
    vars(sys.modules[name]).update(contents)
    return sys.modules[name]


@pytest.fixture
def server(monkeypatch):
    found = Server()
    monkeypatch.setattr(calls, "begin", lambda kernels: None)
    monkeypatch.setattr(sglang, "warm_up_once", lambda: None)
    manager = SimpleNamespace(instance=lambda: found.ranks)
    put(monkeypatch, ALGORITHMS, rebalance_experts=found.own)
    put(monkeypatch, "sglang.srt.elastic_ep.elastic_ep", ElasticEPStateManager=manager)
    put(monkeypatch, "sglang.srt.eplb.expert_location", get_global_expert_location_metadata=lambda: found.metadata)
    put(monkeypatch, "sglang.srt.eplb.expert_distribution", get_global_expert_distribution_recorder=lambda: found.recorder)
    sglang.register()
    return found


@pytest.fixture
def recorded(monkeypatch):
    """Return the calls that were handed to the recording: host, history, deployment, map in use, answer."""
    found = []
    monkeypatch.setattr(calls, "record_call", lambda *given, rank: found.append(given))
    return found


@pytest.mark.parametrize("algorithm", list(Algorithm)[:-1])
def test_the_algorithm_and_the_groups_decide_between_hierarchical_and_global(server, algorithm):
    total = LOADS[:3].sum(axis=0)
    for num_groups, num_nodes in ((4, 2), (4, 3), (None, 2), (None, 1)):
        hierarchical = "hierarchical" in algorithm.name and (num_groups, num_nodes) == (4, 2)
        deployment = HIERARCHICAL if hierarchical else GLOBAL
        for steps in (torch.from_numpy(LOADS[:3]).int(), torch.from_numpy(LOADS[:3]).float()):
            tensors = server.plan(steps, algorithm, num_groups, num_nodes)
            assert tensors[0].tolist() == rebalance(total, deployment).phy2log.tolist()
            verify(Placement.from_tensors(*tensors), total, deployment)
            assert {tensor.dtype for tensor in tensors} == {torch.int64}
    assert not server.own_calls


def test_passes_come_oldest_first_and_empty_ones_are_left_out(server, recorded, monkeypatch):
    buffer = LOADS[[3, 4, 0, 1, 2]].copy()
    buffer[1] = 0
    server.write_at(2)
    server.plan(buffer)
    assert (recorded[-1][1] == LOADS[[0, 1, 2, 3]]).all()
    with monkeypatch.context() as elastic:  # ranks may begin at different rows: the buffer's own order is the same on all
        moe = SimpleNamespace(elastic_ep_backend="mooncake")
        put(elastic, "sglang.srt.runtime_context", get_exec=lambda: SimpleNamespace(moe=moe))
        server.plan(buffer)
        assert (recorded[-1][1] == LOADS[[3, 0, 1, 2]]).all()
    for recorder in (SimpleNamespace(), SimpleNamespace(_accumulator=None)):  # none, or another version: as they are
        server.recorder = recorder
        server.plan(buffer)
        assert (recorded[-1][1] == LOADS[[3, 0, 1, 2]]).all()
    server.write_at("2")
    server.plan(buffer)
    assert (recorded[-1][1] == LOADS[[3, 0, 1, 2]]).all()
    server.plan(0 * buffer)
    assert (recorded[-1][1] == 0 * LOADS[:1]).all()
    assert not server.own_calls


def test_the_map_in_use_is_resembled_and_below_a_threshold_kept(server, asked_for, recorded):
    assert (server.plan(LOADS[:1])[0].numpy() == rebalance(LOADS[0], GLOBAL).phy2log).all()
    server.map = rebalance(LOADS[0], GLOBAL).phy2log.copy()
    in_use = Placement(server.map.copy(), EXPERTS)
    found, fresh = Placement(server.plan(LOADS[1:2])[0].numpy(), EXPERTS), rebalance(LOADS[1], GLOBAL)
    assert verify(found, LOADS[1], GLOBAL) <= verify(fresh, LOADS[1], GLOBAL)
    assert moved(found, in_use, GLOBAL).sum() < moved(fresh, in_use, GLOBAL).sum()
    assert (recorded[-1][3].phy2log == server.map).all()
    asked_for(**{THRESHOLD: "0.99"})
    kept = server.plan(LOADS[1:2])[0]
    assert (kept.numpy() == server.map).all()
    server.map[:] = 0  # SGLang writes into its own map, layer by layer
    assert (recorded[-1][3].phy2log == in_use.phy2log).all()
    assert (kept.numpy() == in_use.phy2log).all()
    server.map = server.map[:, :-LOCAL]  # before it was scaled up
    assert (server.plan(LOADS[1:2])[0].numpy() == fresh.phy2log).all()
    assert not server.own_calls


def test_what_sglang_does_with_an_answer_does_not_reach_the_controller(server, asked_for):
    asked_for(**{CONTROLLER: "periodic:interval=1"})
    tensors = server.plan(LOADS[:1])
    found = tensors[0].numpy().copy()
    for tensor in tensors:
        tensor.zero_()
    assert found.any()
    assert (hosted.MODELS[LAYERS, EXPERTS].newest.phy2log == found).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_a_controller_makes_the_maps_of_the_replay_of_its_passes(server, asked_for, dtype):
    text = "budgeted:interval=4,window=3,moves=0.05"
    asked_for(**{CONTROLLER: text})
    [run] = replay(LoadTrace(LOADS[:21]), HIERARCHICAL, [parse_controller(text)], warm_up=0).runs
    expected = {change.decided: change.placement.phy2log for change in run.changes}
    for told in (True, False):  # whether SGLang says which map is in use, or the controller takes its last for adopted
        hosted.MODELS.clear()
        server.map = contiguous_map(HIERARCHICAL, LAYERS).phy2log.copy() if told else None
        known = contiguous_map(HIERARCHICAL, LAYERS).phy2log
        for begin in range(0, 20, 4):
            window = torch.from_numpy(np.roll(LOADS[begin : begin + 4], 1, axis=0)).to(dtype)
            server.write_at(1)
            found = server.plan(window, Algorithm.deepseek_hierarchical)[0].numpy()
            known = expected.get(begin + 4, known)
            assert (found == known).all()
            if told:
                server.map[:] = found
        assert (server.plan(LOADS[20:21], Algorithm.deepseek_hierarchical)[0].numpy() == known).all()  # one pass is no interval
        if told:
            sglang.register()  # once more, which changes nothing and forgets nothing
            assert hosted.MODELS[LAYERS, EXPERTS].steps == 21
    assert not server.own_calls


def test_layers_without_experts_keep_their_map_and_do_not_wear_a_budget_out(server, asked_for, recorded):
    asked_for(**{CONTROLLER: "budgeted:interval=1,window=1,moves=0.05"})
    trivial = np.arange(SLOTS) % EXPERTS
    dense = np.concatenate([0 * LOADS[:, :1], LOADS], axis=1)
    server.map = np.tile(trivial, (LAYERS + 1, 1))
    for step in range(4):
        found = server.plan(dense[step : step + 1], Algorithm.deepseek_hierarchical)[0].numpy()
        before, server.map = server.map, np.concatenate([trivial[None], found[1:]])
        moves = moved(Placement(server.map, EXPERTS), Placement(before, EXPERTS), HIERARCHICAL).sum()
        assert moves <= 0.05 * SLOTS * (LAYERS + 1) or step == 0, step  # the first map is not hierarchical: all is planned
    assert not server.own_calls


def test_a_rank_is_lost_and_comes_back(server, asked_for):
    asked_for(**{CONTROLLER: "budgeted:interval=1,window=2,moves=0.02"})
    flags = torch.tensor([1] * GPUS + [0] * 2, dtype=torch.int32)  # two more may still join
    server.ranks = SimpleNamespace(active_ranks=flags)
    server.map = server.plan(LOADS[:1])[0].numpy().copy()
    verify(Placement(server.map, EXPERTS), LOADS[0], GLOBAL)
    before, lost = Placement(server.map, EXPERTS), slice(3 * LOCAL, 4 * LOCAL)
    flags[3] = 0
    left = Deployment(EXPERTS, slots_per_gpu=[LOCAL] * GPUS, active=flags[:GPUS].bool().tolist())
    for algorithm in (Algorithm.deepseek, Algorithm.elasticity_aware_hierarchical, Algorithm.elasticity_aware):
        phy2log, log2phy, counts = server.plan(LOADS[1:2], algorithm)
        if algorithm == Algorithm.deepseek:  # which does not ask for ranks, in SGLang neither
            verify(Placement(phy2log.numpy(), EXPERTS), LOADS[1], GLOBAL)
            continue
        assert phy2log[:, lost].eq(0).all()
        assert counts.sum(dim=1).tolist() == [SLOTS - LOCAL] * LAYERS
        assert not torch.isin(log2phy, torch.arange(SLOTS)[lost]).any()
        alone = Placement(np.delete(phy2log.numpy(), np.arange(SLOTS)[lost], axis=1), EXPERTS)
        verify(with_dead(alone, left), LOADS[1], left)
        new = rebalance(LOADS[1], left)
        assert moved(with_dead(alone, left), before, left).sum() < moved(new, before, left).sum()
        server.map = phy2log.numpy()
    flags[3] = 1
    found = Placement(server.plan(LOADS[2:3])[0].numpy(), EXPERTS)
    best = verify(rebalance(LOADS[2], GLOBAL), LOADS[2], GLOBAL)
    assert verify(found, LOADS[2], GLOBAL) == best  # what comes back is filled at once, not when a window is full
    hosted.MODELS.clear()
    assert (server.plan(LOADS[2:3])[0].numpy() == found.phy2log).all()  # by the new process of that rank too
    server.ranks.active_ranks = None
    server.plan(LOADS[2:3])
    assert not server.own_calls


class Broken:
    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


def break_calls(monkeypatch, server):
    monkeypatch.setitem(sys.modules, "eplb_gap.heuristics.plugins.calls", None)


def break_ranks(monkeypatch, server):
    monkeypatch.delattr(sys.modules["sglang.srt.elastic_ep.elastic_ep"], "ElasticEPStateManager")


def break_state(monkeypatch, server):
    server.ranks = Broken()


def shorten_flags(monkeypatch, server):
    server.ranks = SimpleNamespace(active_ranks=torch.ones(GPUS - 1))


def lose_most(monkeypatch, server):
    server.ranks = SimpleNamespace(active_ranks=torch.tensor([1, 1, 0, 0, 0, 0, 0, 0]))


def break_map(monkeypatch, server):
    put(monkeypatch, "sglang.srt.eplb.expert_location", get_global_expert_location_metadata=Broken().call)


def break_recorder(monkeypatch, server):
    server.recorder = Broken()


def serve_nonsense(monkeypatch, server):
    server.map = np.full((LAYERS, SLOTS), 0.5)


def plan_nonsense(monkeypatch, server):
    monkeypatch.setattr(calls, "replan", lambda *given: contiguous_map(Deployment(EXPERTS, SLOTS, GPUS), LAYERS + 1))


@pytest.mark.parametrize(
    ("broken", "change", "said"),
    [
        (
            None,
            {"algorithm": Algorithm.topology_aware},
            "InputError: algorithm is 'topology_aware'; one of deepseek_hierarchical,",
        ),
        (None, {"tokens_per_expert": torch.ones(LAYERS, EXPERTS)}, r"\[steps, layers, experts\] are needed"),
        (None, {"tokens_per_expert": torch.full((1, LAYERS, EXPERTS), torch.nan)}, "is nan; loads must be finite"),
        (None, {"tokens_per_expert": -torch.from_numpy(LOADS[:1])}, "loads must be non-negative"),
        (None, {"num_local_physical_experts": 0}, "num_local_physical_experts is 0; a positive divisor of .* = 40"),
        (None, {"num_local_physical_experts": 7}, "num_local_physical_experts is 7"),
        (None, {"num_physical_experts": 30}, "num_slots"),
        (None, {"algorithm": Algorithm.deepseek_hierarchical, "num_nodes": 0}, "ZeroDivisionError"),
        (None, {"a_new_argument": 1}, "TypeError: .*a_new_argument"),
        (break_calls, {}, "ImportError|ModuleNotFoundError"),
        (break_ranks, {}, "ImportError: cannot import name 'ElasticEPStateManager'"),
        (break_state, {}, "RuntimeError: no active_ranks"),
        (shorten_flags, {}, "active_ranks has 7 entries; one for each of the 8 ranks is needed"),
        (lose_most, {}, "with 10 slots; at least num_experts = 32 slots"),
        (break_recorder, {"tokens_per_expert": torch.from_numpy(LOADS[:2])}, "RuntimeError: no _accumulator"),
        (serve_nonsense, {}, "phy2log"),
        (plan_nonsense, {}, "the plan has 3 layers; the model has 2"),
    ],
)
def test_whatever_fails_is_one_line_and_sglangs_own_function_answers(server, monkeypatch, caplog, broken, change, said):
    if broken is not None:
        broken(monkeypatch, server)
    caplog.clear()
    for _ in range(3):
        assert server.plan(**{"steps": LOADS[:1], **change})[1] == "their own"
    assert server.own_calls == 3
    [line] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("eplb-gap: sglang's own policy answers: ")
    assert re.search(said, line.getMessage())


def test_ranks_that_differ_take_sglangs_own_map_unless_one_may_be_lost(server, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(calls, "record_call", lambda *given, rank: None)
    monkeypatch.setattr(sglang, "same_everywhere", lambda placement, *given: asked.append(placement))
    moe = SimpleNamespace(elastic_ep_backend=None)
    put(
        monkeypatch,
        "sglang.srt.runtime_context",
        get_device=lambda: SimpleNamespace(device="cpu"),
        get_exec=lambda: SimpleNamespace(moe=moe),
    )
    assert server.plan(LOADS[:1])[1] == "their own"
    assert "ranks come to different maps" in caplog.text
    break_calls(monkeypatch, server)
    assert server.plan(LOADS[:1])[1] == "their own"
    assert [placement is None for placement in asked] == [False, True]  # the other ranks wait for the word of one that fails
    moe.elastic_ep_backend = "mooncake"  # a rank that joins plans its first map before it has a state, and alone
    server.plan(LOADS[:1])
    assert len(asked) == 2


@pytest.mark.parametrize("mode", ["daemon", "client"])
def test_the_first_map_is_sglangs_own_where_its_weight_cache_lays_out_the_weights(server, monkeypatch, caplog, mode):
    model = SimpleNamespace(weight_cache_mode="off")
    put(monkeypatch, "sglang.srt.runtime_context", get_model=lambda: model)
    assert server.plan(LOADS[:1])[1] != "their own"
    model.weight_cache_mode = mode
    assert server.plan(LOADS[:1])[1] == "their own"
    assert f"weight_cache_mode is {mode!r}" in caplog.text
    server.map = rebalance(LOADS[0], GLOBAL).phy2log
    assert server.plan(LOADS[:1])[1] != "their own"


def test_where_sglangs_own_function_is_asked_for_its_errors_are_its_own(server, asked_for):
    asked_for(**{METHOD: "host"})
    assert server.plan(LOADS[:1])[1] == "their own"
    sys.modules[ALGORITHMS].rebalance_experts.own = lambda **given: 1 / 0
    with pytest.raises(ZeroDivisionError):
        server.plan(LOADS[:1])


def test_register_says_why_it_does_nothing(monkeypatch, caplog, asked_for):
    caplog.set_level(logging.INFO, logger="eplb_gap")

    def said(level):
        caplog.clear()
        sglang.register()
        [record] = caplog.records
        assert record.levelno == level
        return record.getMessage()

    monkeypatch.setitem(sys.modules, "sglang", None)
    assert "keeps its own EPLB" in said(logging.INFO)
    asked_for(**{METHOD: "fast"})
    assert f"the plug-in was tested with {sglang.SUPPORTED}" in said(logging.WARNING)
    monkeypatch.delitem(sys.modules, "sglang")
    algorithms = put(monkeypatch, ALGORITHMS)
    assert "has no attribute 'rebalance_experts'" in said(logging.WARNING)
    algorithms.rebalance_experts = 3
    assert "which cannot be called" in said(logging.WARNING)
    assert algorithms.rebalance_experts == 3
    algorithms.rebalance_experts = theirs = lambda **given: "their own"
    asked_for(**{THRESHOLD: "much"})
    assert "EPLB_GAP_THRESHOLD is 'much'" in said(logging.WARNING)
    assert algorithms.rebalance_experts.own is theirs
    assert algorithms.rebalance_experts(tokens_per_expert=torch.ones(1, 2, 3)) == "their own"
    planner = algorithms.rebalance_experts
    asked_for(**{THRESHOLD: ""})
    assert "if EPLB is on: method fast; settings" in said(logging.INFO)
    assert algorithms.rebalance_experts is planner


def test_what_plans_is_warmed_up_behind_the_first_answer(server, monkeypatch, asked_for, caplog):
    caplog.set_level(logging.INFO, logger="eplb_gap")
    done = []
    monkeypatch.setattr(calls, "warm_up", lambda: done.append(1))
    monkeypatch.setattr(calls, "begin", lambda kernels: None)
    monkeypatch.setattr(sglang, "warm_up_once", WARM_UP_ONCE)
    WARM_UP_ONCE.cache_clear()
    for _ in range(3):
        server.plan(LOADS[:1])
    assert len(done) == 1
    assert sum("eplb-gap plans for sglang: method fast; settings " in line for line in caplog.messages) == 1
    WARM_UP_ONCE.cache_clear()
    asked_for(**{METHOD: "no_such"})
    assert server.plan(LOADS[:1])[1] == "their own"
    assert len(done) == 1


def test_a_process_that_never_plans_does_not_load_what_plans():
    code = "import sys, eplb_gap.heuristics.plugins.sglang; print({'torch', 'numba', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
