"""vLLM's real code with the plug-in registered, version by version; what was driven is printed (``-s``)."""

from __future__ import annotations

import pytest
from driving import drive

from eplb_gap import read_loads
from eplb_gap.experiments.hosts.packages import VLLM
from eplb_gap.heuristics.planner.fast import TOLERANCES

*WITH_POLICIES, WITHOUT = VLLM
DRIVEN = (
    "sync, first plan: 3 ranks",
    "sync, rebalanced: 3 ranks",
    "sync, one rank lost: 2 ranks",
    "async, first plan: 3 ranks",
    "async, rebalanced: 3 ranks",
    "scaled up: 4 ranks",
    "rebalanced on two nodes: 4 ranks",
    "METHOD=host",
    "MAP=FILE",
    "CONTROLLER=budgeted.toml",
)
COMPARED = ("METHOD of rank 1 differs", "METHOD of rank 2 is unknown", "rank 1 runs out of memory")
HAVE_NO_EPLB_GROUP = ("0.15.1",)


@pytest.mark.parametrize("release", WITH_POLICIES, ids=str)
def test_ranks_plan_move_weights_scale_and_agree(release, tmp_path):
    lines = drive("drive_vllm.py", release, EPLB_GAP_RECORD=str(tmp_path / "calls"))
    assert sum(f"eplb-gap plans for vllm {release.version} if EPLB is on" in line for line in lines) == 1
    for what in (*DRIVEN, *(COMPARED if release.version not in HAVE_NO_EPLB_GROUP else ())):
        assert any(what in line for line in lines), what
    figures = [line.rpartition("before ")[2].split(", ") for line in lines if "balancedness before" in line]
    assert len(figures) >= 8
    for _, ours, theirs in figures:
        least = 0.0 if "fails" in theirs else float(theirs.removeprefix("vllm's own "))
        assert float(ours.removeprefix("ours ")) >= least - TOLERANCES["fast"]  # how near the bound the planner stops
    recorded = read_loads(tmp_path / "calls")
    assert recorded.loads.shape[1:] == (3, 16)
    assert len(recorded.loads) >= 8
    assert recorded.loads.any(axis=(1, 2)).all()


def test_a_version_without_policies_keeps_its_own():
    lines = drive("drive_old_vllm.py", WITHOUT)
    assert sum("vLLM 0.11.0 keeps its own EPLB" in line and "0.15.1 to 0.33.0" in line for line in lines) == 1
    assert "INFO" in lines[0]
    lines = drive("drive_old_vllm.py", WITHOUT, EPLB_GAP_METHOD="fast")
    assert "WARNING" in lines[0]
