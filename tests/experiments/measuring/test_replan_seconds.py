"""Times of re-plans: the layers asked for, from the maps of the windows before, within the share."""

from __future__ import annotations

import time

import numpy as np
import pytest

from eplb_gap.experiments.measuring import replan_seconds as module
from eplb_gap.experiments.measuring.replan_seconds import replan_seconds
from eplb_gap.heuristics.environment import INTERPRET
from eplb_gap.heuristics.planner.fast import plan
from eplb_gap.problem import Deployment, InputError


def test_warm_calls_alone_are_timed_and_every_pair_of_windows_gives_its_layers(monkeypatch):
    monkeypatch.setenv(INTERPRET, "1")
    deployment = Deployment(4, 6, 3)
    windows = np.random.default_rng(0).integers(1, 100, (3, 2, 4))
    clock, asked = [0.0], []

    def replan(loads, of, in_use, total_moves):
        assert of == deployment
        asked.append((loads, in_use, total_moves))
        clock[0] += (100.0, 10.0, 3.0, 1.0, 2.0)[len(asked) - 1]

    monkeypatch.setattr(module, "replan", replan)
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    assert replan_seconds(windows, deployment, 5, 0.1, calls=3) == (2.0, 1.0, (3.0, 1.0, 2.0))
    for loads, in_use, total in asked:
        assert (loads == np.concatenate([windows[1], windows[2], windows[1][:1]])).all()
        assert (in_use.phy2log[2:4] == plan(windows[1], deployment).phy2log).all()
        assert total == 3  # of 5 x 6 replicas
    with pytest.raises(InputError, match="windows has 1 windows; at least 2"):
        replan_seconds(windows[:1], deployment, 5, 0.1)
