from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from eplb_gap.analysis import calibration
from eplb_gap.analysis.calibration import calibrate, choose, pareto_front, training_and_held_out
from eplb_gap.analysis.candidates import DEEPSEEK, DEFAULT, Candidate
from eplb_gap.analysis.figures import calibration_front
from eplb_gap.cli import main as cli
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.config import FastConfig, PipelineConfig
from eplb_gap.heuristics.config_file import check, read
from eplb_gap.problem import Deployment, InputError, LoadTrace, verify
from eplb_gap.problem.metrics import balancedness_gpu

DEPLOYMENT = Deployment(12, 16, 4, num_nodes=2, num_groups=4)
LOADS = np.random.default_rng(12).integers(1, 900, size=(3, 2, 12))
ALL = calibration.candidates()


def tried():
    return [Candidate(c.name, c.config) for c in ALL if c.name in {"lpt", DEFAULT, "split", DEEPSEEK, "snake, no swap"}]


def measured(*points):
    return [Candidate(name, FastConfig(), [gap], [milliseconds]) for name, gap, milliseconds in points]


def test_every_candidate_is_valid_and_listed_once():
    candidates = calibration.candidates()
    assert len({c.name for c in candidates}) == len({c.config for c in candidates}) == len(candidates)
    assert {DEFAULT, DEEPSEEK} < {c.name for c in candidates}
    for candidate in candidates:
        check(candidate.config)


def test_the_first_two_thirds_are_for_training():
    assert training_and_held_out(12) == (list(range(8)), [8, 9, 10, 11])
    assert training_and_held_out(2) == ([0], [1])
    with pytest.raises(InputError, match="1 window; at least 2 are needed"):
        training_and_held_out(1)


def test_the_front_holds_what_nothing_beats_beyond_the_noise():
    points = measured(
        ("a", 0.3, 1.0), (DEFAULT, 0.1, 2.0), ("same, a little faster", 0.1, 1.95), ("slower", 0.1, 4.0), ("b", 0.01, 9.0)
    )
    assert [c.name for c in pareto_front(points)] == ["a", DEFAULT, "b"]
    # Better and no slower than the noise: the default is off; as good and clearly faster: likewise.
    for other in (("better", 0.09, 2.1), ("faster", 0.1, 1.7)):
        assert [c.name for c in pareto_front(measured((DEFAULT, 0.1, 2.0), other))] == [other[0]]
    assert len(pareto_front(measured((DEFAULT, 0.1, 2.0), ("better, slower", 0.09, 2.3)))) == 2


def test_the_default_is_kept_unless_something_beats_it_or_a_budget_allows_more():
    points = measured((DEFAULT, 0.1, 2.0), ("good", 0.01, 9.0), ("quick", 0.3, 1.0))
    front = pareto_front(points)
    assert choose(points, front, points[0], None) is points[0]
    assert choose(points, front, points[0], 10.0) is points[1]
    assert choose(points, front, points[0], 1.5) is points[2]
    with pytest.raises(InputError, match=r"budget_ms is 0.5; the fastest configuration, quick, takes 1 ms"):
        choose(points, front, points[0], 0.5)
    beaten = measured((DEFAULT, 0.1, 2.0), ("better", 0.05, 1.5))
    assert choose(beaten, pareto_front(beaten), beaten[0], None) is beaten[1]


def test_gaps_and_balancedness_are_those_of_the_windows(tmp_path):
    steps = []
    result = calibrate(LOADS, DEPLOYMENT, tried(), tick=lambda what, done, total: steps.append((done, total)))
    assert result.training == [0, 1]
    assert result.testing == [2]
    assert [done for done, _ in steps] == list(range(len(steps)))
    assert {total for _, total in steps} == {len(steps)}
    deepseek = next(c for c in result.candidates if c.name == DEEPSEEK)
    assert len(deepseek.gaps) == 4
    assert len(deepseek.milliseconds) == 2
    makespans = verify(rebalance(LOADS[0], DEPLOYMENT, "initial_program"), LOADS[0], DEPLOYMENT)
    mean = Fraction(int(LOADS[0, 0].sum()), 4)
    assert 0 <= deepseek.gaps[0] <= float(makespans[0] / mean) - 1
    served = balancedness_gpu(rebalance(LOADS[1], DEPLOYMENT, "initial_program"), LOADS[2], 4)
    assert result.held_out[DEEPSEEK].serving == [served]
    path = calibration.save(result, tmp_path, "loads.npz", "tiny")
    assert read(path) == result.chosen.config
    drawn = calibration_front.draw(result, "tiny", tmp_path)
    assert all(p.stat().st_size > 1000 for p in drawn)
    assert ("Keep it." in calibration.report(result)) == (result.chosen.name == DEFAULT)
    assert json.loads(json.dumps(calibration.summary(result)))["chosen"] == result.chosen.name


