"""One call for every method: optimal placements, or the best known ones with a proven bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from problem.bounds import Bound, best_joint_bound
from problem.deployment import Deployment
from problem.errors import InputError
from problem.instance import Instance
from problem.loads import as_loads
from problem.metrics import optimality_gap
from problem.placement import Placement
from problem.validation import verify
from solvers import auto, cpsat, milp, oracle
from solvers.construct import greedy_map
from solvers.engine import ContradictionError, Engine, Incumbent, Limits, drive
from solvers.hierarchical import NodeProblems, search_layer

METHODS: dict[str, Engine] = {
    "auto": auto.search,
    "bounds": auto.search_nothing,
    "milp": milp.search_highs,
    "milp-cbc": milp.search_cbc,
    "cpsat": cpsat.search,
    "oracle": oracle.search,
}
"""Engines by name; each works on flat instances, and on the nodes of hierarchical deployments."""


@dataclass(frozen=True)
class Progress:
    """State of a solve, handed to its ``progress`` callable after every improvement.

    Parameters
    ----------
    elapsed : float
        Wall seconds since the call.
    layer, num_layers : int
        Layer at work and how many there are.
    upper, lower : float
        Makespan (infinite before the first map) and bound of that layer, in tokens.
    gap : float
    engine : str
    """

    elapsed: float
    layer: int
    num_layers: int
    upper: float
    lower: float
    gap: float
    engine: str


@dataclass(frozen=True)
class Solution:
    """Placement and proof, layer by layer.

    Parameters
    ----------
    placement : Placement
        Verified.
    upper : list of Fraction
        Exact makespans, recomputed from the placement.
    bounds : list of Bound
        What is proven, and how.
    method : str
    seconds : float
        Wall time of the call.
    """

    placement: Placement
    upper: list[Fraction]
    bounds: list[Bound]
    method: str
    seconds: float

    @property
    def lower(self) -> list[Fraction]:
        """Proven lower bound of every layer."""
        return [bound.value for bound in self.bounds]

    @property
    def status(self) -> list[Literal["optimal", "bounded"]]:
        """ "optimal" where upper equals lower as fractions, else "bounded"."""
        return ["optimal" if up == low else "bounded" for up, low in zip(self.upper, self.lower, strict=True)]

    @property
    def proof(self) -> list[str]:
        """How the lower bound is proven; "claim of ..." where it rests on the word of a solver."""
        return [_described(bound) for bound in self.bounds]

    @property
    def gap(self) -> list[float]:
        """Optimality gap ``upper / lower - 1`` of every layer."""
        return [optimality_gap(up, low) for up, low in zip(self.upper, self.lower, strict=True)]


def _described(bound: Bound) -> str:
    if not bound.is_claim:
        return bound.kind
    if bound.kind == "claim":
        return f"claim of {bound.witness['solver']}"
    solvers = {str(node["witness"]["solver"]) for node in bound.witness["nodes"] if node["kind"] == "claim"}
    return f"{bound.kind}, claim of {' and '.join(sorted(solvers))}"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during :func:`solve`; ``solution`` holds the best placement and bounds so far."""

    def __init__(self, solution: Solution) -> None:
        super().__init__("solve was interrupted; the solution so far is attached")
        self.solution = solution


