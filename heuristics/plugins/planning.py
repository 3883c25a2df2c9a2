"""One call of a host answered by the settings: the planned map that is served first, a controller, or a plan made anew."""

from __future__ import annotations

import logging

import numpy as np

from eplb_gap.heuristics.methods import Heuristic
from eplb_gap.heuristics.moves.relabel import adopt_where_better, moved, relabel
from eplb_gap.heuristics.plugins import hosted
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.settings import Settings, settings
from eplb_gap.heuristics.registry import DEFAULT_METHOD, get_method, in_windows
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.maps.maps import MapFile
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check, legal_layers

LOG = logging.getLogger("eplb_gap")
SERVED: dict[tuple[int, int], Deployment] = {}
"""By layers and experts of a model, the deployment on which the planned map was served, or found not to fit."""


def replan(weight: np.ndarray, deployment: Deployment, previous: Placement | None) -> Placement:
    """Plan anew and, where a map is in use, move no more replicas than the better balance needs; or ask a controller.

    Parameters
    ----------
    weight : ndarray [layers, experts] or [samples, layers, experts]
        Checked loads, int64 or float64; a history, oldest sample first, is summed, or for a method such as "sample-average"
        summed into :data:`eplb_gap.heuristics.registry.MOST_WINDOWS` windows.
    deployment : Deployment
        Dead GPUs are left out of the plan and get filler.
    previous : Placement or None
        The map in use, of the same shape.

    Raises
    ------
    InputError
        If the environment is not what :func:`eplb_gap.heuristics.plugins.settings.settings` needs, or the heuristic refuses
        loads or deployment.
    """
    asked = settings()
    if asked.controller is None:
        return _plain(weight, deployment, previous, asked)
    return hosted.next_map(asked.controller, weight, deployment, previous, lambda: _plain(weight, deployment, previous, asked))


def planned_map(weight: np.ndarray, deployment: Deployment, asked: Settings) -> Placement | None:
    """Return the map of ``EPLB_GAP_MAP`` where it is to be served by this call; see :func:`replan` for the arguments.

    That is the first call with loads since the server started or its deployment last changed: a host may ask without loads, to
    measure its memory. A map that does not fit is a line of the log, once a deployment.
    """
    model = weight.shape[-2], weight.shape[-1]
    if asked.map is None or not weight.any() or SERVED.get(model) == deployment:
        return None
    SERVED[model] = deployment
    try:
        found = _fitted(asked.map, deployment, model[0])
    except ValueError as error:
        COMPLAINTS.say("the planned map is not served", error)
        return None
    if asked.controller is not None:
        hosted.adopt(asked.controller, weight, deployment, found)
    LOG.info("eplb-gap: %s is served", asked.map.where)
    return found


def _fitted(map_file: MapFile, deployment: Deployment, layers: int) -> Placement:
    found = map_file.read(deployment)
    if not isinstance(found, Placement):
        raise InputError(f"{map_file.where} is uneven: {found.describe()}; equally many experts on every GPU are needed")
    if found.num_layers != layers:
        raise InputError(f"{map_file.where} has {found.num_layers} layers; the model has {layers}")
    check(found, deployment.as_global())
    return with_dead(without_dead(found, deployment), deployment)  # a file does not mark filler


def rehearse(method: Heuristic) -> None:
    """Run plans of a method and their relabelling on a small model, so that what they need is loaded or compiled."""
    for deployment in (Deployment(16, 24, 8, num_nodes=2, num_groups=4), Deployment(16, 24, 8)):
        if method.plans(deployment):
            first, second = np.arange(1, 65).reshape(2, 2, 16) ** 2
            _adopted(second, deployment, method(first, deployment), method, 0.0)


def _plain(weight: np.ndarray, deployment: Deployment, previous: Placement | None, asked: Settings) -> Placement:
    """Plan on this call alone; without loads nothing is gained by a change, not even by one that keeps groups together."""
    if previous is not None and not weight.any() and legal_layers(previous, deployment.as_global()).all():
        return previous
    method = asked.method or get_method(DEFAULT_METHOD)
    if weight.ndim == 3:
        weight = in_windows(weight.astype(np.float64)) if method.history else weight.sum(axis=0, dtype=np.float64)
    planned, adopted = _adopted(weight, deployment, previous, method, asked.threshold)
    if previous is not None and LOG.isEnabledFor(logging.INFO):
        _report(adopted, planned, previous, deployment)
    return adopted


def _adopted(
    weight: np.ndarray, deployment: Deployment, previous: Placement | None, method: Heuristic, threshold: float
) -> tuple[Placement, Placement]:
    """Return a new plan, and what of it is worth moving for."""
    planned = with_dead(method(weight, deployment.live), deployment)
    if previous is None:
        return planned, planned
    return planned, adopt_where_better(relabel(planned, previous, deployment), previous, weight, deployment, threshold)


def _report(adopted: Placement, planned: Placement, previous: Placement, deployment: Deployment) -> None:
    changed = (adopted.phy2log != previous.phy2log).any(axis=1)
    LOG.info(
        "%d of %d layers keep their map; in the others %d of %d replicas move, without relabelling %d would",
        np.count_nonzero(~changed),
        changed.size,
        moved(adopted, previous, deployment).sum(),
        np.count_nonzero(changed) * deployment.num_slots,
        moved(planned, previous, deployment)[changed].sum(),
    )
