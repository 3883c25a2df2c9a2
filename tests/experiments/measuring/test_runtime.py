"""Times of methods in processes of their own: what a row says, that it is kept, and that the caller's environment is."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from rich.console import Console

from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.runtime import Timing
from eplb_gap.problem import Deployment

LOADS, DEPLOYMENT = np.array([[9, 4, 2, 1]]), Deployment(4, 6, 2)


def test_methods_are_timed_once_and_the_environment_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before, path, methods = dict(os.environ), tmp_path / "runtime.ndjson", ["initial_program", "openevolve"]
    timing = Timing("runtime", "tiny", methods, LOADS, DEPLOYMENT, 3)
    measured = timing.run(tmp_path, Console(quiet=True))
    assert dict(os.environ) == before
    assert [row["method"] for row in measured] == methods
    for row in measured:
        assert len(row["seconds"]) == 3 and min(row["seconds"]) > 0
        assert row["median_seconds"] == median(row["seconds"])
        assert row["ratio"] == row["median_seconds"] / measured[0]["median_seconds"]
    assert list(rows.read(path)) == list(measured)
    assert list(timing.run(tmp_path, Console(quiet=True))) == list(measured)  # not measured again
    assert len(rows.read(path)) == 2
