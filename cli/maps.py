"""Maps that a command line names: a file of a serving system, or a method that plans one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eplb_gap.problem import Deployment, InputError, Placement
from eplb_gap.problem.uneven_map import GpuLists

if TYPE_CHECKING:
    from eplb_gap.analysis.asked import Asked
    from eplb_gap.problem.routing.trace import RoutingTrace

FEWEST_VISITS = "fewest-visits"
"""Names the map of few node visits that recorded routing is planned for."""


@dataclass(frozen=True)
class PlannedMap:
    """A map and where it comes from.

    Parameters
    ----------
    name : str
        File name or method.
    placed : Placement or GpuLists
    method : str or None
        The method that planned it; None for a file.
    """

    name: str
    placed: Placement | GpuLists
    method: str | None

    def regular(self, option: str) -> Placement:
        """Return the placement, or refuse a map whose GPUs hold unequal numbers of experts."""
        if isinstance(self.placed, GpuLists):
            raise InputError(f"{option} {self.name}: {self.placed.describe()}; equal numbers are needed here")
        return self.placed


def planning_tokens(asked: Asked, window: int | None) -> tuple[RoutingTrace, Deployment] | None:
    """Return the tokens of a window, or all, and the deployment with its nodes, where routing was read."""
    if asked.routed is None or asked.cluster is None:
        return None
    return asked.routed.routing if window is None else asked.routed.tokens(window), asked.cluster


def planned_map(
    name: str,
    history: np.ndarray,
    deployment: Deployment,
    format: str | None,
    layer_ids: list[int],
    in_use: Placement | None = None,
    tokens: tuple[RoutingTrace, Deployment] | None = None,
) -> PlannedMap:
    """Plan with the method of that name or the configuration in that file, or read the map in it.

    Parameters
    ----------
    name : str
        Key of :data:`eplb_gap.heuristics.METHODS`, path of a configuration (.toml, as calibration writes) or of a map file.
    history : ndarray
        int64 [windows, layers, experts]; what a method plans on: the last window, or more of them if it takes a history.
    deployment : Deployment
    format : str or None
        Format of the file.
    layer_ids : list of int
        Which layer of the model each row of the loads is.
    in_use : Placement, optional
        The map in use, for methods that improve one.
    tokens : (RoutingTrace, Deployment), optional
        Recorded routing to plan on and the deployment with its nodes, for ``fewest-visits``, which needs both.

    Raises
    ------
    InputError
        If it is neither, or the file is no map of this deployment.
    """
    from eplb_gap import heuristics
    from eplb_gap.heuristics.registry import planning_loads
    from eplb_gap.problem import formats

    if format is not None and format not in formats.MAP_FORMATS:  # also where no file is read
        raise InputError(f"--map-format is {format!r}; the formats are {', '.join(formats.MAP_FORMATS)}")
    if name in heuristics.METHODS:
        previous = in_use if heuristics.HEURISTICS[name].improve is not None else None
        return PlannedMap(name, heuristics.rebalance(planning_loads(name, history), deployment, name, previous=previous), name)
    if name == FEWEST_VISITS:
        if tokens is None:
            raise InputError(f"map {name} needs --routing, the experts of every token")
        if tokens[1].num_nodes == 1:
            raise InputError(f"map {name} is of few node visits and the deployment has one node; --nodes says more")
        from eplb_gap.analysis.network.planning import fewest_visits

        return PlannedMap(name, fewest_visits(*tokens), None)
    if not os.path.exists(name):
        raise InputError(
            f"{name!r} is neither a file nor a method; with --routing {FEWEST_VISITS!r} is a map; the methods are "
            f"{', '.join(heuristics.METHODS)}"
        )
    if Path(name).suffix == ".toml":
        return PlannedMap(Path(name).name, heuristics.rebalance(history[-1], deployment, config=name), None)
    placed = formats.read_map(Path(name), deployment, format, layer_ids)
    layers = placed.num_layers
    if layers != history.shape[1]:
        raise InputError(f"map {name} has {layers} layers; the loads have {history.shape[1]}")
    return PlannedMap(Path(name).name, placed, None)
