"""The digest of a cell's code follows what the cell really imports, and nothing else."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import textwrap

import pytest
from rich.console import Console

from eplb_gap.experiments.measuring import code_digest, rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.code_digest import Project
from eplb_gap.experiments.measuring.runner import run_cells
from eplb_gap.experiments.studies import regimes

FILES = {
    "__init__.py": '"""Names :mod:`toypack.unrelated` in words alone."""',
    "unrelated.py": "N = 1",
    "far.py": "N = 1",
    "late.py": "N = 1",
    "by_name.py": "N = 1",
    "near.py": """
        from toypack import far

        def near(number):
            from toypack.late import N

            return number * N * far.N
        """,
    "cells.py": """
        from toypack import unrelated
        from toypack.near import near

        FACTOR, OTHER = 1, 2
        CHILD = "toypack.by_name"

        def helper(number):
            return FACTOR * number

        def cell(number, log):
            with open(log, "a") as file:
                file.write(f"{number} ")
            return {"kind": "test", "value": [helper(near(number)), CHILD]}

        def table(measured):
            return unrelated.N + OTHER
        """,
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small project of its own, of which the digest is taken instead of ours."""
    folder = tmp_path / "code" / "toypack"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(code_digest, "OURS", Project(folder))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "toypack"]:
        del sys.modules[name]


def code(folder):
    """Return the digest of the cell's code as a new process would."""
    for name in [name for name in sys.modules if name.split(".")[0] == "toypack"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return Project(folder).code(importlib.import_module("toypack.cells").cell)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("near.py", "number * N", "number + N", False),
        ("far.py", "N = 1", "N = 2", False),
        ("late.py", "N = 1", "N = 2", False),
        ("by_name.py", "N = 1", "N = 2", False),
        ("__init__.py", "words", "prose", False),
        ("cells.py", "FACTOR * number", "FACTOR + number", False),
        ("cells.py", "FACTOR, OTHER = 1, 2", "FACTOR, OTHER = 3, 2", False),
        ("unrelated.py", "N = 1", "N = 2", True),
        ("cells.py", "unrelated.N + OTHER", "unrelated.N", True),
        ("cells.py", "from toypack import unrelated", "from toypack import near as unrelated", True),
    ],
)
def test_what_a_cell_reaches_counts_and_nothing_else(package, file, old, new, same):
    before = code(package)
    edit(package / file, old, new)
    assert (code(package) == before) is same


def test_a_new_module_counts_as_soon_as_it_is_imported(package):
    before = code(package)
    (package / "added.py").write_text("N = 1")
    assert code(package) == before
    edit(package / "near.py", "from toypack import far", "from toypack import added, far")
    with_it = code(package)
    edit(package / "added.py", "N = 1", "N = 2")
    assert len({before, with_it, code(package)}) == 3


def test_git_is_not_asked(package):
    git = ["git", "-C", str(package.parent), "-c", "user.name=a", "-c", "user.email=a@b"]
    before = code(package)
    for command in (["init", "-q"], ["add", "toypack"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    (package.parent / "README.md").write_text("new")
    for command in (["add", "README.md"], ["commit", "-q", "-m", "README"]):
        subprocess.run([*git, *command], check=True)
    assert code(package) == before
    (package / "far.py").write_text("N = 7")
    assert code(package) != before


def ours(function):
    """Return the modules of the project that a function rests on."""
    source = code_digest.read(rows.PACKAGED.parent / "experiments" / "studies" / "regimes.py")
    nodes = code_digest.reached(source.tree, function.__name__)
    return code_digest.OURS.closure(code_digest.OURS.imports(nodes, function.__module__.rpartition(".")[0]))


def test_a_study_rests_on_the_planners_and_not_on_what_is_drawn():
    found = set(ours(regimes.heuristic_cell))
    assert {"eplb_gap.heuristics.planner.fast", "eplb_gap.problem.validation", "eplb_gap.experiments.loads.synthetic"} <= found
    drawn = ("eplb_gap.experiments.exhibits", "eplb_gap.experiments.published", "eplb_gap.cli")
    lists = ("eplb_gap.experiments.studies.catalogue", "eplb_gap.experiments.studies.study", "eplb_gap.experiments.studies.jobs")
    assert not [name for name in found if name.startswith((*drawn, *lists))]


def test_arguments_count():
    codes = {Cell("s", "i", "m", regimes.heuristic_cell, {"name": name}).code for name in ("6/8/8", "6/8/4")}
    assert len(codes) == 2
    assert Cell("s", "other", "m", regimes.heuristic_cell, {"name": "6/8/8"}).code in codes


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that git does not know, with a cell that notes its calls."""
    path = tmp_path / "untracked_cells.py"
    path.write_text(
        "def cell(number, log):\n"
        "    with open(log, 'a') as file:\n"
        "        file.write(f'{number} ')\n"
        "    return {'kind': 'test', 'value': number + 0}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    del sys.modules[path.stem]


def run(path, folder, number=1):
    sys.modules.pop(path.stem, None)
    importlib.invalidate_caches()
    function = importlib.import_module(path.stem).cell
    cell = Cell("s", "i", "m", function, {"number": number, "log": str(folder / "log")})
    (row,) = run_cells([cell], folder, 1, Console(file=io.StringIO()))
    return row["value"]


def test_rows_are_made_again_where_an_untracked_module_or_an_argument_changed(tmp_path, module):
    runs = tmp_path / "runs"
    runs.mkdir()
    assert [run(module, runs), run(module, runs)] == [1, 1]
    assert (runs / "log").read_text() == "1 "
    module.write_text(module.read_text().replace("+ 0", "+ 10"))
    assert run(module, runs) == 11
    assert run(module, runs, number=2) == 12
    assert (runs / "log").read_text() == "1 1 2 "


def test_a_row_of_code_that_changed_while_it_ran_is_a_failure(tmp_path, module, monkeypatch):
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setattr(Cell, "code", property(lambda cell: "as it was"))
    with pytest.raises(KeyError, match="value"):
        run(module, runs)
    (row,) = rows.read(runs / "s.ndjson")
    assert row.failed
    assert row["status"].startswith("failed: run by code ")
