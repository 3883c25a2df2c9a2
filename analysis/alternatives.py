"""What other choices give on the windows of an explanation: fresher loads, another heuristic, more slots, a policy, a split.

One pair of windows alone says little: every alternative is measured on the pairs before it too, against the same method on the
same pair. An alternative that cannot be, because no such deployment exists or a map is not legal there, is left out, and it is
said why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.evaluate import makespan_imbalance, mean_loads, model_excess
from eplb_gap.analysis.windows import Windows
from eplb_gap.heuristics.registry import MOST_WINDOWS, planning_loads
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.validation import verify

FINER_METHOD = "fast-counts"
HISTORY_METHOD = "sample-average"
PAIRS = 12
"""Most pairs of windows on which alternatives are measured."""

Pair = tuple[np.ndarray, np.ndarray]
"""A history [windows, layers, experts] and the window that follows it."""


class Reached(NamedTuple):
    """The model's excess on a window, and the mean imbalance of its layers."""

    excess: Fraction
    imbalance: float


@dataclass(frozen=True)
class Alternative:
    """What another choice gives on the same serving window.

    Parameters
    ----------
    name, what : str
        Short name and how it was measured.
    excess : Fraction
        The model's excess on the explained serving window.
    gains : list of Fraction
        Excess that the method itself has, less the alternative's, for every pair of consecutive windows, the explained one last.
    is_limit : bool
        Whether nobody can plan so: it uses the loads that are served.
    imbalances : list of (float, float)
        Of every pair the :func:`eplb_gap.analysis.evaluate.makespan_imbalance` of the method itself, and the alternative's.
    """

    name: str
    what: str
    excess: Fraction
    gains: list[Fraction]
    is_limit: bool = False
    imbalances: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mean_gain(self) -> Fraction:
        """Mean of the gains."""
        return sum(self.gains, Fraction(0)) / len(self.gains)

    @property
    def wins(self) -> int:
        """Pairs in which the alternative has the smaller excess."""
        return sum(gain > 0 for gain in self.gains)


@dataclass(frozen=True)
class LeftOut:
    """An alternative, or a pair of windows, that could not be measured, and why."""

    name: str
    what: str
    why: str


def alternatives(windows: Windows, deployment: Deployment, method: str) -> tuple[list[Alternative], list[LeftOut]]:
    """Measure other choices on a pair of windows and on the pairs before it.

    Parameters
    ----------
    windows : Windows
    deployment : Deployment
    method : str
        Heuristic that alternatives are planned with and compared to.

    Raises
    ------
    PlacementError
        If the method's map of the explained planning window is not legal.
    """
    found: list[Alternative] = []
    left_out: list[LeftOut] = []
    pairs, base = _comparable(windows, deployment, method, left_out)

    def measure(name: str, what: str, choose: Callable[[np.ndarray, np.ndarray], Reached], limit: bool = False) -> None:
        try:
            reached = [choose(past, serving) for past, serving in pairs]
        except (InputError, PlacementError) as error:
            left_out.append(LeftOut(name, what, str(error)))
            return
        gains = [own.excess - new.excess for own, new in zip(base, reached, strict=True)]
        imbalances = [(own.imbalance, new.imbalance) for own, new in zip(base, reached, strict=True)]
        found.append(Alternative(name, what, reached[-1].excess, gains, limit, imbalances))

    measure(
        "fresher loads",
        f"`{method}` planned on the very loads it serves",
        lambda past, serving: _served(serving[None], serving, deployment, method),
        limit=True,
    )
    measure(
        "another heuristic",
        f"`{FINER_METHOD}` on the same window",
        lambda past, serving: _served(past, serving, deployment, FINER_METHOD),
    )
    more = deployment.num_slots + deployment.num_gpus
    measure(
        "more slots",
        f"`{method}` with {more} slots instead of {deployment.num_slots}",
        lambda past, serving: _served(past, serving, replace(deployment, num_slots=more), method),
    )
    if deployment.policy == "hierarchical":
        measure(
            "global policy",
            f"`{method}` without nodes and groups",
            lambda past, serving: _served(past, serving, deployment.as_global(), method),
        )
    measure(
        "token split",
        f"`{method}` on the same window, tokens shared as the served loads would have it",
        lambda past, serving: _shared(past, serving, deployment, method),
    )
    if len(windows.history) > 1:
        measure(
            "more robust loads",
            f"`{HISTORY_METHOD}` on up to {MOST_WINDOWS} past windows",
            lambda past, serving: _served(past, serving, deployment, HISTORY_METHOD),
        )
    return found, left_out


def _comparable(
    windows: Windows, deployment: Deployment, method: str, left_out: list[LeftOut]
) -> tuple[list[Pair], list[Reached]]:
    """Return the pairs on which the method's own maps are legal, the explained one last, and what it reaches on each."""
    history = windows.history
    earlier = [(history[: plan + 1], history[plan + 1]) for plan in range(len(history) - 1)][1 - PAIRS :]
    pairs: list[Pair] = []
    base: list[Reached] = []
    for past, serving in earlier:
        try:
            base.append(_served(past, serving, deployment, method))
        except PlacementError as error:
            left_out.append(LeftOut(f"window {len(past) - 1}", f"a pair of windows, planned with `{method}`", str(error)))
        else:
            pairs.append((past, serving))
    base.append(_served(history, windows.serving, deployment, method))
    return [*pairs, (history, windows.serving)], base


def _shared(history: np.ndarray, serving: np.ndarray, deployment: Deployment, method: str) -> Reached:
    """Plan on a history and return what is reached on other loads with the best token split there."""
    placed = heuristics.rebalance(planning_loads(method, history), deployment, method)
    return _reached(verify(placed, serving, deployment, optimal_split(placed, serving, deployment).shares), serving, deployment)


def _served(history: np.ndarray, serving: np.ndarray, deployment: Deployment, method: str) -> Reached:
    """Plan on a history and return what is reached on other loads."""
    placed = heuristics.rebalance(planning_loads(method, history), deployment, method)
    return _reached(verify(placed, serving, deployment), serving, deployment)


def _reached(makespans: list[Fraction], serving: np.ndarray, deployment: Deployment) -> Reached:
    means = mean_loads(serving, deployment)
    return Reached(model_excess(makespans, means), makespan_imbalance(makespans, means))
