"""The rooms of experiments import in one direction, inside functions too, and no two files import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "experiments"
PACKAGE = "eplb_gap.experiments"
MAY_USE = {
    "measuring": set(),
    "loads": {"measuring"},
    "studies": {"measuring", "loads"},
    "exhibits": {"measuring", "loads", "studies"},
    "published": {"measuring", "loads", "studies", "exhibits"},
    "fuzzing": {"loads"},
    "hosts": set(),
}
OF_ANALYSIS = {"studies", "exhibits", "fuzzing"}
"""Rooms that ask what a user asks."""
FOR_ALL = ("eplb_gap.analysis.text.", "eplb_gap.analysis.step_time.profile.")
"""What every room may use: the words and tables of its texts, and the file that a measured profile is."""


def imported(source: str) -> set[str]:
    """Return the dotted names that a source imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms(source: str, own: str) -> set[str]:
    """Return the rooms of experiments beside its own that a source imports."""
    inside = {name.removeprefix(f"{PACKAGE}.").split(".")[0] for name in imported(source) if name.startswith(f"{PACKAGE}.")}
    return inside - {own}


FILES = sorted(path for path in HERE.rglob("*.py") if path.parent != HERE)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(HERE)) for path in FILES])
def test_a_room_uses_the_rooms_below_it(path):
    room = path.relative_to(HERE).parts[0]
    source = path.read_text()
    assert rooms(source, room) <= MAY_USE[room]
    analysis = {name for name in imported(source) if name.startswith("eplb_gap.analysis.")}
    assert room in OF_ANALYSIS or not {name for name in analysis if not name.startswith(FOR_ALL)}
    assert not any(name.startswith("eplb_gap.cli") for name in imported(source))


def test_the_check_sees_a_wrong_import():
    assert rooms("def f():\n    from eplb_gap.experiments.studies import jobs", "measuring") == {"studies"}
    assert rooms("import eplb_gap.experiments.published.draw", "exhibits") == {"published"}


def test_no_two_files_import_each_other():
    names = {".".join(("eplb_gap", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    uses = {}
    for name, path in names.items():
        said = imported(path.read_text())
        said |= {found.rpartition(".")[0] for found in said}
        uses[name] = said & names.keys() - {name}
    assert [(one, other) for one, others in uses.items() for other in others if one in uses[other]] == []


def test_no_room_but_that_of_studies_has_more_than_twenty_modules():
    folders = {path.parent for path in FILES} - {HERE / "studies"}
    assert max(len(list(folder.glob("*.py"))) for folder in folders) <= 20
