"""Kernels once with numba's bounds checks: an index out of range is an error there, elsewhere it reads or writes other memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHOSEN = (
    "tests/heuristics/kernels/test_tiers.py::test_planners_make_the_same_maps_in_both_forms",
    "tests/heuristics/kernels/test_compiled.py",
    "tests/heuristics/serving/test_token_split.py",
)
"""Tests whose small instances run most kernels; those of the planners compile twice as long with checks, so not all do."""


def test_no_kernel_leaves_its_arrays(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import numpy as np\nfrom eplb_gap.heuristics.compiled import entry\nentry(lambda array: array[4])(np.zeros(4))\n"
    )
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    seen = subprocess.run([sys.executable, str(probe)], env=environment, capture_output=True, text=True)
    assert "IndexError" in seen.stderr  # the checks are on
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *CHOSEN],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
