"""Rules by which a dispatcher sends tokens to replicas.

``hashed``
    Replicas in turn by a hash of the token's place in the batch, wherever they are: even on average, blind to the network.
``local-first``
    A replica on the token's own GPU, else on its node, else any; where several are equally near, by the hash.
``smallest-cover``
    The fewest nodes beside the token's own that hold all of its experts, where several sets are as small by the hash; on these
    nodes nearest first.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from eplb_gap.heuristics.compiled import entry
from eplb_gap.heuristics.dispatch.covers import MOST_NODES, chosen_cover, hashed, hashed_within
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

Rule = Literal["hashed", "local-first", "smallest-cover"]


def choose_replicas(
    rows: np.ndarray, phy2log: np.ndarray, deployment: Deployment, rule: Rule, source: np.ndarray | None = None
) -> np.ndarray:
    """Return the slot that every token's copies go to.

    Parameters
    ----------
    rows : ndarray of int [tokens, topk]
        Logical experts of every token in one layer.
    phy2log : ndarray of int [slots]
        The layer's map; every expert of ``rows`` is in it.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    rule : {"hashed", "local-first", "smallest-cover"}
    source : ndarray of int [tokens], optional
        GPU that each token is on. Without it no replica is near, and no node of a cover is free.

    Returns
    -------
    ndarray
        int64 [tokens, topk].

    Raises
    ------
    InputError
        If an expert is in no slot, a GPU is unknown, or the deployment has too many nodes for covers.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
    >>> two_nodes = Deployment(num_experts=3, num_slots=4, num_gpus=2, num_nodes=2)
    >>> choose_replicas(np.array([[0, 2]]), np.array([0, 1, 2, 0]), two_nodes, "smallest-cover").tolist()  # both on node 1
    [[3, 2]]
    """
    if rule not in get_args(Rule):
        raise InputError(f"rule is {rule!r}; one of {', '.join(get_args(Rule))} is needed")
    deployment.require_regular("a choice of replicas")
    if rule == "smallest-cover" and deployment.num_nodes > MOST_NODES:
        raise InputError(f"num_nodes is {deployment.num_nodes}; smallest covers are looked for on at most {MOST_NODES}")
    if rows.ndim != 2 or rows.dtype.kind not in "iu":
        raise InputError(f"rows is {rows.dtype} of shape {rows.shape}; integers [tokens, topk] are needed")
    if phy2log.shape != (deployment.num_slots,) or phy2log.dtype.kind not in "iu" or phy2log.min() < 0:
        raise InputError(
            f"phy2log is {phy2log.dtype} of shape {phy2log.shape}; experts of {deployment.num_slots} slots are needed"
        )
    counts = np.bincount(phy2log, minlength=deployment.num_experts)
    if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= counts.size or not counts[rows].all()):
        raise InputError(f"rows name experts {rows.min()} to {rows.max()}; phy2log must hold every one of them")
    if source is not None and source.shape != (len(rows),):
        raise InputError(f"source has shape {source.shape}; a GPU for each of {len(rows)} tokens is needed")
    if source is not None and ((source < 0) | (source >= deployment.num_gpus)).any():
        raise InputError(f"source names GPUs {source.min()} to {source.max()}; 0 to {deployment.num_gpus - 1} are there")
    starts = np.concatenate([[0], np.cumsum(counts)])
    slots = np.argsort(phy2log, kind="stable")
    homes = np.full(len(rows), -1) if source is None else source
    chosen = np.empty(rows.shape, dtype=np.int64)
    _choose(
        rows.astype(np.int64),
        starts,
        slots,
        homes.astype(np.int64),
        deployment.slots_per_gpu,
        deployment.gpus_per_node,
        get_args(Rule).index(rule),
        chosen,
    )
    return chosen


@entry
def _choose(
    rows: np.ndarray,
    starts: np.ndarray,
    slots: np.ndarray,
    homes: np.ndarray,
    slots_per_gpu: int,
    gpus_per_node: int,
    rule: int,
    chosen: np.ndarray,
) -> None:
    """Write the slots; rule 0 is hashed, 1 local-first, 2 smallest-cover."""
    tokens, topk = rows.shape
    per_node = slots_per_gpu * gpus_per_node
    held = np.zeros(starts.size - 1, dtype=np.int64)  # the nodes of every expert, as bits, where covers are looked for
    if rule == 2:
        for e in range(held.size):
            for place in range(starts[e], starts[e + 1]):
                held[e] |= 1 << (slots[place] // per_node)
    for token in range(tokens):
        allowed = -1  # all nodes
        gpu = homes[token]
        if rule == 2:
            allowed = chosen_cover(rows[token], held, (1 << (gpu // gpus_per_node)) if gpu >= 0 else 0, token)
        for j in range(topk):
            e = rows[token, j]
            best = near = 0
            for place in range(starts[e], starts[e + 1]):
                node = slots[place] // per_node
                if rule != 2 or allowed >> node & 1:
                    distance = 0
                    if rule and gpu >= 0:
                        distance = 2 - (node == gpu // gpus_per_node) - (slots[place] // slots_per_gpu == gpu)
                    if not near or distance < best:
                        best, near = distance, 1
                    elif distance == best:
                        near += 1
            wanted = hashed_within(token, near) if rule == 2 else hashed(token, near)
            for place in range(starts[e], starts[e + 1]):
                node = slots[place] // per_node
                if rule != 2 or allowed >> node & 1:
                    distance = 0
                    if rule and gpu >= 0:
                        distance = 2 - (node == gpu // gpus_per_node) - (slots[place] // slots_per_gpu == gpu)
                    if distance == best:
                        if not wanted:
                            chosen[token, j] = slots[place]
                            break
                        wanted -= 1
