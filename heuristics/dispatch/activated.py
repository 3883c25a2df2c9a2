"""The choice of replicas for which the fullest GPU reads the fewest experts' weights: what a decode step pays for.

All tokens that a step sends to an expert go to one of its replicas; a GPU reads the weights of every expert it is chosen for. The
fewest on the fullest GPU is a matching of active experts to GPUs of some capacity: augmenting paths find it, and where a path
fails what it reached is a set of experts that have too few GPUs between them (Hall, 1935), which proves the next capacity.
"""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError


def fewest_activated(active: np.ndarray, phy2log: np.ndarray, deployment: Deployment) -> tuple[np.ndarray, np.ndarray]:
    """Return for every step a GPU for each active expert, and a set of experts which proves that no choice does better.

    Parameters
    ----------
    active : ndarray of bool [steps, experts]
        Experts that a step sends tokens to.
    phy2log : ndarray of int [slots]
        The layer's map, which holds every expert.
    deployment : Deployment
        With as many slots on every GPU, all alive.

    Returns
    -------
    tuple of ndarray
        GPUs, int64 [steps, experts], -1 for experts that are not active, and the witness, bool [steps, experts]:
        :func:`eplb_gap.problem.routing.activated.activated_bound` computes the bound from it.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.dispatch.activated import fewest_activated
    >>> two_gpus = Deployment(num_experts=3, num_slots=4, num_gpus=2)
    >>> gpus, witness = fewest_activated(np.array([[True, True, False]]), np.array([0, 1, 2, 0]), two_gpus)
    >>> gpus.tolist()  # expert 0 is read on GPU 1, as expert 1 is on GPU 0 alone
    [[1, 0, -1]]
    """
    deployment.require_regular("a choice of replicas")
    if active.ndim != 2 or active.shape[1] != deployment.num_experts or active.dtype != np.bool_:
        raise InputError(f"active is {active.dtype} of shape {active.shape}; bool [steps, {deployment.num_experts}] is needed")
    if phy2log.shape != (deployment.num_slots,) or phy2log.dtype.kind not in "iu" or phy2log.min() < 0:
        raise InputError(
            f"phy2log is {phy2log.dtype} of shape {phy2log.shape}; experts of {deployment.num_slots} slots are needed"
        )
    counts = np.bincount(phy2log, minlength=deployment.num_experts)
    if not counts[: deployment.num_experts].all() or counts.size > deployment.num_experts:
        raise InputError(f"phy2log must hold the experts 0 to {deployment.num_experts - 1}, each at least once")
    starts = np.concatenate([[0], np.cumsum(counts)])
    homes = np.argsort(phy2log, kind="stable") // deployment.slots_per_gpu
    gpus = np.full(active.shape, -1, dtype=np.int64)
    witness = np.zeros(active.shape, dtype=np.bool_)
    _assign(active, starts, homes, deployment.num_gpus, gpus, witness)
    return gpus, witness


@entry
def _assign(
    active: np.ndarray, starts: np.ndarray, homes: np.ndarray, num_gpus: int, gpus: np.ndarray, witness: np.ndarray
) -> None:
    """Write GPUs and witnesses; ``homes`` holds the GPUs of every expert's replicas, expert by expert."""
    experts = active.shape[1]
    load = np.empty(num_gpus, dtype=np.int64)
    reads = np.empty((num_gpus, experts), dtype=np.int64)  # the experts of every GPU, as many as its load
    place_of = np.empty(experts, dtype=np.int64)  # and where in that row an expert is
    came_from = np.empty(num_gpus, dtype=np.int64)  # the expert over which the search reached a GPU, -1 if it did not
    queue = np.empty(num_gpus, dtype=np.int64)
    for step in range(active.shape[0]):
        load[:] = 0
        chosen, proof = gpus[step], witness[step]
        total = 0
        for e in range(experts):
            total += active[step, e]
        capacity = -(-total // num_gpus)
        for e in range(experts):
            proof[e] = active[step, e]  # all of them on all GPUs, to begin with
        for e in range(experts):
            if not active[step, e]:
                continue
            roomiest = homes[starts[e]]
            for place in range(starts[e] + 1, starts[e + 1]):
                if load[homes[place]] < load[roomiest]:
                    roomiest = homes[place]
            while True:
                came_from[:] = -1
                ends = found = -1
                if load[roomiest] < capacity:
                    found, came_from[roomiest] = roomiest, e
                    break
                first = last = 0
                for place in range(starts[e], starts[e + 1]):
                    g = homes[place]
                    if came_from[g] < 0:
                        came_from[g] = e
                        queue[last] = g
                        last += 1
                while first < last and found < 0:
                    ends = queue[first]
                    first += 1
                    if load[ends] < capacity:
                        found = ends
                        break
                    for i in range(load[ends]):
                        other = reads[ends, i]
                        for place in range(starts[other], starts[other + 1]):
                            g = homes[place]
                            if came_from[g] < 0:
                                came_from[g] = other
                                queue[last] = g
                                last += 1
                if found >= 0:
                    break
                # Every GPU that was reached is full: those on it and e have these GPUs alone.
                for other in range(experts):
                    proof[other] = other == e or (chosen[other] >= 0 and came_from[chosen[other]] >= 0)
                capacity += 1
            while True:
                moving = came_from[found]
                before = chosen[moving]
                if before >= 0:
                    load[before] -= 1
                    at, filling = place_of[moving], reads[before, load[before]]
                    reads[before, at], place_of[filling] = filling, at
                reads[found, load[found]], place_of[moving] = moving, load[found]
                load[found] += 1
                chosen[moving] = found
                if moving == e:
                    break
                found = before
