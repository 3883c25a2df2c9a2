"""Who plans maps from routing: for balance alone, and for few node visits; with what rows and tables call them."""

from __future__ import annotations

from collections.abc import Callable

from eplb_gap import heuristics
from eplb_gap.heuristics.locality.affinity_swaps import affinity_swaps
from eplb_gap.heuristics.locality.grouping import greedy_grouping, spectral_grouping
from eplb_gap.heuristics.locality.plan_visits import plan_visits
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace

Planner = Callable[[RoutingTrace, Deployment], Placement]
EPS = 0.05
"""Above the bound on the GPU load, for the locality planner."""
SEED, BALANCE, PLANNER = "initial_program", "fast", "visits"
SPECTRAL, GREEDY, AFFINITY = "spectral", "greedy", "affinity"


def _balanced(method: str) -> Planner:
    return lambda routing, deployment: heuristics.rebalance(routing.loads(), deployment, method)


def _grouped(grouping: Callable[..., Placement]) -> Planner:
    return lambda routing, deployment: grouping(
        routing, deployment, replicas="spread" if deployment.num_slots > deployment.num_experts else "home"
    )


PLANNERS: dict[str, Planner] = {
    SEED: _balanced(SEED),
    BALANCE: _balanced(BALANCE),
    AFFINITY: affinity_swaps,
    SPECTRAL: _grouped(spectral_grouping),
    GREEDY: _grouped(greedy_grouping),
    PLANNER: lambda routing, deployment: plan_visits(routing, deployment, eps=EPS),
}
TITLES = {
    SEED: "balance only, DeepSeek's algorithm",
    BALANCE: "balance only, the planner",
    AFFINITY: "affinity-aware EPLB, GPUs exchanged between nodes",
    SPECTRAL: "spectral grouping, balance inside nodes",
    GREEDY: "greedy co-activation, balance inside nodes",
    PLANNER: f"fewest visits, GPU and node load <= {1 + EPS:g} of the bound",
}
SHORT = {
    SEED: "DeepSeek's algorithm",
    BALANCE: "planner, balance only",
    AFFINITY: "affinity-aware EPLB",
    SPECTRAL: "spectral grouping",
    GREEDY: "greedy co-activation",
    PLANNER: "planner, fewest visits",
}
"""For legends."""
