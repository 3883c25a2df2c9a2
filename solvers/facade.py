"""One call for every method: optimal placements, or the best known ones with a proven bound."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from eplb_gap.heuristics.tiers import seconds_compiling
from eplb_gap.problem.bounds.bounds import Bound, best_joint_bound
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify
from eplb_gap.solvers import auto
from eplb_gap.solvers.compact import cpsat, milp
from eplb_gap.solvers.construct import greedy_map
from eplb_gap.solvers.engine import ContradictionError, Engine, Incumbent, Limits, Search, drive
from eplb_gap.solvers.engines import equal_cardinality, exact_cover, oracle, pairing, patterns, repartition
from eplb_gap.solvers.engines.first_pass import first_pass, load_kernels
from eplb_gap.solvers.hierarchical import NodeProblems, search_layer
from eplb_gap.solvers.planner_maps import planner_maps, planners
from eplb_gap.solvers.solution import Interrupted, Progress, Solution

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        auto.ENGINE,
        auto.BOUNDS,
        milp.HIGHS,
        milp.CBC,
        cpsat.ENGINE,
        oracle.ENGINE,
        exact_cover.ENGINE,
        pairing.ENGINE,
        patterns.ENGINE,
        repartition.ENGINE,
        equal_cardinality.ENGINE,
    )
}
"""The records of all engines by name; each works on flat instances, and on the nodes of hierarchical deployments.

>>> from eplb_gap import ENGINES
>>> "auto" in ENGINES, "milp" in ENGINES
(True, True)
"""
PROGRAM_SECONDS, PROGRAM_SHARE = 0.25, 0.05
"""CPU seconds, and share of the time limit, after which no more heuristics that are not compiled are asked for a map."""
MAX_WORKERS, MAX_SEED = 4096, 2**31 - 1
"""Most threads and the largest seed that every engine takes."""
FEW_SETS = 500
"""Sets of groups that a node can host up to which a plain start bounds them all: some .3 s."""
METHODS: dict[str, Search] = {name: engine.search for name, engine in ENGINES.items()}
"""Engines by name, to be called."""


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
        Key of :data:`ENGINES`; one for unequal slots if the live GPUs have them.
    target_gap : float, default 0.0
        Stop once ``upper / lower - 1`` of every layer is at most this.
    time_limit : float, default 60.0
        Wall seconds for the whole call, shared over its layers. What kernels take to compile, once per installation, or to be
        interpreted meanwhile is left out; the small ones of pairing and patterns are compiled when they are first used. The
        planners (see Notes) are not cut off.
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

    Notes
    -----
    Every engine starts from the best map of the compiled heuristics that are registered. For every layer that is not within
    ``target_gap`` they are asked to their end, some 30 ms a layer together, whatever the time limit: no map is worse than theirs.
    Where nodes are so small that the engine is expected to close the layer sooner, they are asked afterwards, about the layers
    that it left open. So are, last, the programs of others, one by one, until they have taken :data:`PROGRAM_SECONDS` of CPU time
    or :data:`PROGRAM_SHARE` of the limit; beyond 32 slots none was seen to beat the best compiled one.

    Examples
    --------
    >>> from eplb_gap import Deployment, solve
    >>> solution = solve([[90, 50, 30, 10]], Deployment(4, 6, 3))
    >>> solution.upper, solution.lower, solution.status
    ([Fraction(60, 1)], [Fraction(60, 1)], ['optimal'])
    """
    require_kind("deployment", deployment, Deployment)
    checked = as_loads(loads, "loads", 2)
    _check_arguments(checked, deployment, method, target_gap, time_limit, workers, seed)
    live = deployment.live
    _compile(live, ENGINES[method])
    if initial is not None:
        require_kind("initial", initial, Placement)
    if initial is not None and live is not deployment:
        verify(initial, checked, deployment)
        initial = without_dead(initial, deployment)
    started = time.monotonic()
    work = _Work(checked, live, ENGINES[method], Limits(started + time_limit, target_gap, workers, seed), started, progress)
    try:
        work.start(initial)
        if not work.asks_last:
            work.ask_planners(compiled=True)
        work.improve()
        if work.asks_last:
            work.ask_planners(compiled=True)
        work.ask_planners(compiled=False)
    except KeyboardInterrupt:
        raise Interrupted(_on_all_gpus(work.solution(), deployment)) from None
    except SystemError as error:  # what Ctrl-C becomes where it comes while numba wraps an array that a kernel returns
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        raise Interrupted(_on_all_gpus(work.solution(), deployment)) from None
    return _on_all_gpus(work.solution(), deployment)


