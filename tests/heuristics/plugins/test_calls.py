"""Whatever fails in a call is one line of the log, and the host's own policy answers."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.plugins import CONTROLLER, MAP, METHOD, calls, guard, hosted, planning, settings
from eplb_gap.heuristics.plugins.calls import Call, answer
from eplb_gap.problem import Deployment, InputError, Placement

LAYERS, EXPERTS = 2, 16
DEPLOYMENT = Deployment(EXPERTS, 24, 8, num_nodes=2, num_groups=4)
LOADS = np.random.default_rng(5).integers(1, 1000, (LAYERS, EXPERTS))
CALL = Call(LOADS, DEPLOYMENT, None)
OURS = rebalance(LOADS, DEPLOYMENT).phy2log
FIRST = np.tile(np.arange(24) % EXPERTS, (LAYERS, 1))


class Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *given, **named):
        raise self.error


@pytest.fixture
def recorded(monkeypatch):
    found = []
    monkeypatch.setattr(calls, "record_call", lambda *given, rank: found.append(given))
    return found


def ask(read=lambda: CALL, ours=lambda placement: placement.phy2log, agree=None, own=lambda: "own", table=lambda found: found):
    return answer("vllm", read, ours, own, table, agree)


def test_ours_answers_and_is_recorded(recorded, caplog):
    assert (ask() == OURS).all()
    [(host, history, deployment, in_use, answered)] = recorded
    assert (host, deployment, in_use) == ("vllm", DEPLOYMENT, None)
    assert history is LOADS
    assert (answered == OURS).all()
    assert not caplog.records


def test_the_hosts_own_policy_answers_where_it_is_asked_for_and_is_recorded(recorded, asked_for, caplog):
    asked_for(**{METHOD: "host"})
    assert ask() == "own"
    assert recorded[0][4] == "own"
    assert not caplog.records


@pytest.mark.parametrize("error", [ValueError("a bad\nvalue"), MemoryError(), ImportError("numba is broken"), RecursionError()])
@pytest.mark.parametrize("stage", ["reading", "settings", "planning", "checking", "answering"])
def test_an_error_anywhere_is_one_line_and_the_hosts_answer(monkeypatch, recorded, caplog, stage, error):
    broken = Broken(error)
    if stage == "settings":
        monkeypatch.setattr(calls, "settings", broken)
    if stage in ("planning", "checking"):
        monkeypatch.setattr(calls, {"planning": "replan", "checking": "check"}[stage], broken)
    for _ in range(3):
        assert ask(*([broken] if stage == "reading" else []), **({"ours": broken} if stage == "answering" else {})) == "own"
    [line] = caplog.records
    assert line.levelno == logging.WARNING
    why = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    assert line.getMessage() == f"eplb-gap: vllm's own policy answers: {why}"
    assert len(recorded) == (0 if stage == "reading" else 3)  # arguments that cannot be read cannot be recorded


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((LAYERS, 24), np.int64), "layer 0: expert 1 has no replica"),
        (FIRST[:, :16], r"placement has shape \(2, 16\) for 16 experts; \(2, 24\)"),
        (FIRST[:1], "the plan has 1 layers; the model has 2"),
        (np.where(FIRST == 3, 16, FIRST), "layer 0, slot 3: expert 16 does not exist"),
        (np.where(FIRST == 3, -1, FIRST), "layer 0, slot 3: expert -1 does not exist"),
    ],
)
def test_an_illegal_answer_never_reaches_the_host(monkeypatch, caplog, table, message):
    monkeypatch.setattr(calls, "replan", lambda *given: Placement(table, EXPERTS))
    assert ask() == "own"
    [line] = caplog.messages
    assert re.search(message, line)


def test_an_error_of_the_hosts_own_policy_is_the_hosts(recorded):
    with pytest.raises(OSError, match="theirs"):
        ask(read=Broken(ValueError()), own=Broken(OSError("theirs")))


def test_an_answer_that_has_no_table_is_recorded_without(recorded, asked_for):
    asked_for(**{METHOD: "host"})
    assert ask(table=Broken(TypeError())) == "own"
    assert recorded[0][4] is None


def test_ranks_that_differ_take_the_hosts_answer_and_every_call_asks_them_once(monkeypatch, caplog):
    words = []

    def disagree(placement):
        words.append(placement)
        return False

    assert ask(agree=disagree) == "own"
    assert (words[0].phy2log == OURS).all()
    monkeypatch.setattr(calls, "replan", Broken(MemoryError()))
    assert ask(agree=disagree) == "own"
    assert words[1:] == [None]
    assert caplog.messages == [f"eplb-gap: vllm's own policy answers: {calls.DIFFERENT}"]


def test_one_line_a_minute_counts_what_it_held_back(monkeypatch, caplog):
    clock = [1000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: clock[0])
    complaints = guard.Complaints()
    for seconds in (0, 1, 58, 0.5, 1, 61):
        clock[0] += seconds
        complaints.say("so it goes", ValueError("why"))
    line = "eplb-gap: so it goes: ValueError: why"
    assert caplog.messages == [line, f"{line} (3 more lines like this since the last)", line]
    with caplog.at_level(logging.DEBUG, logger="eplb_gap"):
        guard.Complaints().say("so it goes", ValueError("why"))
    assert caplog.records[-1].exc_info


def test_the_planned_map_is_served_by_the_first_call_with_loads(asked_for, tmp_path, caplog):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(FIRST[:, ::-1].tolist()))
    asked_for(**{MAP: str(path)})
    other_model = Call(LOADS[:1], DEPLOYMENT, None)
    ask(lambda: Call(0 * LOADS, DEPLOYMENT, None))  # memory is measured
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        assert (ask(lambda: Call(LOADS[None], DEPLOYMENT, None)) == FIRST[:, ::-1]).all()
    assert caplog.messages == [f"eplb-gap: map file {path} is served"]
    assert (ask() == OURS).all()
    assert len(ask(lambda: other_model)) == 1
    assert caplog.messages[1:] == [
        f"eplb-gap: the planned map is not served: InputError: map file {path} has 2 layers; the model has 1"
    ]
    scaled = Deployment(EXPERTS, 32, 8)
    ask(lambda: Call(LOADS, scaled, None))
    assert (ask() == FIRST[:, ::-1]).all()  # the deployment is again that of the map
    settings.forget()
    assert (ask() == OURS).all()  # registered again


@pytest.mark.parametrize(("name", "value"), [(CONTROLLER, "none"), (METHOD, "host")])
def test_a_planned_map_that_stays_and_one_before_the_hosts_own_plans(asked_for, tmp_path, name, value):
    path = tmp_path / "map.npy"
    np.save(path, FIRST[:, ::-1])
    asked_for(**{MAP: str(path), name: value})
    assert (ask() == FIRST[:, ::-1]).all()
    again = ask()
    assert again == "own" if value == "host" else (again == FIRST[:, ::-1]).all()
    if value == "none":
        assert hosted.MODELS[LAYERS, EXPERTS].steps >= 1


def test_a_planned_map_without_an_expert_is_not_served(asked_for, tmp_path, caplog):
    path = tmp_path / "map.npy"
    np.save(path, np.where(FIRST == 5, 4, FIRST))
    asked_for(**{MAP: str(path)})
    assert (ask() == OURS).all()
    [line] = caplog.messages
    assert line.startswith("eplb-gap: the planned map is not served: PlacementError: layer 0: expert 5 has no replica")


def test_filler_of_dead_gpus_in_a_planned_map_is_no_replica(asked_for, tmp_path):
    dead = Deployment(EXPERTS, slots_per_gpu=[6] * 4, active=[True, True, True, False])
    path = tmp_path / "map.npy"
    np.save(path, FIRST)
    asked_for(**{MAP: str(path)})
    served = ask(lambda: Call(LOADS, dead, None), ours=lambda placement: placement)
    assert (served.phy2log[:, 18:] == 0).all()
    assert (served.ranks[:, 18:] == -1).all()


def test_preparing_says_the_settings_and_warms_up(asked_for, monkeypatch, caplog):
    begun = []
    monkeypatch.setattr(calls, "begin", lambda kernels: begun.extend(kernels))
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        calls.prepare("sglang")
    assert begun
    [line] = caplog.messages
    assert line.startswith("eplb-gap plans for sglang: method fast; settings ")
    begun.clear()
    asked_for(**{METHOD: "host"})
    calls.prepare("sglang")
    assert not begun
    asked_for(**{METHOD: "nonsense"})
    with pytest.raises(InputError, match="nonsense"):
        calls.prepare("sglang")
    calls.warm_up()
    assert caplog.messages == [line]  # no call will plan: there is nothing to warm up, and each call says why


@pytest.mark.parametrize(("name", "value"), [(METHOD, "fast"), (CONTROLLER, "budgeted:interval=2,window=3,moves=0.05")])
def test_an_error_of_warming_up_is_one_line(asked_for, monkeypatch, caplog, name, value):
    asked_for(**{name: value})
    monkeypatch.setattr(hosted, "contiguous_map", Broken(ZeroDivisionError("a defect")))
    monkeypatch.setattr(planning, "relabel", Broken(ZeroDivisionError("a defect")))
    calls.prepare("vllm")
    assert caplog.messages == ["eplb-gap: warming up failed, the first plan may take longer: ZeroDivisionError: a defect"]
    assert not hosted.MODELS
