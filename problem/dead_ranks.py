"""Maps with dead GPUs: their slots are part of the map but hold nothing.

A serving system keeps the slots of a dead GPU in its map, so that the others keep their numbers; SGLang fills them with expert 0.
Such an entry is *filler*: it is no replica of that expert, nothing is routed to it. A :class:`eplb_gap.problem.Placement` marks
filler by the replica rank -1.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

FILLER = 0
"""Expert in the slots of dead GPUs, as in SGLang's maps."""


def live_slots(deployment: Deployment) -> np.ndarray:
    """Return the slots of the GPUs that are alive, int64 ascending."""
    if not deployment.dead_gpus:
        return np.arange(deployment.num_slots)
    return np.flatnonzero(np.repeat(deployment.active, deployment.slots_by_gpu))


def without_dead(placement: Placement, deployment: Deployment) -> Placement:
    """Return the map of the GPUs that are alive, one of ``deployment.live``.

    Replica ranks are kept where the map marks its filler; a map that does not know of dead GPUs counts filler as replicas, so its
    ranks are numbered anew.
    """
    live = live_slots(deployment)
    if live.size == placement.num_slots:
        return placement
    marked = (np.delete(placement.ranks, live, axis=1) < 0).all()
    return Placement(placement.phy2log[:, live], placement.num_experts, placement.ranks[:, live] if marked else None)


def with_dead(placement: Placement, deployment: Deployment) -> Placement:
    """Return a map of ``deployment.live`` as one of the whole deployment, with filler on the dead GPUs."""
    live = live_slots(deployment)
    if live.size == deployment.num_slots:
        return placement
    shape = placement.num_layers, deployment.num_slots
    phy2log, ranks = np.full(shape, FILLER), np.full(shape, -1)
    phy2log[:, live], ranks[:, live] = placement.phy2log, placement.ranks
    return Placement(phy2log, placement.num_experts, ranks)
