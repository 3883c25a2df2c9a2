"""Who may import whom: rooms and their parts in one direction, no circle of two files, heavy libraries late, no generic name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("problem", "heuristics", "solvers", "analysis", "experiments", "cli")
"""In the order in which they may use each other: each all that are before it."""
FACE = "eplb_gap"
HEAVY = ["torch", "numba", "ortools", "pulp", "highspy", "polars", "safetensors", "ijson", "yaml", "scipy", "matplotlib"]
FORMAT_LIBRARIES = {"torch", "safetensors", "ijson", "polars", "yaml", "backports", "compression"}

FOUNDATION = {f"{FACE}.heuristics.compiled"}
"""What every kernel is made with; it imports nothing of ours itself."""
BY_NAME = {"experiments/studies", "experiments/exhibits"}
"""Parts that import what their lists name: studies by the catalogue, figures by the study that declares them."""
PARTS: dict[str, set[str]] = {
    "problem": {"problem/arrays", "problem/bounds"},
    "problem/arrays": {"problem"},
    "problem/bounds": {"problem"},
    "problem/routing": {"problem", "problem/arrays"},
    "problem/formats": {"problem", "problem/formats/loads", "problem/formats/maps"},
    "problem/formats/containers": {"problem", "problem/arrays"},
    "problem/formats/loads": {
        "problem",
        "problem/formats/containers",
        "problem/formats/loads/routing",
        "problem/formats/loads/tables",
    },
    "problem/formats/loads/routing": {
        "problem",
        "problem/arrays",
        "problem/formats/containers",
        "problem/formats/loads",
        "problem/formats/routing",
        "problem/routing",
    },
    "problem/formats/routing": {
        "problem",
        "problem/arrays",
        "problem/formats/containers",
        "problem/formats/loads",
        "problem/formats/loads/tables",
        "problem/routing",
    },
    "problem/formats/loads/tables": {"problem", "problem/arrays", "problem/formats/containers", "problem/formats/loads"},
    "problem/formats/maps": {"problem", "problem/formats/containers"},
    "heuristics": {"heuristics/planner", "heuristics/programs", "heuristics/serving"},
    "heuristics/kernels": set(),
    "heuristics/dispatch": {"heuristics"},
    "heuristics/locality": {"heuristics", "heuristics/dispatch", "heuristics/moves"},
    "heuristics/planner": {"heuristics", "heuristics/kernels"},
    "heuristics/programs": {"heuristics", "heuristics/kernels"},
    "heuristics/serving": {"heuristics", "heuristics/kernels", "heuristics/planner"},
    "heuristics/moves": {"heuristics", "heuristics/kernels", "heuristics/planner"},
    "heuristics/control": {"heuristics", "heuristics/moves", "heuristics/serving"},
    "heuristics/plugins": {"heuristics", "heuristics/control", "heuristics/moves"},
    "solvers": {"solvers/compact", "solvers/engines"},
    "solvers/compact": {"solvers"},
    "solvers/engines": {"solvers", "solvers/compact"},
    "solvers/serving": {"solvers", "solvers/compact", "solvers/engines"},
    "solvers/locality": {"solvers"},
    "analysis": {"analysis/figures", "analysis/network", "analysis/replay", "analysis/step_time"},
    "analysis/decode": {"analysis", "analysis/step_time"},
    "analysis/figures": {"analysis", "analysis/online", "analysis/replay", "analysis/step_time"},
    "analysis/network": {"analysis"},
    "analysis/online": {"analysis", "analysis/replay"},
    "analysis/replay": {"analysis"},
    "analysis/watch": {"analysis"},
    "analysis/step_time": {"analysis", "analysis/figures", "analysis/network", "analysis/replay"},
    "experiments": set(),
    "experiments/measuring": {"experiments"},
    "experiments/loads": {"experiments", "experiments/measuring", "experiments/loads/moe_trace"},
    "experiments/loads/moe_trace": {"experiments"},
    "experiments/studies": {"experiments", "experiments/measuring", "experiments/loads"},
    "experiments/exhibits": {
        "experiments",
        "experiments/measuring",
        "experiments/loads",
        "experiments/studies",
        "experiments/exhibits/figures",
    },
    "experiments/exhibits/figures": {
        "experiments",
        "experiments/measuring",
        "experiments/loads",
        "experiments/studies",
        "experiments/exhibits",
    },
    "experiments/published": {
        "experiments",
        "experiments/measuring",
        "experiments/loads",
        "experiments/studies",
        "experiments/exhibits",
        "experiments/exhibits/figures",
    },
    "experiments/fuzzing": {"experiments", "experiments/loads"},
    "experiments/hosts": {"experiments"},
    "cli": set(),
}
"""Which parts of its own room a part may use beside itself; of the rooms before its own it may use all.

