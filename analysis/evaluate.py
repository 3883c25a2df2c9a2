"""Score maps on the window they are planned on and on the one they serve, layer by layer and in total."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap import solvers
from eplb_gap.analysis.windows import Split
from eplb_gap.problem import metrics
from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.fractions import fraction
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


def certified_bounds(split: Split, deployment: Deployment, seconds: float = SECONDS) -> Bounds:
    """Return the bounds of both windows as the solver proves them within ``seconds`` each."""
    planning, serving = (
        solvers.solve(loads, deployment, target_gap=TARGET_GAP, time_limit=seconds).lower
        for loads in (split.planning, split.serving)
    )
    return Bounds(planning, serving)


def evaluate(
    name: str,
    placed: Placement | GpuLists,
    split: Split,
    deployment: Deployment,
    bounds: Bounds,
    previous: Placement | None = None,
) -> Evaluation:
    """Score one map.

    A map that is not legal for the deployment, one that splits a group over nodes, say, is scored as it is, with a note and
    against the mean, since the deployment's bounds do not hold for it; so is a map whose GPUs hold unequal numbers of experts.

    Raises
    ------
    PlacementError
        If an expert has no replica or does not exist: then there is nothing to score.
    InputError
        If loads and map do not belong to the deployment, or GPUs are dead and hold unequal numbers of experts.
    """
    if isinstance(placed, GpuLists):
        return _evaluate_uneven(name, placed, split, deployment)
    flat = replace(deployment.as_global(), duplicates="allowed")
    note = ""
    try:
        verify(placed, split.serving, deployment)
    except PlacementError as error:
        verify(placed, split.serving, flat)
        note = f"not legal for this deployment: {error}"
    scores = [
        Score(
            verify(placed, loads, flat),
            mean_loads(loads, deployment) if note else lower,
            mean_loads(loads, deployment),
            metrics.balancedness_gpu(placed, loads, deployment),
            metrics.balancedness_expert(without_dead(placed, deployment), loads),
        )
        for loads, lower in ((split.planning, bounds.planning), (split.serving, bounds.serving))
    ]
    moved = None
    if previous is not None:
        from eplb_gap.heuristics.moves.relabel import moved as moved_replicas

        moved = [int(count) for count in moved_replicas(placed, previous, deployment)]
    repeats = [int(count) for count in metrics.duplicates(placed, deployment)]
    return Evaluation(name, *scores, repeats, moved, note)


def _evaluate_uneven(name: str, placed: GpuLists, split: Split, deployment: Deployment) -> Evaluation:
    if deployment.dead_gpus:
        raise InputError(f"map {name} lists what GPUs hold, {placed.describe()}; with dead GPUs a map of all slots is needed")
    scores = []
    for loads in (split.planning, split.serving):
        mean = mean_loads(loads, deployment)
        makespans = placed.makespans(loads)
        largest = [
            max(Fraction(int(w), int(c)) for w, c in zip(row, counts, strict=True))
            for row, counts in zip(loads, placed.counts(), strict=True)
        ]
        slot_means = [Fraction(int(row.sum()), int(held.sum())) for row, held in zip(loads, placed.sizes(), strict=True)]
        scores.append(Score(makespans, mean, mean, _ratio(mean, makespans), _ratio(slot_means, largest)))
    return Evaluation(name, *scores, [int(count) for count in placed.duplicates()], None, placed.describe())


def _ratio(means: list[Fraction], maxima: list[Fraction]) -> float:
    return float(sum(means, Fraction(0)) / total) if (total := sum(maxima, Fraction(0))) else 1.0


def mean_loads(loads: np.ndarray, deployment: Deployment) -> list[Fraction]:
    """Return the exact mean load of the live GPUs of every layer."""
    return [Fraction(int(row.sum()), deployment.live.num_gpus) for row in loads]


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
