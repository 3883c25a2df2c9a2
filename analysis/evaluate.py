"""Score maps on the window they are planned on and on the one they serve, layer by layer and in total."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.windows import Windows
from eplb_gap.heuristics.registry import planning_loads
from eplb_gap.problem import metrics
from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.fractions import fraction
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists
from eplb_gap.problem.validation import verify

TARGET_GAP = 1e-4
SECONDS = 20.0


@dataclass(frozen=True)
class Bounds:
    """Certified lower bounds of both windows, per layer, in tokens; valid for equal numbers of slots per GPU."""

    planning: list[Fraction]
    serving: list[Fraction]


@dataclass(frozen=True)
class Score:
    """One window of one map.

    Parameters
    ----------
    makespans : list of Fraction
        Exact, in tokens.
    bounds : list of Fraction
        What no map can beat.
    mean : list of Fraction
        Mean GPU load.
    balancedness_gpu, balancedness_expert : float
        Over all layers; the second is the published searches' metric and does not see the GPUs.
    """

    makespans: list[Fraction]
    bounds: list[Fraction]
    mean: list[Fraction]
    balancedness_gpu: float
    balancedness_expert: float

    @property
    def gaps(self) -> list[float]:
        """Gap to the bound, per layer."""
        return [metrics.optimality_gap(up, low) for up, low in zip(self.makespans, self.bounds, strict=True)]


@dataclass(frozen=True)
class Evaluation:
    """One map on both windows.

    Parameters
    ----------
    name : str
    planning, serving : Score
    duplicates : list of int
        Replicas that share a GPU with an earlier replica of their expert, per layer.
    moved : list of int or None
        Replicas that must be copied to a GPU that did not hold their expert in the previous map, per layer.
    note : str
        What is unusual about the map, or why it is not legal for the deployment; empty otherwise.
    """

    name: str
    planning: Score
    serving: Score
    duplicates: list[int]
    moved: list[int] | None
    note: str


def certified_bounds(windows: Windows, deployment: Deployment, seconds: float = SECONDS) -> Bounds:
    """Return the bounds of both windows as the solver proves them within ``seconds`` each."""
    planning, serving = (
        solvers.solve(loads, deployment, target_gap=TARGET_GAP, time_limit=seconds).lower
        for loads in (windows.planning, windows.serving)
    )
    return Bounds(planning, serving)


def evaluate(
    trace: LoadTrace,
    deployment: Deployment,
    planned: Placement | GpuLists | str = "fast",
    *,
    plan_window: int | None = None,
    serve_window: int | None = None,
    previous: Placement | None = None,
    name: str | None = None,
    seconds: float = SECONDS,
) -> Evaluation:
    """Score a map, or a method's map, on the window it is planned on and on the one it serves.

    Parameters
    ----------
    trace : LoadTrace
        Two windows or more.
    deployment : Deployment
        Dead GPUs count for nothing: neither in means nor in maps.
    planned : Placement, GpuLists or str, default "fast"
        A map, or the heuristic (a key of :data:`eplb_gap.HEURISTICS`) that plans one on the windows up to the planning window.
    plan_window, serve_window : int, optional
        By default the last but one and the last, or the one behind the planning window.
    previous : Placement, optional
        The map that served before: moved replicas are counted against it.
    name : str, optional
        What to call the map.
    seconds : float, default 20
        Time limit of the solver that certifies the bounds, per window.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError, PlacementError
        If a window does not exist, the loads do not fit the deployment, or an expert has no replica.

    Examples
    --------
    >>> from eplb_gap import Deployment, LoadTrace, Placement, evaluate
    >>> trace = LoadTrace([[[6, 2]], [[2, 6]]])  # two windows of one layer with two experts
    >>> found = evaluate(trace, Deployment(2, 3, 3), Placement([[0, 0, 1]], 2))
    >>> found.planning.makespans, found.serving.makespans
    ([Fraction(3, 1)], [Fraction(6, 1)])
    >>> found.serving.gaps
    [1.0]
    """
    require_kind("deployment", deployment, Deployment)
    windows = Windows.of(trace, plan_window, serve_window)
    called = name or (planned if isinstance(planned, str) else "map")
    placed = planned_on(windows, deployment, planned) if isinstance(planned, str) else planned
    return evaluate_map(called, placed, windows, deployment, certified_bounds(windows, deployment, seconds), previous)


def planned_on(windows: Windows, deployment: Deployment, method: str) -> Placement:
    """Return the map that a heuristic plans on the windows up to the planning window."""
    return heuristics.rebalance(planning_loads(method, windows.history), deployment, method)


def evaluate_map(
    name: str,
    placed: Placement | GpuLists,
    windows: Windows,
    deployment: Deployment,
    bounds: Bounds,
    previous: Placement | None = None,
) -> Evaluation:
    """Score one map against bounds that are known: several maps of the same windows share them.

    A map that is not legal for the deployment, one that splits a group over nodes, say, is scored as it is, with a note and
    against the mean, since the deployment's bounds do not hold for it; so is a map whose GPUs hold unequal numbers of experts.

    Raises
    ------
    InputError
        If the deployment is no match for a map whose GPUs hold unequal numbers of experts.
    PlacementError
        If an expert has no replica or does not exist: then there is nothing to score.
    InputError
        If loads and map do not belong to the deployment, or GPUs are dead and hold unequal numbers of experts.
    """
    if isinstance(placed, GpuLists):
        return _evaluate_uneven(name, placed, windows, deployment)
    flat = replace(deployment.as_global(), duplicates="allowed")
    note = ""
    try:
        verify(placed, windows.serving, deployment)
    except PlacementError as error:
        verify(placed, windows.serving, flat)
        note = f"not legal for this deployment: {error}"
    live, held = deployment.live, without_dead(placed, deployment)
    planning, serving = (
        Score(
            verify(placed, loads, flat),
            mean_loads(loads, live) if note else lower,
            mean_loads(loads, live),
            metrics.balancedness_gpu(held, loads, live),
            metrics.balancedness_expert(held, loads),
        )
        for loads, lower in ((windows.planning, bounds.planning), (windows.serving, bounds.serving))
    )
    moved = None
    if previous is not None:
        from eplb_gap.heuristics.moves.relabel import moved as moved_replicas

        if previous.num_slots != deployment.num_slots:
            raise InputError(f"previous has {previous.num_slots} slots; the deployment has {deployment.num_slots}")
        moved = [int(count) for count in moved_replicas(held, without_dead(previous, deployment), live)]
    repeats = [int(count) for count in metrics.duplicates(held, live)]
    return Evaluation(name, planning, serving, repeats, moved, note)


def _evaluate_uneven(name: str, placed: GpuLists, windows: Windows, deployment: Deployment) -> Evaluation:
    if deployment.live.num_gpus != deployment.num_gpus:
        raise InputError(f"map {name}: {placed.describe()}; such a map is scored on GPUs that are all alive")

    def score(loads: np.ndarray) -> Score:
        mean = mean_loads(loads, deployment)
        makespans = placed.makespans(loads)
        largest = [
            max(Fraction(int(w), int(c)) for w, c in zip(row, counts, strict=True))
            for row, counts in zip(loads, placed.counts(), strict=True)
        ]
        slot_means = [Fraction(int(row.sum()), int(held.sum())) for row, held in zip(loads, placed.sizes(), strict=True)]
        return Score(makespans, mean, mean, _ratio(mean, makespans), _ratio(slot_means, largest))

    repeats = [int(count) for count in placed.duplicates()]
    return Evaluation(name, score(windows.planning), score(windows.serving), repeats, None, placed.describe())


def _ratio(means: list[Fraction], maxima: list[Fraction]) -> float:
    return float(sum(means, Fraction(0)) / total) if (total := sum(maxima, Fraction(0))) else 1.0


def mean_loads(loads: np.ndarray, deployment: Deployment) -> list[Fraction]:
    """Return the exact mean load of a live GPU, of every layer."""
    return [Fraction(int(row.sum()), deployment.live.num_gpus) for row in loads]


def model_excess(makespans: list[Fraction], means: list[Fraction]) -> Fraction:
    """Return ``sum of makespans / sum of means - 1``: the layers' excesses, weighted by their mean loads; 0 without load."""
    weight = sum(means, Fraction(0))
    return sum(makespans, Fraction(0)) / weight - 1 if weight else Fraction(0)


