"""Shares: which part of an expert's tokens each of its replicas takes; exact judgement of a split and of what bounds it.

Without shares every replica takes ``w_e / c_e`` tokens. With them the replica on slot s takes ``share[s] w_e``: a fraction of the
expert's load, so that shares planned on past loads can be applied to the loads that are served.

For a given map the best shares are a fractional flow from experts to GPUs, and its dual is a set Q of GPUs: whatever the shares,
the experts that live on Q alone put all their load there, so some GPU of Q carries at least ``sum w_e / |Q|``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

SUM_TOLERANCE = 1e-9
"""How far the shares of one expert may sum from 1: floats seldom do exactly, and a wrong sum must not hide behind rounding."""


@dataclass(frozen=True)
class Split:
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


def even_shares(placement: Placement) -> np.ndarray:
    """Return ``1 / c_e`` for every slot, float64 [layers, slots]: the split of systems that know no shares."""
    return np.asarray(1.0 / np.take_along_axis(placement.counts(), placement.phy2log, axis=1))


def as_shares(value: Any, placement: Placement) -> np.ndarray:
    """Check shares and return them as a float64 array [layers, slots].

    Raises
    ------
    InputError
        If they are no numbers of the placement's shape, or one is negative or not finite.
    PlacementError
        If the shares of an expert do not sum to 1 within :data:`SUM_TOLERANCE`.
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


def gpu_loads_with_shares(placement: Placement, shares: Any, loads: Any, num_gpus: int) -> np.ndarray:
    """Return the load of every GPU under a split, float64 [layers, gpus] in tokens.

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
    held = np.take_along_axis(checked, placement.by_gpu(num_gpus).reshape(placement.num_layers, -1), axis=1)
    return np.asarray((held * as_shares(shares, placement)).reshape(placement.num_layers, num_gpus, -1).sum(axis=2))


def balancedness_with_shares(placement: Placement, shares: Any, loads: Any, num_gpus: int) -> float:
    """Return the sum over layers of the mean GPU load over the sum of the maximum GPU load under a split (1 is perfect)."""
    per_gpu = gpu_loads_with_shares(placement, shares, loads, num_gpus)
    means = as_loads(loads, "loads", 2).sum(axis=1) / num_gpus
    maxima = per_gpu.max(axis=1).sum()
    return float(means.sum() / maxima) if maxima > 0 else 1.0


def verify_shares(placement: Placement, shares: Any, loads: Any, deployment: Deployment) -> list[Fraction]:
    """Check a map and its shares and return the exact makespans.

    Shares are floats and seldom sum to exactly 1. They are read as proportions: a replica takes its share over the sum of its
    expert's shares, in fractions, so that all of the load is served and the makespan is that of a feasible split.

    Parameters
    ----------
    placement : Placement
    shares : array_like of float [layers, slots]
    loads : array_like of int [layers, experts]
    deployment : Deployment

    Returns
    -------
    list of Fraction
        Largest GPU load of every layer.

    Raises
    ------
    InputError, PlacementError
        As :func:`problem.verify` and :func:`as_shares`.
    """
    verify(placement, loads, deployment)
    rows = zip(placement.phy2log, as_shares(shares, placement), as_loads(loads, "loads", 2), strict=True)
    return [_makespan(slots, row, of_layer, deployment.num_gpus) for slots, row, of_layer in rows]


def _makespan(slots: np.ndarray, shares: np.ndarray, loads: np.ndarray, num_gpus: int) -> Fraction:
    parts: dict[int, list[Fraction]] = {}
    for expert, share in zip(slots.tolist(), shares.tolist(), strict=True):
        parts.setdefault(expert, []).append(Fraction(share))
    per_token = {expert: Fraction(int(loads[expert])) / sum(given) for expert, given in parts.items()}
    per_gpu = [Fraction(0)] * num_gpus
    for slot, expert in enumerate(slots.tolist()):
        per_gpu[slot * num_gpus // slots.size] += parts[expert].pop(0) * per_token[expert]
    return max(per_gpu)


def split_bound(slots: np.ndarray, loads: np.ndarray, num_gpus: int, gpus: Collection[int]) -> Fraction:
    """Return what a set of GPUs proves of one layer's map: no shares have a smaller makespan.

    Parameters
    ----------
    slots : ndarray
        Expert of every slot, int [slots]; a legal map.
    loads : ndarray
        int64 [experts].
    num_gpus : int
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
        If the set is empty or names a GPU twice or one that does not exist.
    """
    inside = np.zeros(num_gpus, dtype=bool)
    for gpu in gpus:
        if not 0 <= gpu < num_gpus or inside[gpu]:
            raise InputError(
                f"gpus names GPU {gpu} twice or it does not exist; distinct numbers from 0 to {num_gpus - 1} are needed"
            )
        inside[gpu] = True
    if not inside.any():
        raise InputError("gpus is empty; at least one GPU is needed")
    elsewhere = np.zeros(loads.size, dtype=bool)
    elsewhere[slots[~np.repeat(inside, slots.size // num_gpus)]] = True
    return Fraction(int(loads[~elsewhere].sum()), int(inside.sum()))


def verify_split(placement: Placement, split: Split, loads: Any, deployment: Deployment) -> tuple[list[Fraction], list[Fraction]]:
    """Return the exact makespan of every layer under a split and the bound that its critical GPUs prove.

    Raises
    ------
    InputError, PlacementError
        As :func:`verify_shares` and :func:`split_bound`, and if there is not one set of GPUs per layer.
    """
    upper = verify_shares(placement, split.shares, loads, deployment)
    if len(split.critical) != len(upper):
        raise InputError(f"critical has {len(split.critical)} sets; one for each of the {len(upper)} layers is needed")
    rows = zip(placement.phy2log, as_loads(loads, "loads", 2), split.critical, strict=True)
    return upper, [split_bound(slots, of_layer, deployment.num_gpus, gpus) for slots, of_layer, gpus in rows]
