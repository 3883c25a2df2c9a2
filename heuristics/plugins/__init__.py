"""Policies for serving systems that take one from outside; what all of them share.

A system starts a plug-in without arguments, so its settings come from the environment and are read in every call:

=======================  ===============================================================================================
``EPLB_GAP_METHOD``      key of :data:`eplb_gap.heuristics.METHODS`; without it "fast"; with "host" the host's own policy answers
``EPLB_GAP_CONFIG``      path of a configuration to run in place of a named method (:mod:`eplb_gap.heuristics.config_file`)
``EPLB_GAP_THRESHOLD``   least part of its largest GPU load that a layer must gain to be changed, as "0.02"; without it any gain
``EPLB_GAP_CONTROLLER``  controller of :mod:`eplb_gap.heuristics.control` in place of these three, as for ``eplb-gap replay``:
                         ``budgeted:interval=2,window=4,moves=0.02``, or a TOML file of one ``[[controller]]``; what a step of
                         it is in a server: :mod:`eplb_gap.heuristics.plugins.hosted`
``EPLB_GAP_THREADS``     threads of the method "fast" and its kin (:mod:`eplb_gap.heuristics.planner.fast`); without it one
``EPLB_GAP_INTERPRET``   "0" compiles before the first answer, in this process (:mod:`eplb_gap.heuristics.tiers`)
``EPLB_GAP_RECORD``      folder that every call is recorded in, under any method (:mod:`eplb_gap.heuristics.plugins.recording`)
``EPLB_GAP_RECORD_MB``   megabytes that the folder may hold, the oldest calls removed; without it 512
=======================  ===============================================================================================

An empty value is none. Every rank of a server plans for itself and must come to the same map: all need the same settings.
"""

from __future__ import annotations

import logging
import math
import os
from functools import partial

import numpy as np

from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.heuristics.moves.relabel import adopt_where_better, moved, relabel
from eplb_gap.heuristics.plugins.hosted import controller_from, next_map, warm_up
from eplb_gap.heuristics.registry import DEFAULT_METHOD, choose, in_windows
from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement

METHOD, CONFIG, THRESHOLD = "EPLB_GAP_METHOD", "EPLB_GAP_CONFIG", "EPLB_GAP_THRESHOLD"
CONTROLLER = "EPLB_GAP_CONTROLLER"
LOG = logging.getLogger("eplb_gap")


def settings() -> tuple[Heuristic, float, Controller | None]:
    """Return the heuristic, the threshold and the controller that the environment asks for.

    Raises
    ------
    InputError
        Naming the variable that is not what it must be, or two that exclude each other.
    """
    try:
        method = choose(os.environ.get(METHOD) or DEFAULT_METHOD, os.environ.get(CONFIG) or None)
    except InputError as error:
        raise InputError(f"{METHOD} or {CONFIG}: {error}") from None
    text = os.environ.get(THRESHOLD) or "0"
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0.0 <= threshold < math.inf:
        raise InputError(f"{THRESHOLD} is {text!r}; a finite number of at least 0 is needed")
    return method, threshold, _controller()


def prepare() -> None:
    """Do what can be done before there is traffic: check the settings, and warm a controller up.

    Raises
    ------
    InputError
        As :func:`settings`.
    """
    controller = settings()[2]
    if controller is not None:
        warm_up(controller)


def _controller() -> Controller | None:
    text = os.environ.get(CONTROLLER)
    if not text:
        return None
    for name in (METHOD, CONFIG, THRESHOLD):
        if os.environ.get(name):
            raise InputError(f"{CONTROLLER} is {text!r} and {name} is set too; a controller says itself what it runs: unset one")
    try:
        return controller_from(text)
    except InputError as error:
        raise InputError(f"{CONTROLLER}: {error}") from None


def replan(weight: np.ndarray, deployment: Deployment, previous: Placement | None) -> Placement:
    """Plan anew and, where a map is in use, move no more replicas than the better balance needs; or ask a controller.

    Parameters
    ----------
    weight : ndarray [layers, experts] or [samples, layers, experts]
        Checked loads, int64 or float64; a history, oldest sample first, is summed, or for a method such as "sample-average"
        summed into :data:`eplb_gap.heuristics.registry.MOST_WINDOWS` windows.
    deployment : Deployment
        Dead GPUs are left out of the plan and get filler.
    previous : Placement or None
        The map in use, of the same shape.

    Raises
    ------
    InputError
        If the environment is not what :func:`settings` needs, or the heuristic refuses loads or deployment.
    """
    method, threshold, controller = settings()
    plain = partial(_plain, weight, deployment, previous, method, threshold)
    return plain() if controller is None else next_map(controller, weight, deployment, previous, plain)


def _plain(
    weight: np.ndarray, deployment: Deployment, previous: Placement | None, method: Heuristic, threshold: float
) -> Placement:
    """Plan on this call alone."""
    if weight.ndim == 3:
        weight = in_windows(weight.astype(np.float64)) if method.history else weight.sum(axis=0, dtype=np.float64)
    planned = with_dead(method(weight, deployment.live), deployment)
    if previous is None:
        return planned
    adopted = adopt_where_better(relabel(planned, previous, deployment), previous, weight, deployment, threshold)
    if LOG.isEnabledFor(logging.INFO):
        _report(adopted, planned, previous, deployment)
    return adopted


def _report(adopted: Placement, planned: Placement, previous: Placement, deployment: Deployment) -> None:
    changed = (adopted.phy2log != previous.phy2log).any(axis=1)
    LOG.info(
        "%d of %d layers keep their map; in the others %d of %d replicas move, without relabelling %d would",
        np.count_nonzero(~changed),
        changed.size,
        moved(adopted, previous, deployment).sum(),
        np.count_nonzero(changed) * deployment.num_slots,
        moved(planned, previous, deployment)[changed].sum(),
    )
