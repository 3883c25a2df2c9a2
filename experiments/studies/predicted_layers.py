"""Predicted times of one MoE layer under a map: what its experts and its network take in a step, from published profiles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from eplb_gap.analysis.step_time.predict import map_time, network_seconds
from eplb_gap.analysis.step_time.profile import Profile, read_profile
from eplb_gap.heuristics.dispatch.replica_choice import Rule
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.traffic import traffic

TILES = "deepgemm-fp8-sm90"
"""The profile that experts' times are from."""
OF_EXPERTS = "experts' gate and up projections alone"
"""What that profile was measured on: not the down projection, the activation, attention or anything else of a layer."""


@dataclass(frozen=True)
class Network:
    """A network that policies are compared on: its profile, the tokens that every GPU has in a step, how replicas are chosen."""

    profile: str
    title: str
    tokens: int
    rule: Rule


NETWORKS = (
    Network("deepep-h800-ep32", "RDMA, one copy a node, prefill", 4096, "smallest-cover"),
    Network("deepep-v2-sm100-ep8", "NVLink, one copy a GPU, prefill", 4096, "hashed"),
    Network("deepep-h800-low-latency-ep32", "RDMA, one copy an expert, decode", 128, "hashed"),
)


def profiles() -> str:
    """Return a digest of the profiles that times are predicted from: rows of others are not those of these."""
    told = [repr(read_profile(name)) for name in (TILES, *(network.profile for network in NETWORKS))]
    return hashlib.sha256("".join(told).encode()).hexdigest()[:16]


@cache
def _profile(name: str) -> Profile:
    return read_profile(name)


def step_seconds(
    network: Network, experts: np.ndarray, chosen: np.ndarray, steps: np.ndarray, phy2log: np.ndarray, deployment: Deployment
) -> tuple[float, float]:
    """Return what experts and network of one layer take in a step, each predicted step by step, mean over the steps.

    Every step is scaled to the network's tokens a GPU, its routing kept: rounding up to tiles, the busiest GPU and the busiest
    node are those of a step, and not those of a sum of steps, which is smoother than any of them.

    Parameters
    ----------
    network : Network
    experts, chosen : ndarray of int [tokens, topk]
        Logical experts, and the slots that the network's rule chose for them.
    steps : ndarray of int [tokens]
        Step of every token, rising.
    phy2log : ndarray of int [slots]
        The layer's map.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    """
    profile, slots = _profile(network.profile), deployment.num_slots
    assert profile.network is not None
    starts = np.unique(steps, return_index=True)[1].tolist()
    parts = [slice(*ends) for ends in zip(starts, [*starts[1:], len(steps)], strict=True)]
    scales = [network.tokens * deployment.num_gpus / (part.stop - part.start) for part in parts]
    sent = np.stack([np.bincount(chosen[part].ravel(), minlength=slots) for part in parts])
    # Every slot as an expert of its own with the tokens that it was sent, every step as a layer.
    each = Placement(np.tile(np.arange(slots), (len(parts), 1)), slots)
    scaled = np.rint(sent * np.array(scales)[:, None]).astype(np.int64)
    of_experts = map_time(_profile(TILES), each, scaled, Deployment(slots, slots, deployment.num_gpus)).expert_seconds
    assert of_experts is not None
    idle, of_network = 2 * profile.network.latency_seconds, 0.0
    for part, scale in zip(parts, scales, strict=True):
        counted = traffic(experts[part], chosen[part], phy2log, deployment, profile.network.dispatch)
        of_network += idle + scale * (network_seconds(profile.network, counted) - idle)
    return of_experts / len(parts), of_network / len(parts)
