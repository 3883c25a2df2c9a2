"""Where the serving window's balance is lost: one telescoping chain of makespans from the mean to the planned map.

All makespans are on the loads that are *served*; the excess of a makespan is ``makespan / mean - 1``. Between two neighbours of

    mean <= global optimum <= hierarchical optimum, method replanned, planned counts reassigned, map planned on the history with
    the best division of tokens, planned map with the best division, planned map

lies one reason. The order is from what no map can help over what a plan can to what a dispatcher can: every step undoes one
more decision of those that come before it in time. The *best division* of tokens over the replicas of an expert is the one that
the served loads would have, a dispatcher's limit; elsewhere every replica gets the same share, so that the step to the
history's map changes the map and the shares at once, and what the assignment costs with even shares throughout is the sum of
the last three. The *history* map is the sample-average one. Where an optimum is known as an interval only, the upper value is
used. Steps can be negative: a map planned on other loads may by chance serve better than the method's own plan. Sums are exact:
everything is a fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.alternatives import HISTORY_METHOD, Alternative, LeftOut, alternatives
from eplb_gap.analysis.evaluate import SECONDS, TARGET_GAP, mean_loads, model_excess, planned_on
from eplb_gap.analysis.windows import Windows
from eplb_gap.heuristics.registry import DEFAULT_METHOD, planning_loads
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.fractions import fraction
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify, verify_split
from eplb_gap.solvers.serving.fixed_counts import best_assignment


@dataclass(frozen=True)
class Step:
    """One reason of the excess: what lies between two neighbouring makespans of the chain.

    Parameters
    ----------
    key : str
        Name of the reason, for figures and tables.
    start, end : str
        Keys of the :class:`Level` before and of the one after.
    label : str
        The reason in words.
    """

    key: str
    start: str
    end: str
    label: str


STEPS = (
    Step("integrality", "mean", "global", "integrality and slots"),
    Step("hierarchy", "global", "hierarchical", "price of the hierarchy"),
    Step("packing", "hierarchical", "replanned", "packing gap of the method"),
    Step("counts", "replanned", "reassigned", "replica counts out of date"),
    Step("assignment", "reassigned", "history", "assignment out of date"),
    Step("history", "history", "split", "older windows not used"),
    Step("sharing", "split", "planned", "even shares, not the best division"),
)
"""The steps of the chain in order.

The last two are what the planned map loses by not using windows before the last, negative where those mislead, and by dividing
the tokens of an expert evenly over its replicas.
"""


@dataclass(frozen=True)
class Level:
    """One makespan of the chain.

    Parameters
    ----------
    key : str
        Where a step of :data:`STEPS` starts or ends.
    upper, lower : list of Fraction
        Per layer, in tokens; ``lower`` is the bound of an optimum, equal to ``upper`` for what is exact.
    proof : list of str
        What the bound of a solved optimum rests on, per layer (:attr:`eplb_gap.Solution.proof`); empty where nothing was solved.
    """

    key: str
    upper: list[Fraction]
    lower: list[Fraction]
    proof: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """The chain of one pair of windows.

    Parameters
    ----------
    deployment : Deployment
    map_name, method : str
        What was planned with, and the method that is replanned on the serving window.
    plan_window, serve_window : int
    levels : list of Level
        From the mean to the planned map.
    alternatives : list of Alternative
    left_out : list of LeftOut
        What could not be measured.
    """

    deployment: Deployment
    map_name: str
    method: str
    plan_window: int
    serve_window: int
    levels: list[Level]
    alternatives: list[Alternative] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def mean(self) -> list[Fraction]:
        """Mean GPU load of every layer on the serving window."""
        return self.levels[0].upper

    def total(self, makespans: list[Fraction]) -> Fraction:
        """Return the model's excess on the serving window, see :func:`model_excess`."""
        return model_excess(makespans, self.mean)

    def layer_steps(self, layer: int) -> dict[str, Fraction]:
        """Return by its key the excess that each step adds in a layer; zero in a layer without load."""
        mean = self.mean[layer]
        reached = {level.key: level.upper[layer] for level in self.levels}
        return {step.key: (reached[step.end] - reached[step.start]) / mean if mean else Fraction(0) for step in STEPS}

    def steps(self) -> dict[str, Fraction]:
        """Return by its key the excess that each step adds to the model's."""
        reached = {level.key: self.total(level.upper) for level in self.levels}
        return {step.key: reached[step.end] - reached[step.start] for step in STEPS}

    def excess(self) -> Fraction:
        """Return the model's excess of the planned map."""
        return self.total(self.levels[-1].upper)


