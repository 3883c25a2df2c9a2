"""Maps of serving systems: which formats there are, how a file's format is recognised, reading and writing."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eplb_gap.problem import files
from eplb_gap.problem.atomic import write_atomically
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind, shown
from eplb_gap.problem.formats.containers.npy_bytes import read_npy
from eplb_gap.problem.formats.containers.record_files import is_record
from eplb_gap.problem.formats.containers.torch_arrays import load_torch
from eplb_gap.problem.formats.containers.yaml_text import parse_yaml
from eplb_gap.problem.formats.maps import (
    certificate_map,
    omni_placement,
    phy2log,
    sglang_location,
    tensorrt_llm_balancer,
    vllm_ascend_map,
    vllm_expert_map,
)
from eplb_gap.problem.formats.maps.map_checks import MAX_MAP_ARRAY_BYTES, MAX_MAP_BYTES, check_layer_ids
from eplb_gap.problem.formats.maps.map_format import SUFFIXES, Container, MapFormat, Render
from eplb_gap.problem.formats.maps.recorded_map import read_in_use
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.uneven_map import GpuLists
from eplb_gap.problem.validation import check

FORMATS: dict[str, MapFormat] = {
    format.name: format
    for format in (
        sglang_location.FORMAT,
        vllm_expert_map.FORMAT,
        tensorrt_llm_balancer.FORMAT,
        vllm_ascend_map.FORMAT,
        omni_placement.FORMAT,
        phy2log.NPY,
        phy2log.JSON,
        certificate_map.FORMAT,
    )
}
"""The records of all formats by name, in the order in which they are named and asked whether a file is theirs."""
MAP_FORMATS: dict[str, str] = {name: format.description for name, format in FORMATS.items()}
"""Format -> what it is, in one line."""
WRITTEN = tuple(name for name, format in FORMATS.items() if format.render is not None)
"""Formats that :func:`write_map` writes."""

START_BYTES = 4096


def read_map(
    path: str | os.PathLike[str],
    deployment: Deployment,
    format: str | None = None,
    layer_ids: Sequence[int] | None = None,
) -> Placement | GpuLists:
    """Read a map that a serving system uses or a planner wrote.

    Parameters
    ----------
    path : path
        Its suffix, first bytes and keys tell the format. A JSON list of lists is read as ``"vllm"``. Of a record folder of the
        plug-ins it is the last map in use.
    deployment : Deployment
        What the map must fit: experts, slots, GPUs. Whether the map is legal is judged by :func:`eplb_gap.problem.verify`.
    format : str, optional
        One of :data:`MAP_FORMATS`.
    layer_ids : sequence of int, optional
        Model-layer indices of the loads' rows, ascending. Formats that number the model's layers (``sglang``,
        ``tensorrt-llm``) are read at these, the others must have as many layers. By default all layers of the file.

    Returns
    -------
    Placement or GpuLists
        The latter where GPUs hold unequal numbers of experts (``omni``, ``vllm-ascend``). Replicas are ranked by slot.

    Raises
    ------
    InputError
        Naming the file, the key or entry, what was found and what is needed.
    PlacementError
        If the map is uneven and an expert has no replica.

    Examples
    --------
    >>> import tempfile
    >>> from eplb_gap import Deployment, Placement, read_map, write_map
    >>> deployment = Deployment(3, 4, 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_map(f"{folder}/map.json", Placement([[0, 1, 2, 0]], 3), deployment, "vllm")
    ...     read_map(f"{folder}/map.json", deployment).phy2log.tolist()
    [[0, 1, 2, 0]]
    """
    require_kind("deployment", deployment, Deployment)
    layers = check_layer_ids(layer_ids)
    if format is None and is_record(Path(path)):
        return read_in_use(Path(path), deployment, layers)
    return open_map(path, format).read(deployment, layers)


@dataclass(frozen=True)
class MapFile:
    """A file of a map, opened and recognised, of which no deployment is known yet; made by :func:`open_map`.

    Parameters
    ----------
    content : object
        What its container holds.
    where : str
        Begins the messages.
    format : MapFormat
    """

    content: Any
    where: str
    format: MapFormat

    def read(self, deployment: Deployment, layers: list[int] | None = None) -> Placement | GpuLists:
        """Return the map as :func:`read_map` does; ``layers`` are its ``layer_ids``, checked."""
        return self.format.read(self.content, self.where, deployment, layers)


def open_map(path: str | os.PathLike[str], format: str | None = None) -> MapFile:
    """Read a file of a map into memory, to be fitted to a deployment later; see :func:`read_map`."""
    path = Path(path)
    told = None if format is None else _told(format)
    container = _container(path)
    if told is not None and container not in told.containers:
        raise InputError(f"map file {path} is {container}; format {format!r} is {' or '.join(told.containers)}")
    content = _open(path, container)
    return MapFile(content, f"map file {path}", told or _recognised(content, container, path))


def write_map(
    path: str | os.PathLike[str],
    placement: Placement | GpuLists,
    deployment: Deployment,
    format: str,
    layer_ids: Sequence[int] | None = None,
    num_model_layers: int | None = None,
) -> None:
    """Write a legal map for a serving system: as a whole or not at all, and the same map as the same bytes.

    Parameters
    ----------
    path : path
    placement : Placement
        The formats have no replica ranks: systems number replicas by slot.
    deployment : Deployment
    format : str
        One of :data:`MAP_FORMATS`.
    layer_ids : sequence of int, optional
        Model-layer indices of the placement's layers, ascending; ``tensorrt-llm`` needs them, ``sglang`` where the model has
        dense layers.
    num_model_layers : int, optional
        Decoder layers of the model, dense ones included, which ``sglang`` lists all; needed beside ``layer_ids``.

    Raises
    ------
    InputError
        If the map is uneven or does not fit deployment, layers or format, or the file cannot be written.
    PlacementError
        If the map is not legal in the deployment, as of :func:`eplb_gap.problem.validation.check`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from eplb_gap import Deployment, Placement, write_map
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "map.json")
    ...     write_map(path, Placement([[0, 1, 2, 0]], 3), Deployment(3, 4, 2), "phy2log-json")
    ...     path.read_text().split()
    ['[[0,1,2,0]]']
    """
    render = _renderer(format)
    layers = check_layer_ids(layer_ids)
    if isinstance(placement, GpuLists):
        raise InputError(f"placement is uneven: {placement.describe()}; a map is written where all GPUs hold equally many")
    if layers is not None and len(layers) != placement.num_layers:
        raise InputError(f"layer_ids has {len(layers)} layers; the placement has {placement.num_layers}")
    if num_model_layers is not None and num_model_layers < placement.num_layers:
        raise InputError(f"num_model_layers is {num_model_layers}; at least the placement's {placement.num_layers} are needed")
    check(placement, deployment)
    write_atomically(path, render(placement, deployment, layers, num_model_layers))


def holds_map(path: Path, format: str) -> bool:
    """Return whether a file is a map that :func:`write_map` writes in a format, for whatever model and deployment.

    Of loads it never says so, although arrays and lists of both can look alike.
    """
    told = _told(format)
    try:
        return told.written is not None and _container(path) == told.container and told.written(_open(path, told.container))
    except InputError:
        return False


def check_target(path: Path, format: str) -> None:
    """Refuse what :func:`write_map` cannot write to a file, before the map is planned.

    Raises
    ------
    InputError
        If the format is unknown or read only, or the file's suffix says another container, so that no reader would understand it.
    """
    _renderer(format)
    told, named = _told(format), SUFFIXES.get(path.suffix.lower())
    if named is not None and named != told.container:
        raise InputError(
            f"{path} ends like {named}; a map of format {format!r} is {told.container}, a name ending in {told.suffix} is needed"
        )


def _renderer(name: str) -> Render:
    found = _told(name).render
    if found is None:
        raise InputError(f"format {name!r} is read only; the others are {', '.join(WRITTEN)}")
    return found


def _told(name: str) -> MapFormat:
    if name not in FORMATS:
        raise InputError(f"format is {name!r}; the map formats are {', '.join(FORMATS)}")
    return FORMATS[name]


def _container(path: Path) -> Container:
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    start = files.read_start(path, MAX_MAP_ARRAY_BYTES, START_BYTES)
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    return "JSON" if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"{", b"[")) else "YAML"


def _open(path: Path, container: Container) -> Any:
    if container == "npy":
        return read_npy(path, MAX_MAP_ARRAY_BYTES)
    if container == "torch":
        return load_torch(path, MAX_MAP_ARRAY_BYTES)
    return (parse_yaml if container == "YAML" else files.parse_json)(path, MAX_MAP_BYTES)


def _recognised(content: Any, container: Container, path: Path) -> MapFormat:
    for format in sorted(FORMATS.values(), key=lambda format: format.general):
        if container in format.containers and format.containers[container](content):
            return format
    raise InputError(f"map file {path} holds {shown(content)}; no map format begins like that ({', '.join(FORMATS)})")
