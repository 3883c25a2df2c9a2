"""The map in use that a record folder holds (:mod:`eplb_gap.problem.formats.containers.record_files`)."""

from __future__ import annotations

from pathlib import Path

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.record_files import newest_call, one_model, read_call
from eplb_gap.problem.formats.maps.map_checks import slot_array
from eplb_gap.problem.placement import Placement


def read_in_use(path: Path, deployment: Deployment, layer_ids: list[int] | None) -> Placement:
    """Return the map that served the loads of the newest call that can be read.

    Of a host that does not hand the map in use over it is the one that the call before was answered with; if that call cannot be
    read, no older one says which map it was.

    Raises
    ------
    InputError
        If there is neither, it cannot be read, or it is none of the deployment or of the layers.
    """
    paths = one_model(path)
    index, newest = newest_call(paths)
    where, table = f"map in use in file {paths[index]}", newest.in_use
    if table is None and index > 0:
        where, table = f"map answered in file {paths[index - 1]}", read_call(paths[index - 1]).answered
    if table is None:
        raise InputError(f"record {path} does not say which map was in use")
    checked = slot_array(table, where, deployment)
    if layer_ids is None:
        return Placement(checked, deployment.num_experts)
    row_of = {layer: row for row, layer in enumerate(newest.layer_ids or range(len(checked)))}
    missing = [layer for layer in layer_ids if row_of.get(layer, len(checked)) >= len(checked)]
    if missing:
        raise InputError(f"{where} has no layer {missing[0]}; the layers of the loads are needed")
    return Placement(checked[[row_of[layer] for layer in layer_ids]], deployment.num_experts)
