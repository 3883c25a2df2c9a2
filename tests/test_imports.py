"""The packages may import in one direction only: problem <- heuristics <- solvers <- experiments."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["problem", "heuristics", "solvers", "experiments"]
OURS = {*LAYERS, "eplb_gap"}
HEAVY = ["torch", "numba", "ortools", "pulp", "highspy", "polars", "safetensors", "ijson", "yaml", "scipy"]
FORMAT_LIBRARIES = {"torch", "safetensors", "ijson", "polars", "yaml"}
FORMATS = ROOT / "problem" / "formats"
FILES = [
    ("problem/formats" if FORMATS in path.parents else layer, path)
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
]


def imported_packages(source: str) -> set[str]:
    """Return the top-level packages that a module imports anywhere, also inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("relative import" if node.level else (node.module or "").split(".")[0])
        elif isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(("import_module", "__import__")):
            found.add("dynamic import")
    return found


def imported_at_once(source: str) -> set[str]:
    """Return the top-level packages that a module imports when it is itself imported."""
    tree = ast.parse(source)
    inner = {node for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef) for node in ast.walk(outer)}
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in inner
        for name in imported_packages(ast.unparse(node))
    }


def forbidden_imports(layer: str, source: str) -> set[str]:
    """Return the imports of a module that its layer does not permit."""
    found = imported_packages(source)
    if layer == "experiments":
        return set()
    allowed = set(LAYERS[: LAYERS.index(layer.partition("/")[0]) + 1])
    bad = (found & OURS) - allowed | found & {"relative import", "dynamic import"}
    if layer == "problem/formats":
        allowed_late = FORMAT_LIBRARIES - imported_at_once(source)
        return found - sys.stdlib_module_names - {"numpy", "problem"} - allowed_late
    if layer == "problem":
        bad |= found - sys.stdlib_module_names - {"numpy", "problem"}
    return bad


@pytest.mark.parametrize(("layer", "path"), FILES, ids=[str(path.relative_to(ROOT)) for _, path in FILES])
def test_a_module_imports_only_from_its_own_layer_and_below(layer: str, path: Path) -> None:
    assert forbidden_imports(layer, path.read_text(encoding="utf-8")) == set()


def test_every_layer_was_looked_at() -> None:
    assert {layer for layer, _ in FILES} == {*LAYERS, "problem/formats"}
    assert ROOT / "problem" / "validation.py" in [path for _, path in FILES]


@pytest.mark.parametrize(
    ("layer", "source", "bad"),
    [
        ("problem", "import numpy as np\nimport os.path\nfrom eplb_gap.problem.errors import InputError", set()),
        ("problem", "def f():\n    from eplb_gap.heuristics.programs.packing import PACKERS", {"heuristics"}),
        ("problem", "import torch", {"torch"}),
        ("problem", "def f():\n    import torch", {"torch"}),
        ("problem/formats", "def f():\n    import torch, ijson", set()),
        ("problem/formats", "import yaml\ndef f():\n    import torch", {"yaml"}),
        ("problem/formats", "def f():\n    import scipy", {"scipy"}),
        ("problem/formats", "def f():\n    from eplb_gap.heuristics.eplb import g", {"heuristics"}),
        ("problem", "import eplb_gap", {"eplb_gap"}),
        ("problem", "import importlib\nimportlib.import_module('solvers')", {"dynamic import"}),
        ("heuristics", "import torch\nfrom problem import Instance", set()),
        ("heuristics", "import eplb_gap.solvers.compact.milp", {"solvers"}),
        ("heuristics", "from . import packing", {"relative import"}),
        ("solvers", "import pulp, heuristics, problem", set()),
        ("solvers", "if True:\n    import eplb_gap.experiments.studies.gaps", {"experiments"}),
        ("experiments", "import problem, heuristics, solvers, matplotlib", set()),
    ],
)
def test_the_check_sees_a_wrong_import(layer: str, source: str, bad: set[str]) -> None:
    assert forbidden_imports(layer, source) == bad


def loaded_after(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_kernel_loads_no_heavy_library_and_no_other_layer() -> None:
    loaded = loaded_after("from eplb_gap import problem")
    assert {"problem", "numpy"} <= loaded
    assert loaded.isdisjoint([*HEAVY, *LAYERS[1:]])


def test_the_public_module_loads_nothing_before_it_is_used() -> None:
    assert loaded_after("import eplb_gap").isdisjoint([*HEAVY, *LAYERS])
    assert loaded_after("from eplb_gap import verify").isdisjoint([*HEAVY, *LAYERS[1:]])