Where a part and the room's own files may use each other, the files do not: no two files import each other.
"""
MOST_MODULES = 20
MAY_HAVE_MORE = {"experiments/studies"}
"""One file a question."""


def module_name(path: Path) -> str:
    """Return the dotted name of a file of a room."""
    parts = (FACE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def part_of(name: str) -> str:
    """Return the folder that a module of ours is in, as a path from the root."""
    inside = name.removeprefix(f"{FACE}.").split(".")
    return "/".join(inside if name in FILES and FILES[name].name == "__init__.py" else inside[:-1])


def imported(source: str, known: set[str]) -> set[str]:
    """Return what a module imports anywhere, also inside its functions: modules of ours by their full names, others by the first.

    A name taken from a package of ours counts as the module of that name where there is one.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("relative import")
        elif isinstance(node, ast.ImportFrom):
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in known else str(node.module) for full in inner.values()}
        elif isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(("import_module", "__import__")):
            found.add("dynamic import")
    return {name if name.split(".")[0] == FACE else name.split(".")[0] for name in found}


def ours(names: set[str]) -> set[str]:
    """Return those that are modules of a room."""
    return {name for name in names if name.startswith(f"{FACE}.") and name.split(".")[1] in ROOMS}


def forbidden(importer: str, source: str, known: set[str]) -> set[str]:
    """Return the imports of a module, given by name, that its place does not permit."""
    found, place = imported(source, known), part_of(importer)
    room = place.split("/")[0]
    before = ROOMS[: ROOMS.index(room)]
    allowed = {place, *PARTS[place]}
    bad = {
        name
        for name in ours(found)
        if name not in FOUNDATION
        and name.split(".")[1] not in before
        and (part_of(name) if name in known else name) not in allowed
    }
    bad |= found & {"relative import", *ROOMS}
    if place not in BY_NAME:
        bad |= found & {"dynamic import"}
    if room in ("problem", "heuristics"):
        bad |= found & {FACE}  # the face leads everywhere
    if room == "problem":
        others = {name for name in found if not name.startswith(FACE)} - sys.stdlib_module_names - {"numpy"}
        late = FORMAT_LIBRARIES - imported_at_once(source) if place.startswith("problem/formats") else set()
        bad |= others - late
    return bad


