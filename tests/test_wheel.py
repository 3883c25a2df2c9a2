"""A wheel, installed without the checkout: what is in it, and every command of the README and the site run with it elsewhere.

The installed copy compiles its kernels anew. One command is run so; the others interpret them, which small loads allow.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from eplb_gap.heuristics.config import FastConfig
from eplb_gap.heuristics.config_file import write
from eplb_gap.problem import PRESETS, Deployment, LoadTrace
from eplb_gap.problem.formats.containers.record_files import Call, call_path, write_call
from eplb_gap.problem.routing.trace import RoutingTrace

ROOT = Path(__file__).resolve().parents[1]
NOT_SOURCE = (".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "runs")
PAGES = "\n".join(path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
# Every other piece between fences is code.
LINES = [
    line.partition("  #")[0].strip()
    for block in PAGES.split("```")[1::2]
    for line in block.splitlines()
    if line.startswith("eplb-gap ")
]
SMALL = "deepseek-readme"
LONG = {"bench", "calibrate", "record", "reproduce"}
"""Commands that take minutes, or need a corpus: only their help is asked for, once for every command."""
FILLED = {
    "FILE": "loads.npz",
    "FOLDER": "calls",
    "NAME": SMALL,
    "FILE|METHOD": "fast-lpt",
    "STEPS": "2",
    "100": "1",
    "ROUTING": "routing.npz",
}
"""What stands for the words of the README that a reader fills in."""
CHEAP = {"solve": ["--time-limit", "5"], "replay": ["--controller", "periodic:interval=1"], "watch": ["--once"]}
"""What keeps commands short that nothing is compiled for."""
DEAR = {"explain", "replay"}
"""Commands that take ten seconds where nothing is compiled: with options that another run has too they are not run again."""
DOTS = {
    "solve": ["--example", "flashlb"],
    "evaluate": ["--loads", "steps.npz", "--deployment", SMALL, "--map", "fast-lpt"],
}
"""What stands for its three dots."""


@dataclass(frozen=True)
class Installed:
    """An installation, and a folder outside the checkout to work in."""

    scripts: Path
    packages: Path
    folder: Path

    def run(self, *arguments: str, compiled: bool = False) -> str:
        """Run the command ``eplb-gap`` and return what it prints."""
        return self.start(str(self.scripts / "eplb-gap"), *arguments, compiled=compiled)

    def start(self, *arguments: str, compiled: bool = False) -> str:
        """Run a program in the folder; the checkout is not in its path."""
        names = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
        if not compiled:
            names["NUMBA_DISABLE_JIT"] = "1"
        done = subprocess.run(arguments, cwd=self.folder, env=names, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a clean copy of the tree."""
    source, built = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(built), str(source))
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel where nothing else of ours is, with the libraries of this environment behind it."""
    home, folder = tmp_path_factory.mktemp("home") / "venv", tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    pip("--python", str(home / "bin" / "python"), "install", "--no-deps", str(wheel))
    [packages] = home.glob("lib/python*/site-packages")
    # A line in a .pth adds a folder, but its own .pth files, an editable installation of this checkout, are not followed.
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    loads = np.random.default_rng(0).integers(1, 900, (4, 1, 12))
    in_use = np.arange(16)[None] % 12
    chosen = np.random.default_rng(1).permuted(np.tile(np.arange(12), (256, 1, 1)), axis=2)[:, :, :2]
    RoutingTrace(chosen, 12, step=np.arange(256) // 64).save(folder / "routing.npz")
    LoadTrace(loads).save(folder / "steps.npz")
    LoadTrace(loads[:2]).save(folder / "loads.npz")
    calls = folder / "calls" / "eplb_gap_model_1x12"
    calls.mkdir(parents=True)
    for number, window in enumerate(loads):
        with call_path(folder / "calls", number, 1, 12).open("wb") as file:
            write_call(file, Call(window[None], 1e9 + number, "vllm", "0.33.0", Deployment(12, 16, 8), answered=in_use))
    (folder / "runs" / "calibration").mkdir(parents=True)
    write(folder / "runs" / "calibration" / "config.toml", FastConfig(), "as calibrate writes it")
    return Installed(home / "bin", packages, folder)


def pip(*arguments: str) -> None:
    """Run pip without a network."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_module_the_results_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"eplb_gap"}
    modules = {
        f"eplb_gap/{path.relative_to(ROOT)}"
        for room in ("problem", "heuristics", "solvers", "analysis", "experiments", "cli")
        for path in (ROOT / room).rglob("*.py")
    }
    assert modules < names
    data = {f"eplb_gap/{path.relative_to(ROOT)}" for path in (ROOT / "results").rglob("*") if path.is_file()}
    assert len(data) > 40
    assert data <= names
    profiles = {f"eplb_gap/{path.relative_to(ROOT)}" for path in (ROOT / "analysis/step_time/profiles").iterdir()}
    assert len(profiles) > 12
    assert profiles <= names
    others = {name for name in names if name.startswith("eplb_gap/")} - modules - data - profiles
    assert others == {"eplb_gap/__init__.py", "eplb_gap/__main__.py", "eplb_gap/py.typed"}


