"""Negative control: the published snake program as it was, its broken map, and the scorer that took it for valid."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment


def defective_map(loads: np.ndarray, deployment: Deployment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return phy2log, log2phy and logcnt of the snake pipeline with one rank per expert for all its extra replicas.

    An expert with three or more replicas gets the same rank twice, so ``log2phy`` keeps only the last of those slots and holds
    -1 inside its valid prefix. :meth:`problem.Placement.from_tensors` rejects it.
    """
    correct = get_method("eplb_snake_pipeline")(loads, deployment)
    log2phy = np.full_like(correct.log2phy(), -1)
    layers, slots = np.indices(correct.phy2log.shape)
    log2phy[layers, correct.phy2log, np.minimum(correct.ranks, 1)] = slots
    return correct.phy2log, log2phy, correct.counts()


def published_score(loads: np.ndarray, log2phy: np.ndarray, logcnt: np.ndarray, num_slots: int) -> float:
    """Return the expert-level balancedness as the published scorer computes it: a slot of -1 means the last slot."""
    layers, _, width = log2phy.shape
    valid = np.arange(width) < logcnt[:, :, None]
    share = np.broadcast_to((loads / logcnt)[:, :, None], log2phy.shape)
    per_slot = np.zeros((layers, num_slots))
    np.add.at(per_slot, (np.indices(log2phy.shape)[0][valid], log2phy[valid]), share[valid])
    return float(per_slot.mean(axis=1).sum() / per_slot.max(axis=1).sum())
