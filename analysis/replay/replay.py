"""Step through recorded loads with a controller, which sees the past alone."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

import numpy as np

from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.analysis.replay.limits import Limit, certified_limit
from eplb_gap.heuristics.control.catalogue import KINDS
from eplb_gap.heuristics.control.contiguous import contiguous_map
from eplb_gap.heuristics.control.controller import Controller, Session
from eplb_gap.heuristics.moves.relabel import arrivals
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.step_makespans import step_makespans, total
from eplb_gap.problem.validation import check

LIMIT = "certified limit"
"""What a tick calls the work on the limit."""
Tick = Callable[[str, int, int], None]
"""``tick(controller, steps done, steps)``."""


@dataclass(frozen=True)
class Change:
    """A map that a controller adopted.

    Parameters
    ----------
    decided, serves : int
        Step before which it was decided, and first step that it serves.
    moves : int
        Replicas copied to a GPU that did not hold them, all layers.
    planning : float
        Seconds that the controller took to decide.
    placement : Placement
    waiting : float, optional
        Seconds that serving waits for it, where costs are known.
    """

    decided: int
    serves: int
    moves: int
    planning: float
    placement: Placement
    waiting: float | None = None


@dataclass(frozen=True)
class Replayed:
    """What a controller served.

    Parameters
    ----------
    controller : Controller
    foresees : bool
        Whether it looked at what it served: a limit, not a choice.
    first, last : int
        Judged steps ``first <= step < last``; those before are warm-up.
    mean, served : Fraction
        Sums over judged steps and layers of the mean and of the largest GPU load.
    by_step : ndarray
        Balancedness of every step over its layers, float64 [steps], warm-up included; 1 for a step without load.
    warm_up : float
        Balancedness of the warm-up, 1 if there is none.
    changes : list of Change
        Maps that served, or would have served, in their order; moves of the warm-up are not counted below.
    planning : float
        Seconds of all decisions, those to keep the map included.
    decisions : int
    regret : float, optional
        Of an adaptive controller: mean excess served per decision above that of its best single choice in hindsight.
    layers : int
    imbalance : ndarray
        Of every step the mean over its loaded layers of the largest GPU load over the mean, float64 [steps]; 1 without load.
    """

    controller: Controller
    foresees: bool
    first: int
    last: int
    mean: Fraction
    served: Fraction
    by_step: np.ndarray
    warm_up: float
    changes: list[Change]
    planning: float
    decisions: int
    layers: int
    imbalance: np.ndarray
    regret: float | None = None

    @property
    def balancedness(self) -> float:
        """Sum of the mean GPU loads over the sum of the largest, over all judged steps and layers."""
        return float(self.mean / self.served) if self.served else 1.0

    @property
    def worst(self) -> tuple[int, float]:
        """The judged step of least balancedness, and this."""
        step = self.first + int(np.argmin(self.by_step[self.first : self.last]))
        return step, float(self.by_step[step])

    @property
    def moves(self) -> int:
        """Replicas copied for maps that began to serve on a judged step, all layers."""
        return sum(change.moves for change in self._judged())

    @property
    def moves_per_step(self) -> float:
        """The same per judged step and layer."""
        return self.moves / ((self.last - self.first) * self.layers)

    @property
    def waiting(self) -> float | None:
        """Seconds that serving waited for maps on the judged steps, where costs are known."""
        found = [change.waiting for change in self._judged()]
        return (
            None if any(seconds is None for seconds in found) else float(sum(seconds for seconds in found if seconds is not None))
        )

    def _judged(self) -> list[Change]:
        return [change for change in self.changes if self.first <= change.serves < self.last]


@dataclass(frozen=True)
class Replay:
    """All controllers on the same judged steps.

    Parameters
    ----------
    deployment : Deployment
    runs : list of Replayed
        In the order of the controllers; fewer after Ctrl-C.
    steps, first : int
        Steps of the loads, and the first that is judged.
    costs : Costs, optional
        What moves cost, where it was given.
    limit : Limit, optional
        What no controller can exceed.
    window_steps : int, default 1
        Recorded steps that a "step" sums, where the loads are windows of several.
    missing : tuple of str
        What Ctrl-C left unfinished: labels of controllers, and :data:`LIMIT`.
    budgets : dict
        With a limit: what clairvoyant controllers with the moves and the interval of those replayed serve.
    """

    deployment: Deployment
    runs: list[Replayed]
    steps: int
    first: int
    costs: Costs | None = None
    limit: Limit | None = None
    window_steps: int = 1
    missing: tuple[str, ...] = ()
    budgets: dict[Controller, Fraction] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether something is missing after Ctrl-C."""
        return bool(self.missing)

    def within_moves(self, run: Replayed) -> Fraction | None:
        """Return what maps within a run's moves serve, found with the future known; None where its moves are not limited."""
        return None if run.controller.moves is None else self.budgets.get(_with_foresight(run.controller))

    def regret(self, run: Replayed) -> tuple[float, float] | None:
        """Return by how much of the mean a run's makespans exceed the best maps' of the limit's intervals, at least and at most.

        None without a limit, or where the controller changes its maps at other steps than the limit's.
        """
        limit, controller = self.limit, run.controller
        if limit is None:
            return None
        plans = KINDS[controller.kind].plans
        fits = controller.interval % limit.interval == 0 and (controller.lag - limit.offset) % limit.interval == 0
        return limit.regret(run.served) if fits or not plans else None


