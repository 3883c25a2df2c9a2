"""Copies of tokens over the network, counted again from every token and the replica it was sent to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError

Dispatch = Literal["node-dedup", "rank-dedup", "none"]
"""How a dispatch sends a token: one copy to every node of its replicas, which passes it on inside (DeepEP's normal mode),
one copy to every GPU of them (one NVLink domain); one to every replica (DeepEP's low-latency mode)."""

BLOCK = 1 << 18
"""Counts of tokens on GPUs that are held at once: what counting needs does not grow with the tokens."""


@dataclass(frozen=True)
class Traffic:
    """Copies of tokens that one layer's dispatch sends.

    Parameters
    ----------
    tokens : int
    node_visits, gpu_visits : int
        Nodes and GPUs of the replicas that the tokens were sent to, summed over tokens, the token's own among them.
    into_nodes, out_of_nodes : tuple of Fraction [nodes]
        Copies between nodes. Fractions where it is not known where tokens come from: as many come from every GPU then.
    into_gpus, out_of_gpus : tuple of Fraction [gpus]
        Copies that reach a GPU from another one, over either network, and that leave it.
    gpu_loads : tuple of int [gpus]
        Replicas of a GPU that tokens were sent to, summed over tokens: what it computes.
    """

    tokens: int
    node_visits: int
    gpu_visits: int
    into_nodes: tuple[Fraction, ...]
    out_of_nodes: tuple[Fraction, ...]
    into_gpus: tuple[Fraction, ...]
    out_of_gpus: tuple[Fraction, ...]
    gpu_loads: tuple[int, ...]

    @property
    def busiest_node(self) -> Fraction:
        """The largest number of copies into or out of a node."""
        return max((*self.into_nodes, *self.out_of_nodes))

    @property
    def busiest_gpu(self) -> Fraction:
        """The largest number of copies into a GPU."""
        return max(self.into_gpus)


def check_dispatch(dispatch: Dispatch) -> None:
    """Refuse what is no dispatch."""
    if dispatch not in get_args(Dispatch):
        raise InputError(f"dispatch is {dispatch!r}; one of {', '.join(get_args(Dispatch))} is needed")


def traffic(
    rows: np.ndarray,
    chosen: np.ndarray,
    phy2log: np.ndarray,
    deployment: Deployment,
    dispatch: Dispatch,
    source: np.ndarray | None = None,
) -> Traffic:
    """Count the copies that a layer's dispatch sends.

    Under ``node-dedup`` a copy enters a node at the GPU of the same place as its source's, and goes on to the others from there.

    Parameters
    ----------
    rows : ndarray of int [tokens, topk]
        Logical experts of every token.
    chosen : ndarray of int [tokens, topk]
        The slot of the replica that it was sent to, expert by expert.
    phy2log : ndarray of int [slots]
        The layer's map.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    dispatch : {"node-dedup", "rank-dedup", "none"}
    source : ndarray of int [tokens], optional
        GPU that each token was on. Without it as many tokens come from every GPU.

    Raises
    ------
    InputError
        If a slot that was chosen does not hold the expert, or a GPU is unknown.
    """
    check_dispatch(dispatch)
    deployment.require_regular("traffic")
    _check_shapes(rows, chosen, phy2log, deployment)
    gpus, nodes = deployment.num_gpus, deployment.num_nodes
    if source is not None:
        source = _check_source(source, len(rows), gpus)
    loads, gpu_hits, node_hits = (np.zeros(size, dtype=np.int64) for size in (gpus, gpus, nodes))
    counted = [np.zeros(size, dtype=np.int64) for size in (nodes, nodes, gpus, gpus)]
    length = max(1, BLOCK // gpus)
    for first in range(0, len(rows), length):
        block = chosen[first : first + length]
        _check_chosen(rows[first : first + length], block, phy2log, first)
        at_gpu = _by_place(block // deployment.slots_per_gpu, gpus)
        hit_gpu = at_gpu > 0
        hit_node = _by_place(block // deployment.slots_per_node, nodes) > 0
        for total, part in ((loads, at_gpu), (gpu_hits, hit_gpu), (node_hits, hit_node)):
            total += part.sum(axis=0)
        if source is not None:
            copies = at_gpu if dispatch == "none" else hit_gpu.astype(np.int64)
            found = _from_sources(copies, hit_node, source[first : first + length], dispatch)
            for total, part in zip(counted, found, strict=True):
                total += part
    if source is None:
        in_and_out = _from_everywhere(loads if dispatch == "none" else gpu_hits, gpu_hits, node_hits, dispatch)
    else:
        in_and_out = tuple(list(map(Fraction, total.tolist())) for total in counted)
    into_nodes, out_of_nodes, into_gpus, out_of_gpus = map(tuple, in_and_out)
    visits = int(node_hits.sum()), int(gpu_hits.sum())
    return Traffic(len(rows), *visits, into_nodes, out_of_nodes, into_gpus, out_of_gpus, tuple(loads.tolist()))


def _by_place(place_of: np.ndarray, places: int) -> np.ndarray:
    """Return how many of its replicas every token has on every GPU or node, int64 [tokens, places]."""
    pairs = np.arange(len(place_of))[:, None] * places + place_of
    return np.bincount(pairs.ravel(), minlength=len(place_of) * places).reshape(len(place_of), places)


def _from_sources(copies: np.ndarray, hit_node: np.ndarray, source: np.ndarray, dispatch: Dispatch) -> tuple[np.ndarray, ...]:
    """Return copies into and out of nodes, and into and out of GPUs."""
    (tokens, gpus), nodes = copies.shape, hit_node.shape[1]
    per_node, every = gpus // nodes, np.arange(tokens)
    home = source // per_node
    between = hit_node.astype(np.int64) if dispatch == "node-dedup" else copies.reshape(-1, nodes, per_node).sum(axis=2)
    between[every, home] = 0
    within = copies.copy()
    if dispatch == "node-dedup":
        # The gates: on every node the GPU of the source's place, on the source's own node the source itself.
        gates = np.arange(nodes) * per_node + (source % per_node)[:, None]
        within[every[:, None], gates] = 0
        into, passed_on = within.copy(), within.reshape(tokens, nodes, per_node).sum(axis=2)
        into[every[:, None], gates] = between
        out = _sums(gates.ravel(), passed_on.ravel(), gpus) + _sums(source, between.sum(axis=1), gpus)
    else:
        within[every, source] = 0
        into, out = within, _sums(source, within.sum(axis=1), gpus)
    return between.sum(axis=0), _sums(home, between.sum(axis=1), nodes), into.sum(axis=0), out


def _from_everywhere(
    copies: np.ndarray, gpu_hits: np.ndarray, node_hits: np.ndarray, dispatch: Dispatch
) -> tuple[list[Fraction], ...]:
    """Return what :func:`_from_sources` counts, on average over every GPU as the source of all tokens; all given as sums."""
    gpus, nodes = len(gpu_hits), len(node_hits)
    per_node = gpus // nodes
    at_gpus = copies.tolist()
    at_nodes = (node_hits if dispatch == "node-dedup" else copies.reshape(nodes, per_node).sum(axis=1)).tolist()
    into_nodes = [Fraction(n * (nodes - 1), nodes) for n in at_nodes]
    out_of_nodes = [Fraction(sum(at_nodes) - n, nodes) for n in at_nodes]
    if dispatch != "node-dedup":
        into = [Fraction(n * (gpus - 1), gpus) for n in at_gpus]
        out = [Fraction(sum(at_gpus) - n, gpus) for n in at_gpus]
        return into_nodes, out_of_nodes, into, out
    by_node = gpu_hits.reshape(nodes, per_node).sum(axis=1).tolist()
    # A copy for others of the node passes through a GPU that has no replica for it where that is the gate.
    through = (np.repeat(node_hits, per_node) - gpu_hits).tolist()
    into = [Fraction(at_gpus[g] * (gpus - 1) + through[g] * (nodes - 1), gpus) for g in range(gpus)]
    out = [
        Fraction(by_node[g // per_node] - at_gpus[g], per_node) + Fraction(sum(at_nodes) - at_nodes[g // per_node], gpus)
        for g in range(gpus)
    ]
    return into_nodes, out_of_nodes, into, out


def _sums(places: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    total = np.zeros(size, dtype=np.int64)
    np.add.at(total, places, values)
    return total


def _check_shapes(rows: np.ndarray, chosen: np.ndarray, phy2log: np.ndarray, deployment: Deployment) -> None:
    if phy2log.shape != (deployment.num_slots,):
        raise InputError(f"phy2log has shape {phy2log.shape}; ({deployment.num_slots},) is needed")
    if rows.ndim != 2 or rows.shape != chosen.shape or not rows.size:
        raise InputError(f"rows and chosen have shapes {rows.shape} and {chosen.shape}; one [tokens, topk] is needed")


def _check_chosen(rows: np.ndarray, chosen: np.ndarray, phy2log: np.ndarray, first: int) -> None:
    outside = (chosen < 0) | (chosen >= phy2log.size)
    wrong = outside | (phy2log[np.where(outside, 0, chosen)] != rows)
    if wrong.any():
        token, place = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"chosen[{first + token}, {place}] is slot {chosen[token, place]}, which does not hold expert {rows[token, place]}"
        )


def _check_source(source: np.ndarray, tokens: int, gpus: int) -> np.ndarray:
    if source.shape != (tokens,) or source.dtype.kind not in "iu" or (source < 0).any() or (source >= gpus).any():
        raise InputError(f"source is {source.dtype} of shape {source.shape}; {tokens} GPUs from 0 to {gpus - 1} are needed")
    return source.astype(np.int64)
