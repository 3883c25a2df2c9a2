"""Steps that pay for weights and for tokens: cost of a GPU = a * experts it reads + b * copies of tokens it computes.

The fullest GPU is what a step waits for. Where all tokens of an expert go to one replica, an active expert with w tokens is a job
of a + b w on a GPU that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.routing.activated import activated

LARGEST = 1 << 40
"""Cost of all jobs of all steps together that is still added up: far below what 64 bits, or a float without rounding, hold."""


@dataclass(frozen=True)
class StepCost:
    """What a GPU pays for in a step, in any unit of time.

    Parameters
    ----------
    expert : int
        For every expert that it reads.
    token : int
        For every copy of a token that it computes.

    Raises
    ------
    InputError
        If one is no integer of at least 0, or both are 0.
    """

    expert: int
    token: int

    def __post_init__(self) -> None:
        for name in ("expert", "token"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < LARGEST:
                raise InputError(f"{name} is {shown(value)}; an integer from 0 to {LARGEST - 1} is needed")
        if not self.expert and not self.token:
            raise InputError("expert and token are both 0; a positive cost of one of them is needed")

    def jobs(self, counts: np.ndarray) -> np.ndarray:
        """Return the cost of every expert in every step, int64 of the same shape; 0 for experts without tokens.

        Parameters
        ----------
        counts : ndarray of int [steps, experts]
            Tokens of every step by expert.

        Raises
        ------
        InputError
            If they are no non-negative integers, or cost more than can be added up.
        """
        if counts.ndim != 2 or not counts.size or counts.dtype.kind not in "iu" or counts.min() < 0:
            raise InputError(
                f"counts is {counts.dtype} of shape {counts.shape}; integers of at least 0, [steps, experts], are needed"
            )
        if counts.max() >= LARGEST:
            raise InputError(f"counts has {counts.max()} tokens of one expert; less than {LARGEST} are needed")
        total = self.expert * int((counts > 0).sum()) + self.token * int(counts.sum(dtype=object))
        if total >= LARGEST:
            raise InputError(f"counts cost {total} together; less than {LARGEST} is needed, in a larger unit")
        wide = counts.astype(np.int64)
        return np.asarray(np.where(wide > 0, self.expert + self.token * wide, 0))


def step_costs(gpus: np.ndarray, counts: np.ndarray, phy2log: np.ndarray, deployment: Deployment, cost: StepCost) -> np.ndarray:
    """Return what the fullest GPU of every step pays, int64 [steps], after checking that every choice is one.

    Parameters
    ----------
    gpus : ndarray of int [steps, experts]
        The GPU whose replica the tokens of an expert go to, -1 for experts without tokens.
    counts : ndarray of int [steps, experts]
        Tokens of every step by expert.
    phy2log : ndarray of int [slots]
        The layer's map.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    cost : StepCost

    Raises
    ------
    InputError
        As :func:`eplb_gap.problem.routing.activated.activated`, or if the counts are not what they must be.
    """
    jobs = cost.jobs(counts)
    activated(gpus, counts > 0, phy2log, deployment)
    steps, experts = np.nonzero(counts)
    paid = np.zeros((len(jobs), deployment.num_gpus), dtype=np.int64)
    np.add.at(paid, (steps, gpus[steps, experts]), jobs[steps, experts])
    return np.asarray(paid.max(axis=1))


def step_cost_bounds(counts: np.ndarray, num_gpus: int, cost: StepCost) -> np.ndarray:
    """Return what no map and no choice of one replica an expert goes below, int64 [steps].

    The largest of the mean over the GPUs, rounded up; the largest job; and for every n the n + 1 smallest of the n G + 1 largest
    jobs, which meet on one GPU.

    Parameters
    ----------
    counts : ndarray of int [steps, experts]
        Tokens of every step by expert.
    num_gpus : int
    cost : StepCost

    Raises
    ------
    InputError
        If the counts are not what they must be.
    """
    jobs = -np.sort(-cost.jobs(counts), axis=1)
    bound = np.maximum(-(-jobs.sum(axis=1) // num_gpus), jobs[:, 0])
    for n in range(1, (jobs.shape[1] - 1) // num_gpus + 1):
        last = n * num_gpus
        bound = np.maximum(bound, jobs[:, last - n : last + 1].sum(axis=1))
    return np.asarray(bound)
