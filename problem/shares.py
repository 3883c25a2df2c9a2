"""Shares: which part of an expert's tokens each of its replicas takes, and what bounds every split of a map.

Without shares every replica takes ``w_e / c_e`` tokens. With them the replica on slot s takes ``share[s] w_e``: a fraction of the
expert's load, so that shares planned on past loads can be applied to the loads that are served. Exact makespans under shares are
:func:`eplb_gap.problem.verify`'s.

For a given map the best shares are a fractional flow from experts to GPUs, and its dual is a set Q of GPUs: whatever the shares,
the experts that live on Q alone put all their load there, so some GPU of Q carries at least ``sum w_e / |Q|``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots, with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.metrics import live_map, per_gpu
from eplb_gap.problem.placement import Placement

SUM_TOLERANCE = 1e-9
"""How far the shares of one expert may sum from 1: floats seldom do exactly, and a wrong sum must not hide behind rounding."""


@dataclass(frozen=True)
class TokenSplit:
    """Shares of all layers and, for every layer, the GPUs that bound them.

    Parameters
    ----------
    shares : ndarray
        Part of its expert's tokens that the replica on every slot takes, float64 [layers, slots].
    critical : sequence of tuple of int
        One set of GPUs per layer: a witness for :func:`split_bound`.
    """

    shares: np.ndarray
    critical: Sequence[tuple[int, ...]]


def even_shares(placement: Placement, deployment: Deployment | None = None) -> np.ndarray:
    """Return ``1 / c_e`` for every slot, float64 [layers, slots]: the split of systems that know no shares.

    Parameters
    ----------
    placement : Placement
    deployment : Deployment, optional
        Whose dead GPUs take nothing, also where the map does not mark their slots as filler.
    """
    marked = placement if deployment is None else with_dead(without_dead(placement, deployment), deployment)
    counts = np.take_along_axis(marked.counts(), marked.phy2log, axis=1)
    return np.where(marked.ranks < 0, 0.0, 1.0 / np.maximum(counts, 1))


def as_shares(value: Any, placement: Placement) -> np.ndarray:
    """Check shares and return them as a float64 array [layers, slots].

    Raises
    ------
    InputError
        If they are no numbers of the placement's shape, or one is negative or not finite.
    PlacementError
        If the shares of an expert do not sum to 1 within :data:`SUM_TOLERANCE`, or filler, which nothing is routed to, has one.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError("shares is ragged; a rectangular array is needed") from None
    expected = placement.phy2log.shape
    if array.shape != expected or array.dtype.kind not in "iuf":
        raise InputError(
            f"shares is {array.dtype} of shape {array.shape}; "
            f"numbers of the placement's shape {expected} [layers, slots] are needed"
        )
    shares = array.astype(np.float64)
    bad = np.argwhere(~(np.isfinite(shares) & (shares >= 0.0)))
    if bad.size:
        layer, slot = (int(i) for i in bad[0])
        raise InputError(f"shares[{layer}, {slot}] is {shares[layer, slot]}; shares must be finite and non-negative")
    dead = np.argwhere((shares > 0.0) & (placement.ranks < 0))
    if dead.size:
        layer, slot = (int(i) for i in dead[0])
        raise PlacementError(
            f"layer {layer}, slot {slot}: the share is {shares[layer, slot]}, but the slot holds filler, as on a dead GPU; "
            "nothing is routed there, 0 is needed"
        )
    sums = _sums(placement, shares)
    wrong = np.argwhere((np.abs(sums - 1.0) > SUM_TOLERANCE) & (placement.counts() > 0))
    if wrong.size:
        layer, expert = (int(i) for i in wrong[0])
        raise PlacementError(
            f"layer {layer}, expert {expert}: the shares of its replicas sum to {sums[layer, expert]}; "
            f"1 within {SUM_TOLERANCE} is needed"
        )
    return shares


def _sums(placement: Placement, shares: np.ndarray) -> np.ndarray:
    layers, experts = placement.num_layers, placement.num_experts
    flat = (np.arange(layers)[:, None] * experts + placement.phy2log).ravel()
    return np.bincount(flat, weights=shares.ravel(), minlength=layers * experts).reshape(layers, experts)


def gpu_loads_with_shares(placement: Placement, shares: Any, loads: Any, num_gpus: int | Deployment) -> np.ndarray:
    """Return the load of every GPU under a split, float64 [layers, gpus] in tokens; of the live GPUs of a deployment.

    Raises
    ------
    InputError
        If loads and placement do not belong together, or ``num_gpus`` does not divide the slots.
    InputError, PlacementError
        As :func:`as_shares`.
    """
    checked = as_loads(loads, "loads", 2)
    if checked.shape != (placement.num_layers, placement.num_experts):
        raise InputError(
            f"loads has shape {checked.shape}; that of the placement, "
            f"{(placement.num_layers, placement.num_experts)} [layers, experts], is needed"
        )
    live, slots_by_gpu = live_map(placement, num_gpus)
    marked, kept = placement, np.arange(placement.num_slots)
    if isinstance(num_gpus, Deployment):
        marked, kept = with_dead(live, num_gpus), live_slots(num_gpus)
    held = np.take_along_axis(checked, live.phy2log, axis=1) * as_shares(shares, marked)[:, kept]
    return per_gpu(held, slots_by_gpu)


def balancedness_with_shares(placement: Placement, shares: Any, loads: Any, num_gpus: int | Deployment) -> float:
    """Return the sum over layers of the mean GPU load over the sum of the maximum GPU load under a split (1 is perfect)."""
    loads_of_gpus = gpu_loads_with_shares(placement, shares, loads, num_gpus)
    means = as_loads(loads, "loads", 2).sum(axis=1) / loads_of_gpus.shape[1]
    maxima = loads_of_gpus.max(axis=1).sum()
    return float(means.sum() / maxima) if maxima > 0 else 1.0


def split_bound(slots: np.ndarray, loads: np.ndarray, num_gpus: int | Deployment, gpus: Collection[int]) -> Fraction:
    """Return what a set of GPUs proves of one layer's map: no shares have a smaller makespan.

    Parameters
    ----------
    slots : ndarray
        Expert of every slot, int [slots]; a legal map.
    loads : ndarray
        int64 [experts].
    num_gpus : int or Deployment
        As of :mod:`eplb_gap.problem.metrics`.
    gpus : collection of int
        The set Q.

    Returns
    -------
    Fraction
        Summed load of the experts with no replica outside Q, over ``|Q|``. By the theorem of maximum flow and minimum cut
        the best Q attains the optimum.

    Raises
    ------
    InputError
        If the set is empty or names a GPU twice or one that is dead or does not exist.
    """
    if isinstance(num_gpus, Deployment):
        sizes, alive = num_gpus.slots_by_gpu, np.array(num_gpus.active)
    else:
        sizes, alive = (slots.size // num_gpus,) * num_gpus, np.ones(num_gpus, dtype=bool)
    inside = np.zeros(alive.size, dtype=bool)
    for gpu in gpus:
        if not 0 <= gpu < alive.size or inside[gpu] or not alive[gpu]:
            raise InputError(
                f"gpus names GPU {gpu} twice, or it is dead or does not exist; "
                f"distinct numbers from 0 to {alive.size - 1} of live GPUs are needed"
            )
        inside[gpu] = True
    if not inside.any():
        raise InputError("gpus is empty; at least one GPU is needed")
    elsewhere = np.zeros(loads.size, dtype=bool)
    elsewhere[slots[np.repeat(alive & ~inside, sizes)]] = True
    return Fraction(int(loads[~elsewhere].sum()), int(inside.sum()))
