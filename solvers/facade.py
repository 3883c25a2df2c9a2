"""One call for every method: optimal placements, or the best known ones with a proven bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.tiers import seconds_compiling
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment, UnevenDeployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify
from eplb_gap.solvers import auto
from eplb_gap.solvers.compact import cpsat, milp
from eplb_gap.solvers.compact.watchdog import watched
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import ContradictionError, Engine, Incumbent, Limits, drive
from eplb_gap.solvers.engines import exact_cover, oracle, pairing, patterns
from eplb_gap.solvers.engines import repartition as splitting
from eplb_gap.solvers.engines.first_pass import first_pass, load_kernels
from eplb_gap.solvers.hierarchical import NodeProblems, search_layer
from eplb_gap.solvers.solution import Interrupted, Progress, Solution

METHODS: dict[str, Engine] = {
    "auto": auto.search,
    "bounds": auto.search_nothing,
    "milp": watched(milp.search_highs),
    "milp-cbc": watched(milp.search_cbc),
    "cpsat": watched(cpsat.search),
    "oracle": oracle.search,
    "exact-cover": exact_cover.search,
    "pairing": pairing.search,
    "patterns": patterns.search,
    "splitting": splitting.search,
}
"""Engines by name; each works on flat instances, and on the nodes of hierarchical deployments."""

UNEVEN_METHODS = ("auto", "bounds", "milp", "milp-cbc", "cpsat", "oracle")
"""Those that work on GPUs with unequal slots."""

_KERNELS: dict[Engine, Callable[[], None]] = {exact_cover.search: exact_cover.compile_kernels}
"""What compiles an engine's own kernels, where that takes longer than a user's time limit may be."""


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
        The slots of dead GPUs get filler (:mod:`eplb_gap.problem.dead_ranks`).
    method : str, default "auto"
        Key of :data:`METHODS`; one of :data:`UNEVEN_METHODS` if the live GPUs have unequal slots.
    target_gap : float, default 0.0
        Stop once ``upper / lower - 1`` of every layer is at most this.
    time_limit : float, default 60.0
        Wall seconds for the whole call, shared over its layers. What kernels take to compile, once per installation, or to be
        interpreted meanwhile is left out; the small ones of pairing and patterns are compiled when they are first used.
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
    checked = as_loads(loads, "loads", 2)
    _check_arguments(checked, deployment, method, target_gap, time_limit, workers)
    live = deployment.live
    _compile(live, method)
    if initial is not None and live is not deployment:
        verify(initial, checked, deployment)
        initial = without_dead(initial, deployment)
    started = time.monotonic()
    work = _Work(checked, live, method, Limits(started + time_limit, target_gap, workers, seed), started, progress)
    try:
        work.start(initial)
        work.improve()
    except KeyboardInterrupt:
        raise Interrupted(_on_all_gpus(work.solution(), deployment)) from None
    return _on_all_gpus(work.solution(), deployment)


def _compile(deployment: Deployment, method: str) -> None:
    if isinstance(deployment, UnevenDeployment):
        greedy_map(Instance((5, 4, 3, 3), 5, 2, slots_by_gpu=(2, 3)))  # no map reaches its bound: all kernels run
        return
    load_kernels(deployment)
    shape = deployment.slots_per_node, deployment.slots_per_gpu
    for engine in auto.engines(*shape) if method == "auto" else (METHODS[method],):
        _KERNELS.get(engine, lambda: None)()


def _on_all_gpus(solution: Solution, deployment: Deployment) -> Solution:
    return replace(solution, placement=with_dead(solution.placement, deployment))


class _Work:
    """State of one call of :func:`solve`: the best map and bound of every layer."""

    def __init__(
        self,
        loads: np.ndarray,
        deployment: Deployment,
        method: str,
        limits: Limits,
        started: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.loads, self.deployment, self.method, self.limits = loads, deployment, method, limits
        self.started, self.progress = started, progress
        self.slots: list[np.ndarray | tuple[int, ...] | None] = [None] * len(loads)
        self.bounds = [Bound(Fraction(0), "mean")] * len(loads)
        self.upper: list[Fraction] = []

    def start(self, initial: Placement | None) -> None:
        """Give every layer its first map and bound, and judge the maps."""
        for layer in range(len(self.loads)):
            share = self.limits.seconds_left / (2 * (len(self.loads) - layer))
            compiling = seconds_compiling()
            self._start_layer(layer, share if auto.rests_on_the_mean(self.deployment) else 0.0)
            self.limits = replace(self.limits, deadline=self.limits.deadline + seconds_compiling() - compiling)
        self.upper = self._verified()
        if initial is not None:
            given = verify(initial, self.loads, self.deployment)
            for layer, value in enumerate(given):
                if value < self.upper[layer]:
                    self.slots[layer], self.upper[layer] = initial.phy2log[layer], value
        for layer in range(len(self.loads)):
            self._report(layer)

    def _start_layer(self, layer: int, seconds: float) -> None:
        row = self.loads[layer]
        uneven = isinstance(self.deployment, UnevenDeployment)
        found = None if uneven else first_pass(row, self.deployment, self.limits.target_gap, seconds, self.limits.seed)
        if found is not None:
            self.slots[layer], self.bounds[layer] = found.slots, found.bound
        if self.slots[layer] is None:
            self.slots[layer], self.bounds[layer] = _plain_start(row, self.deployment)

    def _verified(self) -> list[Fraction]:
        return verify(Placement(np.array(self.slots), self.deployment.num_experts), self.loads, self.deployment)

    def improve(self) -> None:
        """Run the engine on the layers that are not within the target gap, sharing the time that is left."""
        gaps = [optimality_gap(value, bound.value) for value, bound in zip(self.upper, self.bounds, strict=True)]
        left = [layer for layer, gap in enumerate(gaps) if gap > self.limits.target_gap]
        for number, layer in enumerate(left):
            share = self.limits.seconds_left / (len(left) - number)
            self._improve_layer(layer, replace(self.limits, deadline=time.monotonic() + share))

    def _improve_layer(self, layer: int, limits: Limits) -> None:
        slots = self.slots[layer]
        assert slots is not None  # every layer was started
        incumbent = Incumbent(Instance.of_layer(self.loads[layer], self.deployment), bound=self.bounds[layer])
        first = tuple(int(e) for e in slots)
        incumbent.offer_map(first)

        def report() -> None:
            self.slots[layer], self.bounds[layer] = incumbent.slots, incumbent.bound
            if incumbent.upper is not None:
                self.upper[layer] = incumbent.upper
            self._report(layer)

        if self.deployment.policy == "global":
            incumbent.offer_bound(best_joint_bound(incumbent.instance))
            drive(METHODS[self.method], incumbent, limits, report)
        else:
            for finding in search_layer(self.loads[layer], self.deployment, METHODS[self.method], limits, first, report):
                taken = incumbent.offer_bound(finding) if isinstance(finding, Bound) else incumbent.offer_map(finding)
                if taken:
                    report()
        report()

    def _report(self, layer: int) -> None:
        if self.progress is not None:
            upper, lower = self.upper[layer], self.bounds[layer].value
            elapsed, gap = time.monotonic() - self.started, optimality_gap(upper, lower)
            self.progress(Progress(elapsed, layer, len(self.loads), float(upper), float(lower), gap, self.method))

    def solution(self) -> Solution:
        """Return the best maps and bounds; layers that an interrupt left without a map get a quick one."""
        for layer, slots in enumerate(self.slots):
            if slots is None:
                self._start_layer(layer, 0.0)
        placement = Placement(np.array(self.slots), self.deployment.num_experts)
        upper = verify(placement, self.loads, self.deployment)
        for number, (value, bound) in enumerate(zip(upper, self.bounds, strict=True)):
            if bound.value > value:
                raise ContradictionError(
                    f"layer {number}: the bound {bound.value} ({bound.kind}) exceeds the verified makespan {value}"
                )
        return Solution(placement, upper, self.bounds, self.method, time.monotonic() - self.started)


def _plain_start(loads: np.ndarray, deployment: Deployment) -> tuple[tuple[int, ...], Bound]:
    """Return a legal map and a closed-form bound of a layer without compiled code: any loads, any number of groups."""
    if deployment.policy == "global":
        instance = Instance.of_layer(loads, deployment)
        bound = best_joint_bound(instance)
        return greedy_map(instance, float(bound.value)), bound
    problems = NodeProblems(loads, deployment)
    partition = problems.best_partition()
    for groups in partition:
        node = problems.incumbents[groups]
        node.offer_map(greedy_map(node.instance, float(node.bound.value)))
    slots = problems.layer_map(partition)
    assert slots is not None  # every node of the partition has just been given a map
    return slots, problems.bound()


def _check_arguments(
    loads: np.ndarray, deployment: Deployment, method: str, target_gap: float, time_limit: float, workers: int
) -> None:
    if loads.shape[1] != deployment.num_experts:
        raise InputError(f"loads has {loads.shape[1]} experts; the deployment has {deployment.num_experts}")
    if method not in METHODS:
        raise InputError(f"method is {method!r}; the solvers are {', '.join(METHODS)}")
    if isinstance(deployment.live, UnevenDeployment) and method not in UNEVEN_METHODS:
        raise InputError(
            f"method is {method!r}, which needs equally many slots on all live GPUs; "
            f"for unequal slots there are {', '.join(UNEVEN_METHODS)}"
        )
    if not target_gap >= 0:
        raise InputError(f"target_gap is {target_gap}; a number of at least 0 is needed")
    if not time_limit > 0:
        raise InputError(f"time_limit is {time_limit}; a positive number of seconds is needed")
    if workers < 1:
        raise InputError(f"workers is {workers}; at least 1 is needed")
