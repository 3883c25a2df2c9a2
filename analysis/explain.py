"""Where the serving window's balance is lost: one telescoping chain of makespans from the mean to the planned map.

All makespans are on the loads that are *served*; the excess of a makespan is ``makespan / mean - 1``. Between two neighbours of

    mean <= global optimum <= hierarchical optimum, method replanned, planned counts reassigned, map planned on the history and
    shared by split, planned map shared by split, planned map

lies one reason. A map is *shared by split* when tokens are divided over the replicas of an expert as the served loads would have
it, a dispatcher's limit; elsewhere every replica gets the same share. The *history* map is the sample-average one. Where an
optimum is known as an interval only, the upper value is used. Steps can be negative: a map planned on other loads may by chance
serve better than the method's own plan. Sums are exact: everything is a fraction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.evaluate import SECONDS, TARGET_GAP, mean_loads
from eplb_gap.analysis.windows import Split
from eplb_gap.experiments.measuring.rows import fraction
from eplb_gap.heuristics.registry import MOST_WINDOWS, planning_loads
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.heuristics.serving.token_split import optimal_split
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.shares import verify_shares, verify_split
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.serving.fixed_counts import best_assignment

FINER_METHOD = "fast-counts"
PAIRS = 12
"""Most pairs of windows on which alternatives are measured."""
STEPS = {
    "global": "integrality and slots",
    "hierarchical": "price of the hierarchy",
    "replanned": "packing gap of the method",
    "reassigned": "replica counts out of date",
    "history": "assignment out of date",
    "split": "history",
    "planned": "shared by split",
}
"""Name of the step that ends at each makespan of the chain.

The last two are what the planned map loses by not using the history, negative where history misleads, and by sharing evenly.
"""
HISTORY_METHOD = "sample-average"


@dataclass(frozen=True)
class Level:
    """One makespan of the chain.

    Parameters
    ----------
    key : str
        "mean" or a key of :data:`STEPS`.
    upper, lower : list of Fraction
        Per layer, in tokens; ``lower`` is the proven bound of an optimum, equal to ``upper`` for what is exact.
    """

    key: str
    upper: list[Fraction]
    lower: list[Fraction]


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
    """

    name: str
    what: str
    excess: Fraction
    gains: list[Fraction]
    is_limit: bool = False

    @property
    def mean_gain(self) -> Fraction:
        """Mean of the gains."""
        return sum(self.gains, Fraction(0)) / len(self.gains)

    @property
    def wins(self) -> int:
        """Pairs in which the alternative has the smaller excess."""
        return sum(gain > 0 for gain in self.gains)


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
    """

    deployment: Deployment
    map_name: str
    method: str
    plan_window: int
    serve_window: int
    levels: list[Level]
    alternatives: list[Alternative]

    @property
    def mean(self) -> list[Fraction]:
        """Mean GPU load of every layer on the serving window."""
        return self.levels[0].upper

    def total(self, makespans: list[Fraction]) -> Fraction:
        """Return the model's excess on the serving window, see :func:`model_excess`."""
        return model_excess(makespans, self.mean)

    def layer_steps(self, layer: int) -> dict[str, Fraction]:
        """Return the excess that each step adds in a layer; zero in a layer without load."""
        mean = self.mean[layer]
        if not mean:
            return dict.fromkeys(STEPS, Fraction(0))
        pairs = zip(self.levels, self.levels[1:], strict=False)
        return {after.key: (after.upper[layer] - before.upper[layer]) / mean for before, after in pairs}

    def steps(self) -> dict[str, Fraction]:
        """Return the excess that each step adds to the model's."""
        pairs = zip(self.levels, self.levels[1:], strict=False)
        return {after.key: self.total(after.upper) - self.total(before.upper) for before, after in pairs}

    def excess(self) -> Fraction:
        """Return the model's excess of the planned map."""
        return self.total(self.levels[-1].upper)


def model_excess(makespans: list[Fraction], means: list[Fraction]) -> Fraction:
    """Return ``sum of makespans / sum of means - 1``: the layers' excesses, weighted by their mean loads; 0 without load."""
    weight = sum(means, Fraction(0))
    return sum(makespans, Fraction(0)) / weight - 1 if weight else Fraction(0)


