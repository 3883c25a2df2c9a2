"""What all readers of maps check: keys, integers, experts and slots of the deployment, and which layers are asked for."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from eplb_gap.problem.dead_ranks import with_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists

MAX_MAP_BYTES = 1 << 24
"""A map as text; that of 100 layers of 1000 slots has half a megabyte."""
MAX_MAP_ARRAY_BYTES = 1 << 28
"""A map as an array; one entry per GPU, layer and expert is what the largest kind holds."""


def fields(value: Any, where: str, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return an object that has all keys ``needed``, and of other keys only those that are ``optional``."""
    if not isinstance(value, dict):
        raise InputError(f"{where} is {shown(value)}; an object with the keys {', '.join(needed)} is needed")
    for key in needed:
        if key not in value:
            raise InputError(f"{where} has no key {key!r} but {shown(list(value))}")
    for key in value:
        if key not in (*needed, *optional):
            raise InputError(f"{where} has a key {shown(key)}; its keys are {', '.join((*needed, *optional))}")
    return value


def entries(value: Any, where: str) -> list[Any]:
    """Return a list that is not empty."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{where} is {shown(value)}; a list that is not empty is needed")
    return value


def integer(value: Any, where: str) -> int:
    """Return an integer; a bool is none, nor is a float."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where} is {shown(value)}; an integer is needed")
    return value


def expert_list(value: Any, where: str, deployment: Deployment) -> list[int]:
    """Return a list, possibly empty, of experts that the deployment has."""
    if not isinstance(value, list):
        raise InputError(f"{where} is {shown(value)}; a list of experts is needed")
    for position, expert in enumerate(value):
        if not 0 <= integer(expert, f"{where}[{position}]") < deployment.num_experts:
            raise _foreign(f"{where}[{position}] is {shown(expert)}", f"experts 0 to {deployment.num_experts - 1}")
    return value


def slot_row(value: Any, where: str, deployment: Deployment) -> list[int]:
    """Return the experts of all slots of one layer."""
    row = entries(value, where)
    if len(row) != deployment.num_slots:
        raise _foreign(f"{where} has {len(row)} slots", f"{deployment.num_slots} slots")
    return expert_list(row, where, deployment)


def slot_table(value: Any, where: str, deployment: Deployment) -> np.ndarray:
    """Return the experts of all slots from a list per layer, int64 [layers, slots]."""
    rows = entries(value, where)
    return np.array([slot_row(row, f"{where}[{layer}]", deployment) for layer, row in enumerate(rows)], dtype=np.int64)


def slot_array(array: np.ndarray, where: str, deployment: Deployment) -> np.ndarray:
    """Return the experts of all slots from an array of any integer type, int64 [layers, slots]."""
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise InputError(f"{where} is {array.dtype} of shape {array.shape}; integers [layers, slots] are needed")
    if array.shape[1] != deployment.num_slots:
        raise _foreign(f"{where} has {array.shape[1]} slots", f"{deployment.num_slots} slots")
    wrong = np.argwhere((array < 0) | (array >= deployment.num_experts))
    if wrong.size:
        layer, slot = (int(i) for i in wrong[0])
        raise _foreign(f"{where}[{layer}][{slot}] is {array[layer, slot]}", f"experts 0 to {deployment.num_experts - 1}")
    return array.astype(np.int64)


def is_slot_table(value: Any) -> bool:
    """Return whether something is a list of slots per layer in which every layer names all experts: what no loads look like."""
    try:
        table = np.asarray(value)
    except (ValueError, OverflowError):
        return False
    if table.ndim != 2 or not table.size or table.dtype.kind not in "iu" or table.min() < 0:
        return False
    experts = int(table.max()) + 1
    return experts <= table.shape[1] and all(np.unique(row).size == experts for row in table)


def gpu_map(layers: list[list[list[int]]], where: str, deployment: Deployment) -> Placement | GpuLists:
    """Return the map of layers that list the experts of every GPU: a placement where they fill the slots of the live GPUs.

    What dead GPUs are said to hold does not matter. Without dead ones, unequal numbers that are not those of the slots are lists.

    Raises
    ------
    InputError
        If all GPUs hold equally many, but not as many as the deployment has slots on a GPU, or some are dead.
    PlacementError
        If the map is uneven and an expert has no replica.
    """
    if all(tuple(map(len, layer)) == deployment.slots_by_gpu for layer in layers):
        rows = [[expert for gpu in layer for expert in gpu] for layer in layers]
        return Placement(np.array(rows, dtype=np.int64), deployment.num_experts)
    live, active = deployment.live, deployment.active
    left = [[gpu for gpu, alive in zip(layer, active, strict=True) if alive] for layer in layers]
    if all(tuple(map(len, layer)) == live.slots_by_gpu for layer in left):
        rows = [[expert for gpu in layer for expert in gpu] for layer in left]
        return with_dead(Placement(np.array(rows, dtype=np.int64), deployment.num_experts), deployment)
    sizes = {len(gpu) for layer in left for gpu in layer}
    fewest, most = min(live.slots_by_gpu), max(live.slots_by_gpu)
    if len(sizes) > 1 and not deployment.dead_gpus:
        return GpuLists.from_lists(layers, deployment.num_experts)
    raise _foreign(
        f"{where} has {' to '.join(map(str, sorted({min(sizes), max(sizes)})))} experts on every GPU",
        f"{fewest} slots per GPU" if fewest == most else f"{fewest} to {most} slots per GPU",
    )


def experts_by_gpu(placement: Placement, deployment: Deployment) -> list[list[list[int]]]:
    """Return the experts of every layer and GPU as lists; a dead GPU holds none."""
    ends = np.cumsum(deployment.slots_by_gpu)[:-1]
    return [
        [gpu.tolist() if alive else [] for gpu, alive in zip(np.split(row, ends), deployment.active, strict=True)]
        for row in placement.phy2log
    ]


def check_size(found: int, needed: int, where: str, noun: str) -> None:
    """Refuse a map that has another number of something than the deployment."""
    if found != needed:
        raise _foreign(f"{where} has {found} {noun}", f"{needed} {noun}")


def check_layer_ids(layer_ids: Sequence[int] | None) -> list[int] | None:
    """Return the model-layer indices of the loads' rows, ascending: formats of MoE layers alone list them in that order."""
    if layer_ids is None:
        return None
    try:
        checked = [operator.index(layer) for layer in layer_ids]
    except TypeError:
        checked = []
    if not checked or checked[0] < 0 or checked != sorted(set(checked)):
        raise InputError(f"layer_ids is {shown(layer_ids)}; ascending layer indices from 0 on are needed")
    return checked


def check_moe_layers(found: int, layer_ids: list[int] | None, where: str) -> None:
    """Refuse a map of the MoE layers alone that does not have as many layers as the loads."""
    if layer_ids is not None and found != len(layer_ids):
        raise InputError(f"{where} has {found} layers; the loads have {len(layer_ids)}, and the format lists MoE layers only")


def _foreign(found: str, needed: str) -> InputError:
    return InputError(f"{found}; the deployment has {needed}: this is a map for another model or deployment")
