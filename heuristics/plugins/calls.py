"""The one place that every call of a host passes: ours is planned and checked, or the host's own policy answers; then recorded.

*Ranks.* Hosts let every rank plan for itself, from loads that were summed over all ranks before, and broadcast nothing: two ranks
with two maps would exchange the wrong weights. What a call is answered with is therefore a function of the call, of the settings,
which are read once, and of the calls before. An error that follows from these comes on every rank at once, and every rank falls
back on the same policy of the host. What can come on one rank alone, as memory that runs out, or settings that differ because a
launcher did not pass the environment on, no rank can see by itself: a host whose ranks can be asked, as vLLM's can and SGLang's
that are not elastic, hands over ``agree``, and where they differ all take the host's own answer; for the others the digest
of the settings in the log must do. Integers are summed exactly on every machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from eplb_gap.heuristics.plugins import hosted
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.planning import planned_map, rehearse, replan
from eplb_gap.heuristics.plugins.recording import record_call
from eplb_gap.heuristics.plugins.settings import Settings, settings
from eplb_gap.heuristics.tiers import KERNELS, begin
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check

LOG = logging.getLogger("eplb_gap")
T = TypeVar("T")
DIFFERENT = "ranks come to different maps; do all have the same EPLB_GAP_ settings?"


@dataclass(frozen=True)
class Call:
    """What a host hands over, checked.

    Parameters
    ----------
    history : ndarray [layers, experts] or [samples, layers, experts]
        Loads since the last call, int64 or float64; a history oldest sample first.
    deployment : Deployment
    in_use : Placement or None
        The map in use, of the same shape, which need not be legal; None if the host doesn't say.
    """

    history: np.ndarray
    deployment: Deployment
    in_use: Placement | None


def answer(
    host: str,
    read: Callable[[], Call],
    ours: Callable[[Placement], T],
    own: Callable[[], T],
    table: Callable[[T], Any],
    agree: Callable[[Placement | None], bool] | None = None,
    rank: int | None = None,
) -> T:
    """Return what a host's call is answered with; only an error of the host's own policy is raised.

    Parameters
    ----------
    host : str
        Name of the host's distribution, as "vllm".
    read : callable
        Makes a :class:`Call` of the host's arguments.
    ours : callable
        Makes the host's kind of answer of a legal map.
    own : callable
        The answer of the host's own policy, without arguments.
    table : callable
        The map [layers, slots] of an answer, for the record.
    agree : callable, optional
        Whether all ranks have the same map, given this one's, or None where it has none; called exactly once in every call.
    rank : int, optional
        For the record, where this process cannot know it.
    """
    call, found, answered = None, None, None
    try:
        call = read()
        found = _planned(call, settings())
        answered = None if found is None else ours(found)
    except Exception as error:
        found = None
        COMPLAINTS.say(f"{host}'s own policy answers", error)
    if agree is not None and not agree(found):
        if found is not None:
            COMPLAINTS.say(f"{host}'s own policy answers", DIFFERENT)
        found = None
    result = own() if found is None or answered is None else answered
    if call is not None:
        record_call(host, call.history, call.deployment, call.in_use, _quietly(table, result), rank=rank)
    return result


def prepare(host: str) -> None:
    """Do what can be done before there is traffic: read the settings, say them, and warm up what they ask for.

    Raises
    ------
    InputError
        As :func:`eplb_gap.heuristics.plugins.settings.settings`.
    """
    LOG.info("eplb-gap plans for %s: %s", host, settings().summary)
    warm_up()


def warm_up() -> None:
    """Load or compile what the settings ask for, on a small model; a failure is a line of the log.

    Compiling takes some seconds once for a machine, and Python's lock for a quarter of one at a time; what can be interpreted
    meanwhile another process compiles (:mod:`eplb_gap.heuristics.tiers`).
    """
    try:
        asked = settings()
    except InputError:  # no call will plan, and each says why
        return
    try:
        if asked.controller is not None:
            hosted.warm_up(asked.controller)
        elif asked.method is not None:
            rehearse(asked.method)
        else:
            return
        begin(KERNELS)
    except Exception as error:
        COMPLAINTS.say("warming up failed, the first plan may take longer", error)


def _planned(call: Call, asked: Settings) -> Placement | None:
    """Return our answer, checked; None where the host's own policy is asked for."""
    layers = call.history.shape[-2]
    found = planned_map(call.history, call.deployment, asked)
    if found is None:
        if asked.method is None:
            return None
        found = replan(call.history, call.deployment, call.in_use)
    if found.num_layers != layers:
        raise InputError(f"the plan has {found.num_layers} layers; the model has {layers}")
    check(found, call.deployment.as_global())  # groups may be split as long as they are in the map in use
    return found


def _quietly(table: Callable[[T], Any], result: T) -> Any:
    try:
        return table(result)
    except Exception:  # the host's own policy may answer anything; the record then lacks it
        return None
