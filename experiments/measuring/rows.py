"""Rows: one NDJSON line per finished cell, with everything needed to trust, repeat and compare it."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.fractions import fraction as fraction
from eplb_gap.problem.fractions import fractions as fractions
from eplb_gap.problem.metrics import optimality_gap

Row = dict[str, Any]
KEY = ("suite", "instance", "method", "seed")
FAILURE = "failure"
"""Kind of the rows of cells that gave no result; their status says what happened."""
PACKAGES = ("numpy", "torch", "ortools", "pulp", "highspy", "numba")
PACKAGED = Path(__file__).absolute().parents[2] / "results"
"""The published rows and traces: part of the package, a link to the project's folder in a checkout."""
RESULTS = PACKAGED.resolve()
ROOT = RESULTS.parent
RUNS = Path("runs")
"""What is measured anew is written to the current folder, never into an installation."""


def key(row: Row) -> tuple[Any, ...]:
    """Return what identifies a row: suite, instance, method and seed."""
    return tuple(row[name] for name in KEY)


def failed(row: Row) -> bool:
    """Return whether the row stands for a cell that gave no result: nothing but its key, status and metadata can be read."""
    return row.get("kind") == FAILURE


def done(found: list[Row]) -> dict[tuple[Any, ...], Row]:
    """Return by key the rows that need not be made again: of this revision, and with a result."""
    revision = environment()["revision"]
    return {key(row): row for row in found if row["revision"] == revision and not failed(row)}


@cache
def environment() -> dict[str, Any]:
    """Return versions, revision and machine: the metadata every row carries."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "revision": _revision(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def _revision() -> str:
    """Git revision, with a hash of the uncommitted changes behind it; "unknown" in an installation."""
    if not (ROOT / ".git").exists():  # a repository around an installation is not ours
        return "unknown"
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        diff = subprocess.run(["git", "diff", "HEAD", "--", "*.py"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head if not diff else f"{head}+{hashlib.sha256(diff).hexdigest()[:8]}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def now() -> str:
    """Return the time of day in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def instance_hash(loads: np.ndarray, deployment: Deployment | str) -> str:
    """Return a stable hash of loads and deployment, or the text that stands for it, 16 hexadecimal digits."""
    digest = hashlib.sha256(f"{deployment}{loads.shape}".encode())
    digest.update(np.ascontiguousarray(loads, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _line(row: Row) -> bytes:
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def write(path: Path, found: Iterable[Row]) -> None:
    """Write all rows of a file; one that was there before is replaced as a whole or stays."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.writelines(map(_line, found))
        file.flush()
        os.fsync(file.fileno())


def append(path: Path, row: Row) -> None:
    """Append one row and flush it to the disk; a torn last line that a kill left is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """Read the rows of a file, the last one of every key; a last line that a kill cut short is dropped.

    Raises
    ------
    InputError
        If any other line is no row.
    """
    if not path.exists():
        return []
    latest: dict[tuple[Any, ...], Row] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            latest[key(row)] = row
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break  # no newline behind it: the write was cut short
            raise InputError(f"{path}, line {number}: no result row; an object with {', '.join(KEY)} is needed") from None
    return list(latest.values())


def read_suites(folder: Path) -> list[Row]:
    """Read the rows of every suite in a folder."""
    return [row for path in sorted(folder.glob("*.ndjson")) for row in read(path)]


def pick(rows: list[Row], suite: str, instance: str, method: str) -> Row:
    """Return the one row of a cell."""
    return next(r for r in rows if r["suite"] == suite and r["instance"] == instance and r["method"] == method)


def protocol_rows(rows: list[Row], trace_name: str, method: str) -> list[Row]:
    """Return the rows of one method on all windows of a trace, oldest first."""
    return sorted(
        (r for r in rows if r["suite"] == "protocol" and r["method"] == method and r["instance"].startswith(trace_name)),
        key=lambda r: r["instance"],
    )


def layer_gaps(row: Row, lower: list[Fraction]) -> list[float]:
    """Return the optimality gap of every layer of a heuristic's row to proven lower bounds."""
    return [optimality_gap(Fraction(up), low) for up, low in zip(row["upper"], lower, strict=True)]


def case_bounds(rows: list[Row], case: str) -> list[Fraction]:
    """Return the best proven lower bound of every layer of an instance of the gap table."""
    solved = [r for r in rows if r["suite"] == "gap" and r["instance"] == case and r["kind"] == "solver"]
    return [max(Fraction(r["lower"][layer]) for r in solved) for layer in range(len(solved[0]["lower"]))]