def replay(
    steps: LoadTrace,
    deployment: Deployment,
    controllers: Sequence[Controller],
    *,
    warm_up: int | None = None,
    costs: Costs | None = None,
    limit: int | None = None,
    tick: Tick | None = None,
) -> Replay:
    """Step through recorded loads with each of several controllers.

    Before step t = interval, 2 interval, ... a controller whose window is full is handed the loads of the steps before t and the
    map in use; its new map serves from step t + lag on. Until its first map serves, so does the contiguous map. Nothing that it
    is handed holds a later step.

    Parameters
    ----------
    steps : LoadTrace
        Every window is one step; or all are sums of equally many, and intervals, windows and lags count these.
    deployment : Deployment
    controllers : sequence of Controller
        Of several with one label all but the first get a number.
    warm_up : int, optional
        Steps that are not judged; by default until the first map of every controller serves.
    costs : Costs, optional
        What a move costs.
    limit : int, optional
        Certify what no controller can exceed that changes its maps at intervals of so many steps, with the lag of the first
        controller that plans; some .05 s for each interval and layer of 256 experts, and for limited moves half as much again.
    tick : callable, optional
        Called with the controller, the steps done and all steps.

    Returns
    -------
    Replay
        After Ctrl-C with the controllers that were finished.

    Raises
    ------
    InputError
        If the steps do not fit the deployment, are too few for a controller or the warm-up, or are windows of different lengths;
        if a controller is none that exists.

    Examples
    --------
    >>> from eplb_gap import Controller, Deployment, LoadTrace, replay
    >>> steps = LoadTrace([[[9, 1, 1, 9]]] * 8)
    >>> result = replay(steps, Deployment(4, 4, 2), [Controller("none"), Controller("periodic", interval=2)])
    >>> [round(run.balancedness, 2) for run in result.runs]
    [1.0, 1.0]
    """
    require_kind("steps", steps, LoadTrace)
    require_kind("deployment", deployment, Deployment)
    loads = steps.loads
    each = steps.window_steps
    _check(steps, deployment, controllers, warm_up, limit)
    controllers = told_apart(controllers)
    first = max(_first_served(one) for one in controllers) if warm_up is None else warm_up
    runs: list[Replayed] = []
    certified = None
    budgets: dict[Controller, Fraction] = {}
    left: tuple[str, ...] = ()
    try:
        for controller in controllers:
            runs.append(_Run(controller, loads, deployment, costs).go(first, tick))
        if limit is not None:
            lags = [controller.lag for controller in controllers if KINDS[controller.kind].plans]
            budgets = {_with_foresight(run.controller): run.served for run in runs if run.foresees}
            limited = [_with_foresight(one) for one in controllers if one.moves is not None]
            missing = [one for one in dict.fromkeys(limited) if one not in budgets]
            told = [_stage(tick, stage, 1 + len(missing)) for stage in range(1 + len(missing))]
            certified = certified_limit(loads, deployment, limit, first, next(iter(lags), 0), told[0] and partial(told[0], LIMIT))
            for one, stage in zip(missing, told[1:], strict=True):
                budgets[one] = _Run(one, loads, deployment, None).go(first, stage).served
    except KeyboardInterrupt:
        left = (*(one.label for one in controllers[len(runs) :]), *([] if limit is None else [LIMIT]))
    return Replay(deployment, runs, len(loads), first, costs, certified, each, left, budgets)