def test_the_installed_copy_is_the_one_that_runs(installed: Installed) -> None:
    where = installed.start(str(installed.scripts / "python"), "-c", "import eplb_gap; print(eplb_gap.__file__)")
    assert Path(where.strip()) == installed.packages / "eplb_gap" / "__init__.py"


def test_an_example_is_solved_with_kernels_that_are_compiled_there(installed: Installed) -> None:
    assert "359/2" in installed.run("solve", "--example", SMALL, "--json", compiled=True)


def commands(installed: Installed) -> list[list[str]]:
    """Return the README's commands as they can be run: one for every set of options."""
    found: dict[tuple[str, frozenset[str]], list[str]] = {}
    for line in LINES:
        name, *words = shlex.split(line)[1:]
        if set(name.split("|")) & LONG:
            ready = [[one, "--help"] for one in name.split("|")]
        elif "--loads|--map" in words:
            maps = ["--map", "fast", "map.json", "--loads", "loads.npz", "--deployment", SMALL, "--to", "vllm"]
            ready = [[name, "--loads", "loads.npz", "trace.npz"], [name, *maps]]
        else:
            ready = [[name, *(filled for word in words for filled in fill(name, word, installed))]]
        for command in ready:
            given = dict(itertools.pairwise(command))
            if given.get("--loads") == "calls" and "--deployment" not in given:
                pass  # the record says it
            elif "/results/" not in given.get("--loads", "/results/"):  # small ones of one deployment stand for a user's
                others = {
                    given["--loads"]: "steps.npz" if "--per-step" in words else "loads.npz",
                    given.get("--deployment", ""): SMALL,
                }
                command = [others.get(word, word) for word in command]
            found.setdefault((name, frozenset(word for word in command if word.startswith("--"))), command)
    return [
        command
        for (name, given), command in found.items()
        if not (name in DEAR and any(name == n and given < more for n, more in found))
    ]


def fill(name: str, word: str, installed: Installed) -> list[str]:
    """Return what stands for a word of the README."""
    if word == "...":
        return DOTS[name]
    if word == "FILE" and name in ("solve", "verify"):
        return ["certificate.json"]
    if "|" in word and word not in FILLED:
        return [word.split("|")[1]]
    if word.startswith("results/"):
        return [str(installed.packages / "eplb_gap" / word)]
    return [FILLED.get(word, word)]


def test_the_presets_of_the_readme_exist() -> None:
    named = {shlex.split(line)[shlex.split(line).index("--deployment") + 1] for line in LINES if "--deployment" in line}
    assert len(LINES) > 25
    assert named - {"NAME"} <= set(PRESETS)


def test_every_command_of_the_readme_runs_without_the_checkout(installed: Installed) -> None:
    before = {path for path in installed.packages.rglob("*") if "__pycache__" not in path.parts}
    ran = set()
    for command in commands(installed):
        limits = CHEAP.get(command[0], [])
        printed = installed.run(*command, *limits)
        assert printed
        ran.add(command[0])
    assert ran >= {"solve", "verify", "evaluate", "explain", "convert", "capacity", "replay", "status", "watch", *LONG}
    for name in ("certificate.json", "why.html", "map.json", "location.json", "trace.npz"):
        assert (installed.folder / name).stat().st_size > 0
    # What commands write goes to the folder where they are run, never into the installation.
    assert {path for path in installed.packages.rglob("*") if "__pycache__" not in path.parts} == before
