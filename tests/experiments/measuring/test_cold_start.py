"""First answers are measured in processes of their own."""

from __future__ import annotations

import subprocess

import pytest

from eplb_gap.experiments.measuring.cold_start import COMMANDS, observed, time_drop_in


def test_a_command_is_run_on_an_empty_cache_and_its_failure_seen(tmp_path):
    run = observed(COMMANDS["`solve --example deepseek-readme`"], tmp_path, True)
    assert run.kernels == 0  # interpreted
    assert run.cpu > 0
    assert run.wall > 0
    with pytest.raises(subprocess.CalledProcessError):
        observed(("raise SystemExit(2)",), tmp_path, True)


def test_the_drop_in_is_timed_beside_the_planner():
    assert all(seconds > 0 for seconds in time_drop_in(calls=2))
