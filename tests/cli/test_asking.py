"""The options of loads and deployment: what they stand for, on every command that has them, and what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from in_process import run
from typer.main import get_command

from eplb_gap.analysis.asked import choose_deployment, read_problem
from eplb_gap.cli import main as cli
from eplb_gap.problem import Deployment, InputError, LoadTrace
from eplb_gap.solvers import METHODS

LOADS = np.random.default_rng(5).integers(1, 90, (3, 2, 12))
ASKING = ("solve", "evaluate", "explain", "calibrate", "capacity", "replay", "convert")
OPTIONS = [
    "loads",
    "format",
    "window",
    "leave_out_layers",
    "experts",
    "deployment",
    "slots",
    "gpus",
    "nodes",
    "groups",
    "slots_per_gpu",
    "dead_gpus",
    "policy",
    "duplicates",
]


@pytest.fixture
def loads(tmp_path):
    path = tmp_path / "loads.npz"
    LoadTrace(LOADS, {"layer_ids": [3, 4]}).save(path)
    return path


@pytest.mark.parametrize("name", ASKING)
def test_every_command_about_loads_has_the_same_options(name):
    command = get_command(cli.app).commands[name]
    found = {option.name: option for option in command.params}
    assert [option.name for option in command.params][: len(OPTIONS)] == OPTIONS
    assert found["loads"].required is (name not in ("solve", "convert", "calibrate", "evaluate", "explain"))
    assert all(option.help for option in command.params)


def test_other_commands_do_not():
    commands = get_command(cli.app).commands
    assert not any(option.name == "slots" for name in set(commands) - set(ASKING) for option in commands[name].params)


def test_the_help_of_solve_lists_the_engines(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    assert run(monkeypatch, "solve", "--help") == 0
    assert ", ".join(METHODS) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--slots", "16", "--gpus", "4", "--dead-gpus", "3;1"], "--dead-gpus is '3;1'; numbers of GPUs, as in 3,7, are needed"),
        (["--slots", "16", "--gpus", "4", "--dead-gpus", "4"], "dead_gpus names GPU 4; the GPUs are 0 to 3"),
        (["--slots", "16", "--gpus", "4", "--dead-gpus", "1,1"], "dead_gpus names GPU 1 twice"),
        (
            ["--slots", "16", "--gpus", "4", "--dead-gpus", "0,1"],
            "2 of 4 GPUs are active, with 8 slots; at least num_experts = 12",
        ),
        (["--slots-per-gpu", "9,x"], "--slots-per-gpu is '9,x'; the slots of every GPU, as in 9,9,8, are needed"),
        (["--slots-per-gpu", "9,0"], "slots_per_gpu[1] is 0; a positive integer is needed"),
        (["--slots-per-gpu", "9,4", "--gpus", "3"], "num_gpus is 3; slots_per_gpu says 2"),
        (["--slots-per-gpu", "3,4"], "2 of 2 GPUs are active, with 7 slots"),
        (["--deployment", "deepseek-readme", "--dead-gpus", "1"], "unequal slots and dead GPUs are planned under the global one"),
        (
            ["--slots", "16"],
            "--deployment is missing; the name of a preset, or --slots and --gpus, or --slots-per-gpu, are needed",
        ),
        (["--dead-gpus", "1"], "--deployment is missing"),
    ],
)
def test_bad_gpus_are_one_readable_line(arguments, text, loads, monkeypatch, capsys):
    assert run(monkeypatch, "solve", "--loads", loads, *arguments) == 2
    said = capsys.readouterr()
    assert text in said.err
    assert "\n" not in said.err.strip()
    assert said.out == ""


@pytest.mark.parametrize("options", [["--dead-gpus", "1"], ["--slots", "3"], ["--deployment", "olmoe-ep16"], ["--window", "3"]])
def test_an_example_is_solved_as_it_is(options, monkeypatch, capsys):
    assert run(monkeypatch, "solve", "--example", "flashlb", *options) == 2
    assert f"{options[0]} is given with --example flashlb" in capsys.readouterr().err


def test_dead_and_unequal_gpus_are_solved(loads, monkeypatch, capsys):
    for options, gpus in ((["--slots", "20", "--gpus", "4", "--dead-gpus", "1"], 3), (["--slots-per-gpu", "6,5,5,4"], 4)):
        assert run(monkeypatch, "solve", "--loads", loads, *options, "--method", "bounds", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert {len(row) for row in found["phy2log"]} == {20}
        for layer, row in zip(found["layers"], LOADS[1], strict=True):
            upper, parts = map(int, layer["upper"].split("/"))
            assert upper / parts >= row.sum() / gpus


def test_dead_gpus_are_evaluated_explained_and_written(loads, monkeypatch, capsys, tmp_path):
    dead = ["--deployment", "deepseek-readme", "--policy", "global", "--dead-gpus", "3,6"]
    assert run(monkeypatch, "evaluate", "--loads", loads, *dead, "--map", "fast", "--previous", "fast", "--json") == 0
    [scored] = json.loads(capsys.readouterr().out)["maps"]
    assert scored["note"] == ""
    assert scored["layers"][0]["serving"]["mean"] == f"{LOADS[2, 0].sum() // 6}/1" or LOADS[2, 0].sum() % 6
    assert run(monkeypatch, "explain", "--loads", loads, *dead, "--json") == 0
    assert json.loads(capsys.readouterr().out)["policy"] == "global"
    target = tmp_path / "map.json"
    assert run(monkeypatch, "convert", target, "--loads", loads, *dead, "--map", "fast", "--to", "phy2log-json", "--json") == 0
    held = np.array(json.loads(target.read_text()))
    assert held.shape == (2, 16)
    assert not held[:, [6, 7, 12, 13]].any()  # filler


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["explain"], "the GPUs have 4 to 6 slots; an explanation needs equally many on each"),
        (["calibrate"], "the GPUs have 4 to 6 slots; a calibration needs equally many on each"),
        (["capacity"], "the GPUs have 4 to 6 slots; a count of slots needs equally many on each"),
        (
            ["evaluate", "--map", "fast", "--protocol", "gpu"],
            "the GPUs have 4 to 6 slots; a published protocol needs equally many on each",
        ),
        (["evaluate", "--map", "fast-split"], "needs equally many slots on all live GPUs"),
        (["solve", "--method", "pairing"], "which needs equally many slots on all live GPUs"),
    ],
)
def test_what_cannot_be_with_unequal_gpus_is_one_readable_line(command, text, loads, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *command, "--loads", loads, "--slots-per-gpu", "6,5,5,4") == 2
    said = capsys.readouterr()
    assert text in said.err
    assert "Traceback" not in said.err


def test_unequal_gpus_are_evaluated(loads, monkeypatch, capsys):
    assert run(monkeypatch, "evaluate", "--loads", loads, "--slots-per-gpu", "6,5,5,4", "--map", "fast", "--json") == 0
    [scored] = json.loads(capsys.readouterr().out)["maps"]
    assert scored["serving"]["gap_worst"] >= scored["planning"]["gap_mean"] >= 0


def test_from_python_the_same_is_read(loads):
    asked = read_problem(loads, "deepseek-readme", policy="global", dead_gpus=[3], window=2)
    assert asked.deployment == Deployment(12, 16, 8, active=[gpu != 3 for gpu in range(8)])
    assert (asked.trace.loads == LOADS[1:].sum(axis=0)).all()
    assert (asked.recorded.loads == LOADS).all()
    assert asked.layer_ids == [3, 4]
    assert read_problem(loads, Deployment(12, 16, 4)).deployment == Deployment(12, 16, 4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "deployment is missing; the name of a preset, or num_slots and num_gpus, or slots_per_gpu"),
        ({"deployment": "dsv4"}, "the presets are"),
        ({"deployment": "olmoe-ep16"}, "the loads have 12 experts; deployment 'olmoe-ep16' has 64"),
        ({"deployment": Deployment(12, 16, 4), "num_gpus": 8}, "num_gpus is given with a deployment"),
        ({"num_slots": 16, "num_gpus": 4, "policy": "flat"}, "policy is 'flat'"),
        ({"num_slots": 16, "num_gpus": 4, "dead_gpus": [1.0]}, r"dead_gpus names GPU 1\.0"),
    ],
)
def test_bad_input_from_python_is_named(arguments, text, loads):
    with pytest.raises(InputError, match=text):
        read_problem(loads, **arguments)


def test_a_preset_keeps_what_is_not_changed():
    assert choose_deployment(12, "deepseek-readme", num_slots=24) == Deployment(12, 24, 8, 2, 4)
    assert choose_deployment(12, "deepseek-readme", slots_per_gpu=[2] * 7 + [3], policy="global").num_slots == 17
