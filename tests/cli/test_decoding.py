"""``explain --decode`` and ``capacity --decode`` from a routing file to what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from in_process import run

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.formats import write_map
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

SHAPE = ("--slots", "8", "--gpus", "4")


@pytest.fixture
def routing(tmp_path: Path) -> str:
    """Two steps of eight tokens that all go to every one of four experts."""
    path = tmp_path / "routing.npz"
    RoutingTrace(np.tile(np.arange(4), (16, 2, 1)), 4, step=[0] * 8 + [1] * 8).save(path)
    return str(path)


def test_both_commands_say_what_redundancy_costs(
    routing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--decode", "--routing", routing, *SHAPE, "--batch")
    assert run(monkeypatch, "explain", *asked, "4") == 0
    said = capsys.readouterr().out
    assert said.startswith("Planned on window 0, serving window 1.\n")
    assert "The recorded passes have up to 8 tokens: a batch is no recorded step but draws 4 tokens" in said
    assert "fast planned both maps" in said
    assert "2 steps of 2 layers, 4.0 active experts" in said
    assert "Redundant slots hurt decode under hashed choice: the fullest GPU reads 2.00 experts a step, +100.0 %" in said
    assert "The best choice equals its bound on 100 % of 4 steps and layers" in said
    assert run(monkeypatch, "explain", *asked, "steps", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batch"], found["steps"], found["serve_window"]) == (None, 1, 1)
    assert found["more_than_plain"] == {"hashed": 1.0, "even": 1.0, "best": 0.0}
    assert run(monkeypatch, "capacity", *asked, "4") == 0
    said = capsys.readouterr().out
    assert said.startswith("Planned on window 0, serving window 1.\n")
    assert "a batch is no recorded step but draws 4 tokens" in said
    assert "Under hashed choice 4 slots read the fewest, 1.00; 8 slots read 2.00, +100.0 % against 4." in said
    assert run(monkeypatch, "capacity", *asked, "4", "--profile", "fp8-k4096-n3072") == 0
    assert "Profile fp8-k4096-n3072: " in capsys.readouterr().out
    assert run(monkeypatch, "capacity", *asked, "4", "--json", "--most-slots", "4") == 0
    assert [step["slots"] for step in json.loads(capsys.readouterr().out)["steps"]] == [4]


def test_a_map_of_a_file_is_not_held_to_be_of_the_planner_of_the_other(
    routing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.json"
    write_map(path, Placement([[0, 1, 1, 2, 2, 3, 3, 0]] * 2, 4), Deployment(4, 8, 4), "phy2log-json")
    asked = ("explain", "--decode", "--routing", routing, *SHAPE, "--batch", "4", "--json", "--map")
    planners = {}
    for given in (str(path), "fast", "sglang-vec"):
        assert run(monkeypatch, *asked, given) == 0
        found = json.loads(capsys.readouterr().out)
        planners[found["map"]] = found["planner"], found["plain_planner"]
    assert planners == {"map.json": (None, "fast"), "fast": ("fast", "fast"), "sglang-vec": ("sglang-vec", "sglang-vec")}


def test_decode_leaves_dead_gpus_out(routing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("explain", "capacity"):
        said = []
        for shape in (("--slots", "10", "--gpus", "5", "--dead-gpus", "3"), SHAPE):
            assert run(monkeypatch, command, "--decode", "--routing", routing, "--batch", "4", *shape) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]
    assert run(monkeypatch, "explain", "--decode", "--routing", routing, "--slots-per-gpu", "3,2,2") == 2
    assert "decode as well as traffic needs equally many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("explain", ("--decode", "--batch", "0"), "--batch is '0'; a positive number of tokens, or 'steps', is needed"),
        ("explain", ("--decode", "--batch", "9"), "batch is 9; the longest step of the trace has 8 tokens"),
        ("explain", ("--decode",), "batch is 64; the longest step of the trace has 8 tokens"),
        ("explain", ("--batch", "4"), "--batch is 4 without --decode"),
        ("explain", ("--decode", "--html", "page.html"), "--html is given with --decode"),
        ("explain", ("--decode", "--dispatch", "none"), "--dispatch is given with --decode"),
        ("explain", ("--decode", "--profile", "a100"), "--profile is a100, which has no tiles"),
        ("capacity", ("--decode", "--target", "0.9"), "--target is given with --decode"),
        ("capacity", ("--serve-window", "1"), "--serve-window is 1 without --decode"),
    ],
)
def test_what_decode_cannot_use_is_one_line(
    command: str,
    given: tuple[str, ...],
    message: str,
    routing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, command, "--routing", routing, *SHAPE, *given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_decode_needs_routing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "explain", "--decode", *SHAPE) == 2
    assert "--routing is missing" in capsys.readouterr().err