def explain(
    split: Split,
    deployment: Deployment,
    planned: Placement,
    map_name: str,
    method: str,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Take the serving window's excess apart and measure what other choices would give.

    Parameters
    ----------
    split : Split
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
    PlacementError
        If the map is not legal for the deployment.
    """
    sample_average.prepare()
    result = decompose(split, deployment, planned, map_name, method, progress)
    progress("alternatives")
    return replace(result, alternatives=_alternatives(split, deployment, method))


def decompose(
    split: Split,
    deployment: Deployment,
    planned: Placement,
    map_name: str,
    method: str,
    progress: Callable[[str], None] = lambda what: None,
) -> Explanation:
    """Return the chain of makespans alone; arguments and errors as of :func:`explain`."""
    serving = split.serving
    reached = verify(planned, serving, deployment)
    mean = mean_loads(serving, deployment)
    progress("global optimum")
    flat = solvers.solve(serving, deployment.as_global(), target_gap=TARGET_GAP, time_limit=SECONDS)
    levels = [Level("mean", mean, mean), Level("global", flat.upper, flat.lower)]
    progress("hierarchical optimum")
    own = flat
    if deployment.policy == "hierarchical":
        own = solvers.solve(serving, deployment, target_gap=TARGET_GAP, time_limit=SECONDS)
    levels.append(Level("hierarchical", own.upper, own.lower))
    progress("the method on the serving window")
    replanned = verify(heuristics.rebalance(serving, deployment, method), serving, deployment)
    levels.append(Level("replanned", replanned, replanned))
    progress("the planned counts, assigned anew")
    assigned = best_assignment(planned, serving, deployment)
    levels.append(Level("reassigned", assigned.upper, assigned.lower))
    progress("token split")
    robust = heuristics.rebalance(planning_loads(HISTORY_METHOD, split.history), deployment, HISTORY_METHOD)
    verify(robust, serving, deployment)
    for key, placed in (("history", robust), ("split", planned)):
        levels.append(Level(key, *verify_split(placed, optimal_split(placed, serving, deployment), serving, deployment)))
    levels.append(Level("planned", reached, reached))
    return Explanation(deployment, map_name, method, split.plan_window, split.serve_window, levels, [])


def _alternatives(split: Split, deployment: Deployment, method: str) -> list[Alternative]:
    """Measure other choices on this pair of windows and on the pairs before it: one pair alone says little."""
    wider = replace(deployment, num_slots=deployment.num_slots + deployment.num_gpus)
    pairs = [(split.history[: plan + 1], split.history[plan + 1]) for plan in range(len(split.history) - 1)][1 - PAIRS :]
    pairs.append((split.history, split.serving))
    base = [_served(past, serving, deployment, method) for past, serving in pairs]

    def measured(name: str, what: str, choose: Callable[[np.ndarray, np.ndarray], Fraction], limit: bool = False) -> Alternative:
        reached = [choose(past, serving) for past, serving in pairs]
        return Alternative(name, what, reached[-1], [own - new for own, new in zip(base, reached, strict=True)], limit)

    found = [
        measured(
            "fresher loads",
            f"`{method}` planned on the very loads it serves",
            lambda past, serving: _served(serving[None], serving, deployment, method),
            limit=True,
        ),
        measured(
            "another heuristic",
            f"`{FINER_METHOD}` on the same window",
            lambda past, serving: _served(past, serving, deployment, FINER_METHOD),
        ),
        measured(
            "more slots",
            f"`{method}` with {wider.num_slots} slots instead of {deployment.num_slots}",
            lambda past, serving: _served(past, serving, wider, method),
        ),
    ]
    if deployment.policy == "hierarchical":
        what = f"`{method}` without nodes and groups"
        shape = deployment.as_global()
        found.append(measured("global policy", what, lambda past, serving: _served(past, serving, shape, method)))
    found.append(
        measured(
            "token split",
            f"`{method}` on the same window, tokens shared as the served loads would have it",
            lambda past, serving: _shared(past, serving, deployment, method),
        )
    )
    if len(split.history) > 1:
        what = f"`{HISTORY_METHOD}` on up to {MOST_WINDOWS} past windows"
        found.append(
            measured(
                "more robust loads",
                what,
                lambda past, serving: _served(past, serving, deployment, HISTORY_METHOD),
            )
        )
    return found


def _shared(history: np.ndarray, serving: np.ndarray, deployment: Deployment, method: str) -> Fraction:
    """Plan on a history and return the model's excess on other loads with the best token split there."""
    placed = heuristics.rebalance(planning_loads(method, history), deployment, method)
    makespans = verify_shares(placed, optimal_split(placed, serving, deployment).shares, serving, deployment)
    return model_excess(makespans, mean_loads(serving, deployment))


def _served(history: np.ndarray, serving: np.ndarray, deployment: Deployment, method: str) -> Fraction:
    """Plan on a history and return the model's excess on other loads."""
    makespans = verify(heuristics.rebalance(planning_loads(method, history), deployment, method), serving, deployment)
    return model_excess(makespans, mean_loads(serving, deployment))


def summary(result: Explanation, layer_ids: list[int]) -> dict[str, Any]:
    """Return an explanation as JSON-ready data; exact values are "p/q"."""

    def exact(values: dict[str, Fraction]) -> dict[str, str]:
        return {STEPS[key]: fraction(value) for key, value in values.items()}

    return {
        "map": result.map_name,
        "method": result.method,
        "plan_window": result.plan_window,
        "serve_window": result.serve_window,
        "policy": result.deployment.policy,
        "excess": fraction(result.excess()),
        "excess_percent": 100 * float(result.excess()),
        "steps": exact(result.steps()),
        "steps_points": {STEPS[key]: 100 * float(value) for key, value in result.steps().items()},
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
    }
