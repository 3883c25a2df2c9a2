"""Traffic of maps on the tokens that they are planned on and on those that they serve, and what is to be known about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from eplb_gap.analysis.network.routed import Routed
from eplb_gap.analysis.network.traffic import NetworkTraffic, network_traffic, visit_bounds
from eplb_gap.heuristics.dispatch.replica_choice import Rule
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.routing.trace import RoutingTrace
from eplb_gap.problem.routing.traffic import Dispatch

NO_LAYER_COST = (
    "Nothing is to be won by keeping the next layer's experts near: combine returns every token to its source after each layer."
)


@dataclass(frozen=True)
class MapTraffic:
    """One map on both windows.

    Parameters
    ----------
    name : str
    planned, served : NetworkTraffic
    """

    name: str
    planned: NetworkTraffic
    served: NetworkTraffic


@dataclass(frozen=True)
class Counted:
    """Maps on the same tokens.

    Parameters
    ----------
    maps : list of MapTraffic
    notes : list of str
        What the figures rest on, a sentence each.
    """

    maps: list[MapTraffic]
    notes: list[str]


def planned_and_served(
    routed: Routed,
    cluster: Deployment,
    plan_window: int,
    serve_window: int,
    maps: Iterable[tuple[str, Placement]],
    dispatch: Dispatch,
    replicas: Rule,
    prove: Callable[[str], None] | None = None,
) -> Counted:
    """Count the traffic of maps on the tokens of two windows.

    Parameters
    ----------
    routed : Routed
    cluster : Deployment
        With the nodes that tokens cross.
    plan_window, serve_window : int
    maps : iterable of (str, Placement)
    dispatch, replicas
        As of :func:`eplb_gap.network_traffic`.
    prove : callable, optional
        As of :func:`eplb_gap.analysis.network.traffic.visit_bounds`.

    Raises
    ------
    InputError
        If a window has no tokens, a source is no GPU, or as :func:`eplb_gap.network_traffic`.
    """
    tokens = [_tokens(routed, window, name) for window, name in ((plan_window, "plan-window"), (serve_window, "serve-window"))]
    notes = _sample(routed, (plan_window, serve_window))
    source = routed.routing.source
    if source is not None and int(source.max()) >= cluster.num_gpus:
        raise InputError(
            f"the routing has tokens of GPU {source.max()}; the deployment has GPUs 0 to {cluster.num_gpus - 1}. Routing without "
            "sources is taken to come from every GPU alike"
        )
    if source is not None:
        notes.append("Tokens come from the GPUs that the routing says.")
    else:
        nearest = "" if replicas != "local-first" else "; local-first has nothing to be near to and chooses as hashed does"
        notes.append(f"The routing has no sources: as many tokens come from every GPU{nearest}.")
    bounds = [visit_bounds(part, cluster, dispatch, prove) for part in tokens]
    counted = [
        MapTraffic(
            name,
            *(
                network_traffic(part, placed, cluster, dispatch, replicas, bounds=known)
                for part, known in zip(tokens, bounds, strict=True)
            ),
        )
        for name, placed in maps
    ]
    return Counted(counted, [*notes, *_means(cluster, dispatch)])


def _means(cluster: Deployment, dispatch: Dispatch) -> list[str]:
    if dispatch == "none":
        said = ["Every replica gets a copy of its own: the network's load is the GPU load; balance is all a map can win."]
    elif dispatch == "rank-dedup":
        said = ["A token pays for the GPUs that it visits: bound and gap are those of GPU visits; fewest-visits is about nodes."]
    else:
        said = ["A token pays for the nodes that it visits: bound and gap are those of node visits."]
    if cluster.num_nodes == 1:
        return [*said, "There is one node: every token visits it, and no copy crosses nodes."]
    return said if dispatch == "none" else [*said, NO_LAYER_COST]


def _tokens(routed: Routed, window: int, name: str) -> RoutingTrace:
    first, end = routed.spans[window]
    if first == end:
        raise InputError(f"the routing has no tokens of {name} {window}; windows with tokens are needed")
    return routed.tokens(window)


def _sample(routed: Routed, windows: tuple[int, int]) -> list[str]:
    """Say how much of the loads the routing holds, where they are not its own counts."""
    parts = []
    for window in windows:
        loads, held = routed.trace.window(window), routed.tokens(window).loads()
        if (held > loads).any():
            return [f"The routing of window {window} is not part of its loads: an expert has more tokens in it."]
        parts.append(Fraction(int(held.sum()), int(loads.sum())))
    if min(parts) == 1:
        return []
    shares = " and ".join(f"{100 * float(part):.1f} %" for part in parts)
    return [
        f"The routing holds {shares} of the loads that are planned on and served; fewest-visits keeps its limit on these "
        "tokens alone."
    ]