def explain(
    trace: LoadTrace,
    deployment: Deployment,
    planned: Placement | str = "fast",
    method: str | None = None,
    *,
    plan_window: int | None = None,
    serve_window: int | None = None,
    name: str | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Say where the balance of the serving window is lost, step by step, and what other choices would give.

    Parameters
    ----------
    trace : LoadTrace
        Two windows or more.
    deployment : Deployment
        Dead GPUs are left out; the live ones have equally many slots.
    planned : Placement or str, default "fast"
        The map that serves, or the heuristic (a key of :data:`eplb_gap.HEURISTICS`) that plans it.
    method : str, optional
        Heuristic that is replanned on the serving window and that alternatives are planned with; by default the one of
        ``planned``, or "fast".
    plan_window, serve_window : int, optional
        By default the last but one and the last, or the one behind the planning window.
    name : str, optional
        What to call the map.
    progress : callable, optional
        Called with what is being done.

    Returns
    -------
    Explanation
        :func:`eplb_gap.analysis.verdict.verdict` says it in words.

    Raises
    ------
    InputError
        If a window does not exist, the loads do not fit the deployment, or live GPUs have unequal slots.
    PlacementError
        If the map is not legal for the deployment.

    Examples
    --------
    >>> from eplb_gap import Deployment, LoadTrace, Placement, explain
    >>> trace = LoadTrace([[[6, 2, 1, 1]], [[2, 6, 1, 1]]])  # two windows of one layer with four experts
    >>> found = explain(trace, Deployment(4, 6, 2), Placement([[0, 2, 3, 0, 1, 1]], 4))
    >>> str(found.excess())  # the fuller GPU carries 7 where the mean is 5
    '2/5'
    >>> sum(found.steps().values()) == found.excess()
    True
    """
    require_kind("deployment", deployment, Deployment)
    windows = Windows.of(trace, plan_window, serve_window)
    own = planned if isinstance(planned, str) else None
    placed = planned_on(windows, deployment, planned) if isinstance(planned, str) else planned
    return explain_map(windows, deployment, placed, name or own or "map", method or own or DEFAULT_METHOD, progress)


def explain_map(
    windows: Windows,
    deployment: Deployment,
    planned: Placement,
    map_name: str,
    method: str,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Take the serving window's excess apart and measure what other choices would give.

    Parameters
    ----------
    windows : Windows
        Loads that were planned on and loads that are served.
    deployment : Deployment
    planned : Placement
        The map that serves; legal.
    map_name : str
        What to call it.
    method : str
        Heuristic that is replanned on the serving window and that alternatives are planned with.
    progress : callable, optional
        Called with what is being done.

    Raises
    ------
    InputError
        If live GPUs have unequal slots, or the method's own map of the serving window is not legal for the deployment.
    PlacementError
        If the map is not legal for the deployment.
    InputError
        If live GPUs have unequal slots, on which not every step of the chain can be planned.
    """
    sample_average.prepare()
    result = decompose(windows, deployment, planned, map_name, method, progress)
    progress("alternatives")
    found, left_out = alternatives(windows, deployment.live, method)
    return replace(result, alternatives=found, left_out=left_out)


def decompose(
    windows: Windows,
    deployment: Deployment,
    planned: Placement,
    map_name: str,
    method: str,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Return the chain of makespans alone; arguments and errors as of :func:`explain_map`."""
    serving, live = windows.serving, deployment.live
    live.require_regular("an explanation")
    verify(planned, serving, deployment)  # names slots as the map does, before the dead GPUs are left out
    held = without_dead(planned, deployment)
    reached = verify(held, serving, live)
    mean = mean_loads(serving, live)
    progress("global optimum")
    flat = solvers.solve(serving, live.as_global(), target_gap=TARGET_GAP, time_limit=SECONDS)
    levels = [Level("mean", mean, mean), Level("global", flat.upper, flat.lower, flat.proof)]
    progress("hierarchical optimum")
    own = flat
    if live.policy == "hierarchical":
        own = solvers.solve(serving, live, target_gap=TARGET_GAP, time_limit=SECONDS)
    levels.append(Level("hierarchical", own.upper, own.lower, own.proof))
    progress("the method on the serving window")
    replanned = _replanned(serving, live, method)
    levels.append(Level("replanned", replanned, replanned))
    progress("the planned counts, assigned anew")
    assigned = best_assignment(held, serving, live)
    levels.append(Level("reassigned", assigned.upper, assigned.lower))
    progress("token split")
    robust = heuristics.rebalance(planning_loads(HISTORY_METHOD, windows.history), live, HISTORY_METHOD)
    verify(robust, serving, live)
    for key, placed in (("history", robust), ("split", held)):
        levels.append(Level(key, *verify_split(placed, optimal_split(placed, serving, live), serving, live)))
    levels.append(Level("planned", reached, reached))
    return Explanation(live, map_name, method, windows.plan_window, windows.serve_window, levels)


def _replanned(serving: np.ndarray, deployment: Deployment, method: str) -> list[Fraction]:
    """Return the makespans of the method's own map of the serving window."""
    placed = heuristics.rebalance(serving, deployment, method)
    try:
        return verify(placed, serving, deployment)
    except PlacementError as error:
        raise InputError(
            f"method is {method!r}, whose map of the serving window is not legal for this deployment ({error}); "
            "a method whose maps are is needed"
        ) from None


def summary(result: Explanation, layer_ids: list[int]) -> dict[str, Any]:
    """Return an explanation as JSON-ready data; exact values are "p/q"."""

    def exact(values: dict[str, Fraction]) -> dict[str, str]:
        return {step.label: fraction(values[step.key]) for step in STEPS}

    steps = result.steps()
    return {
        "map": result.map_name,
        "method": result.method,
        "plan_window": result.plan_window,
        "serve_window": result.serve_window,
        "policy": result.deployment.policy,
        "excess": fraction(result.excess()),
        "excess_percent": 100 * float(result.excess()),
        "steps": exact(steps),
        "steps_points": {step.label: 100 * float(steps[step.key]) for step in STEPS},
        "layers": [
            {
                "layer": identifier,
                "steps": exact(result.layer_steps(row)),
                "makespans": {level.key: fraction(level.upper[row]) for level in result.levels},
                "bounds": {level.key: fraction(level.lower[row]) for level in result.levels},
            }
            for row, identifier in enumerate(layer_ids)
        ],
        "alternatives": [
            {
                "name": alternative.name,
                "what": alternative.what,
                "is_limit": alternative.is_limit,
                "excess_percent": 100 * float(alternative.excess),
                "mean_gain_points": 100 * float(alternative.mean_gain),
                "wins": alternative.wins,
                "pairs": len(alternative.gains),
            }
            for alternative in result.alternatives
        ],
        "left_out": [{"name": left.name, "what": left.what, "why": left.why} for left in result.left_out],
    }
