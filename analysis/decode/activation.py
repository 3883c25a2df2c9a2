"""The experts that the fullest GPU of a decode step reads, under three ways to choose replicas.

``hashed``
    Every token to a replica by the hash of its place: an expert is read wherever a token of it goes.
``even``
    The tokens of an expert to its replicas in turn, on through the steps: one with m tokens in a step and c replicas is read from
    min(m, c) of them.
``best``
    All tokens of an expert to one replica, chosen in every step so that the fullest GPU reads the fewest experts: exact, and
    proven step by step by a set of experts that have too few GPUs between them for less.

The count under each is taken from the tokens by the kernel (:mod:`eplb_gap.problem.routing.activated`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from eplb_gap.analysis.decode.batches import Steps, decode_steps
from eplb_gap.analysis.step_time.profile import Tiles
from eplb_gap.heuristics.dispatch.activated import fewest_activated
from eplb_gap.heuristics.dispatch.replica_choice import choose_replicas
from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.activated import activated, activated_bound, read_by_tokens
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import check

Choice = Literal["hashed", "even", "best"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
CELLS = 1 << 22
"""Experts times steps that are looked at together."""


@dataclass(frozen=True)
class Activation:
    """What the fullest GPU of every decode step reads and computes with one map.

    Parameters
    ----------
    read : dict of str to ndarray
        By choice of replicas, int64 [layers, steps]: the most experts that a GPU reads.
    tokens : dict of str to ndarray
        Likewise the most copies of tokens that a GPU computes.
    bound : ndarray of int64 [layers, steps]
        What no choice of one replica an expert goes below, recomputed from the witness of each step.
    active : ndarray of int64 [layers, steps]
        Experts that a step sends tokens to.
    num_gpus : int
        GPUs that are alive.
    left_out : int
        Tokens of the trace that fill no batch.
    longest : int or None
        Tokens of the longest forward pass that is recorded; None where the trace tells none apart.
    seconds : dict of str to ndarray, optional
        By choice of replicas, float64 [steps]: time of the GPUs whose experts take longest, summed over layers, where tiles are
        given.
    """

    read: dict[Choice, np.ndarray]
    tokens: dict[Choice, np.ndarray]
    bound: np.ndarray
    active: np.ndarray
    num_gpus: int
    left_out: int
    longest: int | None
    seconds: dict[Choice, np.ndarray] | None = None

    @property
    def proven(self) -> float:
        """Share of steps and layers where the best choice equals its bound."""
        return float((self.read["best"] == self.bound).mean())

    @property
    def ideal(self) -> np.ndarray:
        """Active experts over the GPUs, rounded up, int64 [layers, steps]: what no map goes below."""
        return np.asarray(-(-self.active // self.num_gpus))

    def mean_seconds(self, choice: Choice) -> float | None:
        """Return the mean over steps of the time that experts take, summed over layers; None where no tiles are given."""
        return None if self.seconds is None else float(self.seconds[choice].mean())

    def mean(self, choice: Choice) -> float:
        """Return the mean over steps and layers of the experts that the fullest GPU reads."""
        return float(self.read[choice].mean())


def activation(
    routing: RoutingTrace,
    placement: Placement,
    deployment: Deployment,
    batch: int | None = 64,
    tiles: Tiles | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Activation:
    """Count the experts that the fullest GPU of every decode step reads, under each choice of replicas.

    Parameters
    ----------
    routing : RoutingTrace
    placement : Placement
        A legal map with a layer for each of the trace.
    deployment : Deployment
        Dead GPUs are left out; the live ones have equally many slots.
    batch : int or None, default 64
        Tokens of a step; None for the steps of the trace (:func:`eplb_gap.analysis.decode.batches.decode_steps`).
    tiles : Tiles, optional
        How long a GPU works on an expert and its tokens, of a step-time profile.
    tick : callable, optional
        Called with (what, done, total) before every layer.

    Raises
    ------
    InputError
        If the trace does not fit the map or the deployment, there is no such batch, or live GPUs have unequal slots.
    PlacementError
        If the map is not legal for the deployment.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement
    >>> from eplb_gap.analysis.decode.activation import activation
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 1]], [[0, 2]]], num_experts=3)  # one step of two tokens, top-2
    >>> found = activation(routing, Placement([[0, 1, 2, 0]], 3), Deployment(3, 4, 2), batch=2)
    >>> found.mean("hashed"), found.mean("best")
    (2.0, 2.0)
    """
    require_kind("routing", routing, RoutingTrace)
    require_kind("placement", placement, Placement)
    require_kind("deployment", deployment, Deployment)
    check(placement, deployment)
    live = deployment.live
    live.require_regular("a count of activated experts")
    for what, given, needed in (
        ("experts", routing.num_experts, live.num_experts),
        ("layers", routing.num_layers, placement.num_layers),
    ):
        if given != needed:
            raise InputError(f"routing has {given} {what}; the map has {needed}")
    steps = decode_steps(routing, batch)
    maps = without_dead(placement, deployment).phy2log
    layers = []
    for layer, phy2log in enumerate(maps):
        tick(f"layer {layer}", layer, len(maps))
        layers.append(_layer(routing, layer, steps, phy2log, live, tiles))
    read, tokens, bound, active, seconds = zip(*layers, strict=True)
    return Activation(
        {choice: np.stack([one[choice] for one in read]) for choice in CHOICES},
        {choice: np.stack([one[choice] for one in tokens]) for choice in CHOICES},
        np.stack(bound),
        np.stack(active),
        live.num_gpus,
        steps.left_out,
        steps.longest,
        None if tiles is None else {choice: np.sum([one[choice] for one in seconds], axis=0) for choice in CHOICES},
    )


ByChoice = dict[Choice, np.ndarray]


def _layer(
    routing: RoutingTrace, layer: int, steps: Steps, phy2log: np.ndarray, deployment: Deployment, tiles: Tiles | None
) -> tuple[ByChoice, ByChoice, np.ndarray, np.ndarray, ByChoice]:
    """Return of one layer what is read and computed by choice, the bounds, the numbers of active experts, and times."""
    rows = routing.rows(layer)[steps.tokens].astype(np.int64)
    first_slot = np.full((deployment.num_experts, deployment.num_gpus), -1)
    slots = np.arange(phy2log.size)[::-1]
    first_slot[phy2log[::-1], slots // deployment.slots_per_gpu] = slots
    best = np.empty_like(rows)
    read_best, bound, active = (np.empty(steps.count, dtype=np.int64) for _ in range(3))
    block = max(1, CELLS // deployment.num_experts)
    for first in range(0, steps.count, block):
        end = min(first + block, steps.count)
        here, part = slice(first, end), steps.part(first, end)
        asked = steps.counts(routing, layer, first, end) > 0
        gpus, witness = fewest_activated(asked, phy2log, deployment)
        read_best[here] = activated(gpus, asked, phy2log, deployment)
        bound[here] = activated_bound(witness, asked, phy2log, deployment)
        active[here] = asked.sum(axis=1)
        best[part] = first_slot[rows[part], gpus[steps.step[part, None] - first, rows[part]]]
    chosen: dict[Choice, np.ndarray] = {
        "hashed": choose_replicas(rows, phy2log, deployment, "hashed"),
        "even": in_turn(rows, phy2log, deployment.num_experts),
        "best": best,
    }
    counted = {choice: read_by_tokens(rows, some, steps.step, phy2log, deployment) for choice, some in chosen.items()}
    read = {choice: one[0] for choice, one in counted.items()}
    read["best"] = read_best
    seconds: ByChoice = {}
    if tiles is not None:
        seconds = {choice: expert_seconds(rows, some, steps, deployment, tiles) for choice, some in chosen.items()}
    return read, {choice: one[1] for choice, one in counted.items()}, bound, active, seconds


def expert_seconds(rows: np.ndarray, chosen: np.ndarray, steps: Steps, deployment: Deployment, tiles: Tiles) -> np.ndarray:
    """Return the time of the GPU whose experts take longest in every step, float64 [steps].

    An expert costs a GPU the read of its weights, or the tiles of its tokens there if they take longer.

    Parameters
    ----------
    rows, chosen : ndarray of int [tokens, topk]
        Experts and slots, tokens in the order of their steps.
    steps : Steps
    deployment : Deployment
        With as many slots on every GPU, all alive.
    tiles : Tiles
    """
    gpus = chosen // deployment.slots_per_gpu
    keys = ((steps.step[:, None] * deployment.num_gpus + gpus) * deployment.num_experts + rows).ravel()
    pairs, copies = np.unique(keys, return_counts=True)
    cost = np.maximum(tiles.read_seconds, tiles.tile_seconds * -(-copies // tiles.tile_rows))
    of_gpus = np.bincount(pairs // deployment.num_experts, cost, steps.count * deployment.num_gpus)
    return np.asarray(of_gpus.reshape(steps.count, deployment.num_gpus).max(axis=1))


def in_turn(rows: np.ndarray, phy2log: np.ndarray, num_experts: int) -> np.ndarray:
    """Return the slots of tokens that go to the replicas of each expert in turn, int64 [tokens, topk].

    Parameters
    ----------
    rows : ndarray of int [tokens, topk]
        Logical experts of every token.
    phy2log : ndarray of int [slots]
        The layer's map, which holds every expert; the turns are in the order of the slots.
    num_experts : int
    """
    counts = np.bincount(phy2log, minlength=num_experts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    asked = rows.ravel()
    order = np.argsort(asked, kind="stable")
    seen = np.bincount(asked, minlength=num_experts)
    turn = np.empty(asked.size, dtype=np.int64)
    turn[order] = np.arange(asked.size) - np.repeat(np.cumsum(seen) - seen, seen)
    slots = np.argsort(phy2log, kind="stable")
    return np.asarray(slots[first[asked] + turn % counts[asked]]).reshape(rows.shape)
