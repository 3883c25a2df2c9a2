"""The published scoring protocols, on any trace and any program: a map planned on one window is scored on the next.

* ``seed``: expert-level balancedness over the first five pairs of windows. Its speed is the constant 1.0: nothing is timed.
* ``gpu``: GPU-level balancedness over all pairs; speed ``0.02 / t`` and, in another variant, ``0.002 / t``, both uncapped.
* ``leaderboard``: ``90 b + 5 min(0.002 / t, 2) - (min(20 t, 20) if t > 0.010)``, ``b`` the GPU-level balancedness of all pairs.

``t`` is the median over the windows of the seconds of the algorithm alone. The published scorers look at shapes, missing numbers
and negative counts only; here every map goes through :func:`eplb_gap.problem.verify`, and one illegal map refuses the score. The
expert-level metric depends on the replica counts alone, so every score also carries what the same maps reach on GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal, cast, get_args

import numpy as np

from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.loads import LoadTrace, as_loads
from eplb_gap.problem.metrics import balancedness_expert, balancedness_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import verify

Protocol = Literal["seed", "gpu", "leaderboard"]
SEED_PAIRS = 5
CONSTANT_SPEED = "not measured, constant in the published protocol"


@dataclass(frozen=True)
class Answer:
    """A program's map for one window, and the seconds that it took to plan it."""

    placement: Placement
    seconds: float


Program = Callable[[np.ndarray], Answer]
"""``program(window int64 [layers, experts])``: called once per window, oldest first, before it can know the next one."""


@dataclass(frozen=True)
class Pair:
    """One window that is planned on and the next, on which the map is scored."""

    planned: int
    served: int
    balancedness_expert: float
    balancedness_gpu: float
    seconds: float


@dataclass(frozen=True)
class Combined:
    """One variant of a protocol's last step: how it rates speed, and what it makes of balancedness and speed."""

    rule: str
    speed: float
    score: float


@dataclass(frozen=True)
class Score:
    """What a protocol says of a program, pair by pair and on average.

    ``status`` is "legal", or "illegal: ..." with the window and the rule that a map breaks; then nothing is scored: ``pairs`` and
    ``combined`` are empty and the means are None. ``balancedness`` is the mean that the protocol scores, ``seconds`` the median
    time of the algorithm alone.
    """

    protocol: Protocol
    status: str
    pairs: tuple[Pair, ...]
    balancedness: float | None = None
    balancedness_expert: float | None = None
    balancedness_gpu: float | None = None
    seconds: float | None = None
    combined: tuple[Combined, ...] = ()

    @property
    def legal(self) -> bool:
        """Whether every map was legal, so that there is a score."""
        return self.status == "legal"


def timed(method: Callable[[np.ndarray, Deployment], Placement], deployment: Deployment) -> Program:
    """Make a program of a heuristic of :mod:`eplb_gap.heuristics.registry`, timed alone in this process and with its threads.

    It plans for the live GPUs; the others get filler.
    """
    live = deployment.live

    compile_first()

    def program(window: np.ndarray) -> Answer:
        start = time.perf_counter()
        placement = method(window, live)
        return Answer(with_dead(placement, deployment), time.perf_counter() - start)

    return program


