"""Rows: one NDJSON line per finished cell, with everything needed to trust, repeat and compare it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eplb_gap.experiments.measuring.code_digest import versions
from eplb_gap.problem.atomic import replacing
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.fractions import fraction as fraction
from eplb_gap.problem.fractions import fractions as fractions
from eplb_gap.problem.metrics import optimality_gap

Fields = dict[str, Any]
"""What a cell returns: fields of its row."""
Instance = tuple[np.ndarray, Deployment]
"""Loads and deployment that a row was measured on."""
FAILURE = "failure"
"""Kind of the rows of cells that gave no result; their status says what happened."""
PACKAGED = Path(__file__).absolute().parents[2] / "results"
"""The published rows and traces: part of the package, a link to the project's folder in a checkout."""
RESULTS = PACKAGED.resolve()
ROOT = RESULTS.parent
RUNS = Path("runs")
"""What is measured anew is written to the current folder, never into an installation."""
NAMED = re.compile(r"(?P<trace>[a-z][a-z ]*?)(?:-(?P<dashed>\d\d)| (?P<policy>hierarchical|global)(?: (?P<window>\d\d))?)")
"""Instances that are named by a trace and a window, by a trace and a policy, or by all three."""


class Key(NamedTuple):
    """What identifies a row."""

    suite: str
    instance: str
    method: str
    seed: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


class Columns(NamedTuple):
    """What rows are chosen by beside their key; None where an instance is of no trace, policy or window."""

    trace: str | None
    policy: str | None
    window: int | None


@cache
def _columns(instance: str) -> Columns:
    """Return the columns that an instance's name says: rows published so far do not state them apart."""
    found = NAMED.fullmatch(instance)
    if found is None:
        return Columns(None, None, None)
    window = found["dashed"] or found["window"]
    return Columns(found["trace"], found["policy"], int(window) if window else None)


class Row(dict[str, Any]):
    """One line of results: its fields, and what is read from them. A row that was read does not change."""

    @classmethod
    def parse(cls, line: bytes) -> Row:
        """Return the row that a line of JSON is.

        Raises
        ------
        ValueError
            If it is none: no object, or one without a key.
        """
        found = json.loads(line)
        if not isinstance(found, dict) or not found.keys() >= set(Key._fields):
            raise ValueError(f"no result row; an object with {', '.join(Key._fields)} is needed")
        return cls(found)

    @property
    def key(self) -> Key:
        """Suite, instance, method and seed.

        Raises
        ------
        KeyError
            If one is missing.
        """
        return Key(*(self[name] for name in Key._fields))

    @property
    def failed(self) -> bool:
        """Whether it stands for a cell that gave no result: nothing but its key, status and metadata can be read."""
        return bool(self.get("kind") == FAILURE)

    @property
    def trace(self) -> str | None:
        """Trace, or kind of traffic, that was measured on."""
        return self.get("trace", _columns(self["instance"]).trace)

    @property
    def policy(self) -> str | None:
        """Policy of the deployment: hierarchical or global."""
        return self.get("policy", _columns(self["instance"]).policy)

    @property
    def window(self) -> int | None:
        """Window that was planned on, from 0."""
        return self.get("window", _columns(self["instance"]).window)

    @cached_property
    def upper(self) -> list[Fraction]:
        """Exact makespans of all windows and layers in one list; none if a map was illegal."""
        return fractions_in(self.get("upper"))

    @cached_property
    def lower(self) -> list[Fraction]:
        """Exact lower bounds of all windows and layers in one list."""
        return fractions_in(self.get("lower"))


