"""Calibration of production settings: the future does not choose, rules hold, what is reported is what a replay serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eplb_gap import Controller, Deployment, InputError, LoadTrace, calibrate_online, replay
from eplb_gap.analysis.online.candidates import MOST_DECISIONS, PARTS, first_round, rungs, second_round
from eplb_gap.analysis.online.choice import Tried, choose, choose_slots, front, most_moves_of, shown
from eplb_gap.analysis.online.host_defaults import HOSTS, host_default
from eplb_gap.analysis.online.host_flags import in_host_steps
from eplb_gap.analysis.online.report import answer, as_dict, report, save
from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controllers_file import read_controllers

SHAPE = Deployment(32, 40, 8)  # on tiny layers the default planner searches for milliseconds


def drifting(seed: int, steps: int = 40, experts: int = 32) -> np.ndarray:
    """Return loads of experts that change their places, int64 [steps, 1, experts]."""
    rng = np.random.default_rng(seed)
    return rng.poisson(200 * np.exp(np.cumsum(rng.normal(0, 0.4, (steps, 1, experts)), axis=0)))


FEW = [
    Controller("periodic", interval=1),
    Controller("budgeted", interval=2, moves=0.2),
    Controller("threshold", interval=2, gain=0.05),
]
"""What is tested does not depend on their number."""


def test_what_is_held_out_chooses_nothing() -> None:
    loads = drifting(1)
    noise = drifting(2)
    found = [
        calibrate_online(LoadTrace(np.concatenate([loads[:20], after])), SHAPE, candidates=FEW)
        for after in (loads[20:], noise[20:], 0 * noise[20:])
    ]
    for one in found[1:]:
        assert (one.tried, one.chosen, one.points, one.controller) == (
            found[0].tried,
            found[0].chosen,
            found[0].points,
            found[0].controller,
        )
        assert answer(one) != answer(found[0])
    # The negative control: the first part does choose.
    other = calibrate_online(LoadTrace(np.concatenate([noise[:20], loads[20:]])), SHAPE, candidates=FEW)
    assert other.tried != found[0].tried


def test_what_is_reported_is_what_a_replay_serves() -> None:
    steps = LoadTrace(drifting(3))
    result = calibrate_online(steps, SHAPE, split=0.6, candidates=FEW)
    assert (result.border, result.first, result.steps) == (24, 6, 40)
    assert result.controller.kind != "none"
    for (controller, _), one in result.held_out.judged.items():
        [run] = replay(steps, SHAPE, [controller], warm_up=24).runs
        assert run.served == one.run.served
        assert one.balancedness.value == pytest.approx(run.balancedness, abs=1e-12)
        assert one.balancedness.low <= one.balancedness.value <= one.balancedness.high
    chosen, none = result.judged(result.chosen.controller), result.judged(Controller("none"))
    assert chosen.gain.value == pytest.approx(chosen.balancedness.value - none.balancedness.value)
    [tried] = [one for one in result.tried if one.controller == result.chosen.controller]
    [run] = replay(LoadTrace(steps.loads[:24]), SHAPE, [tried.controller], warm_up=6).runs
    assert tried.balancedness == run.balancedness


def test_costs_decide_where_they_are_known() -> None:
    steps = LoadTrace(drifting(4))
    free = calibrate_online(steps, SHAPE, candidates=FEW, costs=Costs(1.0, 1e12), step_seconds=1.0)
    dear = calibrate_online(steps, SHAPE, candidates=FEW, costs=Costs(1e9, 1.0), step_seconds=1e-3)
    assert free.chosen.balancedness == max(one.balancedness for one in free.tried)
    assert dear.chosen.moves == 0
    for one in free.held_out.judged.values():
        assert one.balancedness.value == pytest.approx(one.run.balancedness, abs=1e-9)
    assert "MB per step" in report(dear)
    fair = Costs(1e6, 1e9)
    summed = LoadTrace(steps.loads, {"window_steps": 5})
    result = calibrate_online(summed, SHAPE, candidates=FEW, costs=fair, step_seconds=0.002)
    perfect, moving = 20 * 0.01, result.held_out.judged[result.controller, SHAPE]
    waits = moving.run.waiting  # its first map came long before
    assert waits
    assert moving.balancedness.value == pytest.approx(perfect / (perfect / moving.run.balancedness + waits))


def test_candidates_are_bounded_whatever_the_recording_is() -> None:
    for steps in (8, 9, 31, 150, 600, 1200):
        found = rungs(steps)
        assert found
        assert all(interval <= window <= steps // PARTS for interval, window in found)
        assert all(window % interval == 0 for interval, window in found)
        assert all(steps // interval <= 2 * MOST_DECISIONS for interval, _ in found)
        # All have a full window when judging begins.
        controllers = [*first_round(steps), *second_round(steps, dict.fromkeys(found, 0.9), SHAPE)]
        assert len(set(controllers)) == len(controllers) <= 150
        assert all(KINDS[one.kind].first_decision(one) <= steps // PARTS for one in controllers if one.kind != "none")


def tried(*points: tuple[float, float], net: bool = False) -> list[Tried]:
    """Return no EPLB at .5 and points of balancedness and moves."""
    kinds = [Controller("budgeted", interval=10, window=n, moves=0.1) for n in range(1, len(points) + 1)]
    rows = [(Controller("none"), 0.5, 0.0), *((one, *point) for one, point in zip(kinds, points, strict=True))]
    return [Tried(one, 8, served, moves, moves, served - moves / 10 if net else None) for one, served, moves in rows]


def test_the_rules_of_the_choice_by_hand() -> None:
    points = tried((0.9, 5.0), (0.79, 0.5), (0.885, 1.0), (0.8, 2.0))
    assert [one.balancedness for one in front(points)] == [0.5, 0.79, 0.885, 0.9]
    assert choose(points).balancedness == 0.885  # at least .5 + .95 * .4 = .88
    calm = dataclasses.replace(points[3], controller=Controller("threshold", interval=10), balancedness=0.95, moves=0.1)
    assert choose([*points, calm]).balancedness == 0.885  # one without a limit of its own
    assert choose([points[0], calm]) is calm  # unless there is no other
    assert choose(points, 0.6).balancedness == 0.79
    assert choose(points, 0.0).controller.kind == "none"
    assert choose(tried((0.9, 5.0), (0.79, 0.5), net=True)).balancedness == 0.79  # .4 and .74 net
    assert choose(tried((0.4, 1.0))).controller.kind == "none"
    assert [one.balancedness for one in shown(front(tried((0.8, 1.0), (0.801, 2.0), (0.9, 3.0))), points[0])] == [0.5, 0.8, 0.9]
    few_slots, many = (dataclasses.replace(choose(points), slots=slots) for slots in (8, 12))
    assert choose_slots([many, few_slots], points[:1]) is few_slots


def test_a_limit_of_moves_holds_on_any_loads() -> None:
    assert most_moves_of(Controller("budgeted", interval=10, moves=0.02), 288) == pytest.approx(0.576)
    assert most_moves_of(Controller("threshold", interval=4), 8) == 2.0
    assert most_moves_of(Controller("static"), 8) == 0.0
    loads = np.concatenate(
        [np.tile(drifting(5, experts=6)[:1], (20, 1, 1)), 100 * np.eye(6, dtype=np.int64)[np.arange(20) % 6][:, None]]
    )
    result = calibrate_online(LoadTrace(loads), Deployment(6, 8, 4), most_moves=0.5, candidates=FEW)
    assert result.chosen.most <= 0.5
    judged = result.judged(result.chosen.controller)
    assert judged.run.moves_per_step <= 0.5


def test_slots_are_chosen_too() -> None:
    result = calibrate_online(LoadTrace(drifting(6)), SHAPE, slots=[40, 48], candidates=FEW)
    assert {one.slots for one in result.by_slots} == {40, 48} == {one.slots for one in result.tried}
    assert result.deployment.num_slots == result.chosen.slots
    assert all(result.judged_choice(one).slots == one.slots for one in result.by_slots)
    assert f"| {result.chosen.slots} (chosen) |" in report(result)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("steps", [8, 600, 5000])
def test_a_default_has_a_map_when_judging_begins(host: str, steps: int) -> None:
    found = host_default(host, steps, 3, SHAPE)
    one = found.controller
    first = KINDS[one.kind].first_decision(one) + one.lag
    assert steps // 2 < first <= steps or host == "tensorrt-llm" or steps == 5000
    assert bool(found.changed) == (steps < 5000 and host != "tensorrt-llm")
    summed = host_default(host, 5000, 3, SHAPE, 10).controller
    assert {
        "vllm": (300, 100, 0),
        "sglang": (100, 100, 0),
        "tensorrt-llm": (1, 1, 0),
        "vllm-ascend": (65, 60, 5),
    }[host] == (summed.interval, summed.window, summed.lag)
    assert host_default(host, steps, 3, Deployment(4, slots_per_gpu=[1, 3, 2])).controller.method == "fast"


def test_report_data_and_file_say_the_same(tmp_path: Path) -> None:
    result = calibrate_online(LoadTrace(drifting(7), {"window_steps": 5}), SHAPE, host="sglang", candidates=FEW)
    said, data = report(result), as_dict(result)
    assert answer(result) in said
    assert data["answer"] == answer(result)
    assert "\n" not in answer(result)
    assert "SGLang's default" in answer(result)
    assert data["chosen"]["interval"] == 5 * result.controller.interval
    save(result, tmp_path / "c.toml", "loads\nof two lines")
    [controller] = read_controllers(tmp_path / "c.toml")
    assert controller == in_host_steps(result.controller, 5)


def test_one_map_for_ever_is_planned_on_the_whole_first_part_and_moves_nothing() -> None:
    steps = LoadTrace(np.random.default_rng(8).poisson(np.tile(np.geomspace(900, 10, 32), (64, 1, 1))))
    result = calibrate_online(steps, SHAPE, candidates=FEW)
    assert result.controller == Controller("static", interval=32)
    assert result.chosen.moves == 0
    assert "Yes" in answer(result)


def arguments(**changed: object) -> Callable[[], object]:
    """Return a call that goes wrong."""
    given: dict[str, object] = {"steps": LoadTrace(drifting(1)), "deployment": SHAPE} | changed
    return lambda: calibrate_online(given.pop("steps"), given.pop("deployment"), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (arguments(steps=LoadTrace(drifting(1, 15))), "steps has 15 steps, 7 to choose on and 8 held out; at least 8 of each"),
        (arguments(split=0.9), "36 to choose on and 4 held out"),
        (arguments(split=0.0), "split is 0.0; a number between 0 and 1"),
        (arguments(split=True), "split is True"),
        (arguments(deployment=Deployment(4, 4, 2)), "steps has 32 experts; the deployment has 4"),
        (arguments(host="llama"), "host is 'llama'; vllm, sglang, tensorrt-llm, vllm-ascend are known"),
        (arguments(steps=LoadTrace(drifting(1), {"window_steps": 0})), "window_steps of the steps' provenance is 0"),
        (arguments(most_moves=-1), "most_moves is -1; a finite, non-negative number"),
        (arguments(most_moves=float("nan")), "most_moves is nan"),
        (arguments(costs=Costs(1.0, 1.0)), "costs is given without step_seconds"),
        (arguments(step_seconds=1.0), "step_seconds is given without costs"),
        (arguments(costs=Costs(1.0, 1.0), step_seconds=0), "step_seconds is 0; a finite, positive number"),
        (arguments(candidates=[Controller("clairvoyant")]), "candidates has a controller of kind 'clairvoyant'; none, static"),
        (arguments(candidates=[Controller("periodic", interval=6)]), "serves its first map on step 6; of 20 steps"),
        (arguments(slots=[40, 41]), "num_gpus is 8; a divisor of num_slots = 41"),
        (arguments(slots=[8, 8]), "slots is 8, 8; every number once"),
        (
            arguments(deployment=Deployment(32, slots_per_gpu=[10, 11, 12]), slots=[8]),
            "slots are given for GPUs with unequal slots",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_ctrl_c_is_no_result() -> None:
    def stop(what: str, done: int, total: int) -> None:
        assert done <= total
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_online(LoadTrace(drifting(1)), SHAPE, candidates=FEW, tick=stop)
