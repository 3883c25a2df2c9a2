"""Kernels once as plain Python: an index out of range is an error there; compiled, it reads or writes other memory.

Compiled with numba's own checks they would refuse the same indices, after a minute of compiling. Those of the planners are
interpreted by ``test_tiers.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHOSEN = ("tests/heuristics/kernels/test_compiled.py", "tests/heuristics/serving/test_token_split.py")
"""Tests whose small instances run most kernels."""
LEFT_OUT = "not large_layers and not pouring_ends"
"""Planners on 64 experts, and what is interpreted anyway."""
PROBE = """
import numpy as np
import pytest

from eplb_gap.heuristics.compiled import entry, kernel


@kernel
def leaves(array):
    return array[4]


@entry
def calls(array):
    return leaves(array)


def test_the_checks_are_on():
    with pytest.raises(IndexError):
        calls(np.zeros(4))
"""


def test_no_kernel_leaves_its_arrays(tmp_path):
    probe = tmp_path / "test_probe.py"
    probe.write_text(PROBE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", LEFT_OUT, str(probe), *CHOSEN],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout
