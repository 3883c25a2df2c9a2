"""Predicted step times of maps, and a time that no map can go below, from a profile.

Where a profile has a hinge, its time is that of all that was timed, of which a layer's imbalance is one cause among many. Tiles
and network say how long the experts and the way to them and back take in one step, layer after layer, nothing overlapped: two
parts of the step, never added to a hinge, which contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.analysis.step_time.profile import LINKS, Network, Profile, Tiles
from eplb_gap.problem.bounds.tile_cost import TileCost, tile_cost_bound
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.metrics import gpu_loads, live_map, per_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.traffic import Traffic


@dataclass(frozen=True)
class StepTime:
    """A predicted time; it is not to be printed without the profile's name and source.

    Parameters
    ----------
    profile : Profile
    imbalance : float
        Mean over layers of the largest GPU load over the mean.
    relative : float or None
        Time as a multiple of that at perfect balance; None without a hinge.
    seconds : float or None
        The same in seconds, of what the profile says that it timed; None where the profile has no T0.
    inside_dead_zone : bool or None
        Whether the imbalance is at most the knee, so that a better balance is worth nothing; None without a hinge.
    expert_seconds : float or None
        Sum over layers of the time of the GPU whose experts take longest, of one step, with even shares over replicas, each of
        which is read; None without tiles.
    network_seconds : float or None
        Sum over layers of dispatch and combine, of one step; None without network or traffic.
    """

    profile: Profile
    imbalance: float
    relative: float | None = None
    seconds: float | None = None
    inside_dead_zone: bool | None = None
    expert_seconds: float | None = None
    network_seconds: float | None = None

    @property
    def at_knee(self) -> bool:
        """Whether the imbalance is within the interval of the knee, so that it may be inside the dead zone or not."""
        interval = None if self.profile.hinge is None else self.profile.hinge.knee_interval
        if interval is None:
            return False
        low, high = interval
        return (low is None or low < self.imbalance) and (high is None or self.imbalance < high)


def imbalance(placement: Placement, loads: Any, deployment: Deployment) -> float:
    """Return the mean over layers of the largest GPU load over the mean, what hinges are fitted to.

    A layer without load has none and is left out; without any load it is 1.

    Parameters
    ----------
    placement : Placement
    loads : array_like of int [layers, experts]
    deployment : Deployment
    """
    return mean_imbalance(gpu_loads(placement, loads, deployment))


def mean_imbalance(loads: np.ndarray) -> float:
    """Return the mean over layers of max over mean of loads of GPUs, float64 [layers, gpus]."""
    loaded = loads[loads.any(axis=1)]
    return float((loaded.max(axis=1) / loaded.mean(axis=1)).mean()) if len(loaded) else 1.0


def step_time(profile: Profile, imbalance: float) -> StepTime:
    """Return the time at an imbalance; what the profile's hinge says, nothing without one.

    Parameters
    ----------
    profile : Profile
    imbalance : float
        At least 1, as :func:`imbalance` returns it.

    Raises
    ------
    InputError
        If the imbalance is less than 1 or not finite.

    Examples
    --------
    >>> from eplb_gap.analysis.step_time.predict import step_time
    >>> from eplb_gap.analysis.step_time.profile import read_profile
    >>> time = step_time(read_profile("qwen2-57b-ep8-h20"), 1.05)
    >>> time.seconds, time.inside_dead_zone
    (82.86, True)
    """
    if not 1.0 <= imbalance < float("inf"):
        raise InputError(f"imbalance is {imbalance}; the fullest GPU over the mean, a number of at least 1, is needed")
    hinge = profile.hinge
    if hinge is None:
        return StepTime(profile, imbalance)
    seconds = None if hinge.seconds is None else hinge.at(imbalance)
    return StepTime(profile, imbalance, hinge.relative(imbalance), seconds, imbalance <= hinge.knee)


def map_time(
    profile: Profile, placement: Placement, loads: Any, deployment: Deployment, traffic: Sequence[Traffic] | None = None
) -> StepTime:
    """Return the time of a map on loads, all that the profile says.

    Parameters
    ----------
    profile : Profile
    placement : Placement
    loads : array_like of int [layers, experts]
        Tokens of one step; the hinge takes any sum of steps, the tiles do not.
    deployment : Deployment
    traffic : sequence of Traffic, optional
        Of every layer of a step, counted for the dispatch of the profile's network.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement
    >>> from eplb_gap.analysis.step_time.predict import map_time
    >>> from eplb_gap.analysis.step_time.profile import read_profile
    >>> placement, deployment = Placement([[0, 1, 2, 3]], 4), Deployment(4, 4, 2)
    >>> time = map_time(read_profile("qwen2-57b-ep8-h20"), placement, [[30, 20, 10, 20]], deployment)
    >>> time.imbalance, round(time.relative, 5), time.inside_dead_zone
    (1.25, 1.04303, False)
    """
    time = step_time(profile, imbalance(placement, loads, deployment))
    if profile.tiles is not None:
        time = replace(time, expert_seconds=_expert_seconds(profile.tiles, placement, loads, deployment))
    if profile.network is not None and traffic is not None:
        time = replace(time, network_seconds=sum(network_seconds(profile.network, layer) for layer in traffic))
    return time


def least_time(
    profile: Profile,
    makespans: Sequence[Fraction],
    loads: Any,
    deployment: Deployment,
    visits: Sequence[Fraction] | None = None,
) -> StepTime:
    """Return times that no map of a deployment goes below; of the experts, no map whose replicas share evenly.

    Parameters
    ----------
    profile : Profile
    makespans : sequence of Fraction [layers]
        Lower bounds on the largest GPU load, as :attr:`eplb_gap.Solution.lower` has them.
    loads : array_like of int [layers, experts]
        Tokens of one step.
    deployment : Deployment
    visits : sequence of Fraction [layers], optional
        Lower bounds on the nodes that the tokens visit, summed, their own among them; they come evenly from all GPUs. For
        ``rank-dedup`` on the GPUs, for ``none`` the loads' sum. Without them nothing is said of the network.

    Returns
    -------
    StepTime
        Of every part the bound alone: one map need not reach them all. That on the experts is one on even shares: a dispatch that
        leaves replicas of an expert without tokens does not read them, and may take less.
    """
    checked = as_loads(loads, "loads", 2)
    if len(makespans) != len(checked):
        raise InputError(f"makespans has {len(makespans)} layers, loads {len(checked)}; as many are needed")
    instances = [Instance.of_layer(layer, deployment) for layer in checked]
    ratios = [lower / one.mean for lower, one in zip(makespans, instances, strict=True) if one.total]
    time = step_time(profile, max(1.0, float(sum(ratios) / len(ratios))) if ratios else 1.0)
    if profile.tiles is not None:
        cost = tile_cost(profile.tiles)
        time = replace(time, expert_seconds=float(sum(tile_cost_bound(one, cost) for one in instances)))
    network = profile.network
    if network is None or visits is None:
        return time
    deployment.require_regular("traffic")
    if len(visits) != len(checked):
        raise InputError(f"visits has {len(visits)} layers, loads {len(checked)}; as many are needed")
    return replace(time, network_seconds=sum(_least_network_seconds(network, float(v), deployment) for v in visits))


def tile_cost(tiles: Tiles) -> TileCost:
    """Return the exact cost of a replica, in seconds as the floats of the profile are."""
    return TileCost(Fraction(tiles.read_seconds), Fraction(tiles.tile_seconds), tiles.tile_rows)


def network_seconds(network: Network, traffic: Traffic) -> float:
    """Return how long a layer's dispatch and combine take.

    Dispatch takes ``latency + bytes max(max_n max(in_n, out_n) / node bandwidth, max_g max(in_g, out_g) / NVLink bandwidth)``:
    every link has its bandwidth in each direction at once, so that the fuller direction of the fullest link is waited for. In
    combine all directions are swapped, which leaves these maxima as they are: it takes the same with its own bytes. The cards of
    a node share its copies evenly, and what goes over them does not count for NVLink. Where nodes are not looked at
    (``rank-dedup``, ``none``) all copies of a GPU take its one link.

    Parameters
    ----------
    network : Network
    traffic : Traffic
        Of one layer, counted for the network's dispatch.
    """
    per_node = len(traffic.into_gpus) // len(traffic.into_nodes)
    copies = max(
        copies - over_card[g // per_node] / per_node
        for gpus, over_card in (
            (traffic.into_gpus, _over_cards(network, traffic.into_nodes)),
            (traffic.out_of_gpus, _over_cards(network, traffic.out_of_nodes)),
        )
        for g, copies in enumerate(gpus)
    )
    return _both_ways(network, float(traffic.busiest_node) / per_node, float(copies))


def _over_cards(network: Network, nodes: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    return nodes if network.dispatch == "node-dedup" else (Fraction(0),) * len(nodes)


def _both_ways(network: Network, node: float, gpu: float) -> float:
    """Return the time of dispatch and combine from the copies per card of the busiest node, and into or out of a GPU."""
    rdma, nvlink = network.rdma_bytes_per_second, network.nvlink_bytes_per_second
    over_rdma = 0.0 if rdma is None else (node if len(LINKS[network.dispatch]) == 2 else gpu) / rdma
    over_nvlink = 0.0 if nvlink is None else gpu / nvlink
    slowest = network.bytes_per_copy * max(over_rdma, over_nvlink)
    return sum(network.latency_seconds + factor * slowest for factor in (1.0, network.combine_factor))


def _least_network_seconds(network: Network, visits: float, deployment: Deployment) -> float:
    """Return what dispatch and combine take at least: the busiest node and GPU have no less than the mean, in either direction.

    With tokens from everywhere one visit in as many as there are nodes is to the token's own and needs no card. Of the visits to
    GPUs, no fewer, one in as many as a node has GPUs (with one link, as there are in all) ends where the copy already is.
    """
    gpus, nodes = deployment.num_gpus, deployment.num_nodes
    there = nodes if network.dispatch == "node-dedup" else 1
    return _both_ways(network, visits * (nodes - 1) / nodes / gpus, visits * (gpus - there) / gpus / gpus)


def _expert_seconds(tiles: Tiles, placement: Placement, loads: Any, deployment: Deployment) -> float:
    """Return the sum over layers of the time of the GPU whose replicas take longest, with even shares over replicas."""
    live, slots_by_gpu = live_map(placement, deployment)
    checked = as_loads(loads, "loads", 2)
    counts = np.maximum(live.counts(), 1)
    rows = -(-checked // (counts * tiles.tile_rows))
    cost = np.where(checked > 0, np.maximum(tiles.read_seconds, tiles.tile_seconds * rows), 0.0)
    on_slots = np.where(live.ranks < 0, 0.0, np.take_along_axis(cost, live.phy2log, axis=1))
    return float(per_gpu(on_slots, slots_by_gpu).max(axis=1).sum())
