"""Activated experts: how many experts' weights each GPU reads in a step, and sets of experts that bound it from below."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

MOST_STEPS = 1 << 28
MARKS = 1 << 24
"""Marks, a byte each, that are held at once: one for every step, GPU and expert of a block of steps."""


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
    if witness.dtype != np.bool_ or active.dtype != np.bool_:
        raise InputError(f"witness and active are {witness.dtype} and {active.dtype}; bool [steps, experts] is needed")
    if witness.shape != active.shape or (witness & ~active).any():
        raise InputError("witness must name active experts alone")
    reached = (witness.astype(np.int64) @ _holds(phy2log, deployment) > 0).sum(axis=1)
    return np.asarray(-(-witness.sum(axis=1) // np.maximum(reached, 1)))


def read_by_tokens(
    rows: np.ndarray, chosen: np.ndarray, step: np.ndarray, phy2log: np.ndarray, deployment: Deployment
) -> tuple[np.ndarray, np.ndarray]:
    """Count what the fullest GPU of every step reads and computes where every token has its own choice of replicas.

    Parameters
    ----------
    rows : ndarray of int [tokens, topk]
        Logical experts of every token in one layer.
    chosen : ndarray of int [tokens, topk]
        The slot of the replica that it was sent to, expert by expert.
    step : ndarray of int [tokens]
        Step of every token, from 0; never falls.
    phy2log : ndarray of int [slots]
        The layer's map.
    deployment : Deployment
        With as many slots on every GPU, all alive.

    Returns
    -------
    tuple of ndarray
        The most experts that a GPU reads, an expert once however many replicas and tokens of it are there, and the most copies
        of tokens that a GPU computes (not always the same GPU); both int64 [steps], up to the last step that is named.

    Raises
    ------
    InputError
        If a slot that was chosen does not hold the expert, or steps are not in order.
    """
    deployment.require_regular("a count of what steps read")
    _check_size(phy2log, deployment)
    per_gpu = deployment.slots_per_gpu
    if chosen.shape != rows.shape or step.shape != rows.shape[:1]:
        raise InputError(f"rows, chosen and step have shapes {rows.shape}, {chosen.shape}, {step.shape}; one entry a token")
    if step.size and (step[0] < 0 or (np.diff(step) < 0).any()):
        raise InputError("step must be at least 0 and never fall")
    if chosen.size and (chosen.min() < 0 or chosen.max() >= phy2log.size or (phy2log[chosen] != rows).any()):
        raise InputError("chosen names a slot that does not hold the token's expert")
    steps = int(step[-1]) + 1 if step.size else 0
    if steps > MOST_STEPS:
        raise InputError(f"step names {steps - 1}; at most {MOST_STEPS} steps are counted")
    gpus, experts = deployment.num_gpus, deployment.num_experts
    read, computed = np.zeros(steps, dtype=np.int64), np.zeros(steps, dtype=np.int64)
    block = max(1, MARKS // (gpus * experts))
    for first in range(0, steps, block):
        end = min(first + block, steps)
        part = slice(*np.searchsorted(step, [first, end]).tolist())
        at = (step[part, None] - first) * gpus + chosen[part] // per_gpu
        marked = np.zeros((end - first) * gpus * experts, dtype=np.bool_)
        marked[at * experts + rows[part]] = True
        read[first:end] = marked.reshape(end - first, gpus, experts).sum(axis=2).max(axis=1)
        copies = np.bincount(at.ravel(), minlength=(end - first) * gpus)
        computed[first:end] = copies.reshape(end - first, gpus).max(axis=1)
    return read, computed


def _holds(phy2log: np.ndarray, deployment: Deployment) -> np.ndarray:
    deployment.require_regular("a count of activated experts")
    _check_size(phy2log, deployment)
    holds = np.zeros((deployment.num_experts, deployment.num_gpus), dtype=np.int64)
    holds[phy2log, np.arange(phy2log.size) // deployment.slots_per_gpu] = 1
    return holds


def _check_size(phy2log: np.ndarray, deployment: Deployment) -> None:
    if phy2log.shape != (deployment.num_slots,):
        raise InputError(f"phy2log has shape {phy2log.shape}; ({deployment.num_slots},) is needed")
