"""Flags of the serving systems: options that exist, every kind answered, and what cannot be said is said."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml

from eplb_gap import Controller, Deployment, InputError
from eplb_gap.analysis.online.host_defaults import HOSTS
from eplb_gap.analysis.online.host_flags import WRITERS, host_flags, in_host_steps
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.presets import PRESETS

SHAPE = Deployment(8, 12, 4)
SETTINGS: dict[str, dict[str, object]] = {
    "periodic": {"interval": 50, "window": 20},
    "budgeted": {"interval": 50, "window": 80, "moves": 0.02, "gain": 0.1},
    "threshold": {"interval": 50, "below": 0.8, "gain": 0.1},
    "round-robin": {"interval": 1, "layers": 2},
    "adaptive": {"interval": 50, "moves": 0.05},
}
OPTIONS = {
    "vllm": {"enable-eplb", "eplb-config", "window_size", "step_interval", "num_redundant_experts"},
    "sglang": {
        "enable-eplb",
        "eplb-rebalance-num-iterations",
        "expert-distribution-recorder-buffer-size",
        "ep-num-redundant-experts",
        "eplb-algorithm",
        "eplb-min-rebalancing-utilization-threshold",
        "expert-balancedness-report-mode",
        "init-expert-location",
    },
    "tensorrt-llm": {"num_slots", "layer_updates_per_iter", "initial_global_assignments"},
    "vllm-ascend": {
        "additional-config",
        "eplb_config",
        "dynamic_eplb",
        "expert_heat_collection_interval",
        "algorithm_execution_interval",
        "num_redundant_experts",
        "eplb_policy_type",
        "expert_map_path",
    },
}
"""Of the released packages; nothing else may be written."""


def names(host: str, flags: str) -> set[str]:
    """Return all options that flags name, those inside JSON and YAML too."""
    if host == "tensorrt-llm":
        return set(yaml.safe_load(flags))
    found: set[str] = set()
    for word in shlex.split(flags):
        if word.startswith("--"):
            found.add(word[2:])
        elif word.startswith("{"):
            inner = json.loads(word)
            found |= set(inner) | {key for value in inner.values() if isinstance(value, dict) for key in value}
    return found


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", [*KINDS, "of tomorrow"])
def test_every_kind_gives_flags_that_exist_or_says_that_it_cannot(kind: str, host: str) -> None:
    assert set(OPTIONS) == set(WRITERS) == set(HOSTS)
    found = host_flags(Controller(kind, **SETTINGS.get(kind, {})), SHAPE, 3, host)  # type: ignore[arg-type]
    assert found.flags or found.cannot
    assert names(host, found.flags) <= OPTIONS[host] if found.flags else True
    if kind in ("clairvoyant", "of tomorrow", "none"):
        assert not found.flags
    if kind in ("budgeted", "adaptive"):
        assert any("a limit of" in words for words in found.cannot)
    if kind in ("budgeted", "threshold"):
        assert any("keeping layers" in words for words in found.cannot)


def test_settings_reach_the_options_that_mean_them() -> None:
    periodic = Controller("periodic", interval=50, window=20)
    vllm = shlex.split(host_flags(periodic, SHAPE, 3, "vllm").flags)
    assert json.loads(vllm[-1]) == {"window_size": 20, "step_interval": 50, "num_redundant_experts": 4}
    sglang = host_flags(Controller("threshold", interval=50, window=80, below=0.8), SHAPE, 3, "sglang")
    assert "--eplb-rebalance-num-iterations 50 --expert-distribution-recorder-buffer-size 50" in sglang.flags
    assert "--eplb-min-rebalancing-utilization-threshold 0.8 --expert-balancedness-report-mode server_log" in sglang.flags
    assert any("a window of 80 steps" in words for words in sglang.cannot)
    nodes = Deployment(8, 16, 4, 2, 4)
    assert "deepseek_hierarchical" in host_flags(periodic, nodes, 3, "sglang").flags
    dead = Deployment(8, 16, 4, active=[True, True, False, True])
    assert "elasticity_aware" in host_flags(periodic, dead, 3, "sglang").flags
    assert any("dead GPUs" in words for words in host_flags(periodic, dead, 3, "vllm").cannot)
    lagged = Controller("periodic", interval=650, window=600, lag=50, method="initial_program")
    ascend = host_flags(lagged, SHAPE, 3, "vllm-ascend")
    config = json.loads(shlex.split(ascend.flags)[-1])["eplb_config"]
    assert (config["expert_heat_collection_interval"], config["algorithm_execution_interval"]) == (600, 50)
    assert ascend.cannot == ()


@pytest.mark.parametrize("host", HOSTS)
def test_a_default_comes_back_as_the_default(host: str) -> None:
    found = host_flags(PRESETS[HOSTS[host]], SHAPE, 58, host)
    assert {
        "vllm": '"window_size": 1000, "step_interval": 3000',
        "sglang": "--eplb-rebalance-num-iterations 1000 --expert-distribution-recorder-buffer-size 1000",
        "tensorrt-llm": "layer_updates_per_iter: 1",
        "vllm-ascend": '"expert_heat_collection_interval": 600, "algorithm_execution_interval": 50',
    }[host] in found.flags
    assert not any("plans by" in words for words in found.cannot)
    assert host != "vllm-ascend" or '"eplb_policy_type": 2' in found.flags


@pytest.mark.parametrize(
    ("method", "host", "flags"),
    [
        ("vllm-default", "vllm", "--enable-eplb"),
        ("sglang-deepseek", "sglang", "--eplb-algorithm deepseek"),
        ("sglang-vec", "sglang", "--eplb-algorithm deepseek_vec"),
        ("vllm-ascend", "vllm-ascend", '"eplb_policy_type": 1'),
        ("swift-balance", "vllm-ascend", '"eplb_policy_type": 2'),
        ("flashlb", "vllm-ascend", '"eplb_policy_type": 3'),
        ("fast", "vllm-ascend", '"eplb_policy_type": 1'),
    ],
)
def test_a_planner_of_the_host_is_chosen_by_its_flags(method: str, host: str, flags: str) -> None:
    found = host_flags(Controller("periodic", interval=100, window=99, lag=1, method=method), SHAPE, 58, host)
    assert flags in found.flags
    assert any("plans by" in words for words in found.cannot) is (method == "fast")


@pytest.mark.parametrize(("interval", "updates"), [(1, 58), (10, 6), (58, 1), (100, 1)])
def test_layers_have_their_turn_within_an_interval(interval: int, updates: int) -> None:
    found = host_flags(Controller("periodic", interval=interval), SHAPE, 58, "tensorrt-llm")
    assert re.search(rf"layer_updates_per_iter: {updates}$", found.flags)
    assert any("an interval of 100 steps" in words for words in found.cannot) is (interval == 100)


def test_unequal_slots_are_said_by_no_host_and_another_host_is_refused() -> None:
    for host in HOSTS:
        found = host_flags(Controller("periodic"), Deployment(4, slots_per_gpu=[1, 3, 2]), 3, host)
        assert (found.flags, found.cannot) == ("", ("GPUs with unequal slots",))
    with pytest.raises(InputError, match="host is 'llama'"):
        host_flags(Controller("periodic"), SHAPE, 3, "llama")


def test_steps_of_summed_loads_become_steps_of_the_server() -> None:
    one = in_host_steps(Controller("periodic", interval=10, window=20, lag=2), 8)
    assert (one.interval, one.window, one.lag) == (80, 160, 16)
