"""vLLM's initial expert map: JSON with a list of slots per MoE layer, or one list for all layers."""

from __future__ import annotations

from typing import Any

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.formats.containers.json_text import render_json
from eplb_gap.problem.formats.maps.map_checks import check_moe_layers, entries, is_slot_table, slot_table
from eplb_gap.problem.formats.maps.map_format import MapFormat
from eplb_gap.problem.placement import Placement


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map; one list of integers stands for every layer of ``layer_ids``, without them for one layer."""
    rows = entries(document, where)
    if not isinstance(rows[0], list):
        return Placement(slot_table([rows] * len(layer_ids or [0]), where, deployment), deployment.num_experts)
    check_moe_layers(len(rows), layer_ids, where)
    return Placement(slot_table(rows, where, deployment), deployment.num_experts)


def render(placement: Placement, _deployment: Deployment, _layers: list[int] | None, _model_layers: int | None) -> bytes:
    """Return a list of lists, one per MoE layer."""
    return render_json(placement.phy2log.tolist())


FORMAT = MapFormat(
    "vllm",
    "vLLM initial expert map: JSON list of slots per MoE layer, or one for all layers",
    {"JSON": lambda content: isinstance(content, list)},
    read,
    render,
    lambda content: is_slot_table(content) or is_slot_table([content]),
    general=True,
)
