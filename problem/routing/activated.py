"""Activated experts: how many experts' weights each GPU reads in a step, and sets of experts that bound it from below."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError


def activated(gpus: np.ndarray, active: np.ndarray, phy2log: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return the experts that the fullest GPU reads, int64 [steps], after checking that every choice is one.

    Parameters
    ----------
    gpus : ndarray of int [steps, experts]
        The GPU whose replica an active expert's tokens go to, -1 for the others.
    active : ndarray of bool [steps, experts]
    phy2log : ndarray of int [slots]
        The layer's map.
    deployment : Deployment

    Raises
    ------
    InputError
        If an active expert has no GPU, or one that does not hold it, or another expert has one.
    """
    holds = _holds(phy2log, deployment)
    if gpus.shape != active.shape or ((gpus >= 0) != active).any():
        raise InputError("gpus must have one GPU for every active expert and -1 for the others")
    steps, experts = np.nonzero(active)
    where = gpus[steps, experts]
    if where.size and (where.max() >= deployment.num_gpus or not holds[experts, where].all()):
        raise InputError("gpus names a GPU that does not hold the expert")
    read = np.zeros((len(active), deployment.num_gpus), dtype=np.int64)
    np.add.at(read, (steps, where), 1)
    return np.asarray(read.max(axis=1))


def activated_bound(witness: np.ndarray, active: np.ndarray, phy2log: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return a lower bound on the experts that the fullest GPU reads, int64 [steps]: of n experts on m GPUs one has n / m.

    Parameters
    ----------
    witness : ndarray of bool [steps, experts]
        A set of active experts.
    active, phy2log, deployment
        As of :func:`activated`.

    Raises
    ------
    InputError
        If a set names an expert that is not active.
    """
    if witness.shape != active.shape or (witness & ~active).any():
        raise InputError("witness must name active experts alone")
    reached = (witness.astype(np.int64) @ _holds(phy2log, deployment) > 0).sum(axis=1)
    return np.asarray(-(-witness.sum(axis=1) // np.maximum(reached, 1)))


def _holds(phy2log: np.ndarray, deployment: Deployment) -> np.ndarray:
    deployment.require_regular("a count of activated experts")
    holds = np.zeros((deployment.num_experts, deployment.num_gpus), dtype=np.int64)
    holds[phy2log, np.arange(phy2log.size) // deployment.slots_per_gpu] = 1
    return holds
