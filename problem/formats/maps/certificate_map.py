"""The map in a certificate that ``eplb-gap solve`` wrote; read only, and judged anew like any other."""

from __future__ import annotations

from typing import Any

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.maps.map_checks import check_moe_layers, slot_table
from eplb_gap.problem.formats.maps.map_format import MapFormat, has_key
from eplb_gap.problem.placement import Placement

KEYS = ("schema", "phy2log")


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map of a certificate; its proof is not looked at, see :mod:`eplb_gap.problem.certificate`."""
    if not isinstance(document, dict) or not set(KEYS) <= document.keys():
        raise InputError(f"{where} is no certificate; an object with the keys {', '.join(KEYS)} is needed")
    table = slot_table(document["phy2log"], f"{where}, phy2log", deployment)
    check_moe_layers(len(table), layer_ids, where)
    return Placement(table, deployment.num_experts)


FORMAT = MapFormat("certificate", "certificate of eplb-gap solve: read only", {"JSON": has_key("schema")}, read)
