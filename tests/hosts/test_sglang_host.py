"""SGLang's released EPLB modules with the plug-in in them: ``pytest tests/hosts -s`` shows what was driven, with figures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from driving import drive, package_of

from eplb_gap import Controller, Deployment, read_loads, read_map
from eplb_gap.analysis.online.host_flags import host_flags
from eplb_gap.experiments.hosts.packages import SGLANG

DEPLOYMENT = Deployment(16, 24, 4, num_nodes=2, num_groups=4)
SHAPE = ["--slots", "24", "--gpus", "4", "--nodes", "2", "--groups", "4"]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> tuple[Path, list[str]]:
    """Return what a server of four ranks left behind, and what it said."""
    folder = tmp_path_factory.mktemp("served")
    return folder, drive("sglang_scenes.py", SGLANG, str(folder))


def test_all_algorithms_dispatch_to_the_plug_in_and_are_no_better_than_it():
    lines = drive("sglang_driver.py", SGLANG, "dispatch")
    assert sum(line.startswith("dispatch") for line in lines) == 24


def test_a_spawned_scheduler_process_plans_with_the_plug_in(tmp_path):
    lines = drive("sglang_spawning.py", SGLANG, str(tmp_path))
    assert any(line.startswith("spawned scheduler: rebalance_experts is eplb_gap.") for line in lines)


def test_a_server_is_rebalanced_loses_a_rank_and_gets_it_back(served):
    _, lines = served
    assert sum(line.startswith(("auto, ", "deepseek_vec, ")) for line in lines) == 8
    assert sum(line.startswith("controller,") for line in lines) == 3
    assert sum("rank 2 of 4 lost" in line for line in lines) == 4
    assert sum(line.startswith(("ranks that differ,", "a planned map,")) for line in lines) == 4


@pytest.mark.parametrize("mode", ["stat", "stat_approx", "per_pass", "per_token"])
def test_dumps_of_its_recorder_are_read_as_what_was_routed(served, mode):
    folder = served[0] / mode
    routed = np.load(folder / "routed.npy")
    trace = read_loads(folder if mode.startswith("per") else next(folder.glob("*.pt")))
    assert trace.provenance["dropped_layers"] == [0]
    assert (trace.loads == routed[:, trace.provenance["layer_ids"]]).all()
    print(f"\nread {mode}: {len(trace.loads)} passes, {trace.loads.sum()} tokens, as routed")


def test_what_the_plug_in_records_is_read_as_what_was_routed(served):
    folder, _ = served
    routed = np.load(folder / "calls.npy")
    trace = read_loads(folder / "calls")
    assert (trace.loads == routed[:, 1:]).all()
    print(f"\nread EPLB_GAP_RECORD: {len(trace.loads)} passes of {trace.provenance['layer_ids']}, {trace.loads.sum()} tokens")


def test_maps_for_its_start_are_taken_as_they_were_written(served, tmp_path):
    [dump] = (served[0] / "stat").glob("*.pt")
    command = [
        sys.executable,
        "-c",
        "from eplb_gap.cli.main import main; main()",
        "convert",
        "--loads",
        str(dump),
        "--map",
        "fast",
        "--to",
        "sglang",
        *SHAPE,
    ]
    subprocess.run([*command, "--window", "2", str(tmp_path / "location.json")], check=True)
    found = read_map(tmp_path / "location.json", DEPLOYMENT)
    np.save(tmp_path / "map.npy", found.phy2log)
    torch.save({"physical_to_logical_map": torch.from_numpy(found.phy2log)}, tmp_path / "location.pt")
    assert (read_map(tmp_path / "location.pt", DEPLOYMENT).phy2log == found.phy2log).all()
    lines = drive("sglang_driver.py", SGLANG, "maps", str(tmp_path))
    assert sum(line.startswith("init_by_mapping location") for line in lines) == 2
    assert sum(line.startswith("init_by_eplb") for line in lines) == 9


def options_of_release() -> set[str]:
    """Return the command-line options that SGLang makes of the fields of its arguments."""
    fields = (package_of(SGLANG) / "sglang" / "srt" / "arg_groups" / "fields").glob("*.py")
    names = {name for path in fields for name in re.findall(r"^    (\w+): A\[", path.read_text(), flags=re.M)}
    return {f"--{name.replace('_', '-')}" for name in names}


def test_flags_that_calibrate_writes_exist():
    controllers = [Controller("static"), Controller("periodic", interval=50, window=20), Controller("threshold", below=0.9)]
    flags = {flag for one in controllers for flag in re.findall(r"--[\w-]+", host_flags(one, DEPLOYMENT, 3, "sglang").flags)}
    assert len(flags) >= 5
    assert flags <= options_of_release()
    print(f"\nin the release: {' '.join(sorted(flags))}")
