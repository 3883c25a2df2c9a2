from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from eplb_gap.experiments.fuzzing.adrs_file import write
from eplb_gap.experiments.loads.synthetic import calibrated_trace
from eplb_gap.problem.errors import InputError

SMALL = {"window_steps": 5, "layers": 3, "experts": 16}


def read(path):
    return np.array([record["logical_expert_load"] for record in json.loads(path.read_text())["load_history"]])


def test_the_steps_of_a_window_sum_to_it_exactly(tmp_path):
    path = tmp_path / "expert-load.json"
    write(path, 60, **SMALL)
    steps = read(path)
    assert steps.shape == (60, 3, 16)
    assert (steps.reshape(12, 5, 3, 16).sum(axis=1) == calibrated_trace(0).loads[:, :3, :16]).all()
    assert (steps >= 0).all()
    assert not (steps[0] == steps[1]).all()


def test_the_file_is_printed_as_json_itself_indents_and_says_that_it_is_synthetic(tmp_path):
    path = tmp_path / "expert-load.json"
    write(path, 10, **SMALL)
    text = path.read_text()
    document = json.loads(text)
    assert text == json.dumps(document, indent=2)
    assert document["description"].startswith("synthetic")
    assert [list(record) for record in document["load_history"]] == [["logical_expert_load"]] * 10
    assert list(tmp_path.iterdir()) == [path]


def test_a_shorter_file_is_the_start_of_a_longer_one(tmp_path):
    write(tmp_path / "long", 15, **SMALL)
    write(tmp_path / "short", 5, **SMALL)
    write(tmp_path / "other", 5, 1, **SMALL)
    assert (read(tmp_path / "short") == read(tmp_path / "long")[:5]).all()
    assert (read(tmp_path / "other") != read(tmp_path / "short")).any()


def test_progress_counts_windows_in_steps(tmp_path):
    seen = []
    write(tmp_path / "file", 15, **SMALL, progress=lambda done, steps: seen.append((done, steps)))
    assert seen == [(5, 15), (10, 15), (15, 15)]


@pytest.mark.parametrize(
    ("steps", "changed", "message"),
    [
        (0, {}, "steps is 0; a multiple of 5 up to 60"),
        (7, {}, "steps is 7; a multiple of 5"),
        (65, {}, "steps is 65; a multiple of 5 up to 60"),
        (10, {"layers": 59}, "layers is 59; 1 to 58"),
        (10, {"experts": 0}, "experts is 0; 1 to 256"),
        (10, {"window_steps": 0}, "window_steps is 0; at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, steps, changed, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "file", steps, **{**SMALL, **changed})
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_in_one_line(tmp_path):
    command = [sys.executable, "-m", "eplb_gap.experiments.fuzzing.adrs_file", str(tmp_path / "file"), "--steps", "150"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "steps is 150; a multiple of 100 up to 1200 is needed" in done.stderr.splitlines()[-1]
