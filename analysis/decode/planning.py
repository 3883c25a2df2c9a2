"""A map planned on recorded decode steps in place of summed loads, for the best choice of replicas to read few experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eplb_gap.analysis.decode.batches import decode_steps
from eplb_gap.heuristics.dispatch.mixed_cost import plan_for_cost
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.mixed_cost import StepCost
from eplb_gap.problem.routing.trace import RoutingTrace

SAMPLE = 48
"""Steps that are planned on, at even distances in time."""
MOVES = 3000


def plan_for_steps(
    routing: RoutingTrace,
    deployment: Deployment,
    batch: int | None = 64,
    cost: StepCost | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> np.ndarray:
    """Plan a map whose fullest GPU pays little in the mean of a sample of decode steps, about a second a layer of 256 experts.

    Parameters
    ----------
    routing : RoutingTrace
        Tokens to plan on.
    deployment : Deployment
        With as many slots on every GPU, all alive.
    batch : int or None, default 64
        As of :func:`eplb_gap.analysis.decode.batches.decode_steps`.
    cost : StepCost, optional
        What a GPU pays for; by default for experts alone.
    tick : callable, optional
        Called with (what, done, total) before every layer.

    Returns
    -------
    ndarray
        int64 [layers, slots].

    Raises
    ------
    InputError
        If there is no such batch, the trace does not fit the deployment, or that has dead GPUs or unequal slots.

    Examples
    --------
    >>> from eplb_gap import Deployment
    >>> from eplb_gap.analysis.decode.planning import plan_for_steps
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 1]], [[2, 3]]] * 2, num_experts=4, step=[0, 1, 2, 3])  # 0 and 1 together, or 2 and 3
    >>> placed = plan_for_steps(routing, Deployment(4, 4, 2), batch=None)
    >>> sorted((placed[0, :2] // 2).tolist())  # one of each pair on a GPU
    [0, 1]
    """
    if routing.num_experts != deployment.num_experts:
        raise InputError(f"routing has {routing.num_experts} experts; the deployment has {deployment.num_experts}")
    steps = decode_steps(routing, batch)
    sample = np.unique(np.linspace(0, steps.count - 1, SAMPLE).round().astype(np.int64))
    maps = []
    for layer in range(routing.num_layers):
        tick(f"planning layer {layer}", layer, routing.num_layers)
        counts = steps.counts(routing, layer)[sample]
        maps.append(plan_for_cost(counts, deployment, cost or StepCost(expert=1, token=0), MOVES)[0])
    return np.stack(maps)
