"""Traffic over the network as ``evaluate`` and ``explain`` print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from eplb_gap.cli.options import DispatchChoice, ReplicasChoice, log, out, spinner
from eplb_gap.problem import Deployment, InputError

if TYPE_CHECKING:  # these load the heuristics, which `--help` need not wait for
    from collections.abc import Sequence

    import numpy as np

    from eplb_gap.analysis.asked import Asked
    from eplb_gap.analysis.network.served import Counted
    from eplb_gap.analysis.windows import Windows
    from eplb_gap.cli.maps import PlannedMap


def counted_traffic(
    asked: Asked,
    windows: Windows,
    planned: Sequence[PlannedMap],
    dispatch: DispatchChoice | None,
    replicas: ReplicasChoice | None,
    prove: bool = False,
) -> Counted | None:
    """Count the traffic of maps where routing was read; None elsewhere.

    Raises
    ------
    InputError
        If an option of traffic is given without routing, a proof is asked for where prices give none, or as
        :func:`eplb_gap.network_traffic`.
    """
    from eplb_gap.analysis.network.served import planned_and_served

    if asked.routed is None or asked.cluster is None:
        for option, value in (("--dispatch", dispatch), ("--replicas", replicas)):
            if value is not None:
                raise InputError(f"{option} is {value.value} without --routing; traffic is counted on recorded routing")
        if prove:
            raise InputError("--prove-visits is given without --routing; visits are those of recorded routing")
        return None
    cluster = asked.cluster
    cluster.require_regular("traffic")
    if prove and dispatch is DispatchChoice.none:
        raise InputError("--prove-visits is given with --dispatch none, which pays for no visits; leave it out")
    if prove and (cluster.policy == "hierarchical" or cluster.num_slots > cluster.num_experts):
        why = "has redundant slots" if cluster.policy == "global" else "is hierarchical, whose fewest visits are exact"
        raise InputError(f"--prove-visits is given and the deployment {why}; prices are for maps without replicas")
    with spinner("counting traffic") as update:

        def told(what: str) -> None:
            if log.is_terminal:
                update(what)
            else:  # minutes without a word look like a hang in a log file
                log.print(what, markup=False, highlight=False, soft_wrap=True)

        return planned_and_served(
            asked.routed,
            asked.cluster,
            windows.plan_window,
            windows.serve_window,
            [(one.name, one.regular("--map")) for one in planned],
            (dispatch or DispatchChoice.node_dedup).value,
            (replicas or ReplicasChoice.local_first).value,
            (lambda what: told(f"proving visits, up to a minute a layer: {what}")) if prove else None,
        )


def global_maps(method: str, history: np.ndarray, deployment: Deployment) -> list[PlannedMap]:
    """Return what a method plans without nodes and groups: what a hierarchical policy saves on the network shows beside it.

    There is none under the global policy, or of a method that refuses it.
    """
    from eplb_gap import heuristics
    from eplb_gap.cli.maps import PlannedMap
    from eplb_gap.heuristics.registry import planning_loads

    if deployment.policy == "global":
        return []
    try:
        placed = heuristics.rebalance(planning_loads(method, history), deployment.as_global(), method)
    except InputError:
        return []
    return [PlannedMap(f"{method}, global policy", placed, method)]


def print_traffic(counted: Counted, layer_ids: list[int] | None = None) -> None:
    """Print a table of all maps, one of every map's layers where these are named, and the notes."""
    from eplb_gap.analysis.network.report import LAYER_COLUMNS, LEGEND, heading, layer_rows, table_rows

    def say(line: str) -> None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)

    say(heading(counted))
    table = Table()
    table.add_column("planned / served", overflow="fold")
    for one in counted.maps:
        table.add_column(one.name, justify="right", overflow="fold")
    for row in table_rows(counted):
        table.add_row(*row)
    out.print(table)
    for one in counted.maps if layer_ids is not None else ():
        layers = Table(title=f"{one.name}, planned / served")
        for column in LAYER_COLUMNS:
            layers.add_column(column, justify="right")
        for row in layer_rows(one, layer_ids or []):
            layers.add_row(*row)
        out.print(layers)
    for note in (*counted.notes, LEGEND):
        say(note)