def solve(
    loads: Any,
    deployment: Deployment,
    method: str = "auto",
    target_gap: float = 0.0,
    time_limit: float = 60.0,
    workers: int = 1,
    seed: int = 0,
    initial: Placement | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Solution:
    """Find placements and prove how good they are.

    Parameters
    ----------
    loads : array_like of int [layers, experts]
    deployment : Deployment
    method : str, default "auto"
        Key of :data:`METHODS`.
    target_gap : float, default 0.0
        Stop once ``upper / lower - 1`` of every layer is at most this.
    time_limit : float, default 60.0
        Wall seconds for the whole call, shared over its layers.
    workers : int, default 1
        Threads that a solver may use.
    seed : int, default 0
    initial : Placement, optional
        A legal placement to start from.
    progress : callable, optional
        Called with a :class:`Progress` after every improvement.

    Returns
    -------
    Solution

    Raises
    ------
    InputError
        If an argument is not what it must be.
    PlacementError
        If ``initial`` is not legal.
    ContradictionError
        If a solver's bound contradicts a legal map; such a result is never returned.
    Interrupted
        On Ctrl-C, with the solution so far.
    """
    started = time.monotonic()
    checked = as_loads(loads, "loads", 2)
    _check_arguments(checked, deployment, method, target_gap, time_limit, workers)
    if initial is not None:
        verify(initial, checked, deployment)
    incumbents = [Incumbent(Instance.of_layer(row, deployment)) for row in checked]
    limits = Limits(started + time_limit, target_gap, workers, seed)
    layer = 0

    def report() -> None:
        if progress is not None:
            at = incumbents[layer]
            progress(
                Progress(
                    time.monotonic() - started,
                    layer,
                    len(incumbents),
                    float("inf" if at.upper is None else at.upper),
                    float(at.bound.value),
                    at.gap,
                    method,
                )
            )

    def finish() -> Solution:
        for row, incumbent in zip(checked, incumbents, strict=True):
            if incumbent.slots is None:
                _quick_start(row, deployment, incumbent)
        placement = Placement(np.array([incumbent.slots for incumbent in incumbents]), deployment.num_experts)
        upper = verify(placement, checked, deployment)
        bounds = [incumbent.bound for incumbent in incumbents]
        for number, (value, bound) in enumerate(zip(upper, bounds, strict=True)):
            if bound.value > value:
                raise ContradictionError(
                    f"layer {number}: the bound {bound.value} ({bound.kind}) exceeds the verified makespan {value}"
                )
        return Solution(placement, upper, bounds, method, time.monotonic() - started)

    try:
        for layer, incumbent in enumerate(incumbents):
            share = limits.seconds_left / (len(incumbents) - layer)
            mine = replace(limits, deadline=time.monotonic() + share)
            first = None if initial is None else tuple(int(e) for e in initial.phy2log[layer])
            if first is not None:
                incumbent.offer_map(first)
            if deployment.policy == "hierarchical":
                _solve_hierarchical(checked[layer], deployment, METHODS[method], incumbent, mine, first, report)
            else:
                incumbent.offer_bound(best_joint_bound(incumbent.instance))
                incumbent.offer_map(greedy_map(incumbent.instance, float(incumbent.bound.value)))
                drive(METHODS[method], incumbent, mine, report)
            report()
    except KeyboardInterrupt:
        raise Interrupted(finish()) from None
    return finish()


def _solve_hierarchical(
    loads: np.ndarray,
    deployment: Deployment,
    engine: Engine,
    incumbent: Incumbent,
    limits: Limits,
    initial: Sequence[int] | None,
    report: Callable[[], None],
) -> None:
    for finding in search_layer(loads, deployment, engine, limits, initial, report):
        taken = incumbent.offer_bound(finding) if isinstance(finding, Bound) else incumbent.offer_map(finding)
        if taken:
            report()


def _quick_start(loads: np.ndarray, deployment: Deployment, incumbent: Incumbent) -> None:
    """Give a layer that an interrupt left without a map its greedy one and its closed-form bound."""
    if deployment.policy == "global":
        incumbent.offer_bound(best_joint_bound(incumbent.instance))
        incumbent.offer_map(greedy_map(incumbent.instance))
        return
    problems = NodeProblems(loads, deployment)
    incumbent.offer_bound(problems.bound())
    partition = problems.best_partition()
    for groups in partition:
        node = problems.incumbents[groups]
        node.offer_map(greedy_map(node.instance))
    slots = problems.layer_map(partition)
    assert slots is not None  # every node of the partition has just been given a map
    incumbent.offer_map(slots)


def _check_arguments(
    loads: np.ndarray, deployment: Deployment, method: str, target_gap: float, time_limit: float, workers: int
) -> None:
    if loads.shape[1] != deployment.num_experts:
        raise InputError(f"loads has {loads.shape[1]} experts; the deployment has {deployment.num_experts}")
    if method not in METHODS:
        raise InputError(f"method is {method!r}; the solvers are {', '.join(METHODS)}")
    if not target_gap >= 0:
        raise InputError(f"target_gap is {target_gap}; a number of at least 0 is needed")
    if not time_limit > 0:
        raise InputError(f"time_limit is {time_limit}; a positive number of seconds is needed")
    if workers < 1:
        raise InputError(f"workers is {workers}; at least 1 is needed")