class Rows(list[Row]):
    """Rows, chosen by their fields; those of a suite are found at once."""

    _sorted: tuple[int, dict[str, list[Row]]] = (0, {})
    """How many rows there were when they were sorted by suite, and the rows of every suite."""

    def _of_suite(self, suite: object) -> list[Row]:
        if self._sorted[0] != len(self):
            found: dict[str, list[Row]] = {}
            for row in self:
                found.setdefault(row["suite"], []).append(row)
            self._sorted = len(self), found
        return self._sorted[1].get(str(suite), [])

    def where(self, **wanted: object) -> Rows:
        """Return the rows with these values of fields; ``trace``, ``policy`` and ``window`` are known for every row."""
        columns = {name: wanted.pop(name) for name in Columns._fields if name in wanted}
        among = self._of_suite(wanted.pop("suite")) if "suite" in wanted else self
        fields = list(wanted.items())
        return Rows(
            row
            for row in among
            if all(row.get(name) == value for name, value in fields)
            and all(getattr(row, name) == value for name, value in columns.items())
        )

    def one(self, **wanted: object) -> Row:
        """Return the first row with these values.

        Raises
        ------
        LookupError
            If there is none.
        """
        found = self.where(**wanted)
        if not found:
            raise LookupError(f"no row with {', '.join(f'{name} {value!r}' for name, value in wanted.items())}")
        return found[0]

    def of(self, suites: Iterable[str]) -> Rows:
        """Return the rows of some suites."""
        among = set(suites)
        return Rows(row for row in self if row["suite"] in among)


def leaves(value: Any) -> Iterator[Any]:
    """Yield what is in lists of any depth."""
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def fractions_in(value: Any) -> list[Fraction]:
    """Return the "p/q" in lists of any depth as fractions, in one list; none where anything else is among them."""
    found = list(leaves(value))
    return [Fraction(text) for text in found] if all(isinstance(leaf, str) for leaf in found) else []


def done(found: Iterable[Row], codes: Mapping[Key, str]) -> dict[Key, Row]:
    """Return by key the rows that need not be made again: those with a result, of the code that would make it now.

    Parameters
    ----------
    found : iterable of Row
    codes : mapping
        Digest of the code (:mod:`eplb_gap.experiments.measuring.code_digest`) of every key that is asked for.
    """
    return {row.key: row for row in found if row.key in codes and row.get("code") == codes[row.key] and not row.failed}


@cache
def environment() -> dict[str, Any]:
    """Return versions, revision and machine: the metadata every row carries."""
    return {
        "versions": {"python": platform.python_version(), **versions()},
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


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def write(path: Path, found: Iterable[Row]) -> None:
    """Write all rows of a file; one that was there before is replaced as a whole or stays."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.writelines(map(_line, found))
        file.flush()
        os.fsync(file.fileno())


def append(path: Path, row: Mapping[str, Any]) -> None:
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


def read(path: Path) -> Rows:
    """Read the rows of a file, the last one of every key; a last line that a kill cut short is dropped.

    Raises
    ------
    InputError
        If any other line is no row.
    """
    if not path.exists():
        return Rows()
    latest: dict[Key, Row] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = Row.parse(line)
            latest[row.key] = row
        except (ValueError, TypeError):
            if number == len(lines):
                break  # no newline behind it: the write was cut short
            raise InputError(f"{path}, line {number}: no result row; an object with {', '.join(Key._fields)} is needed") from None
    return Rows(latest.values())


def read_suites(folder: Path) -> Rows:
    """Read the rows of every suite in a folder."""
    return Rows(row for path in sorted(folder.glob("*.ndjson")) for row in read(path))


def layer_gaps(row: Row, lower: list[Fraction]) -> list[float]:
    """Return the optimality gap of a row's makespans, of all windows and layers, to proven lower bounds."""
    return [optimality_gap(up, low) for up, low in zip(row.upper, lower, strict=True)]


def case_bounds(rows: Rows, case: str) -> list[Fraction]:
    """Return the best proven lower bound of every layer of an instance of the gap table."""
    solved = rows.where(suite="gap", instance=case, kind="solver")
    return [max(bounds) for bounds in zip(*(row.lower for row in solved), strict=True)]