def test_maps_that_break_the_rules_are_named_and_left_out():
    loads = np.array([[[1000, 1, 1, 1, 1, 1, 900, 1, 1, 1, 1, 1]]] * 2)
    shape = replace(Deployment(12, 24, 4), duplicates="forbidden")
    result = calibrate(loads, shape, tried())
    by_name = {c.name: c for c in result.candidates}
    assert by_name[DEEPSEEK].status.startswith("illegal: ")
    assert DEEPSEEK not in result.held_out
    assert by_name[DEFAULT].status == "legal"
    assert isinstance(by_name[DEEPSEEK].config, PipelineConfig)


def run(monkeypatch, *arguments):
    """Run the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["eplb-gap", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("windows", "arguments", "text"),
    [
        (3, ["--deployment", "dsv4"], "the presets are"),
        (3, ["--deployment", "olmoe-ep16"], "the loads have 12 experts; deployment 'olmoe-ep16' has 64"),
        (1, ["--deployment", "deepseek-readme"], "1 window; at least 2"),
        (3, ["--deployment", "deepseek-readme", "--budget-ms", "-1"], "--budget-ms is -1.0"),
        (
            3,
            ["--deployment", "deepseek-readme", "--out", "pyproject.toml"],
            "--out is pyproject.toml; a folder that can be written to",
        ),
    ],
)
def test_bad_input_is_one_readable_line_and_exit_code_2(windows, arguments, text, tmp_path, monkeypatch, capsys):
    LoadTrace(LOADS[:windows]).save(tmp_path / "t.npz")
    code = run(monkeypatch, "calibrate", "--loads", tmp_path / "t.npz", "--out", tmp_path / "out", *arguments)
    said = capsys.readouterr()
    assert code == 2
    assert text in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_calibrate_writes_a_configuration_that_rebalance_reads(tmp_path, monkeypatch, capsys):
    LoadTrace(LOADS).save(tmp_path / "t.npz")
    monkeypatch.setattr(calibration, "candidates", tried)
    at = "--loads", tmp_path / "t.npz", "--deployment", "deepseek-readme", "--out", tmp_path, "--budget-ms", 1000
    assert run(monkeypatch, "calibrate", *at, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["held_out_windows"] == [2]
    least = min(c["training_gap"] for c in said["candidates"] if c["status"] == "legal")
    assert next(c for c in said["candidates"] if c["name"] == said["chosen"])["training_gap"] == least
    shape = Deployment.preset("deepseek-readme")
    verify(rebalance(LOADS[0], shape, config=tmp_path / "config.toml"), LOADS[0], shape)
    assert sorted(p.name for p in tmp_path.glob("pareto.*")) == ["pareto.pdf", "pareto.png"]


@pytest.mark.parametrize("hot_window", [1, 3])
def test_a_candidate_that_is_illegal_on_a_later_window_is_left_out(hot_window):
    # DeepSeek's program doubles the hot expert on one GPU: on a window for training, and on one held out.
    loads = np.tile(np.arange(12, 0, -1), (4, 1, 1))
    loads[hot_window] = [[1000, 1, 1, 1, 1, 1, 900, 1, 1, 1, 1, 1]]
    shape = Deployment(12, 24, 4, duplicates="forbidden")
    result = calibrate(LoadTrace(loads), shape, tried())
    deepseek = next(c for c in result.candidates if c.name == DEEPSEEK)
    assert deepseek.status.startswith("illegal: ")
    assert DEEPSEEK not in result.held_out
    assert deepseek not in result.front
    assert result.chosen.status == "legal"


def test_dead_gpus_are_left_out_and_unequal_ones_refused():
    few = [c for c in tried() if c.name in (DEFAULT, DEEPSEEK)]
    loads = np.random.default_rng(2).integers(1, 90, (3, 1, 6))
    result = calibrate(loads, Deployment(6, 12, 4, active=[True, True, False, True]), few, budget_ms=1000)
    assert set(result.held_out) <= {DEFAULT, DEEPSEEK}
    assert min(gap for candidate in result.candidates for gap in candidate.gaps) >= 0
    with pytest.raises(InputError, match="the GPUs have 2 to 4 slots"):
        calibrate(loads, Deployment(6, slots_per_gpu=[2, 4, 4]), few)
