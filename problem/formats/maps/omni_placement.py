"""omni's placement pattern: npy of 0 and 1, int32 [ranks, layers, experts]; GPUs may hold unequal numbers of experts."""

from __future__ import annotations

import numpy as np

from eplb_gap.problem.dead_ranks import live_slots
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.npy_bytes import render_npy
from eplb_gap.problem.formats.maps.map_checks import check_moe_layers, check_size, gpu_map
from eplb_gap.problem.formats.maps.map_format import MapFormat
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists


def read(array: np.ndarray, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement | GpuLists:
    """Return the map; the slots of a GPU hold its experts in ascending order.

    Raises
    ------
    InputError
        If an entry is other than 0 and 1, the map is of another deployment, or has another number of layers than ``layer_ids``.
    """
    if array.ndim != 3 or not array.size or array.dtype.kind not in "iu":
        raise InputError(f"{where} is {array.dtype} of shape {array.shape}; integers [ranks, layers, experts] are needed")
    check_size(array.shape[0], deployment.num_gpus, where, "GPUs")
    check_size(array.shape[2], deployment.num_experts, where, "experts")
    check_moe_layers(array.shape[1], layer_ids, where)
    wrong = np.argwhere((array != 0) & (array != 1))
    if wrong.size:
        gpu, layer, expert = (int(i) for i in wrong[0])
        raise InputError(f"{where}[{gpu}, {layer}, {expert}] is {array[gpu, layer, expert]}; 0 or 1 is needed")
    layers = [[np.flatnonzero(gpu).tolist() for gpu in layer] for layer in array.transpose(1, 0, 2)]
    return gpu_map(layers, where, deployment)


def render(placement: Placement, deployment: Deployment, _layers: list[int] | None, _model_layers: int | None) -> bytes:
    """Return the pattern; the order of the slots on a GPU is not part of it, and a dead GPU holds nothing.

    Raises
    ------
    InputError
        Naming layer, GPU and expert, if a GPU holds two replicas of an expert: the format cannot say so.
    """
    counts = np.zeros((deployment.num_gpus, placement.num_layers, deployment.num_experts), dtype=np.int32)
    home, names = np.repeat(np.arange(deployment.num_gpus), deployment.slots_by_gpu), live_slots(deployment)
    layers = np.arange(placement.num_layers)[:, None]
    np.add.at(counts, (home[names], layers, placement.phy2log[:, names]), 1)
    twice = np.argwhere(counts > 1)
    if twice.size:
        gpu, layer, expert = (int(i) for i in twice[0])
        raise InputError(
            f"layer {layer}, GPU {gpu}: expert {expert} has {counts[gpu, layer, expert]} replicas; omni's format can say one only"
        )
    return render_npy(counts)


def _is_pattern(array: np.ndarray) -> bool:
    if array.ndim != 3 or not array.size or array.dtype.kind not in "iu":
        return False
    return bool(((array == 0) | (array == 1)).all() and array.any(axis=0).all())


FORMAT = MapFormat(
    "omni",
    "omni placement pattern: npy of 0 and 1 [ranks, MoE layers, experts]; no duplicates on a GPU, slots in expert order",
    {"npy": lambda array: array.ndim == 3},
    read,
    render,
    _is_pattern,
)
