"""The map in a certificate that ``eplb-gap solve`` wrote; read only, and judged anew like any other."""

from __future__ import annotations

from typing import Any

from problem.deployment import Deployment
from problem.errors import InputError
from problem.formats.map_checks import check_moe_layers, slot_table
from problem.placement import Placement

KEYS = ("schema", "phy2log")


def read(document: Any, where: str, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map of a certificate; its proof is not looked at, see :mod:`problem.certificate`."""
    if not isinstance(document, dict) or not set(KEYS) <= document.keys():
        raise InputError(f"{where} is no certificate; an object with the keys {', '.join(KEYS)} is needed")
    table = slot_table(document["phy2log"], f"{where}, phy2log", deployment)
    check_moe_layers(len(table), layer_ids, where)
    return Placement(table, deployment.num_experts)
