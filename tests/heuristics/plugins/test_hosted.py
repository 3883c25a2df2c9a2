"""A controller inside a server makes the maps that the replay says, forgets what it must, and never breaks its host."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from eplb_gap.analysis.replay.replay import replay
from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.contiguous import contiguous_map
from eplb_gap.heuristics.control.controllers_file import parse_controller
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import calls, hosted, planning, vllm
from eplb_gap.heuristics.plugins.calls import prepare
from eplb_gap.problem import Deployment, LoadTrace, Placement, verify

LAYERS, EXPERTS, SLOTS, GPUS = 2, 32, 40, 8
HIERARCHICAL = Deployment(EXPERTS, SLOTS, GPUS, num_nodes=2, num_groups=4)
GLOBAL = HIERARCHICAL.as_global()
BUDGETED = "budgeted:interval=2,window=3,moves=0.05"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(calls, "begin", lambda kernels: None)


def drifting(steps: int, layers: int = LAYERS) -> np.ndarray:
    """Return loads of experts that change their places, int64 [steps, layers, experts]."""
    rng = np.random.default_rng(11)
    heat = np.cumsum(rng.normal(0, 0.5, (steps, layers, EXPERTS)), axis=0)
    return rng.poisson(300 * np.exp(heat))


def replayed(text: str, loads: np.ndarray, deployment: Deployment) -> list[np.ndarray]:
    """Return the map after every step, as a replay makes it: the contiguous one until the first."""
    [run] = replay(LoadTrace(loads), deployment, [parse_controller(text)], warm_up=0).runs
    maps = [contiguous_map(deployment, loads.shape[1]).phy2log] * len(loads)
    for change in run.changes:
        maps[change.decided - 1 :] = [change.placement.phy2log] * (len(loads) - change.decided + 1)
    return maps


def asked(weight: np.ndarray, old: np.ndarray | None, deployment: Deployment = HIERARCHICAL) -> np.ndarray:
    """Call the policy as vLLM does, which then fills its buffer anew."""
    buffer = torch.from_numpy(weight.copy())
    found = vllm.MapPolicy.rebalance_experts(
        buffer,
        deployment.num_slots,
        deployment.num_groups,
        deployment.num_nodes,
        deployment.num_gpus,
        None if old is None else torch.from_numpy(old),
    ).numpy()
    buffer.zero_()
    return found


WORDS = [
    "none",
    "static:interval=3,window=2",
    "periodic:interval=3,window=4,lag=2",
    BUDGETED,
    "threshold:interval=1,window=2,below=0.95,gain=0.02",
    "round-robin:interval=1,window=4",
    "adaptive:interval=2,moves=0.05,lag=1",
]


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize(("deployment", "unit"), [(HIERARCHICAL, None), (GLOBAL, 0.125)])
def test_vllm_gets_call_by_call_the_maps_of_the_replay(asked_for, text, deployment, unit):
    asked_for(EPLB_GAP_CONTROLLER=text)
    loads = drifting(12)
    expected = replayed(text, np.concatenate([loads, loads[-1:]]), deployment)
    in_use = contiguous_map(deployment, LAYERS).phy2log
    assert (asked(0 * loads[0], in_use, deployment) == in_use).all()  # vLLM measures its memory
    for step, weight in enumerate(loads):
        in_use = asked(weight if unit is None else weight * unit, in_use, deployment)
        assert (in_use == expected[step]).all(), step
        if step == 6:
            asked(drifting(1, layers=1)[0], None, deployment)  # a second model of the same server
    changes = sum((a != b).any() for a, b in pairwise(expected))
    assert text == "none" or changes > (text[:6] != "static")  # the maps that are compared do change


def test_every_kind_that_does_not_foresee_is_compared():
    assert {name for name in KINDS if not KINDS[name].foresees} == {word.partition(":")[0] for word in WORDS}


def test_steps_that_nothing_looks_back_on_are_let_go(asked_for):
    text = "adaptive:interval=1,moves=0.05"
    asked_for(EPLB_GAP_CONTROLLER=text)
    most = KINDS["adaptive"].reach(parse_controller(text))
    heat = np.geomspace(20, 1, EXPERTS)
    loads = np.random.default_rng(3).poisson(heat, (36, 1, EXPERTS))  # nothing changes: the longest window is the best
    expected = replayed(text, np.concatenate([loads, loads[-1:]]), GLOBAL)
    in_use = contiguous_map(GLOBAL, 1).phy2log
    for step, weight in enumerate(loads):
        in_use = asked(weight, in_use, GLOBAL)
        assert (in_use == expected[step]).all(), step
    assert len(hosted.MODELS[1, EXPERTS].past) == most < 36


def test_where_no_legal_map_is_in_use_the_plan_is_full(asked_for):
    asked_for(EPLB_GAP_CONTROLLER=BUDGETED)
    loads = drifting(1)[0]
    best = rebalance(loads, HIERARCHICAL)
    unlike_groups = np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1))  # vLLM's first map
    for old in (None, unlike_groups, np.where(unlike_groups < 9, -1, unlike_groups)):
        hosted.MODELS.clear()
        found = Placement(asked(loads, old), EXPERTS)
        assert verify(found, loads, HIERARCHICAL) == verify(best, loads, HIERARCHICAL)
    asked_for(EPLB_GAP_CONTROLLER="none")
    assert (asked(loads, unlike_groups) == unlike_groups).all()
    assert (asked(loads, None) == unlike_groups).all()  # which it adopted
    hosted.MODELS.clear()
    assert (asked(loads, None) == contiguous_map(HIERARCHICAL, LAYERS).phy2log).all()


def test_another_deployment_or_controller_starts_anew(asked_for):
    asked_for(EPLB_GAP_CONTROLLER="budgeted:interval=1,moves=0")
    loads = drifting(4)
    first = asked(loads[0], None)
    assert (asked(loads[1], first) == first).all()  # no move is allowed
    larger = Deployment(EXPERTS, 64, 16, num_nodes=2, num_groups=4)
    found = Placement(asked(loads[1], first, larger), EXPERTS)  # scaled up: vLLM hands over the map of before
    assert verify(found, loads[1], larger) == verify(rebalance(loads[1], larger), loads[1], larger)
    assert (asked(loads[2], found.phy2log, larger) == found.phy2log).all()
    again = Placement(asked(loads[2], found.phy2log), EXPERTS)  # and down
    assert verify(again, loads[2], HIERARCHICAL) == verify(rebalance(loads[2], HIERARCHICAL), loads[2], HIERARCHICAL)
    asked_for(EPLB_GAP_CONTROLLER="budgeted:interval=1,moves=0.01")
    assert (asked(loads[3], again.phy2log) != again.phy2log).any()  # its first plan


def test_a_rank_is_lost_and_comes_back_where_the_host_does_not_say_which_map_is_in_use(asked_for):
    asked_for(EPLB_GAP_CONTROLLER="budgeted:interval=1,moves=0.02")
    loads, alive = drifting(4), [True] * GPUS

    def plan(step: int) -> Placement:
        left = Deployment(EXPERTS, slots_per_gpu=[5] * GPUS, active=alive) if not all(alive) else GLOBAL
        found = planning.replan(loads[step][None], left, None)
        verify(found, loads[step], left)
        return found

    before = plan(0)
    alive[3] = False
    left = Deployment(EXPERTS, slots_per_gpu=[5] * GPUS, active=alive)
    for step in (1, 2):
        assert not plan(step).phy2log[:, 15:20].any()
    new = rebalance(loads[1], left)
    assert moved(hosted.MODELS[LAYERS, EXPERTS].newest, before, left).sum() < moved(new, before, left).sum()
    alive[3] = True
    found = plan(3)
    hosted.MODELS.clear()
    assert (plan(3).phy2log == found.phy2log).all()  # the rank that comes back is a new process, which knows no map


def test_a_map_of_before_a_rank_was_lost_holds_nothing_there():
    # Every expert has a replica elsewhere, so that the map may stay.
    left = Deployment(4, 8, 4, active=[True, True, True, False])
    in_use = Placement([[0, 1, 2, 3, 0, 1, 2, 3]], 4)
    for text in ("none", "periodic:interval=2"):
        found = hosted.next_map(parse_controller(text), np.ones((1, 4), np.int64), left, in_use, Broken(True).plan)
        assert found.phy2log.tolist() == [[0, 1, 2, 3, 0, 1, 0, 0]]
        assert found.ranks.tolist() == [[0, 0, 0, 0, 1, 1, -1, -1]]


@dataclass
class Broken:
    """A session that raises, or makes a map in which experts are nowhere."""

    raises: bool

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement:
        if self.raises:
            raise ZeroDivisionError("a defect of ours")
        return Placement(np.zeros_like(in_use.phy2log), EXPERTS)


@pytest.mark.parametrize("raises", [True, False])
def test_an_error_of_ours_is_one_line_of_log_and_the_host_goes_on(monkeypatch, asked_for, caplog, raises):
    asked_for(EPLB_GAP_CONTROLLER="periodic:interval=1")
    loads = drifting(5)
    in_use = asked(loads[0], None)
    model = hosted.MODELS[LAYERS, EXPERTS]
    working, model.session = model.session, Broken(raises)
    for weight in loads[1:4]:
        assert (asked(weight, in_use) == in_use).all()
    illegal = np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1))
    monkeypatch.setattr(hosted, "full_plan", Broken(True).plan)
    assert (asked(loads[4], illegal) != illegal).any()  # the plain planner's, relabelled
    why = "ZeroDivisionError: a defect of ours" if raises else "PlacementError: layer 0: expert 1 has no replica; .*"
    [line] = caplog.messages
    assert re.fullmatch(
        f"eplb-gap: controller periodic \\(interval 1\\) failed, the map in use stays if it is legal: {why}", line
    )
    model.session = working
    assert (asked(loads[4], in_use) != in_use).any()


def test_moves_are_reported(asked_for, caplog):
    asked_for(EPLB_GAP_CONTROLLER=BUDGETED)
    loads = drifting(6)
    in_use = contiguous_map(HIERARCHICAL, LAYERS).phy2log
    with caplog.at_level(logging.INFO, logger="eplb_gap"):
        for weight in loads:
            before, in_use = in_use, asked(weight, in_use)
    moves = moved(Placement(in_use, EXPERTS), Placement(before, EXPERTS), HIERARCHICAL)
    assert 0 < moves.sum() <= 0.05 * LAYERS * SLOTS
    kept = np.count_nonzero((in_use == before).all(axis=1))
    assert caplog.messages[-1] == (
        "controller budgeted (interval 2, window 3, moves 0.05), step 6: "
        f"{kept} of 2 layers keep their map, {moves.sum()} of 80 replicas move"
    )


def test_every_line_is_another_step_also_where_nothing_is_planned_and_behind_a_planned_map(asked_for, caplog, tmp_path):
    path, loads = tmp_path / "map.json", drifting(3)
    table = contiguous_map(HIERARCHICAL, LAYERS).phy2log
    path.write_text(json.dumps(table.tolist()))
    for text, label in (("none", "none"), (BUDGETED, "budgeted (interval 2, window 3, moves 0.05)")):
        caplog.clear()
        asked_for(EPLB_GAP_CONTROLLER=text, EPLB_GAP_MAP=str(path))
        hosted.MODELS.clear()
        planning.SERVED.clear()
        in_use = table
        with caplog.at_level(logging.INFO, logger="eplb_gap"):
            for weight in (loads[0], 0 * loads[0], loads[1], loads[2]):
                in_use = asked(weight, in_use)
        lines = [line.partition(": ")[0] for line in caplog.messages if line.startswith("controller")]
        assert lines == [f"controller {label}, step {step}" for step in (2, 3)]


def test_a_controller_is_warmed_up_and_the_state_survives_another_registration(asked_for):
    asked_for(EPLB_GAP_CONTROLLER=BUDGETED)
    prepare("vllm")
    assert not hosted.MODELS
    asked(drifting(1)[0], None)
    model = hosted.MODELS[LAYERS, EXPERTS]
    asked_for()
    prepare("vllm")
    asked(drifting(1)[0], None)
    assert hosted.MODELS[LAYERS, EXPERTS] is model
    assert model.steps == 2


@given(st.lists(st.floats(0, 1e300), min_size=2, max_size=6).filter(any), st.booleans())
@examples(max_examples=50, deadline=None)
def test_loads_keep_their_ratios_as_integers(values, integral):
    # Both kinds of hosts: sums as integers of any size, and floating-point ones.
    given_loads = np.minimum(values, 2.0**62).astype(np.int64) if integral else np.array(values)
    if not given_loads.any():
        return
    found = hosted.as_integers(given_loads)
    assert found.dtype == np.int64
    exact = [Fraction(value.item()) for value in given_loads]
    unit = max(exact) / int(found.max())
    for value, scaled in zip(exact, found.tolist(), strict=True):
        assert abs(value - scaled * unit) <= max(exact) / 2**30
    if integral and given_loads.max() <= hosted.LARGEST:
        assert (found == given_loads).all()
    assert found.max() <= hosted.LARGEST
