"""What is counted on recorded routing, on every kind of deployment, for test_crossing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from crossing import Case, Entry, irregular, nodes

from eplb_gap.analysis.network import routed, served
from eplb_gap.analysis.network import traffic as network
from eplb_gap.heuristics.dispatch import activated as dispatched
from eplb_gap.heuristics.dispatch import replica_choice
from eplb_gap.heuristics.locality import affinity_swaps, spread_replicas
from eplb_gap.problem import Deployment, Placement
from eplb_gap.problem.routing import activated
from eplb_gap.problem.routing import traffic as counted
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.validation import verify

DRIFTING, TIED, ONE_HOT, ALL = [0, 0, 0, 3, 2, 0, 3, 1], [0, 1, 2, 3] * 2, [1] * 8, [2, 3, 0, 1, 3, 3, 2, 2]
ROUTING = RoutingTrace(np.array([DRIFTING, TIED, ONE_HOT, ALL]).T[:, :, None], 4, step=np.arange(8) // 4)
"""Eight tokens in two steps, four layers."""


def judged(x: Case) -> None:
    """Under every dispatch and rule the traffic is counted, and no visits are fewer than their bound."""
    for dispatch in ("node-dedup", "rank-dedup", "none"):
        bounds = network.visit_bounds(ROUTING, x.deployment, dispatch)
        for rule in ("hashed", "local-first", "smallest-cover"):
            found = network.network_traffic(ROUTING, x.placement, x.deployment, dispatch, rule, bounds=bounds).total()
            assert 1 <= found.node_visits <= found.gpu_visits == 1
            assert found.gap is None if dispatch == "none" else found.gap == 0


def on_both_windows(x: Case) -> None:
    """A map is counted on planned and on served tokens."""
    found = served.planned_and_served(
        routed.in_windows(ROUTING), x.deployment, 0, 1, [("map", x.placement)], "node-dedup", "hashed"
    )
    assert found.maps[0].planned.tokens == found.maps[0].served.tokens == 4


def chosen(x: Case) -> None:
    """Replicas that are chosen hold the expert, which the count of their traffic checks."""
    for layer, phy2log in enumerate(x.placement.phy2log):
        rows = ROUTING.rows(layer)
        slots = replica_choice.choose_replicas(rows, phy2log, x.deployment, "hashed")
        assert sum(counted.traffic(rows, slots, phy2log, x.deployment, "none").gpu_loads) == 8


def read_least(x: Case) -> None:
    """As few experts as proven are read of the fullest GPU."""
    active, phy2log = np.array([[True, True, False, True]]), x.placement.phy2log[0]
    gpus, witness = dispatched.fewest_activated(active, phy2log, x.deployment)
    read = activated.activated(gpus, active, phy2log, x.deployment)
    assert (read == activated.activated_bound(witness, active, phy2log, x.deployment)).all()


def repeats_or_bound(deployment: Deployment) -> bool:
    """Whether DeepSeek's algorithm repeats experts on a GPU where that is forbidden, or GPUs can't be exchanged freely."""
    return deployment.duplicates == "forbidden" or nodes(deployment) or irregular(deployment)


def spread(x: Case) -> None:
    """Replicas of experts that are dealt to the nodes make a legal map."""
    homes = np.arange(4) * x.deployment.num_nodes // 4
    flat = dataclasses.replace(x.deployment, num_groups=1)
    layers = [spread_replicas.spread_replicas(homes, ROUTING.co_activation(layer), x.deployment) for layer in range(4)]
    verify(Placement(np.stack(layers), 4), ROUTING.loads(), flat)


ROUTED: dict[Callable[..., Any], Entry] = {
    network.network_traffic: Entry(judged, irregular),
    network.visit_bounds: Entry(judged, irregular),
    served.planned_and_served: Entry(on_both_windows, irregular),
    replica_choice.choose_replicas: Entry(chosen, irregular),
    counted.traffic: Entry(chosen, irregular),
    dispatched.fewest_activated: Entry(read_least, irregular),
    activated.activated: Entry(read_least, irregular),
    activated.activated_bound: Entry(read_least, irregular),
    spread_replicas.spread_replicas: Entry(spread, irregular),
    affinity_swaps.affinity_swaps: Entry(
        lambda x: x.legal(affinity_swaps.affinity_swaps(ROUTING, x.deployment)), repeats_or_bound
    ),
}
NETWORK: tuple[ModuleType, ...] = (network, routed, served)
