"""Float metrics of a placement: loads per slot and per GPU, balancedness, duplicates.

For exact makespans use :func:`eplb_gap.problem.verify`; these are for tables, figures and protocols. ``num_gpus`` is the number
of GPUs, all with equally many slots, or a :class:`eplb_gap.problem.Deployment`, whose GPUs may be unequal and of which only the
live ones count.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement


def slot_loads(placement: Placement, loads: Any) -> np.ndarray:
    """Return ``w_e / c_e`` of the expert on every slot, float64 [layers, slots] in tokens; 0 for filler."""
    checked = as_loads(loads, "loads", 2)
    expected = (placement.num_layers, placement.num_experts)
    if checked.shape != expected:
        raise InputError(f"loads has shape {checked.shape}; that of the placement, {expected} [layers, experts], is needed")
    sizes = checked / np.maximum(placement.counts(), 1)
    return np.where(placement.ranks < 0, 0.0, np.take_along_axis(sizes, placement.phy2log, axis=1))


def gpu_loads(placement: Placement, loads: Any, num_gpus: int | Deployment) -> np.ndarray:
    """Return the load of every GPU, float64 [layers, gpus] in tokens; of the live GPUs of a deployment."""
    live, slots = live_map(placement, num_gpus)
    return per_gpu(slot_loads(live, loads), slots)


def live_map(placement: Placement, num_gpus: int | Deployment) -> tuple[Placement, tuple[int, ...]]:
    """Return the map of the live GPUs and the slots of each.

    Raises
    ------
    InputError
        If the map has not the slots of the deployment, or the GPUs do not divide them.
    """
    if not isinstance(num_gpus, Deployment):
        return placement, (placement.by_gpu(num_gpus).shape[2],) * num_gpus
    if placement.num_slots != num_gpus.num_slots:
        raise InputError(f"placement has {placement.num_slots} slots; the deployment has {num_gpus.num_slots}")
    return without_dead(placement, num_gpus), num_gpus.live.slots_by_gpu


def per_gpu(sizes: np.ndarray, slots_by_gpu: Sequence[int]) -> np.ndarray:
    """Return the sums of the slots of every GPU, [..., gpus]."""
    if len(set(slots_by_gpu)) == 1:
        return np.asarray(sizes.reshape(*sizes.shape[:-1], len(slots_by_gpu), -1).sum(axis=-1))
    return np.asarray(np.add.reduceat(sizes, np.cumsum((0, *slots_by_gpu[:-1])), axis=-1))


def balancedness_expert(placement: Placement, loads: Any) -> float:
    """Return the sum over layers of the mean slot load over the sum of the maximum slot load (1 is perfect).

    This is the metric of the published searches. It depends on the replica counts alone: the slots' mean is ``W / S`` and
    their maximum ``max w_e / c_e``, so no packing on GPUs can change it.
    """
    checked = as_loads(loads, "loads", 2)
    sizes, held = slot_loads(placement, checked), (placement.ranks >= 0).sum(axis=1)
    return _ratio_of_sums(checked.sum(axis=1) / held, sizes.max(axis=1))


def balancedness_gpu(placement: Placement, loads: Any, num_gpus: int | Deployment) -> float:
    """Return the sum over layers of the mean GPU load over the sum of the maximum GPU load (1 is perfect)."""
    checked = as_loads(loads, "loads", 2)
    found = gpu_loads(placement, checked, num_gpus)
    return _ratio_of_sums(checked.sum(axis=1) / found.shape[1], found.max(axis=1))


def _ratio_of_sums(means: np.ndarray, maxima: np.ndarray) -> float:
    return float(means.sum() / maxima.sum()) if maxima.any() else 1.0


def duplicates(placement: Placement, num_gpus: int | Deployment) -> np.ndarray:
    """Return the replicas that share a GPU with an earlier replica of their expert, int64 [layers]."""
    live, slots = live_map(placement, num_gpus)
    # Equal keys, next to each other when sorted, are replicas of one expert on one GPU.
    keys = np.sort(np.repeat(np.arange(len(slots)), slots) * live.num_experts + live.phy2log, axis=1)
    return np.asarray((keys[:, 1:] == keys[:, :-1]).sum(axis=1))


def optimality_gap(upper: Fraction, lower: Fraction) -> float:
    """Return ``upper / lower - 1`` from exact fractions; 0 for a layer without load, infinite where nothing is proven."""
    if lower:
        return float(upper / lower - 1)
    return float("inf") if upper else 0.0
