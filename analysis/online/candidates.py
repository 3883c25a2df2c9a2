"""Which controllers a calibration tries, in two rounds, so that their number and length are bounded whatever the recording is."""

from __future__ import annotations

from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment

MOST_STEPS = 1200
"""Steps that are chosen on: the last so many of the first part, where it has more."""
MOST_DECISIONS = 120
"""Most decisions of a candidate on the steps that are chosen on: no interval is shorter than that takes."""
PARTS = 4
"""Windows and intervals are at most this part of the steps that are chosen on; so much is warm-up for every candidate."""
DOUBLINGS = 3
"""Windows are one interval, two, four, ... so many times doubled."""
MOVES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Parts of all replicas that may move at a decision."""
BURST = 0.1
"""Part of all replicas whose moves can be saved for later decisions, where they can be."""
GAINS = (0.02, 0.05, 0.1)
"""Parts of its makespan that a layer must gain to be changed."""
BELOW = (0.0, 0.03)
"""Thresholds of balancedness are what re-planning at every interval served, less these."""
FULL_METHODS = ("sample-average",)
"""Heuristics of full re-plans that are tried beside the default one."""

Rung = tuple[int, int]
"""Interval and window."""


def rungs(steps: int) -> list[Rung]:
    """Return the intervals, 1, 2, 5, 10, ... within the limits, each with its windows.

    Parameters
    ----------
    steps : int
        That are chosen on.

    Examples
    --------
    >>> from eplb_gap.analysis.online.candidates import rungs
    >>> rungs(16)
    [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4)]
    """
    most = steps // PARTS
    least = min(max(1, steps // MOST_DECISIONS), most)
    series = [digit * 10**power for power in range(len(str(most))) for digit in (1, 2, 5)]
    return [
        (interval, interval << doubled)
        for interval in series
        if least <= interval <= most
        for doubled in range(DOUBLINGS + 1)
        if interval << doubled <= most
    ]


def unconditional(steps: int) -> list[Controller]:
    """Return what is tried in any case: no EPLB and one map for ever."""
    return [Controller("none"), Controller("static", interval=steps // PARTS)]


def first_round(steps: int) -> list[Controller]:
    """Return what does not depend on other results: beside these, full re-plans at every interval and window."""
    return [
        *unconditional(steps),
        *(_periodic(interval, window) for interval, window in rungs(steps)),
    ]


def second_round(steps: int, served: dict[Rung, float], deployment: Deployment) -> list[Controller]:
    """Return what limits moves, with the window that served best at its interval and one twice as long.

    Parameters
    ----------
    steps : int
        That are chosen on.
    served : dict
        Balancedness of full re-plans by interval and window.
    deployment : Deployment
        Methods that refuse it are left out.
    """
    methods = [name for name in FULL_METHODS if get_method(name).plans(deployment.live)]
    found = []
    for interval in dict.fromkeys(interval for interval, _ in served):
        window = max((rung for rung in served if rung[0] == interval), key=lambda rung: served[rung])[1]
        for width in (window, 2 * window):
            if width > steps // PARTS:
                continue
            found += [_periodic(interval, width, method) for method in methods]
            found += [Controller("budgeted", interval=interval, window=width, moves=part) for part in MOVES]
        found += [Controller("budgeted", interval=interval, window=window, moves=part, gain=GAINS[1]) for part in MOVES[1:-1]]
        found += [Controller("budgeted", interval=interval, window=window, moves=part, burst=BURST) for part in MOVES[:-1]]
        found += [Controller("threshold", interval=interval, window=window, gain=gain) for gain in GAINS]
        reached = round(served[interval, window], 2)
        levels = dict.fromkeys(round(max(0.0, reached - less), 2) for less in BELOW)
        found += [Controller("threshold", interval=interval, window=window, below=level) for level in levels if level < 1]
        found += [Controller("adaptive", interval=interval, moves=part) for part in (None, *MOVES[1:-1])]
    return [one for one in found if KINDS[one.kind].first_decision(one) <= steps // PARTS]


def _periodic(interval: int, window: int, method: str = "fast") -> Controller:
    return Controller("periodic", interval=interval, window=window, method=method)
