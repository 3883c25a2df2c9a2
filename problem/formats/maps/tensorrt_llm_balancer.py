"""TensorRT-LLM's ``moe_load_balancer.yaml``: ``initial_global_assignments`` by absolute layer index."""

from __future__ import annotations

from typing import Any

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.maps.map_checks import check_size, fields, integer, slot_row
from eplb_gap.problem.formats.maps.map_format import MapFormat, anything, has_key
from eplb_gap.problem.placement import Placement

ASSIGNMENTS = "initial_global_assignments"


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the layers of ``layer_ids``, by default all in ascending order.

    Raises
    ------
    InputError
        If a key is missing or unknown, the map is of another deployment, or has no layer of ``layer_ids``.
    """
    config = fields(document, where, ["num_slots", ASSIGNMENTS], ["layer_updates_per_iter", "ep_size"])
    check_size(integer(config["num_slots"], f"{where}: num_slots"), deployment.num_slots, f"{where}: num_slots", "slots")
    if "ep_size" in config:
        check_size(integer(config["ep_size"], f"{where}: ep_size"), deployment.num_gpus, f"{where}: ep_size", "GPUs")
    if integer(config.get("layer_updates_per_iter", 0), f"{where}: layer_updates_per_iter") < 0:
        raise InputError(f"{where}: layer_updates_per_iter is {config['layer_updates_per_iter']}; 0 or more is needed")
    inside = f"{where}: {ASSIGNMENTS}"
    rows = config[ASSIGNMENTS]
    if not isinstance(rows, dict) or not rows:
        raise InputError(f"{inside} is no mapping of layers to their slots, or an empty one")
    checked = {
        integer(layer, f"{inside}: layer"): slot_row(row, f"{inside}[{shown(layer)}]", deployment) for layer, row in rows.items()
    }
    if min(checked) < 0:
        raise InputError(f"{inside} has layer {min(checked)}; layer indices from 0 on are needed")
    missing = [layer for layer in layer_ids or () if layer not in checked]
    if missing:
        raise InputError(f"{inside} has no layer {missing[0]}, which layer_ids names; its layers are {shown(sorted(checked))}")
    return Placement([checked[layer] for layer in layer_ids or sorted(checked)], deployment.num_experts)


def render(placement: Placement, deployment: Deployment, layer_ids: list[int] | None, _model_layers: int | None) -> bytes:
    """Return a static map (no online updates), for which ``layer_ids`` are needed."""
    import yaml

    if layer_ids is None:
        raise InputError("layer_ids is None; TensorRT-LLM's file names layers by their index in the model")
    config = {
        "num_slots": deployment.num_slots,
        ASSIGNMENTS: dict(zip(layer_ids, placement.phy2log.tolist(), strict=True)),
        "layer_updates_per_iter": 0,
    }
    text: str = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=120)
    return text.encode()


FORMAT = MapFormat(
    "tensorrt-llm",
    "TensorRT-LLM moe_load_balancer.yaml: initial_global_assignments by absolute layer index",
    {"YAML": anything},
    read,
    render,
    has_key(ASSIGNMENTS),
    general=True,
)
