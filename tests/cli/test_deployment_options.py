"""Unequal and dead GPUs on the command line: what the options stand for, and one readable line for what cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, LoadTrace, verify
from eplb_gap.problem.formats import read_map, write_map

LOADS = np.random.default_rng(5).integers(1, 900, size=(3, 2, 8))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eplb_gap", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


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
