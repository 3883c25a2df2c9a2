"""Plug-ins run inside a server: they import numpy, numba and torch, and nothing else of what this package needs elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = {"numpy", "numba", "torch"}
IMPORTED_AS = {"pyyaml": "yaml"}
"""Where the distribution has another name than its package."""
PROGRAM = """
import importlib.abc
import sys


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(f"{name}.".startswith(f"{blocked}.") for blocked in sys.argv[1:]):
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    try:
        __import__(name)
    except ImportError as error:
        assert "blocked" in str(error), error
    else:
        raise SystemExit(f"{name} can be imported")

import torch

from eplb_gap.heuristics.plugins import sglang, vllm

loads = torch.arange(1, 49).reshape(1, 3, 16)
plan = vllm.MapPolicy.rebalance_experts(loads[0], 24, 4, 2, 8, None)
assert plan.shape == (3, 24), plan.shape
vllm.MapPolicy.rebalance_experts(loads[0].flip(1), 24, 4, 2, 8, plan)


def own(*given):
    raise SystemExit("it fell back on the host's own policy")


tables = sglang.Planner(own)(loads, 24, 3, 4, 2, "deepseek")
assert tables[0].shape == (3, 24), tables[0].shape
assert not {room for room in ("solvers", "analysis", "experiments", "cli") if f"eplb_gap.{room}" in sys.modules}
print("planned")
"""


def dependencies() -> set[str]:
    """Return the names under which all that pyproject.toml lists is imported, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [line for lines in (project["dependencies"], *project["optional-dependencies"].values()) for line in lines]
    names = {re.split(r"[<>=!~\[; ]", line)[0].lower() for line in listed}
    return {IMPORTED_AS.get(name, name) for name in names}


def test_plug_ins_plan_where_every_other_dependency_is_blocked():
    blocked = sorted(dependencies() - ALLOWED)
    assert {"polars", "scipy", "ortools", "typer", "rich", "matplotlib", "yaml", "tokenizers"} < set(blocked)
    run = subprocess.run([sys.executable, "-c", PROGRAM, *blocked], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "planned\n"), run.stderr