def _compile(deployment: Deployment, engine: Engine) -> None:
    if deployment.is_regular:
        load_kernels(deployment)
    else:
        greedy_map(Instance((5, 4, 3, 3), 5, 2, slots_by_gpu=(2, 3)))  # no map reaches its bound: all kernels run
    if engine.compile is not None:
        engine.compile(deployment)


def _on_all_gpus(solution: Solution, deployment: Deployment) -> Solution:
    return replace(solution, placement=with_dead(solution.placement, deployment), deployment=deployment)


class _Work:
    """State of one call of :func:`solve`: an incumbent for every layer that was started."""

    def __init__(
        self,
        loads: np.ndarray,
        deployment: Deployment,
        engine: Engine,
        limits: Limits,
        started: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.loads, self.deployment, self.engine, self.limits = loads, deployment, engine, limits
        self.started, self.progress = started, progress
        self.incumbents: list[Incumbent] = []

    def start(self, initial: Placement | None) -> None:
        """Give every layer its first map and bound."""
        given = None if initial is None else initial.phy2log
        if initial is not None:
            verify(initial, self.loads, self.deployment)
        for layer in range(len(self.loads)):
            share = self.limits.seconds_left / (2 * (len(self.loads) - layer))
            compiling = seconds_compiling()
            self._start_layer(layer, share if auto.rests_on_the_mean(self.deployment) else 0.0, share)
            self.limits = replace(self.limits, deadline=self.limits.deadline + seconds_compiling() - compiling)
        for layer, incumbent in enumerate(self.incumbents):
            if given is not None:
                incumbent.offer_map(given[layer])
            self._report(layer)

    def _start_layer(self, layer: int, seconds: float, most_seconds: float) -> None:
        row, found = self.loads[layer], None
        if self.deployment.is_regular:
            found = first_pass(row, self.deployment, self.limits.target_gap, seconds, self.limits.seed, most_seconds)
        if found is not None and found.slots is not None:
            slots, bound = tuple(found.slots.tolist()), found.bound
        else:
            slots, bound = _plain_start(row, self.deployment)
        incumbent = Incumbent(Instance.of_layer(row, self.deployment), bound=bound)
        incumbent.offer_map(slots)
        self.incumbents.append(incumbent)

    @property
    def asks_last(self) -> bool:
        """Whether the engine is expected to close all layers sooner than the planners have been asked."""
        default = self.engine in (auto.ENGINE, exact_cover.ENGINE)
        return auto.closes_at_once(self.deployment) if default else auto.enumerates(self.deployment)

    def ask_planners(self, compiled: bool) -> None:
        """Offer the maps of the compiled heuristics, or of the others, for the layers that are not within the target gap."""
        programs = max(PROGRAM_SECONDS, PROGRAM_SHARE * (self.limits.deadline - self.started))
        for heuristic in planners(self.deployment, compiled):
            left = self._open()
            if not left or programs <= 0.0:
                return
            began, compiling = time.thread_time(), seconds_compiling()
            # One layer after the other where Ctrl-C would wait for long, or where refusals depend on the loads.
            alone = heuristic.compiled or self.deployment.policy in heuristic.by_loads
            for layers in [[layer] for layer in left] if alone else [left]:
                for layer, slots in zip(layers, planner_maps(heuristic, self.loads[layers], self.deployment), strict=True):
                    if slots is not None and self.incumbents[layer].offer_map(slots):
                        self._report(layer)
            programs -= 0.0 if heuristic.compiled else time.thread_time() - began
            self.limits = replace(self.limits, deadline=self.limits.deadline + seconds_compiling() - compiling)

    def _open(self) -> list[int]:
        return [layer for layer, incumbent in enumerate(self.incumbents) if incumbent.gap > self.limits.target_gap]

    def improve(self) -> None:
        """Run the engine on the layers that are not within the target gap, sharing the time that is left."""
        left = self._open()
        for number, layer in enumerate(left):
            share = self.limits.seconds_left / (len(left) - number)
            self._improve_layer(layer, replace(self.limits, deadline=time.monotonic() + share))

    def _improve_layer(self, layer: int, limits: Limits) -> None:
        incumbent = self.incumbents[layer]

        def report() -> None:
            self._report(layer)

        if self.deployment.policy == "global":
            incumbent.offer_bound(best_joint_bound(incumbent.instance))
            drive(self.engine.search, incumbent, limits, report)
        else:
            search, first = self.engine.search, incumbent.slots
            for finding in search_layer(self.loads[layer], self.deployment, search, limits, first, report):
                if incumbent.offer(finding):
                    report()
        report()

    def _report(self, layer: int) -> None:
        if self.progress is not None:
            incumbent = self.incumbents[layer]
            assert incumbent.upper is not None  # every layer has been started with a map
            upper, lower = float(incumbent.upper), float(incumbent.bound.value)
            elapsed = time.monotonic() - self.started
            self.progress(Progress(elapsed, layer, len(self.loads), upper, lower, incumbent.gap, self.engine.name))

    def solution(self) -> Solution:
        """Return the best maps and bounds; layers that an interrupt left without a map get a quick one."""
        for layer in range(len(self.incumbents), len(self.loads)):
            self._start_layer(layer, 0.0, 0.0)
        placement = Placement(np.array([incumbent.slots for incumbent in self.incumbents]), self.deployment.num_experts)
        upper, bounds = verify(placement, self.loads, self.deployment), [incumbent.bound for incumbent in self.incumbents]
        for number, (value, bound) in enumerate(zip(upper, bounds, strict=True)):
            if bound.value > value:
                raise ContradictionError(
                    f"layer {number}: the bound {bound.value} ({bound.kind}) exceeds the verified makespan {value}"
                )
        seconds = time.monotonic() - self.started
        return Solution(placement, upper, bounds, self.engine.name, seconds, self.loads, self.deployment)


def _plain_start(loads: np.ndarray, deployment: Deployment) -> tuple[tuple[int, ...], Bound]:
    """Return a legal map and a closed-form bound of a layer without the first pass: any loads, any number of groups.

    Where a node can host many sets of groups these are not enumerated: the groups are dealt, and the bound is the layer's mean.
    """
    if deployment.policy == "global":
        instance = Instance.of_layer(loads, deployment)
        bound = best_joint_bound(instance)
        return greedy_map(instance, float(bound.value)), bound
    if math.comb(deployment.num_groups, deployment.groups_per_node) > FEW_SETS:
        return _dealt_start(loads, deployment)
    problems = NodeProblems(loads, deployment)
    partition = problems.best_partition()
    for groups in partition:
        node = problems.incumbents[groups]
        node.offer_map(greedy_map(node.instance, float(node.bound.value)))
    slots = problems.layer_map(partition)
    assert slots is not None  # every node of the partition has just been given a map
    return slots, problems.bound(partition)


def _dealt_start(loads: np.ndarray, deployment: Deployment) -> tuple[tuple[int, ...], Bound]:
    """Put the groups, heaviest first, on the lightest node with room, and start every node."""
    groups = loads.reshape(deployment.num_groups, -1)
    totals = groups.sum(axis=1).tolist()
    nodes: list[list[int]] = [[] for _ in range(deployment.num_nodes)]
    for group in sorted(range(deployment.num_groups), key=lambda g: -totals[g]):
        room = [node for node in nodes if len(node) < deployment.groups_per_node]
        min(room, key=lambda node: sum(totals[g] for g in node)).append(group)
    experts = np.arange(deployment.num_experts).reshape(deployment.num_groups, -1)
    slots: list[int] = []
    for node in nodes:
        held = experts[sorted(node)].ravel()
        instance = Instance.of_node(loads[held], deployment)
        slots.extend(held[list(greedy_map(instance, float(instance.mean)))].tolist())
    return tuple(slots), Bound(Fraction(sum(totals), deployment.num_gpus), "mean")


def _check_arguments(
    loads: np.ndarray,
    deployment: Deployment,
    method: str,
    target_gap: float,
    time_limit: float,
    workers: int,
    seed: int,
) -> None:
    if loads.shape[1] != deployment.num_experts:
        raise InputError(f"loads has {loads.shape[1]} experts; the deployment has {deployment.num_experts}")
    if method not in ENGINES:
        raise InputError(f"method is {method!r}; the solvers are {', '.join(ENGINES)}")
    if not ENGINES[method].unequal and not deployment.live.is_regular:
        raise InputError(
            f"method is {method!r}, which needs equally many slots on all live GPUs; "
            f"for unequal slots there are {', '.join(name for name, engine in ENGINES.items() if engine.unequal)}"
        )
    if not isinstance(target_gap, int | float) or not target_gap >= 0:
        raise InputError(f"target_gap is {target_gap!r}; a number of at least 0 is needed")
    if not isinstance(time_limit, int | float) or not time_limit > 0:
        raise InputError(f"time_limit is {time_limit!r}; a positive number of seconds is needed")
    for name, value, least, most in (("workers", workers, 1, MAX_WORKERS), ("seed", seed, 0, MAX_SEED)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or not least <= value <= most:
            raise InputError(f"{name} is {value!r}; an integer from {least} to {most} is needed")
