"""Unequal and dead GPUs on the command line: what the options stand for, and one readable line for what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.cli.options import DuplicatesChoice, PolicyChoice, chosen_deployment
from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, LoadTrace, verify
from eplb_gap.problem.formats import read_map, write_map

LOADS = np.random.default_rng(5).integers(1, 900, size=(3, 2, 8))


def chosen(**given: Any) -> Deployment:
    named = {"name": None, "experts": 8, "slots": None, "gpus": None, "nodes": None, "groups": None, **given}
    policy = PolicyChoice(named.pop("policy", "as-deployed"))
    return chosen_deployment(**named, policy=policy, duplicates=DuplicatesChoice.allowed)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_options_are_the_deployment_that_they_name() -> None:
    assert chosen(slots_per_gpu="4,4,2") == Deployment(8, slots_per_gpu=[4, 4, 2])
    assert chosen(slots=16, gpus=4, dead_gpus="3, 1", nodes=2, groups=1) == Deployment(8, 16, 4, 2, dead_gpus=[1, 3])
    assert chosen(slots=12, gpus=4, dead_gpus="0", nodes=2, groups=2, policy="global") == Deployment(8, 12, 4, dead_gpus=[0])
    assert chosen(name="mixtral-ep8", slots_per_gpu="3,3,2,2", dead_gpus="2") == Deployment(
        8, slots_per_gpu=[3, 3, 2, 2], dead_gpus=[2]
    )
    flagship = chosen(name="dsv3-prefill-ep32", experts=256, dead_gpus="31", policy="global")
    assert flagship == Deployment(256, 288, 32, dead_gpus=[31])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slots_per_gpu": "4,x"}, "--slots-per-gpu is '4,x'; whole numbers with commas between them, as 3,7, are needed"),
        ({"slots": 12, "gpus": 4, "dead_gpus": ""}, "--dead-gpus is ''; whole numbers"),
        ({"slots": 12, "gpus": 4, "dead_gpus": "4"}, "dead_gpus names 4; different GPUs from 0 to 3 are needed"),
        ({"slots": 12, "gpus": 4, "slots_per_gpu": "4,4"}, "num_slots is 12; slots_per_gpu says 8"),
        ({"slots_per_gpu": "4,0"}, r"slots_per_gpu\[1\] is 0"),
        ({"gpus": 4, "dead_gpus": "1"}, "--slots and --gpus, or --slots-per-gpu, are needed"),
        (
            {"slots": 12, "gpus": 4, "nodes": 2, "groups": 2, "dead_gpus": "1"},
            "the hierarchical policy; unequal slots and dead GPUs",
        ),
        ({"slots": 8, "gpus": 4, "dead_gpus": "1"}, "3 of 4 GPUs are active, with 6 slots; at least num_experts = 8"),
    ],
)
def test_what_cannot_be_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen(**given)


def test_commands_plan_around_dead_gpus(tmp_path: Path) -> None:
    trace, before, after = tmp_path / "t.npz", tmp_path / "before.json", tmp_path / "after.json"
    LoadTrace(LOADS).save(trace)
    left = Deployment(8, 16, 4, dead_gpus=[3])
    write_map(before, rebalance(LOADS[0], Deployment(8, 16, 4)), Deployment(8, 16, 4), "vllm", [0, 1])
    flags = ("--loads", trace, "--slots", 16, "--gpus", 4, "--dead-gpus", 3)
    solved = json.loads(run("solve", *flags, "--json", "--method", "bounds").stdout)
    assert {expert for row in solved["phy2log"] for expert in row[12:]} == {0}
    moves = ("--previous", before, "--max-moves", 9, "--map", "fast", "--to", "vllm", after, "--json")
    written = json.loads(run("convert", *flags, *moves).stdout)
    assert written["moved"] <= 9
    assert "lost_experts" in written
    assert verify(read_map(after, left), LOADS[-1], left)
    scored = json.loads(run("evaluate", *flags, "--map", after, "--map", "fast", "--previous", before, "--json").stdout)
    assert [one["note"] for one in scored["maps"]] == ["", ""]
    refused = run("explain", "--loads", trace, "--slots-per-gpu", "5,5,4")
    assert (refused.returncode, refused.stderr.strip().count("\n")) == (2, 0)
    assert "the GPUs have 4 to 5 slots; an explanation needs equally many on each" in refused.stderr
