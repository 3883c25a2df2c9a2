"""vLLM-Ascend's expert map: JSON that lists the experts of every device of every MoE layer."""

from __future__ import annotations

from typing import Any

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.json_text import render_json
from eplb_gap.problem.formats.maps.map_checks import check_size, entries, expert_list, experts_by_gpu, fields, gpu_map, integer
from eplb_gap.problem.formats.maps.map_format import MapFormat, has_key
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement | GpuLists:
    """Return the map of ``moe_layer_count`` layers and, where the file has one, of the multi-token-prediction layer behind them.

    With ``layer_ids`` the map has as many layers: the prediction layer is part of it only where they count it.

    Raises
    ------
    InputError
        If a key is missing or unknown, layers or devices are not numbered from 0 on, the map is of another deployment, or has
        another number of layers than ``layer_ids``.
    """
    root = fields(document, where, ["moe_layer_count", "layer_list"])
    count = integer(root["moe_layer_count"], f"{where}: moe_layer_count")
    listed = entries(root["layer_list"], f"{where}: layer_list")
    if len(listed) not in (count, count + 1):
        raise InputError(f"{where} has {len(listed)} layers in layer_list; its moe_layer_count is {count}")
    layers = [_layer(layer, f"{where}: layer_list[{index}]", index, deployment) for index, layer in enumerate(listed)]
    wanted = len(layers) if layer_ids is None else len(layer_ids)
    if wanted not in (count, len(layers)):
        raise InputError(f"{where} has {count} layers; the loads have {wanted}, and the format lists MoE layers only")
    return gpu_map(layers[:wanted], where, deployment)


def render(placement: Placement, deployment: Deployment, _layers: list[int] | None, _model_layers: int | None) -> bytes:
    """Return the map with layers and devices numbered from 0 on.

    Raises
    ------
    InputError
        Naming layer and device, if devices hold unequal numbers of experts, at which vLLM-Ascend does not start, or one holds an
        expert twice: vLLM-Ascend 0.23.0 takes such a file and then sends the tokens of other experts to wrong slots.
    """
    layers = experts_by_gpu(placement, deployment)
    for layer, gpus in enumerate(layers):
        for gpu, experts in enumerate(gpus):
            where = f"layer {layer}, device {gpu}"
            if len(experts) != len(gpus[0]):
                raise InputError(f"{where} holds {len(experts)} experts, device 0 {len(gpus[0])}; vLLM-Ascend needs equally many")
            if len(set(experts)) < len(experts):
                raise InputError(
                    f"{where} holds an expert twice, which vLLM-Ascend misreads; a deployment with duplicates forbidden "
                    "(--duplicates forbidden) is needed"
                )
    listed = [
        {
            "layer_id": layer,
            "device_count": deployment.num_gpus,
            "device_list": [{"device_id": gpu, "device_expert": experts} for gpu, experts in enumerate(gpus)],
        }
        for layer, gpus in enumerate(layers)
    ]
    return render_json({"moe_layer_count": len(layers), "layer_list": listed})


def _layer(value: Any, where: str, index: int, deployment: Deployment) -> list[list[int]]:
    layer = fields(value, where, ["layer_id", "device_count", "device_list"])
    _numbered(layer["layer_id"], f"{where}: layer_id", index)
    devices = entries(layer["device_list"], f"{where}: device_list")
    if integer(layer["device_count"], f"{where}: device_count") != len(devices):
        raise InputError(f"{where} has {len(devices)} devices in device_list; its device_count is {layer['device_count']}")
    check_size(len(devices), deployment.num_gpus, where, "GPUs")
    return [_device(device, f"{where}: device_list[{gpu}]", gpu, deployment) for gpu, device in enumerate(devices)]


def _device(value: Any, where: str, gpu: int, deployment: Deployment) -> list[int]:
    device = fields(value, where, ["device_id", "device_expert"])
    _numbered(device["device_id"], f"{where}: device_id", gpu)
    return expert_list(device["device_expert"], f"{where}: device_expert", deployment)


def _numbered(value: Any, where: str, position: int) -> None:
    if integer(value, where) != position:
        raise InputError(f"{where} is {value} at position {position}; numbers from 0 on, in order, are needed")


FORMAT = MapFormat(
    "vllm-ascend",
    "vLLM-Ascend expert map: JSON list of experts per device and MoE layer",
    {"JSON": has_key("layer_list", "moe_layer_count")},
    read,
    render,
)
