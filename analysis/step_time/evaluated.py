"""Predicted times of an evaluated map, on the window that it is planned on and on the one that it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eplb_gap.analysis.evaluate import Evaluation, Score
from eplb_gap.analysis.network.served import MapTraffic
from eplb_gap.analysis.network.traffic import NetworkTraffic
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.timed import Timed, as_dict, by_hinge, measured_elsewhere, named, with_parts
from eplb_gap.analysis.windows import Windows
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement


@dataclass(frozen=True)
class MapTimes:
    """One map.

    Parameters
    ----------
    name : str
    planning, serving : Timed
    gpus, nodes : int
        Of the deployment.
    """

    name: str
    planning: Timed
    serving: Timed
    gpus: int
    nodes: int

    def as_dict(self) -> dict[str, Any]:
        """Return the times as JSON-ready data."""
        profile = self.planning.time.profile
        notes = measured_elsewhere(profile, self.gpus, self.nodes)
        return {**named(profile), "notes": notes, "planning": as_dict(self.planning), "serving": as_dict(self.serving)}


def times_of(
    profile: Profile,
    result: Evaluation,
    placed: Placement | None,
    windows: Windows,
    deployment: Deployment,
    steps: int,
    traffic: MapTraffic | None = None,
) -> MapTimes:
    """Return the predicted times of a map, with what no map goes below.

    Parameters
    ----------
    profile : Profile
    result : Evaluation
        Its bounds are those of the times.
    placed : Placement or None
        The map; None for one whose GPUs hold unequal numbers of experts, of which the hinge alone says something.
    windows : Windows
    deployment : Deployment
        With the nodes that tokens cross, where traffic is given.
    steps : int
        Steps that a window sums.
    traffic : MapTraffic, optional
        Counted for the dispatch of the profile's network.
    """

    def timed(score: Score, loads: Any, counted: NetworkTraffic | None) -> Timed:
        found = by_hinge(profile, score.makespans, score.bounds, score.mean)
        if placed is None:
            return found
        return with_parts(found, placed, loads, score.bounds, deployment, steps, counted)

    plan, serve = (None, None) if traffic is None else (traffic.planned, traffic.served)
    planning, serving = timed(result.planning, windows.planning, plan), timed(result.serving, windows.serving, serve)
    return MapTimes(result.name, planning, serving, deployment.num_gpus, deployment.num_nodes)
