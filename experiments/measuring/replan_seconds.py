"""CPU time of a re-plan within a number of moves: warm and on one thread; what a busy machine does beside it counts little."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.planner.fast import plan
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError


class ReplanSeconds(NamedTuple):
    """CPU seconds of one call: median and least of all calls, and those of every call."""

    median: float
    least: float
    all: tuple[float, ...]


def replan_seconds(windows: np.ndarray, deployment: Deployment, layers: int, share: float, calls: int = 30) -> ReplanSeconds:
    """Time re-plans of a model's layers from the map that was planned on the window before.

    Parameters
    ----------
    windows : ndarray
        Loads of successive windows, int64 [windows, layers, experts]. The layers of every pair of successive windows stand side
        by side, as often as it takes to be so many as are asked for.
    deployment : Deployment
    layers : int
        Layers of the model.
    share : float
        Part of all replicas that may move, from 0 to 1.
    calls : int, default 30
        Timed calls, after one that compiles and one that warms up.

    Raises
    ------
    InputError
        If there are fewer than two windows.
    """
    if len(windows) < 2:
        raise InputError(f"windows has {len(windows)} windows; at least 2 are needed: to plan on, and to re-plan on")
    compile_first()
    before, after = (np.resize(part, (layers, part.shape[-1])) for part in (windows[:-1], windows[1:]))
    in_use = plan(before, deployment)
    total = int(share * in_use.phy2log.size)
    seconds = []
    for call in range(calls + 2):
        began = time.process_time()
        replan(after, deployment, in_use, total_moves=total)
        if call > 1:
            seconds.append(time.process_time() - began)
    return ReplanSeconds(median(seconds), min(seconds), tuple(seconds))