def score(protocol: str, trace_loads: Any, deployment: Deployment, program: Program | str) -> Score:
    """Score a program by a published protocol.

    Parameters
    ----------
    protocol : {"seed", "gpu", "leaderboard"}
    trace_loads : LoadTrace or array_like of int [windows, layers, experts]
        Oldest window first; "seed" takes the first five pairs of consecutive windows, or all where there are fewer.
    deployment : Deployment
        Maps are judged by its policy: a program that ignores groups and nodes is legal under ``deployment.as_global()`` only.
    program : callable or str
        ``program(window int64 [layers, experts]) -> Answer``, see :func:`timed` and :mod:`eplb_gap.analysis.user_program`, or a
        heuristic's name (a key of :data:`eplb_gap.HEURISTICS`).

    Returns
    -------
    Score
        With status "illegal: ..." and no score from the first map on that is not legal.

    Raises
    ------
    InputError
        If there is no such protocol, the loads are not two or more windows of the deployment's experts, or the live GPUs
        have unequal slots, which the protocols do not know.

    Examples
    --------
    >>> from eplb_gap import Deployment, score
    >>> loads = [[[6, 2]], [[2, 6]], [[2, 6]]]  # three windows of one layer with two experts
    >>> found = score("seed", loads, Deployment(2, 3, 3), "initial_program")
    >>> [round(pair.balancedness_expert, 3) for pair in found.pairs]
    [0.444, 0.889]
    >>> found.status, round(found.balancedness, 3)
    ('legal', 0.667)
    """
    require_kind("deployment", deployment, Deployment)
    checked = known(protocol, deployment)
    loads = as_loads(trace_loads.loads if isinstance(trace_loads, LoadTrace) else trace_loads, "trace_loads", 3)
    if loads.shape[0] < 2:
        raise InputError(
            "trace_loads has 1 window; a map is planned on one window and scored on the next, so at least 2 are needed"
        )
    if loads.shape[2] != deployment.num_experts:
        raise InputError(f"trace_loads has {loads.shape[2]} experts; the deployment has {deployment.num_experts}")
    if isinstance(program, str):
        method = get_method(program)
        method(loads[0], deployment.live)  # the first call compiles kernels; it would be timed with them
        run = timed(method, deployment)
    else:
        run = program
    count = loads.shape[0] - 1
    pairs = []
    for planned in range(min(count, SEED_PAIRS) if checked == "seed" else count):
        try:
            pairs.append(_pair(planned, loads, deployment, run))
        except PlacementError as error:
            return Score(checked, f"illegal: map planned on window {planned}: {error}", ())
    expert, gpu = fmean(p.balancedness_expert for p in pairs), fmean(p.balancedness_gpu for p in pairs)
    seconds = median(p.seconds for p in pairs)
    balancedness = expert if checked == "seed" else gpu
    return Score(checked, "legal", tuple(pairs), balancedness, expert, gpu, seconds, combine(checked, balancedness, seconds))


def known(protocol: str, deployment: Deployment) -> Protocol:
    """Return the protocol of that name.

    Raises
    ------
    InputError
        If there is none, or the live GPUs have unequal slots, which no protocol knows.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol is {protocol!r}; the protocols are {', '.join(get_args(Protocol))}")
    deployment.live.require_regular("a published protocol")
    return cast("Protocol", protocol)


def _pair(planned: int, loads: np.ndarray, deployment: Deployment, program: Program) -> Pair:
    answer = program(loads[planned].copy())
    served = loads[planned + 1]
    try:
        verify(answer.placement, served, deployment)
    except InputError as error:  # the loads fit the deployment, so it is the map that does not
        raise PlacementError(str(error)) from None
    return Pair(
        planned,
        planned + 1,
        balancedness_expert(without_dead(answer.placement, deployment), served),
        balancedness_gpu(answer.placement, served, deployment),
        answer.seconds,
    )


def combine(protocol: Protocol, balancedness: float, seconds: float) -> tuple[Combined, ...]:
    """Return what a protocol makes of a balancedness and the seconds of the algorithm, one entry per published variant."""
    if protocol == "seed":
        return (Combined(f"speed 1.0 ({CONSTANT_SPEED}); (balancedness + speed) / 2", 1.0, (balancedness + 1.0) / 2),)
    if protocol == "gpu":
        return tuple(
            Combined(f"speed {scale} / t; (balancedness + speed) / 2", scale / seconds, (balancedness + scale / seconds) / 2)
            for scale in (0.02, 0.002)
        )
    speed = min(0.002 / seconds, 2.0)
    penalty = min(20 * seconds, 20.0) if seconds > 0.010 else 0.0
    rule = "speed min(0.002 / t, 2); 90 balancedness + 5 speed - (min(20 t, 20) if t > 0.010)"
    return (Combined(rule, speed, 90 * balancedness + 5 * speed - penalty),)
