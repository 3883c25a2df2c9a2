"""vLLM-Ascend's real EPLB with the plug-in: its factory, worker process, transfers, map files and configuration."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from driving import drive

from eplb_gap import Deployment, Placement, read_loads, rebalance, write_map
from eplb_gap.experiments.hosts.packages import VLLM_ASCEND
from eplb_gap.problem.formats.maps.maps import read_map

RANKS = 4
DEPLOYMENT = Deployment(12, 16, RANKS, duplicates="forbidden")
DYNAMIC = {"DYNAMIC_EPLB": "true"}
REFUSED = re.compile("invalid|not placed on any rank|Subprocess crashed|Traceback")
"""What the host says of a table that it does not like."""


def serve(folder, expert_map="", ranks=RANKS, **environment):
    """Run the server through its phases and return what it tells of each, and all other lines."""
    folder.mkdir()
    printed = drive("vllm_ascend_server.py", VLLM_ASCEND, str(folder), str(ranks), str(expert_map), **DYNAMIC, **environment)
    lines = [line for line in printed if not line.startswith("{")]
    assert not [line for line in lines if REFUSED.search(line)]
    return [json.loads(line) for line in printed if line.startswith("{")], lines


@pytest.fixture(scope="module")
def host_alone(tmp_path_factory):
    """The phases under the host's own policy, recorded, its process spawned and not forked."""
    folder = tmp_path_factory.mktemp("host")
    told, lines = serve(
        folder / "server", START="spawn", EPLB_GAP_METHOD="host", EPLB_GAP_RECORD=str(folder / "record"), EPLB_GAP_INTERPRET="1"
    )
    return told, lines, folder / "record"


def recorded(folder, told):
    """Check that a record holds exactly the tokens of every phase."""
    loads = read_loads(folder).loads
    assert loads.tolist() == [phase["collected"] for phase in told]


def test_planned_in_the_server_from_our_map_file_to_its_own(tmp_path):
    first = rebalance(np.arange(36).reshape(3, 12) ** 2, DEPLOYMENT)
    write_map(tmp_path / "map.json", first, DEPLOYMENT, "vllm-ascend")
    told, lines = serve(tmp_path / "server", tmp_path / "map.json", EPLB_GAP_RECORD=str(tmp_path / "record"))
    assert sum("eplb-gap plans for vllm-ascend" in line for line in lines) == RANKS
    assert np.reshape(told[0]["before"], (3, -1)).tolist() == first.phy2log.tolist()
    assert [[received > 0 for received in phase["received"]] for phase in told] == [
        [True] * 3,
        [False] * 3,
        [False, True, False],
        [True] * 3,
    ]
    for phase in told:
        assert phase["changed"] == phase["received"]  # nothing moves inside a device, every other slot is one transfer
    assert all(told[at]["balance"][1] > told[at]["balance"][0] + 0.05 for at in (0, 3))
    written = read_map(tmp_path / "server" / "record.json", DEPLOYMENT)
    assert isinstance(written, Placement)
    assert written.phy2log.tolist() == np.reshape(told[-1]["after"], (3, -1)).tolist()
    recorded(tmp_path / "record", told)


def test_loads_step_by_step_and_a_planned_map_served_first(tmp_path):
    deployment = Deployment(12, 16, 2, duplicates="forbidden")
    planned = rebalance(np.arange(36).reshape(3, 12) ** 2, deployment)
    write_map(tmp_path / "map.json", planned, deployment, "phy2log-json")
    record = str(tmp_path / "record")
    told, _ = serve(tmp_path / "server", ranks=2, POLICY="3", EPLB_GAP_MAP=str(tmp_path / "map.json"), EPLB_GAP_RECORD=record)
    assert np.sort(told[0]["after"]).tolist() == np.sort(planned.phy2log.reshape(3, 2, 8)).tolist()
    for phase in told:
        assert phase["changed"] == phase["received"]
    assert told[-1]["balance"][1] > told[-1]["balance"][0] + 0.05
    steps = read_loads(record).loads
    assert len(steps) == 4 * 5  # as long as loads are collected
    assert steps.reshape(4, 5, 3, 12).sum(axis=1).tolist() == [phase["collected"] for phase in told]


def test_the_host_alone_is_recorded(host_alone):
    told, lines, record = host_alone
    assert sum("method host" in line for line in lines) == RANKS
    recorded(record, told)


def test_one_rank_with_bad_settings_leaves_all_to_the_host(tmp_path, host_alone):
    told, lines = serve(tmp_path / "server", ODD="EPLB_GAP_METHOD=no_such_method")
    assert [phase["after"] for phase in told] == [phase["after"] for phase in host_alone[0]]
    warned = [line for line in lines if "eplb_gap WARNING" in line]
    assert len(warned) == RANKS
    assert sum("no_such_method" in line for line in warned) == 1
    assert sum("ranks differ" in line for line in warned) == RANKS - 1


@pytest.fixture(scope="module")
def policies():
    """What the script tells of each policy, and of the configuration in the end."""
    printed = drive("vllm_ascend_policies.py", VLLM_ASCEND)
    assert not [line for line in printed if "ERROR" in line]
    return [json.loads(line) for line in printed if line.startswith("{")]


def test_against_the_hosts_policies(policies):
    print(f"{'policy':60} served {'planned':>9} received seconds")
    mean = {}
    for told in policies[:-1]:
        name = told["policy"]
        mean[name] = np.mean(told["before"][1:]), np.mean(told["after"]), told["received"]
        print(f"{name:60} {mean[name][0]:6.3f} {mean[name][1]:9.4f} {mean[name][2]:8} {told['seconds']:7.2f}")
    default, swift, flashlb, for_2, for_3, budgeted = mean.values()
    for ours in (for_2, for_3, budgeted):
        assert ours[1] < min(default[1], swift[1], flashlb[1])
        assert ours[2] < default[2]
    assert for_2 == for_3  # the same tokens, in one sum and step by step
    assert budgeted[2] < for_3[2] / 2


def test_what_the_hosts_configuration_refuses(policies):
    assert set(policies[-1]["refused"]) == {"no_such_key", "eplb_policy_type", "expert_map_path", "dynamic_eplb"}