def told_apart(controllers: Sequence[Controller]) -> list[Controller]:
    """Return controllers of different labels: of several with one label all but the first get a number."""
    found: dict[str, Controller] = {}
    for controller in controllers:
        label, number = controller.label, 2
        while label in found:
            label, number = f"{controller.label} #{number}", number + 1
        found[label] = controller if label == controller.label else dataclasses.replace(controller, name=label)
    return list(found.values())


def _with_foresight(controller: Controller) -> Controller:
    """Return the clairvoyant controller with the same moves at the same interval."""
    return Controller("clairvoyant", interval=controller.interval, lag=controller.lag, moves=controller.moves)


def _stage(tick: Tick | None, stage: int, stages: int) -> Tick | None:
    """Return what reports the steps of one of several stages of the work on the limit."""
    if tick is None:
        return None
    return lambda _, done, steps: tick(LIMIT, stage * steps + done, stages * steps)


def _first_served(controller: Controller) -> int:
    """Return the first step that a map of the controller can serve."""
    if not KINDS[controller.kind].plans:
        return 0
    return KINDS[controller.kind].first_decision(controller) + controller.lag


def _check(
    steps: LoadTrace, deployment: Deployment, controllers: Sequence[Controller], warm_up: int | None, limit: int | None
) -> None:
    count, _, experts = steps.loads.shape
    if experts != deployment.num_experts:
        raise InputError(f"steps has {experts} experts; the deployment has {deployment.num_experts}")
    if not controllers:
        raise InputError("controllers is empty; at least one is needed")
    for controller in controllers:
        if controller.kind not in KINDS:
            raise InputError(f"kind is {controller.kind!r}; {', '.join(KINDS)} are known")
        KINDS[controller.kind].check(controller)
        needed = _first_served(controller) + 1
        if count < needed:
            windowed = controller.window is not None
            option = f"--controller {controller.kind}:interval=...{',window=...' if windowed else ''}"
            raise InputError(
                f"steps has {count} steps; {controller.label} serves its first map on step {needed - 1}, more are needed, "
                f"or a shorter interval{' and window' if windowed else ''} ({option})"
            )
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit is {limit!r}; an integer of at least 1 is needed")
    if warm_up is not None and (isinstance(warm_up, bool) or not isinstance(warm_up, int) or not 0 <= warm_up < count):
        raise InputError(f"warm_up is {warm_up!r}; an integer from 0 to {count - 1} is needed")


