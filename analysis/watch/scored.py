"""One recorded call scored: the map that served its loads, the one that was planned on them, and what no map can exceed."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.analysis.evaluate import mean_loads
from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.problem import metrics
from eplb_gap.problem.bounds.bounds import best_joint_bound
from eplb_gap.problem.bounds.partition import bottleneck_cover
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.formats.containers.record_files import Call
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

MAX_NODE_SETS = 20_000


@dataclass(frozen=True)
class Score:
    """One map on one window.

    Parameters
    ----------
    balancedness : float
        Sum over layers of the mean GPU load over the sum of the largest; 1 is perfect.
    gap : float
        Sum of the largest GPU loads over that of the layers' bounds, less 1: at most so far from optimal.
    worst_gap : float
        The same of the layer where it is largest.
    """

    balancedness: float
    gap: float
    worst_gap: float


@dataclass(frozen=True)
class Window:
    """What a call of a serving system says.

    Parameters
    ----------
    model : str
        Layers and experts, as in "58x256".
    call : int
        Number of the call in the record folder.
    time : float
        Seconds since 1970, UTC.
    host : str
        The serving system and its version.
    live_gpus : int or None
        None where the deployment is not known; then nothing is scored.
    samples : int
        Forward passes of a history; 1 of a host that hands over sums.
    tokens : int
        Tokens routed to experts, over all layers.
    best : float or None
        Balancedness that no map can exceed on these loads.
    served, planned : Score or None
        Of the map in use, and of the one answered; None where there is none that holds every expert.
    moved : int or None
        Replicas that must be copied to a GPU that did not hold their expert.
    slots : int or None
        Replicas of the map answered, over all layers.
    not_recorded : int
        Calls since the one before that could not be recorded.
    """

    model: str
    call: int
    time: float
    host: str
    live_gpus: int | None
    samples: int
    tokens: int
    best: float | None
    served: Score | None
    planned: Score | None
    moved: int | None
    slots: int | None
    not_recorded: int

    @property
    def utc(self) -> str:
        """The time as text."""
        return datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {**asdict(self), "utc": self.utc}


def quick_bounds(loads: np.ndarray, deployment: Deployment) -> list[Fraction]:
    """Return a lower bound of every layer's makespan in closed form, a millisecond each.

    The best joint bound of the layer without nodes (:mod:`eplb_gap.problem.bounds.bounds`) and, under the hierarchical policy,
    the mean GPU load of the fullest node in the best partition of the groups, whichever is larger. The solver may prove more.

    Parameters
    ----------
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
    """
    flat = [best_joint_bound(Instance.of_layer(row, deployment)).value for row in loads]
    if deployment.policy == "global" or math.comb(deployment.num_groups, deployment.groups_per_node) > MAX_NODE_SETS:
        return flat
    sets = list(itertools.combinations(range(deployment.num_groups), deployment.groups_per_node))
    nodes = []
    for row in loads:
        groups = row.reshape(deployment.num_groups, -1).sum(axis=1).tolist()
        of_set = {chosen: Fraction(sum(groups[one] for one in chosen), deployment.gpus_per_node) for chosen in sets}
        nodes.append(bottleneck_cover(of_set, deployment.num_groups)[1])
    return [max(pair) for pair in zip(flat, nodes, strict=True)]


def scored(call: Call, number: int, in_use: np.ndarray | None) -> Window:
    """Score a call.

    Parameters
    ----------
    call : Call
    number : int
    in_use : ndarray of int [layers, slots], optional
        The map that served its loads.
    """
    samples, layers, experts = call.counts.shape
    loads = call.counts.sum(axis=0, dtype=np.int64)
    deployment = call.deployment
    best = served = planned = moves = None
    if deployment is not None:
        bounds, means = quick_bounds(loads, deployment), mean_loads(loads, deployment)
        best = _ratio(means, bounds)
        old, new = (_placement(table, deployment) for table in (in_use, call.answered))
        served, planned = (_score(placement, loads, deployment, bounds, means) for placement in (old, new))
        if old is not None and new is not None:
            moves = int(moved(new, old, deployment).sum())
    return Window(
        f"{layers}x{experts}",
        number,
        call.time,
        f"{call.host} {call.host_version}",
        None if deployment is None else deployment.live.num_gpus,
        samples,
        int(loads.sum()),
        best,
        served,
        planned,
        moves,
        None if deployment is None else layers * deployment.live.num_slots,
        call.not_recorded,
    )


def _placement(table: np.ndarray | None, deployment: Deployment) -> Placement | None:
    """Return a map where it is one of the deployment's slots; a host that was scaled says -1 of slots that hold nothing yet."""
    if table is None or table.shape[1] != deployment.num_slots or table.min() < 0:
        return None
    return Placement(table, deployment.num_experts)


def _score(
    placement: Placement | None, loads: np.ndarray, deployment: Deployment, bounds: list[Fraction], means: list[Fraction]
) -> Score | None:
    if placement is None:
        return None
    try:
        makespans = verify(placement, loads, deployment)
    except PlacementError:  # a map that ignores nodes and groups, as a host may make it, has the bounds of those that do
        try:
            makespans = verify(placement, loads, deployment.as_global())
        except (InputError, PlacementError):
            return None
        bounds = quick_bounds(loads, deployment.as_global())
    gaps = [metrics.optimality_gap(upper, lower) for upper, lower in zip(makespans, bounds, strict=True)]
    excess = metrics.optimality_gap(sum(makespans, Fraction(0)), sum(bounds, Fraction(0)))
    return Score(_ratio(means, makespans), excess, max(gaps))


def _ratio(means: list[Fraction], maxima: list[Fraction]) -> float:
    whole = sum(maxima, Fraction(0))
    return float(sum(means, Fraction(0)) / whole) if whole else 1.0
