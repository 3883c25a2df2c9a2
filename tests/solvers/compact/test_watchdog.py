"""The process of its own: what it finds is handed over, errors come through, the deadline and an early end kill it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from eplb_gap.problem import Instance
from eplb_gap.problem.bounds.bounds import Bound
from eplb_gap.solvers.compact import cpsat
from eplb_gap.solvers.compact.watchdog import LARGEST_MODEL, search_in_process, watched
from eplb_gap.solvers.engine import Finding, Incumbent, Limits, drive
from eplb_gap.solvers.engines import oracle

INSTANCE = Instance((9, 7, 4, 2), 6, 3)


def forever(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """A solver that hands over one map and then ignores every clock."""
    yield (0, 1, 0, 2, 1, 3)
    while True:
        time.sleep(0.1)


def failing(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """A solver that gives up."""
    print("noise that must not be taken for a finding")
    raise ValueError("given up")
    yield ()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other process import this file."""
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))


def test_it_finds_what_the_engine_finds() -> None:
    incumbent = Incumbent(INSTANCE)
    found = list(search_in_process(cpsat.search, INSTANCE, incumbent, Limits(time.monotonic() + 60)))
    assert isinstance(found[-1], Bound)
    assert INSTANCE.makespan(found[0]) == found[-1].value == INSTANCE.makespan(oracle.best_map(INSTANCE))


def test_the_deadline_ends_a_solver_that_ignores_it() -> None:
    incumbent, started = Incumbent(INSTANCE), time.monotonic()
    drive(lambda *a: search_in_process(forever, *a), incumbent, Limits(started + 8), lambda: None)
    assert incumbent.slots == (0, 1, 0, 2, 1, 3)
    assert 8 <= time.monotonic() - started < 30


def test_no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)
    found = search_in_process(forever, INSTANCE, Incumbent(INSTANCE), Limits(time.monotonic() + 60))
    next(found)
    (process,) = started
    os.kill(process.pid, 0)  # there is a process to signal
    found.close()  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):  # killed and waited for: no zombie either
        os.kill(process.pid, 0)


def test_errors_come_through() -> None:
    with pytest.raises(ValueError, match="given up"):
        list(search_in_process(failing, INSTANCE, Incumbent(INSTANCE), Limits(time.monotonic() + 60)))


def test_a_huge_model_is_not_built() -> None:
    instance = Instance(tuple(range(1, 513)), 1024, 128)
    assert LARGEST_MODEL < 512 * 128 * 100
    assert list(watched(failing)(instance, Incumbent(instance), Limits(time.monotonic() + 60))) == []