@dataclass
class _Run:
    """One controller on its way through the steps."""

    controller: Controller
    loads: np.ndarray
    deployment: Deployment
    costs: Costs | None
    changes: list[Change] = field(default_factory=list)
    planning: float = 0.0
    decisions: int = 0

    def go(self, first: int, tick: Tick | None) -> Replayed:
        loads, controller = self.loads, self.controller
        kind, (count, layers, _) = KINDS[controller.kind], loads.shape
        session = kind.start(controller, self.deployment)
        # A buffer of its own, filled as time passes: no view of it reaches what has not happened.
        passed = np.zeros_like(loads)
        filled = 0
        serving = newest = contiguous_map(self.deployment, layers)
        # More than one where the next decision comes before the last map serves, at a lag as long as the interval.
        coming: deque[tuple[int, Placement]] = deque()
        tops, belows = [], []
        step = 0
        while step < count:
            if step and step % controller.interval == 0 and kind.plans and step >= kind.needs(controller):
                known = min(count, step + controller.lag + controller.interval) if kind.foresees else step
                passed[filled:known], filled = loads[filled:known], known
                decided = self._decide(session, passed[:known], newest, step)
                if decided is not None:
                    newest = decided
                    coming.append((step + controller.lag, decided))
            while coming and coming[0][0] <= step:
                serving = coming.popleft()[1]
            until = min([count, (step // controller.interval + 1) * controller.interval, *(serves for serves, _ in coming)])
            numerators, denominators = step_makespans(serving, loads[step:until], self.deployment)
            tops.append(numerators)
            belows.append(denominators)
            step = until
            if tick is not None:
                tick(controller.label, step, count)
        return self._result(first, tops, belows, getattr(session, "regret", None))

    def _decide(self, session: Session, past: np.ndarray, in_use: Placement, step: int) -> Placement | None:
        view = past.view()
        view.flags.writeable = False
        if not self.decisions:  # what is loaded and compiled for a first plan is no part of any
            KINDS[self.controller.kind].start(self.controller, self.deployment).plan(view, in_use)
        started = time.perf_counter()
        found = session.plan(view, in_use)
        seconds = time.perf_counter() - started
        self.planning += seconds
        self.decisions += 1
        if found is None:
            return None
        check(found, self.deployment)
        moving = arrivals(found, in_use, self.deployment)
        waiting = None if self.costs is None else self.costs.seconds(moving)
        self.changes.append(Change(step, step + self.controller.lag, int(moving.sum()), seconds, found, waiting))
        return found

    def _result(self, first: int, tops: list[np.ndarray], belows: list[np.ndarray], regret: float | None) -> Replayed:
        served, start = Fraction(0), 0
        largest = np.empty(len(self.loads))
        imbalance = np.empty(len(self.loads))
        layer_means = self.loads.sum(axis=2, dtype=np.float64) / self.deployment.live.num_gpus
        for numerators, denominators in zip(tops, belows, strict=True):
            end = start + len(numerators)
            makespans = (numerators / denominators).astype(np.float64)
            largest[start:end] = makespans.sum(axis=1)
            imbalance[start:end] = _mean_ratio(makespans, layer_means[start:end])
            if end > first:
                served += total(numerators[max(0, first - start) :], denominators)
            start = end
        gpus = self.deployment.live.num_gpus
        means = self.loads.sum(axis=(1, 2), dtype=np.float64) / gpus
        by_step = np.divide(means, largest, out=np.ones_like(means), where=largest > 0)
        before = largest[:first].sum()
        return Replayed(
            self.controller,
            KINDS[self.controller.kind].foresees,
            first,
            len(self.loads),
            Fraction(int(self.loads[first:].sum(dtype=object)), gpus),
            served,
            by_step,
            float(means[:first].sum() / before) if before else 1.0,
            self.changes,
            self.planning,
            self.decisions,
            self.loads.shape[1],
            imbalance,
            regret,
        )


def _mean_ratio(makespans: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return the mean over loaded layers of makespan over mean, float64 [steps] of [steps, layers]; 1 for a step without load."""
    loaded = means > 0
    ratios = np.divide(makespans, means, out=np.zeros_like(makespans), where=loaded).sum(axis=1)
    counts = loaded.sum(axis=1)
    return np.asarray(np.maximum(np.divide(ratios, counts, out=np.ones_like(ratios), where=counts > 0), 1.0))
