"""The map itself, expert of every slot of every MoE layer: npy int64 [layers, slots], or JSON with a list per layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.formats.containers.json_text import render_json
from eplb_gap.problem.formats.containers.npy_bytes import render_npy
from eplb_gap.problem.formats.maps.map_checks import check_moe_layers, is_slot_table, slot_array, slot_table
from eplb_gap.problem.formats.maps.map_format import MapFormat, anything, nothing
from eplb_gap.problem.placement import Placement


def read_array(array: np.ndarray, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map of an array of any integer type."""
    table = slot_array(array, where, deployment)
    check_moe_layers(len(table), layer_ids, where)
    return Placement(table, deployment.num_experts)


def read_lists(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map of a list of lists."""
    table = slot_table(document, where, deployment)
    check_moe_layers(len(table), layer_ids, where)
    return Placement(table, deployment.num_experts)


def render_array(placement: Placement, _deployment: Deployment, _layers: list[int] | None, _model_layers: int | None) -> bytes:
    """Return the map as npy, int64 [layers, slots]."""
    return render_npy(placement.phy2log)


def render_lists(placement: Placement, _deployment: Deployment, _layers: list[int] | None, _model_layers: int | None) -> bytes:
    """Return the map as a list of lists."""
    return render_json(placement.phy2log.tolist())


NPY = MapFormat(
    "phy2log-npy",
    "physical-to-logical map: npy int64 [MoE layers, slots]",
    {"npy": anything},
    read_array,
    render_array,
    is_slot_table,
    general=True,
)
JSON = MapFormat(
    "phy2log-json",
    "physical-to-logical map: JSON list of slots per MoE layer",
    {"JSON": nothing},
    read_lists,
    render_lists,
    is_slot_table,
)
