"""Nothing is imported by a generic top-level name: not here, not in child processes, not where a user has files of such names."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eplb_gap.problem import child

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("problem", "heuristics", "solvers", "analysis", "experiments", "cli")
TRAP = """
import os
with open(os.environ["TRAPPED"], "a") as log:
    log.write(__name__ + "\\n")
raise ImportError("a file of the user's was taken for one of eplb_gap")
"""
MINE = """
import torch


def rebalance_experts(weight, replicas, groups, nodes, gpus):
    layers = len(weight)
    phy2log = torch.arange(8).repeat(2).expand(layers, 16)
    log2phy = torch.stack([torch.arange(8), torch.arange(8) + 8], 1).expand(layers, 8, 2)
    return phy2log, log2phy, torch.full((layers, 8), 2)
"""
PROGRAMS = {
    "solve, in a child": """
        from eplb_gap import Deployment, solve
        found = solve([[9, 8, 7, 5, 3]], Deployment(5, 8, 4), method="cpsat", time_limit=20)
        assert found.status == ["optimal"]
    """,
    "a program of the user's, in a child": """
        from eplb_gap import Deployment
        from eplb_gap.analysis.protocol_runs import score_all
        loads = [[[9, 8, 7, 5, 3, 2, 1, 1]]] * 2
        [score] = score_all("seed", loads, Deployment(8, 16, 8), [os.environ["MINE"]], 30.0).values()
        assert score.legal, score.status
    """,
    "a cell, in a server's fork": """
        from eplb_gap.experiments.measuring import rows
        from eplb_gap.experiments.measuring.cell import Cell
        from eplb_gap.experiments.measuring.cell_servers import CellServers
        servers = CellServers()
        row = servers.run(Cell("suite", "instance", "method", rows.environment, {}))
        servers.stop()
        assert "revision" in row, row
    """,
    "all public names": """
        import eplb_gap
        for name in eplb_gap.__all__:
            getattr(eplb_gap, name)
    """,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a user's research: files and folders named as ours are."""
    for name in ("problem.py", "heuristics.py", "solvers.py", "cli.py"):
        (tmp_path / name).write_text(TRAP)
    for name in ("experiments", "analysis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(TRAP)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text(MINE)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, which comes first in its path; nothing of the folder may have been imported."""
    names = {"TRAPPED": str(folder / "trapped"), "MINE": str(folder / "elsewhere" / "mine.py"), "PYTHONPATH": str(child.ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **names}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "trapped").exists(), (folder / "trapped").read_text()
    return done


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_users_folder_may_hold_files_of_any_name(what: str, folder: Path) -> None:
    lines = [line.removeprefix("        ") for line in PROGRAMS[what].splitlines()]
    check = f"assert not {set(ROOMS)!r} & set(sys.modules), sorted(sys.modules)"
    run(folder, "-c", "\n".join(["import os, sys", *lines, check]))


def test_the_command_line_runs_there_too(folder: Path) -> None:
    assert "590/3" in run(folder, "-m", "eplb_gap", "solve", "--example", "flashlb", "--json").stdout


def test_the_trap_snaps(folder: Path) -> None:
    with pytest.raises(AssertionError, match="was taken for one of eplb_gap"):
        run(folder, "-c", "import solvers")


def test_nothing_here_is_imported_by_a_generic_name() -> None:
    assert set(ROOMS).isdisjoint(sys.modules)
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names}.isdisjoint(ROOMS), path