def makespan_imbalance(makespans: list[Fraction], means: list[Fraction]) -> float:
    """Return the mean over the layers with load of ``makespan / mean``, 1 without load: what step times are fitted to.

    Layers count alike here; in :func:`model_excess` they weigh by their mean loads.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from eplb_gap.analysis.evaluate import makespan_imbalance
    >>> makespan_imbalance([Fraction(6), Fraction(30), Fraction(0)], [Fraction(4), Fraction(30), Fraction(0)])
    1.25
    """
    ratios = [makespan / mean for makespan, mean in zip(makespans, means, strict=True) if mean]
    return float(sum(ratios, Fraction(0)) / len(ratios)) if ratios else 1.0


def summary(evaluation: Evaluation, layer_ids: list[int]) -> dict[str, Any]:
    """Return an evaluation as JSON-ready data: totals, then every layer with exact fractions."""

    def window(score: Score) -> dict[str, Any]:
        return {
            "balancedness_gpu": score.balancedness_gpu,
            "balancedness_expert": score.balancedness_expert,
            "gap_mean": float(np.mean(score.gaps)),
            "gap_worst": max(score.gaps),
        }

    layers = [
        {
            "layer": identifier,
            "duplicates": evaluation.duplicates[row],
            "moved": None if evaluation.moved is None else evaluation.moved[row],
            **{
                window_name: {
                    "makespan": fraction(score.makespans[row]),
                    "bound": fraction(score.bounds[row]),
                    "mean": fraction(score.mean[row]),
                    "gap": score.gaps[row],
                }
                for window_name, score in (("planning", evaluation.planning), ("serving", evaluation.serving))
            },
        }
        for row, identifier in enumerate(layer_ids)
    ]
    return {
        "map": evaluation.name,
        "note": evaluation.note,
        "planning": window(evaluation.planning),
        "serving": window(evaluation.serving),
        "duplicates": sum(evaluation.duplicates),
        "moved": None if evaluation.moved is None else sum(evaluation.moved),
        "layers": layers,
    }
