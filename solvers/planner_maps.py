"""Maps that the registered heuristics make of a layer: no solve is worse than the best of them.

The compiled planners take milliseconds a layer, the programs of others up to a tenth of a second. None is trusted: a map that is
not legal is left out, and a refusal counts as no map.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.heuristics.registry import HEURISTICS
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify


def planners(deployment: Deployment, compiled: bool) -> Iterator[Heuristic]:
    """Yield the heuristics that plan on a deployment without dead GPUs.

    Parameters
    ----------
    deployment : Deployment
        Its loads may still be refused by one of them.
    compiled : bool
        Whether the compiled ones are asked for, or the others.
    """
    for heuristic in HEURISTICS.values():
        if heuristic.compiled is compiled and heuristic.refusal(deployment) is None:
            yield heuristic


def planner_maps(heuristic: Heuristic, loads: np.ndarray, deployment: Deployment) -> list[tuple[int, ...] | None]:
    """Return the maps that a heuristic makes of some layers, None where it makes no legal one.

    Parameters
    ----------
    heuristic : Heuristic
    loads : ndarray
        int64 [layers, experts].
    deployment : Deployment
        Without dead GPUs.
    """
    try:
        placement = heuristic(loads, deployment)
    except InputError:
        return [None] * len(loads)
    return [_legal(slots, row, deployment) for slots, row in zip(placement.phy2log, loads, strict=True)]


def _legal(slots: np.ndarray, loads: np.ndarray, deployment: Deployment) -> tuple[int, ...] | None:
    try:
        verify(Placement(slots[None], deployment.num_experts), loads[None], deployment)
    except PlacementError:
        return None
    return tuple(slots.tolist())
