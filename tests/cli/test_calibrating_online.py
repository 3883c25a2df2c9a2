"""``calibrate --online`` as its user meets it: answer, flags, TOML that replays, figure, JSON, one error for bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.analysis.online import calibrate as module
from eplb_gap.cli import main as cli
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.control.controllers_file import read_controllers
from eplb_gap.problem import LoadTrace

pytestmark = pytest.mark.usefixtures("short_plans")

STEPS = np.random.default_rng(5).poisson(np.linspace(5, 200, 8), (40, 2, 8))
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    path = tmp_path / "steps.npz"
    LoadTrace(STEPS).save(path)
    monkeypatch.setattr(module, "first_round", lambda _: [Controller("none"), Controller("periodic", interval=2)])
    monkeypatch.setattr(module, "second_round", lambda *_: [Controller("budgeted", interval=2, moves=0.1)])

    def call(*arguments: Any) -> int:
        """Run the command line in this process and return its exit code."""
        given = ["eplb-gap", "calibrate", "--loads", str(path), "--slots", "10", "--gpus", "5", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", given)
        try:
            cli.main()
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    return call


def test_the_answer_a_file_and_a_figure(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, figure = tmp_path / "new" / "c.toml", tmp_path / "f.svg"
    assert run("--online", "--out", file, "--figure", figure, "--host", "vllm-ascend") == 0
    said = capsys.readouterr().out
    assert "Is EPLB worth it here? Yes: on steps 20 to 39, held out" in said
    assert "vLLM-Ascend's default" in said
    for host in ("vLLM: --enable-eplb", "SGLang: --enable-eplb", "TensorRT-LLM: num_slots: 10", "vLLM-Ascend: DYNAMIC_EPLB=true"):
        assert host in said
    [controller] = read_controllers(file)
    assert controller.kind in ("periodic", "budgeted")
    drawn = figure.read_text()
    assert "replicas moved per step and layer" in drawn


def test_json_is_whole_and_in_steps_of_the_server(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.toml"
    costs.write_text("[costs]\nexpert_bytes = 1e6\nbandwidth = 1e9\n")
    given = ("--costs", costs, "--step-ms", 20, "--slot-options", "10,15", "--most-moves", 1, "--window", 2, "--split", 0.6)
    assert run("--online", "--json", *given, "--out", tmp_path / "c.toml") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["held_out"] == [12, 19]
    assert {one["slots"] for one in said["by_slots"]} == {10, 15}
    assert {one["host"] for one in said["flags"]} == {"vllm", "sglang", "tensorrt-llm", "vllm-ascend"}
    assert said["files"] == [str(tmp_path / "c.toml")]
    [controller] = read_controllers(tmp_path / "c.toml")
    assert said["chosen"].get("interval", 100) == controller.interval
    if controller.kind != "none":
        assert controller.interval % 2 == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--host", "vllm"), "--host is given without --online"),
        (("--figure", "f.png"), "--figure is given without --online"),
        (("--online", "--budget-ms", 3), "--budget-ms is given with --online"),
        (("--online", "--host", "llama"), "host is 'llama'"),
        (("--online", "--split", 1.5), "split is 1.5"),
        (("--online", "--most-moves", -1), "most_moves is -1"),
        (("--online", "--costs", "none.toml", "--step-ms", 1), "none.toml does not exist"),
        (("--online", "--step-ms", 1), "step_seconds is given without costs"),
        (("--online", "--slot-options", "10;12"), "--slot-options is '10;12'"),
        (("--online", "--slot-options", "10,12"), "num_gpus is 5; a divisor of num_slots = 12"),
        (("--online", "--figure", "f.txt"), "--figure is f.txt; a name that ends in .pdf or .png or .svg"),
        (("--online", "--window", 4), "steps has 10 steps, 5 to choose on and 5 held out"),
        (("--online", "--window", 0), "window is 0"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: tuple[Any, ...], message: str
) -> None:
    assert run(*given, "--out", tmp_path / "c.toml") == 2
    heard = capsys.readouterr()
    assert heard.out == ""
    assert message in heard.err
    assert len(heard.err.strip().splitlines()) == 1
    assert not (tmp_path / "c.toml").exists()


def test_the_file_must_be_named_as_what_it_is(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--online", "--out", tmp_path) == 2
    assert "a name that ends in .toml is needed" in capsys.readouterr().err
    profile = tmp_path / "costs.toml"
    profile.write_text("[costs]\n")
    assert run("--online", "--costs", profile, "--step-ms", 1, "--out", profile) == 2
    assert "costs.toml, which is the file of --costs too" in capsys.readouterr().err
    assert profile.read_text() == "[costs]\n"
