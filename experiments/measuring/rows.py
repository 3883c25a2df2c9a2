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

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

Row = dict[str, Any]
KEY = ("suite", "instance", "method", "seed")
FAILURE = "failure"
"""Kind of the rows of cells that gave no result; their status says what happened."""
PACKAGES = ("numpy", "torch", "ortools", "pulp", "highspy", "numba")
ROOT = Path(__file__).resolve().parent.parent
RUNS, RESULTS = ROOT / "runs", ROOT / "results"


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
    """Git revision, with a hash of the uncommitted changes behind it; "unknown" outside a checkout."""
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


def fraction(value: Fraction) -> str:
    """Return a fraction as "p/q"."""
    return f"{value.numerator}/{value.denominator}"


def fractions(values: Iterable[Fraction]) -> list[str]:
    """Return fractions as "p/q"."""
    return [fraction(value) for value in values]


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
        file.write(json.dumps(row, sort_keys=True).encode() + b"\n")
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
