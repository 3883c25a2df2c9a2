"""Capacity against what is known of small traces: verdicts, the two answers, the table and the figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb_gap.analysis import capacity as module
from eplb_gap.analysis.capacity import Capacity, Step, as_dict, capacity, report, slot_options
from eplb_gap.analysis.figures import capacity_curve as figure
from eplb_gap.heuristics import rebalance
from eplb_gap.problem import Deployment, InputError, LoadTrace
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.solvers import solve

# One expert has half the load: with one replica a GPU of four is at least twice the mean, with two slots more it can be split.
LOADS = np.array([[[600, 100, 100, 100, 100, 100, 50, 50]], [[600, 100, 100, 100, 100, 100, 50, 50]]])
SHAPE = Deployment(8, 8, 4)


def test_each_step_is_a_solve_and_the_verdicts_follow() -> None:
    result = capacity(LoadTrace(LOADS), SHAPE, 0.9, most_slots=16)
    assert [step.slots for step in result.steps] == [8, 12, 16]
    assert result.window == 0
    for step in result.steps:
        solution = solve(LOADS[0], replace(SHAPE, num_slots=step.slots), target_gap=1e-3)
        assert step.reached == pytest.approx(300 / float(solution.upper[0]), rel=2e-3)
        assert step.reached <= step.limit <= 1
        plan = rebalance(LOADS[0], replace(SHAPE, num_slots=step.slots))
        assert step.serving == balancedness_gpu(plan, LOADS[1], 4)
    assert result.steps[0].verdict == "unreachable"  # 300 against at least 650
    assert result.planning is not None and result.planning.slots == 12
    assert result.fewest_is_proven
    assert result.serving is not None and result.serving.slots == 12
    assert "Planning: 12 slots reach it; fewer are proven not to." in report(result)
    assert "Serving: 12 slots reach it on average." in report(result)
    assert json.loads(json.dumps(as_dict(result)))["planning"] == 12


def test_a_budget_goes_to_the_layers_that_gain_by_it() -> None:
    loads = np.concatenate([np.full((2, 1, 8), 100), LOADS], axis=1)  # the even layer gains nothing from replicas
    result = capacity(LoadTrace(loads), SHAPE, 0.9, most_slots=12, budget=21)
    found = result.division
    assert found is not None and found.slots == [8, 12]
    hot = result.steps[1].reached
    best = solve(LOADS[0], replace(SHAPE, num_slots=12)).upper[0]
    assert found.reached == pytest.approx(500 / float(200 + best), rel=2e-3)
    assert found.alike == result.steps[0].reached < found.reached <= found.limit <= 1
    assert hot >= found.reached - 1e-9  # twelve slots for all need more than the budget
    text = report(result)
    assert "Budget: 20 of 21 slots over 2 layers reach" in text
    assert "  8 slots: layers 0\n  12 slots: layers 1" in text
    assert json.loads(json.dumps(as_dict(result)))["division"]["slots"] == [8, 12]
    assert capacity(LoadTrace(LOADS), SHAPE, 0.9, most_slots=8).division is None


def test_what_no_step_reaches_is_said_with_its_proof() -> None:
    changed = LoadTrace(np.stack([LOADS[0], LOADS[0][:, ::-1]]))
    result = capacity(changed, SHAPE, 0.99, most_slots=8)
    assert (result.planning, result.serving, result.fewest_is_proven) == (None, None, False)
    assert "no step up to 8 slots reaches it; 8 slots are proven not to" in report(result)
    assert "Serving: no step reaches it; the best is" in report(result)


def made(*verdicts: str, serving: float | None = 0.5) -> Capacity:
    steps = [Step(8 + 4 * i, 0.8, 0.9, serving, verdict) for i, verdict in enumerate(verdicts)]
    return Capacity(0.85, 0, 4, 8, 1, steps)


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        (("reached",), "8 slots reach it; the fewest that hold every expert"),
        (("open", "reached"), "12 slots reach it; fewer may, between map and bound"),
        (("unreachable", "open"), "no map found up to 12 slots reaches it; the bound does not rule it out"),
    ],
)
def test_open_steps_are_not_called_proven(verdicts: tuple[str, ...], text: str) -> None:
    assert text in report(made(*verdicts))
    assert "a trace of one window has no next one" in report(made(*verdicts, serving=None))


def test_a_trace_of_one_window_is_planned_only_and_a_silent_layer_is_perfect() -> None:
    result = capacity(LoadTrace(np.zeros((1, 1, 8), dtype=np.int64)), SHAPE, 1.0, most_slots=8)
    assert result.steps == [Step(8, 1.0, 1.0, None, "reached")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, "target is 0.0"),
        ({"target": 1.5}, "target is 1.5"),
        ({"most_slots": 7}, "most_slots is 7; 8 experts on 4 GPUs need at least 8"),
        ({"window": 2}, "window is 2"),
        ({"budget": 7}, "budget is 7 slots; 1 layers of at least 8 need 8"),
        ({"deployment": Deployment(4, 8, 4)}, "the trace has 8 experts"),
        ({"deployment": Deployment(8, slots_per_gpu=[4, 4, 2, 2])}, "the GPUs have 2 to 4 slots; a count of slots needs equally"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"trace": LoadTrace(LOADS), "deployment": SHAPE, "target": 0.9, **change}
    with pytest.raises(InputError, match=message):
        capacity(**arguments)


def test_dead_gpus_are_not_counted() -> None:
    left = capacity(LoadTrace(LOADS), Deployment(8, 15, 5, dead_gpus=[2]), 0.9, 12)
    assert left == capacity(LoadTrace(LOADS), SHAPE, 0.9, 12)


def test_options_are_multiples_of_the_gpus_that_duplicates_permit() -> None:
    assert slot_options(Deployment(10, 12, 4), 20) == [12, 16, 20]
    assert slot_options(Deployment(4, 8, 2, duplicates="forbidden"), 12) == [4, 6, 8]
    assert slot_options(Deployment(4, 4, 2, 2, 2, "forbidden"), 12) == [4]


def test_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLANNING_GAP", 1.0)
    seen = []
    capacity(LoadTrace(LOADS), SHAPE, 0.9, most_slots=12, tick=lambda *state: seen.append(state))
    assert seen == [("8 slots", 0, 2), ("12 slots", 1, 2)]


def test_the_figure_is_drawn_the_same_twice(tmp_path: Path) -> None:
    result = made("unreachable", "reached")
    first = [path.read_bytes() for path in figure.draw(result, "title", tmp_path)]
    assert first == [path.read_bytes() for path in figure.draw(result, "title", tmp_path)]
    assert figure.draw(made("open", serving=None), "title", tmp_path)[0].name == "capacity.pdf"


def test_slots_that_cannot_be_without_duplicates_are_left_out_and_it_is_said() -> None:
    result = capacity(LoadTrace(LOADS[:1, :, :3]), Deployment(3, 4, 2, duplicates="forbidden"), 0.9, most_slots=8)
    assert [step.slots for step in result.steps] == [4, 6]
    assert "More slots are left out" in report(result).splitlines()[-1]
    assert as_dict(result)["left_out"] == result.left_out != ""
    assert capacity(LoadTrace(LOADS), SHAPE, 0.9, most_slots=8).left_out == ""
