"""``--profile``: times beside balance, never without the profile's name and source, and nothing new without one."""

from __future__ import annotations

import html
import json
import re

import numpy as np
import pytest
from in_process import run

from eplb_gap import LoadTrace
from eplb_gap.problem.routing.trace import RoutingTrace

SHAPE = ("--slots", 12, "--gpus", 4, "--nodes", 2)
NAME = "qwen2-57b-ep8-h20"
CITED = f"profile {NAME}: published fit to timed maps"
TIME = re.compile(r"[0-9.]+ (s|ms|us)\b|predicted|imbalance", re.IGNORECASE)
COMMANDS = {
    "evaluate": ("--map", "fast"),
    "explain": ("--map", "fast"),
    "capacity": ("--most-slots", 12, "--seconds", 1),
    "replay": ("--controller", "none"),
}

pytestmark = pytest.mark.usefixtures("short_plans")


@pytest.fixture
def loads(tmp_path):
    path = tmp_path / "loads.npz"
    LoadTrace((np.random.default_rng(1).random((4, 2, 8)) ** 3 * 1000).astype(np.int64) + 1).save(path)
    return path


def printed(monkeypatch, capsys, *arguments):
    assert run(monkeypatch, *arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_times_come_behind_what_is_printed_without_a_profile_and_only_with_one(command, loads, monkeypatch, capsys):
    asked = (command, "--loads", loads, *SHAPE, *COMMANDS[command])
    plain = printed(monkeypatch, capsys, *asked)
    assert not TIME.search(plain) and "profile" not in plain
    timed = printed(monkeypatch, capsys, *asked, "--profile", NAME)
    assert timed.startswith(plain)
    assert CITED in timed and "NVIDIA H20" in timed and "16,384 requests" in timed
    if command == "explain":  # the slowest; its JSON is the one of the page's test
        return
    bare = json.loads(printed(monkeypatch, capsys, *asked, "--json"))
    told = json.loads(printed(monkeypatch, capsys, *asked, "--json", "--profile", NAME))
    time = told["maps"][0].pop("time") if command == "evaluate" else told.pop("time")
    assert {"profile": NAME, "timed": "16,384 requests"}.items() <= time.items() and time["source"].startswith("published")
    assert told == bare


def test_another_dispatch_than_that_of_the_profile_is_refused_and_its_own_the_default(tmp_path, monkeypatch, capsys):
    experts = (np.random.default_rng(3).random((40, 2, 8)) * np.arange(1, 9)).argsort(axis=2)[:, :, -2:]
    routing = tmp_path / "routing.npz"
    RoutingTrace(experts, 8, step=np.arange(40) // 10).save(routing)
    asked = ("--routing", routing, *SHAPE, "--map", "fast", "--profile", "deepep-h800-ep8")
    told = json.loads(printed(monkeypatch, capsys, "evaluate", *asked, "--json"))
    assert told["traffic"]["dispatch"] == "rank-dedup"
    serving = told["maps"][0]["time"]["serving"]
    assert 0 < serving["network_seconds_lower"] <= serving["network_seconds"] and "relative" not in serving
    target = tmp_path / "page.html"
    told = json.loads(printed(monkeypatch, capsys, "explain", *asked, "--html", target, "--json"))
    assert told["time"]["network_seconds"] == serving["network_seconds"] and told["time"]["source"].startswith("https://")
    text = target.read_text()
    assert "Tokens over the network" in text and "GPUs a token, bound" in text and "What it is worth in time" in text
    assert "Profile measured on 8 GPUs in 1 node; deployment has 4 GPUs in 2 nodes." in text
    assert "for the window's 10 tokens as one dispatch a layer, no map below" in html.unescape(text)
    assert run(monkeypatch, "evaluate", *asked, "--dispatch", "node-dedup") == 2
    assert "--dispatch is node-dedup; the network of --profile deepep-h800-ep8 is of rank-dedup" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "profile", "said"),
    [
        ("evaluate", "qwen2-57b-ep8", "qwen2-57b-ep8-h20 is meant"),
        ("explain", "deepep-h800-ep32", "its network needs the experts of every token: --routing is missing"),
        ("capacity", "deepep-h800-ep32", "which has network alone; capacity needs one with a hinge"),
        ("replay", "deepgemm-fp8-sm90", "which has tiles alone; replay needs one with a hinge"),
    ],
)
def test_a_profile_that_is_not_there_or_tells_nothing_ends_with_one_line(command, profile, said, loads, monkeypatch, capsys):
    assert run(monkeypatch, command, "--loads", loads, *SHAPE, *COMMANDS[command], "--profile", profile) == 2
    found = capsys.readouterr()
    assert said in found.err and found.err.count("\n") == 1 and not found.out
