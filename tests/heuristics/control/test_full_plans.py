"""Controllers whose method improves the map in use: they start from it, and from the host's own where it is not whole."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.control.kinds import ROUND_ROBIN, full_plan
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.problem import Deployment, Placement

DEPLOYMENT = Deployment(64, 80, 16)
STEPS = np.random.default_rng(7).poisson(np.exp(np.random.default_rng(8).normal(size=(6, 3, 64))) * 100)
IN_USE = rebalance(STEPS[0], DEPLOYMENT)
SWIFT = Controller("periodic", method="swift-balance")


def test_it_starts_from_the_map_in_use_and_moves_less_than_a_plan_made_anew():
    found = full_plan(SWIFT, STEPS[1:], IN_USE, DEPLOYMENT)
    expected = rebalance(STEPS[1:], DEPLOYMENT, "swift-balance", previous=IN_USE)
    assert (found.phy2log == expected.phy2log).all()
    anew = full_plan(Controller("periodic", method="vllm-default"), STEPS[1:], IN_USE, DEPLOYMENT)
    assert (moved(found, IN_USE, DEPLOYMENT) < moved(anew, IN_USE, DEPLOYMENT)).all()


def test_a_map_in_use_that_lost_experts_is_planned_anew():
    broken = Placement(np.zeros_like(IN_USE.phy2log), 64)
    found = full_plan(SWIFT, STEPS, broken, DEPLOYMENT)
    anew = rebalance(STEPS, DEPLOYMENT, "swift-balance")
    assert (found.phy2log == relabel(anew, broken, DEPLOYMENT).phy2log).all()


def test_layers_in_turn_are_improved_alone():
    controller = Controller("round-robin", interval=1, window=3, layers=1, decay=1.0, method="swift-balance")
    session = ROUND_ROBIN.start(controller, DEPLOYMENT)
    first = session.plan(STEPS[:3], IN_USE)
    second = session.plan(STEPS[:4], first)
    assert (first.phy2log != IN_USE.phy2log).any(axis=1).tolist() == [True, False, False]
    assert (second.phy2log != first.phy2log).any(axis=1).tolist() == [False, True, False]
    expected = rebalance(STEPS[:3, :1], DEPLOYMENT, "swift-balance", previous=Placement(IN_USE.phy2log[:1], 64))
    assert (first.phy2log[0] == expected.phy2log[0]).all()
