"""Choose the settings of a controller on the first part of recorded steps and report them on the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eplb_gap.analysis.online.candidates import MOST_STEPS, PARTS, first_round, second_round, unconditional
from eplb_gap.analysis.online.choice import Tried, choose, choose_slots, front, most_moves_of, pool, shown
from eplb_gap.analysis.online.held_out import HeldOut, Judged, judge
from eplb_gap.analysis.online.host_defaults import host_default
from eplb_gap.analysis.online.trial import Price, Tick, Trials, moves
from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError, require_kind
from eplb_gap.problem.loads import LoadTrace

FEWEST_STEPS = 8
"""Of each part."""


@dataclass(frozen=True)
class OnlineCalibration:
    """Result of :func:`calibrate_online`.

    Parameters
    ----------
    deployment : Deployment
        With the chosen number of slots.
    host : str
        Whose default is compared.
    steps, border, first : int
        All steps; those from ``border`` on are held out, ``first <= step < border`` are chosen on.
    layers : int
    recorded : int
        Steps of the server in one step of the loads.
    tried : list of Tried
        All candidates on the steps that are chosen on.
    chosen : Tried
    points : list of Tried
        The front there of those chosen from, of the chosen number of slots; points that hardly differ are left out.
    by_slots : list of Tried
        The choice for every number of slots that was asked for.
    held_out : HeldOut
    most_moves : float or None
    price : Price or None
    """

    deployment: Deployment
    host: str
    steps: int
    border: int
    first: int
    layers: int
    recorded: int
    tried: list[Tried]
    chosen: Tried
    points: list[Tried]
    by_slots: list[Tried]
    held_out: HeldOut
    most_moves: float | None
    price: Price | None

    @property
    def controller(self) -> Controller:
        """The chosen controller as it is to run."""
        return as_run(self.chosen.controller, self.border)

    def judged(self, controller: Controller) -> Judged:
        """Return what a controller does on the held-out steps with the chosen number of slots."""
        return self.held_out.judged[as_run(controller, self.border), self.deployment]

    def judged_choice(self, tried: Tried) -> Judged:
        """Return the same with the number of slots that it was tried with."""
        shape = replace(self.deployment, num_slots=tried.slots) if tried.slots != self.deployment.num_slots else self.deployment
        return self.held_out.judged[as_run(tried.controller, self.border), shape]


def as_run(controller: Controller, border: int) -> Controller:
    """Return a controller as it runs on after the choice: one that plans once does so on the whole first part.

    Parameters
    ----------
    controller : Controller
    border : int
        Steps of the first part.
    """
    return replace(controller, interval=border) if controller.kind == "static" else controller


def calibrate_online(
    steps: LoadTrace,
    deployment: Deployment,
    *,
    split: float = 0.5,
    host: str = "vllm",
    most_moves: float | None = None,
    costs: Costs | None = None,
    step_seconds: float | None = None,
    slots: Sequence[int] = (),
    candidates: Sequence[Controller] = (),
    tick: Tick = lambda what, done, total: None,
) -> OnlineCalibration:
    """Try controllers on the first part of the steps, choose one, and report it on the rest beside no EPLB and a host's default.

    Nothing of the second part enters the choice. There every controller is replayed from the first step on, as in a server that
    has run before, and judged from the border on.

    Parameters
    ----------
    steps : LoadTrace
        Every window is one step, oldest first; of so many steps of the server as its provenance says (``window_steps``, or 1).
    deployment : Deployment
    split : float, default 0.5
        Part of the steps that are chosen on, between 0 and 1: always the first ones.
    host : {"vllm", "sglang", "tensorrt-llm", "vllm-ascend"}
        The serving system whose default is compared.
    most_moves : float, optional
        Most replicas that may move per step and layer, first maps apart: only controllers count that keep to it on any loads.
    costs : Costs, optional
        What a move costs; the choice is then of balancedness net of costs.
    step_seconds : float, optional
        Seconds that a step of the server takes at perfect balance; needed with costs and not without.
    slots : sequence of int, optional
        Numbers of slots to choose from; by default the deployment's.
    candidates : sequence of Controller, optional
        What to try beside no EPLB and one map for ever; by default some hundred controllers that fit the steps
        (:mod:`eplb_gap.analysis.online.candidates`).
    tick : callable
        ``tick(what, replays done, replays)``.

    Returns
    -------
    OnlineCalibration

    Raises
    ------
    InputError
        If the steps do not fit the deployment or are too few, or an argument is out of range.
    KeyboardInterrupt
        On Ctrl-C: half a calibration is none.

    Examples
    --------
    >>> from eplb_gap import Controller, Deployment, LoadTrace, calibrate_online
    >>> few = [Controller("periodic", interval=2)]  # without it all are tried, for a minute or two
    >>> steps = LoadTrace([[[9, 1, 1, 9]]] * 16)  # loads that the map of a server without EPLB balances
    >>> calibrate_online(steps, Deployment(4, 4, 2), candidates=few).controller.kind
    'none'
    """
    require_kind("steps", steps, LoadTrace)
    require_kind("deployment", deployment, Deployment)
    border = _check(steps, deployment, split, most_moves, costs, step_seconds)
    shapes = _shapes(deployment, slots)
    known = LoadTrace(steps.loads[:border][-MOST_STEPS:].copy())  # no view of it reaches what is held out
    recorded = steps.provenance.get("window_steps", 1)
    price = None if costs is None or step_seconds is None else Price(costs, step_seconds * recorded)
    trials = Trials(tick, price)
    default = host_default(host, border, known.loads.shape[1], deployment, recorded)
    _check_candidates(candidates, len(known.loads))
    tried = [_try_all(known, shape, candidates, trials) for shape in shapes]
    choices = [choose(of_shape, most_moves) for of_shape in tried]
    without = [next(one for one in of_shape if one.controller.kind == "none") for of_shape in tried]
    chosen = choose_slots(choices, without)
    number = choices.index(chosen)
    points = shown(front(pool(tried[number], most_moves)), chosen)
    best = front(tried[number])[-1]
    others = [
        *((as_run(one.controller, border), shapes[number]) for one in (*points, best)),
        (as_run(Controller("static"), border), shapes[number]),
        *((as_run(one.controller, border), shape) for one, shape in zip(choices, shapes, strict=True)),
    ]
    held_out = judge(steps, border, (as_run(chosen.controller, border), shapes[number]), others, default, trials)
    tick("done", trials.done, trials.done)
    return OnlineCalibration(
        shapes[number],
        host,
        len(steps.loads),
        border,
        border - len(known.loads) + len(known.loads) // PARTS,
        known.loads.shape[1],
        recorded,
        [one for of_shape in tried for one in of_shape],
        chosen,
        points,
        choices if slots else [],
        held_out,
        most_moves,
        price,
    )


def _try_all(known: LoadTrace, deployment: Deployment, candidates: Sequence[Controller], trials: Trials) -> list[Tried]:
    """Replay the candidates, by default in two rounds; what makes an illegal map is left out."""
    count = len(known.loads)
    tried: list[Tried] = []

    def run(controllers: Sequence[Controller]) -> None:
        trials.announce(len(controllers))
        for controller in controllers:
            try:
                found = trials.run(known, deployment, controller, count // PARTS)
            except PlacementError:
                continue
            net = None if trials.price is None else trials.price.net(found)
            most = most_moves_of(controller, deployment.live.num_slots)
            tried.append(Tried(controller, deployment.num_slots, found.balancedness, moves(found), most, net))

    if candidates:
        run(list(dict.fromkeys([*unconditional(count), *candidates])))
        return tried
    run(first_round(count))
    served = {
        (one.controller.interval, one.controller.steps_needed): one.balancedness
        for one in tried
        if one.controller.kind == "periodic"
    }
    run(second_round(count, served, deployment))
    return tried


def _check_candidates(candidates: Sequence[Controller], steps: int) -> None:
    for one in candidates:
        if one.kind not in KINDS or KINDS[one.kind].foresees:
            choices = ", ".join(name for name, kind in KINDS.items() if not kind.foresees)
            raise InputError(f"candidates has a controller of kind {one.kind!r}; {choices} can run")
        first = KINDS[one.kind].first_decision(one) + one.lag
        if KINDS[one.kind].plans and first > steps // PARTS:
            raise InputError(
                f"candidates has {one.label}, which serves its first map on step {first}; of {steps} steps to choose on judging "
                f"begins at step {steps // PARTS}"
            )


def _shapes(deployment: Deployment, slots: Sequence[int]) -> list[Deployment]:
    if not slots:
        return [deployment]
    if deployment.unequal_slots:
        raise InputError("slots are given for GPUs with unequal slots; equally many on each are needed")
    if len(set(slots)) < len(slots):
        raise InputError(f"slots is {', '.join(map(str, slots))}; every number once is needed")
    return [replace(deployment, num_slots=number) for number in slots]


def _check(
    steps: LoadTrace,
    deployment: Deployment,
    split: float,
    most_moves: float | None,
    costs: Costs | None,
    step_seconds: float | None,
) -> int:
    """Check the arguments and return the first step that is held out."""
    count, _, experts = steps.loads.shape
    recorded = steps.provenance.get("window_steps", 1)
    if isinstance(recorded, bool) or not isinstance(recorded, int) or recorded < 1:
        raise InputError(f"window_steps of the steps' provenance is {recorded!r}; an integer of at least 1 is needed")
    if experts != deployment.num_experts:
        raise InputError(f"steps has {experts} experts; the deployment has {deployment.num_experts}")
    if isinstance(split, bool) or not isinstance(split, int | float) or not 0 < split < 1:
        raise InputError(f"split is {split!r}; a number between 0 and 1 is needed")
    border = int(count * split)
    if min(border, count - border) < FEWEST_STEPS:
        raise InputError(
            f"steps has {count} steps, {border} to choose on and {count - border} held out; at least {FEWEST_STEPS} of each "
            "are needed"
        )
    for name, number in (("most_moves", most_moves), ("step_seconds", step_seconds)):
        if number is None:
            continue
        real = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not real or number < 0 or (name == "step_seconds" and not number):
            raise InputError(
                f"{name} is {number!r}; a finite, {'positive' if name == 'step_seconds' else 'non-negative'} number is needed"
            )
    if (costs is None) != (step_seconds is None):
        given, missing = ("costs", "step_seconds") if step_seconds is None else ("step_seconds", "costs")
        raise InputError(f"{given} is given without {missing}; what waiting costs follows from both")
    return border