def imported_at_once(source: str) -> set[str]:
    """Return the top-level packages that a module imports when it is itself imported."""
    tree = ast.parse(source)
    inner = {node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    return {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in inner
        for name in imported(ast.unparse(node), set(FILES))
    }


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_what_its_place_permits(name: str) -> None:
    assert forbidden(name, FILES[name].read_text(encoding="utf-8"), set(FILES)) == set()


def test_every_folder_is_in_the_table_and_every_part_of_it_exists() -> None:
    assert {part_of(name) for name in FILES} == set(PARTS)
    assert {part for parts in PARTS.values() for part in parts} <= set(PARTS)
    assert f"{FACE}.problem.validation" in FILES


def test_no_two_files_import_each_other() -> None:
    # `from eplb_gap import solvers` takes a room's public names: it counts as an import of the room's __init__ alone.
    edges = {name: ours(imported(path.read_text(encoding="utf-8"), set(FILES))) for name, path in FILES.items()}
    pairs = {(a, b) for a in edges for b in edges[a] if a < b and a in edges.get(b, ())}
    assert pairs == set()


def test_no_folder_has_more_modules_than_can_be_looked_through() -> None:
    for part in set(PARTS) - MAY_HAVE_MORE:
        modules = [path for path in (ROOT / part).glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, part


@pytest.mark.parametrize(
    ("importer", "source", "bad"),
    [
        ("problem.loads", "import numpy as np\nimport os.path\nfrom eplb_gap.problem.errors import InputError", set()),
        ("problem.loads", "def f():\n    from eplb_gap.solvers import auto", {"eplb_gap.solvers.auto"}),
        ("problem.loads", "import torch", {"torch"}),
        ("problem.loads", "def f():\n    import torch", {"torch"}),
        ("problem.loads", "from eplb_gap.problem import formats", {"eplb_gap.problem.formats"}),
        ("problem.formats.loads.adrs", "def f():\n    import torch, ijson", set()),
        ("problem.formats.loads.adrs", "import yaml\ndef f():\n    import torch", {"yaml"}),
        ("problem.formats.loads.adrs", "def f():\n    import scipy", {"scipy"}),
        ("problem.formats.loads.adrs", "from eplb_gap.problem.formats.maps import maps", {"eplb_gap.problem.formats.maps.maps"}),
        ("problem.loads", "import eplb_gap", {"eplb_gap"}),
        ("problem.loads", "import importlib\nimportlib.import_module('solvers')", {"dynamic import"}),
        ("problem.loads", "from problem.errors import InputError", {"problem"}),
        ("heuristics.eplb", "import torch\nfrom eplb_gap.problem import Instance", set()),
        ("heuristics.eplb", "import eplb_gap.solvers.compact.milp", {"eplb_gap.solvers.compact.milp"}),
        ("heuristics.eplb", "from . import packing", {"relative import"}),
        ("heuristics.kernels.greedy", "from eplb_gap.heuristics import config", {"eplb_gap.heuristics.config"}),
        (
            "heuristics.moves.relabel",
            "from eplb_gap.heuristics.serving import forecast",
            {"eplb_gap.heuristics.serving.forecast"},
        ),
        ("solvers.auto", "import pulp\nfrom eplb_gap import heuristics, problem", set()),
        ("solvers.auto", "if True:\n    import eplb_gap.experiments.studies.gaps", {"eplb_gap.experiments.studies.gaps"}),
        ("analysis.explain", "from eplb_gap.experiments.measuring.rows import row", {"eplb_gap.experiments.measuring.rows"}),
        ("experiments.loads.traces", "from eplb_gap.experiments.studies import gaps", {"eplb_gap.experiments.studies.gaps"}),
        ("experiments.studies.gaps", "from eplb_gap import problem, analysis\nimport matplotlib", set()),
        ("experiments.studies.gaps", "from eplb_gap.cli.main import app", {"eplb_gap.cli.main"}),
    ],
)
def test_the_check_sees_a_wrong_import(importer: str, source: str, bad: set[str]) -> None:
    assert forbidden(f"{FACE}.{importer}", source, set(FILES)) == bad


def loaded_after(program: str, folder: Path = ROOT) -> set[str]:
    """Return the names in sys.modules behind a program, run in a folder."""
    source = f"{program}\nimport sys; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def rooms_in(loaded: set[str]) -> set[str]:
    """Return which rooms are loaded."""
    return {room for room in ROOMS if f"{FACE}.{room}" in loaded}


def test_importing_the_kernel_loads_no_heavy_library_and_no_other_room() -> None:
    loaded = loaded_after("from eplb_gap import problem")
    assert "numpy" in loaded
    assert rooms_in(loaded) == {"problem"}
    assert loaded.isdisjoint(HEAVY)


def test_the_public_module_loads_nothing_before_it_is_used() -> None:
    assert rooms_in(loaded_after("import eplb_gap; dir(eplb_gap)")) == set()
    loaded = loaded_after("from eplb_gap import verify, check_certificate, read_loads, read_map")
    assert rooms_in(loaded) == {"problem"}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["evaluate", "explain", "calibrate", "capacity", "score", "read_problem"])
def test_an_analysis_loads_no_experiment_and_draws_nothing(name: str) -> None:
    loaded = loaded_after(f"from eplb_gap import {name}")
    assert rooms_in(loaded) <= {"problem", "heuristics", "solvers", "analysis"}
    assert "matplotlib" not in loaded


def test_the_command_line_starts_without_what_a_command_needs() -> None:
    loaded = loaded_after("import eplb_gap.cli.main")
    assert rooms_in(loaded) == {"problem", "cli"}
    assert loaded.isdisjoint(HEAVY)
