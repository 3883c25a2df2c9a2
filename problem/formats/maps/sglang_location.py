"""SGLang's ``--init-expert-location``: the key ``physical_to_logical_map`` over all decoder layers, as JSON or ``.pt``."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers.json_text import render_json
from eplb_gap.problem.formats.maps.map_checks import MAX_MAP_ARRAY_BYTES, fields, slot_array, slot_table
from eplb_gap.problem.formats.maps.map_format import MapFormat, anything, has_key
from eplb_gap.problem.placement import Placement

KEY, LOADS = "physical_to_logical_map", "logical_count"


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the rows of ``layer_ids``, by default of all layers.

    Raises
    ------
    InputError
        If the document holds loads or other keys, the map is of another deployment, or has fewer layers than ``layer_ids``.
    """
    if isinstance(document, dict) and LOADS in document and KEY not in document:
        raise InputError(f"{where} holds loads ({LOADS}) and no map ({KEY})")
    rows = fields(document, where, [KEY])[KEY]
    inside = f"{where}: {KEY}"
    table = (
        slot_table(rows, inside, deployment) if isinstance(rows, list) else slot_array(_array(rows, inside), inside, deployment)
    )
    if layer_ids is None:
        return Placement(table, deployment.num_experts)
    if max(layer_ids) >= len(table):
        raise InputError(
            f"{inside} has {len(table)} layers; layer_ids names layer {max(layer_ids)}, and the format lists all decoder layers"
        )
    return Placement(table[layer_ids], deployment.num_experts)


def render(placement: Placement, deployment: Deployment, layer_ids: list[int] | None, num_model_layers: int | None) -> bytes:
    """Return the map over all ``num_model_layers`` layers; layers that ``layer_ids`` does not name are dense.

    SGLang wants a row for dense layers too and never looks at it: they get its own trivial map, slot ``s`` holds expert
    ``s % E``. Without ``layer_ids`` and ``num_model_layers`` the placement's layers are all the model has.
    """
    layers = placement.num_layers if num_model_layers is None else num_model_layers
    if layer_ids is None and layers != placement.num_layers:
        raise InputError(f"layer_ids is None; which of the {layers} layers the map's {placement.num_layers} are is needed")
    rows = list(range(layers)) if layer_ids is None else layer_ids
    if num_model_layers is None and layer_ids is not None:
        raise InputError("num_model_layers is None; how many decoder layers the model has is needed beside layer_ids")
    if max(rows) >= layers:
        raise InputError(f"layer_ids names layer {max(rows)}; num_model_layers = {layers} ends at layer {layers - 1}")
    table = np.tile(np.arange(deployment.num_slots) % deployment.num_experts, (layers, 1))
    table[rows] = placement.phy2log
    return render_json({KEY: table.tolist()})


def _array(value: Any, where: str) -> np.ndarray:
    import torch

    if not isinstance(value, torch.Tensor):
        raise InputError(f"{where} is {shown(value)}; a list per layer or a tensor is needed")
    integers = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
    if value.dtype not in integers or value.layout != torch.strided or value.device.type != "cpu":
        raise InputError(f"{where} is a tensor of {value.dtype}, {value.layout}, on {value.device}; plain integers are needed")
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > min(stored, MAX_MAP_ARRAY_BYTES):
        raise InputError(f"{where} claims shape {tuple(value.shape)} of {value.dtype}, which its {stored} bytes do not hold")
    return np.asarray(value.numpy())


FORMAT = MapFormat(
    "sglang",
    "SGLang --init-expert-location: physical_to_logical_map of all decoder layers, JSON (written) or .pt",
    {"JSON": has_key(KEY, LOADS), "torch": anything},
    read,
    render,
    lambda content: isinstance(content, dict) and KEY in content and LOADS not in content,
    general=True,
)
