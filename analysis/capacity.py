"""Capacity: how many slots a target balancedness needs, and what the next ones buy.

Two answers, for two questions. *Planning*: on the window that is planned on, solver and bounds say whether any map with so many
slots reaches the target. *Serving*: maps planned on one window by the default heuristic and served on the next, mean over all
pairs of windows; more slots do not help against loads that change. A *budget* of slots for all layers together is divided over
them so that the planning window is served best: hot layers gain more by replicas than even ones.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from eplb_gap.analysis.evaluate import makespan_imbalance, mean_loads
from eplb_gap.analysis.text import markdown
from eplb_gap.heuristics import rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.serving.budgets import SlotCurves, plan_budget, slot_curves

MOST_OPTIONS = 10_000
PLANNING_GAP = 1e-3
"""The solver stops within it: a target in so narrow a band may stay open."""


@dataclass(frozen=True)
class Step:
    """One number of slots.

    Parameters
    ----------
    slots : int
        Slots of a layer.
    reached : float
        GPU balancedness of the best map found for the planning window.
    limit : float
        No map with so many slots has a larger one there (proven).
    serving : float or None
        Mean GPU balancedness on the window after the one planned on; None for a trace of one window.
    verdict : {"reached", "unreachable", "open"}
        Whether the target is reached on the planning window, proven to be out of reach, or between map and bound.
    """

    slots: int
    reached: float
    limit: float
    serving: float | None
    verdict: str


@dataclass(frozen=True)
class SlotImbalance:
    """Imbalances with one number of slots, means over layers of makespan over mean: what step times are fitted to.

    Parameters
    ----------
    planning : float
        Of the best map found for the planning window.
    limit : float
        No map with so many slots has a smaller one there (proven).
    serving : list of float
        Of every pair of windows, on the one after that planned on.
    """

    planning: float
    limit: float
    serving: list[float]


@dataclass(frozen=True)
class Division:
    """A budget of slots divided over the layers.

    Parameters
    ----------
    budget : int
        Slots of all layers together.
    slots : list of int [layers]
        Slots of every layer.
    reached, limit : float
        GPU balancedness of all layers on the planning window with the maps found, and what no division of the budget exceeds.
    alike : float
        GPU balancedness with the same slots on all layers, within the budget.
    """

    budget: int
    slots: list[int]
    reached: float
    limit: float
    alike: float


@dataclass(frozen=True)
class Capacity:
    """Result of :func:`capacity`.

    Parameters
    ----------
    target : float
    window : int
        Planning window.
    num_gpus, num_experts, num_layers : int
    steps : list of Step
        Ascending slots, a multiple of the GPUs each.
    division : Division or None
        How a budget of slots is divided over the layers, if one was given.
    left_out : str, default ""
        Which slots could not be looked at, and why.
    imbalances : list of SlotImbalance
        Of every step.
    """

    target: float
    window: int
    num_gpus: int
    num_experts: int
    num_layers: int
    steps: list[Step]
    division: Division | None = None
    left_out: str = ""
    imbalances: list[SlotImbalance] = field(default_factory=list)

    @property
    def planning(self) -> Step | None:
        """Fewest slots that reach the target on the planning window; None if none of the steps does."""
        return next((step for step in self.steps if step.verdict == "reached"), None)

    @property
    def serving(self) -> Step | None:
        """Fewest slots whose mean serving balancedness reaches the target; None if none of the steps does."""
        return next((step for step in self.steps if step.serving is not None and step.serving >= self.target), None)

    @property
    def fewest_is_proven(self) -> bool:
        """Whether every smaller number of slots is proven not to reach the target on the planning window."""
        return self.planning is not None and all(
            step.verdict == "unreachable" for step in self.steps if step.slots < self.planning.slots
        )


def capacity(
    trace: LoadTrace,
    deployment: Deployment,
    target: float,
    most_slots: int | None = None,
    window: int | None = None,
    method: str = "auto",
    seconds: float = 10.0,
    budget: int | None = None,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Capacity:
    """Say how many slots a target balancedness needs: all numbers of them, from the fewest that hold every expert upwards.

    Parameters
    ----------
    trace : LoadTrace
    deployment : Deployment
        Live GPUs, nodes, groups, duplicates; its own number of slots does not matter.
    target : float
        GPU balancedness, above 0 and at most 1.
    most_slots : int, optional
        Largest number of slots; by default two per expert.
    window : int, optional
        Planning window; by default the last but one, or the only one.
    method : str, default "auto"
        Solver of the planning window, a key of :data:`eplb_gap.solvers.METHODS`.
    seconds : float, default 10
        Solver's time limit for one number of slots.
    budget : int, optional
        Slots of all layers together, to be divided over them.
    tick : callable, optional
        Called with (what, done, total) before every number of slots.

    Returns
    -------
    Capacity

    Raises
    ------
    InputError
        If the target is no balancedness, the trace does not fit, there is no such number of slots or window, or the deployment
        has unequal slots.

    Examples
    --------
    >>> from eplb_gap import Deployment, LoadTrace, capacity
    >>> loads = [[[6, 1, 1, 1]], [[6, 1, 1, 1]]]  # one expert has two thirds of the load
    >>> found = capacity(LoadTrace(loads), Deployment(4, 4, 2), target=0.9)
    >>> [(step.slots, step.verdict) for step in found.steps]
    [(4, 'unreachable'), (6, 'reached'), (8, 'reached')]
    >>> found.planning.slots, found.fewest_is_proven
    (6, True)
    """
    require_kind("trace", trace, LoadTrace)
    require_kind("deployment", deployment, Deployment)
    deployment = deployment.live
    deployment.require_regular("a count of slots")
    if not 0 < target <= 1:
        raise InputError(f"target is {target}; a balancedness above 0 and at most 1 is needed")
    windows, layers, experts = trace.loads.shape
    if experts != deployment.num_experts:
        raise InputError(f"the trace has {experts} experts; the deployment has {deployment.num_experts}")
    chosen = max(windows - 2, 0) if window is None else window
    loads = trace.window(chosen)
    most = 2 * experts if most_slots is None else most_slots
    options = slot_options(deployment, most)
    if budget is not None and budget < layers * options[0]:
        raise InputError(f"budget is {budget} slots; {layers} layers of at least {options[0]} need {layers * options[0]}")
    curves = slot_curves(loads, deployment, options, method, PLANNING_GAP, seconds * len(options), tick)
    perfect = int(loads.sum()) / deployment.num_gpus
    steps, imbalances, means = [], [], mean_loads(loads, deployment)
    for number, slots in enumerate(options):
        served = _served(trace, replace(deployment, num_slots=slots))
        reached, limit = _balancedness(perfect, *(sum(curve[number] for curve in side) for side in (curves.upper, curves.lower)))
        verdict = "reached" if reached >= target else "unreachable" if limit < target else "open"
        steps.append(Step(slots, reached, limit, statistics.fmean(one for one, _ in served) if served else None, verdict))
        planning, least = (makespan_imbalance([curve[number] for curve in side], means) for side in (curves.upper, curves.lower))
        imbalances.append(SlotImbalance(planning, least, [one for _, one in served]))
    division = None if budget is None else _divided(curves, budget, perfect, steps)
    left_out = ""
    if options[-1] + deployment.num_gpus <= most:
        distinct = options[-1] // deployment.num_gpus
        left_out = f"More slots are left out: without duplicates a GPU holds at most {distinct} different experts."
    return Capacity(target, chosen % windows, deployment.num_gpus, experts, layers, steps, division, left_out, imbalances)


def _balancedness(perfect: float, upper: Fraction | int, lower: Fraction | int) -> tuple[float, float]:
    """Return the balancedness of sums of makespans, and what their bounds leave."""
    return (perfect / float(upper), min(perfect / float(lower), 1.0)) if upper else (1.0, 1.0)


def _divided(curves: SlotCurves, budget: int, perfect: float, steps: list[Step]) -> Division:
    plan = plan_budget(curves, budget)
    alike = max(step.reached for step in steps if step.slots * len(plan.slots) <= budget)
    return Division(budget, plan.slots, *_balancedness(perfect, plan.upper, plan.lower), alike)


def slot_options(deployment: Deployment, most: int) -> list[int]:
    """Return the multiples of the GPUs from the fewest slots that hold every expert to ``most``.

    Raises
    ------
    InputError
        If there is none, or duplicates are forbidden and not even the fewest slots can be without.
    """
    gpus, experts = deployment.num_gpus, deployment.num_experts
    fewest = -(-experts // gpus) * gpus
    if most < fewest:
        raise InputError(f"most_slots is {most}; {experts} experts on {gpus} GPUs need at least {fewest}")
    if (most - fewest) // gpus >= MOST_OPTIONS:
        raise InputError(
            f"most_slots is {most}; at most {fewest + (MOST_OPTIONS - 1) * gpus}, {MOST_OPTIONS} numbers of slots, are looked at"
        )
    options = list(range(fewest, most + 1, gpus))
    if deployment.duplicates == "forbidden":
        on_a_node = experts // deployment.num_nodes if deployment.policy == "hierarchical" else experts
        options = [slots for slots in options if slots // gpus <= on_a_node]
    return options


def _served(trace: LoadTrace, deployment: Deployment) -> list[tuple[float, float]]:
    """Return for every pair of windows the balancedness and the imbalance on the second when planned on the first."""
    served = []
    for past, loads in itertools.pairwise(trace.loads):
        placed = rebalance(past, deployment)
        imbalance = makespan_imbalance(verify(placed, loads, deployment), mean_loads(loads, deployment))
        served.append((balancedness_gpu(placed, loads, deployment.num_gpus), imbalance))
    return served


def report(result: Capacity) -> str:
    """Return the result as text: the table of slots, what each step buys, and the two answers."""
    body = []
    before: Step | None = None
    for step in result.steps:
        body.append(
            [
                str(step.slots),
                f"{step.slots - result.num_experts}",
                f"{step.reached:.4f}",
                f"{step.limit:.4f}",
                step.verdict,
                "" if before is None else f"{100 * (step.reached - before.reached):+.2f}",
                "" if step.serving is None else f"{step.serving:.4f}",
                "" if before is None or step.serving is None else f"{100 * (step.serving - (before.serving or 0.0)):+.2f}",
            ]
        )
        before = step
    header = ["slots", "extra", "planning: map", "proven limit", "target", "gain, points", "serving", "gain, points"]
    lines = [
        f"Slots of a layer for a GPU balancedness of {result.target:g} on {result.num_gpus} GPUs, {result.num_layers} layers of "
        f"{result.num_experts} experts; planning window {result.window}.",
        "Serving: planned on a window, served on the next, mean over all pairs. Gains: over the row before.",
        "",
        markdown(header, body),
        "",
        _planning_verdict(result),
        _serving_verdict(result),
        *([result.left_out] if result.left_out else []),
    ]
    if result.division is not None:
        lines += _division_report(result.division)
    return "\n".join(lines)


def _planning_verdict(result: Capacity) -> str:
    found, last = result.planning, result.steps[-1]
    if found is not None:
        proof = "fewer are proven not to" if result.fewest_is_proven else "fewer may, between map and bound"
        if found is result.steps[0]:
            proof = "the fewest that hold every expert"
        return f"Planning: {found.slots} slots reach it; {proof}."
    if last.verdict == "unreachable":
        return f"Planning: no step up to {last.slots} slots reaches it; {last.slots} slots are proven not to."
    return f"Planning: no map found up to {last.slots} slots reaches it; the bound does not rule it out."


def _serving_verdict(result: Capacity) -> str:
    if result.steps[0].serving is None:
        return "Serving: a trace of one window has no next one to serve."
    found = result.serving
    if found is not None:
        return f"Serving: {found.slots} slots reach it on average."
    best = max(result.steps, key=lambda step: step.serving or 0.0)
    return f"Serving: no step reaches it; the best is {best.serving:.4f} with {best.slots} slots."


def _division_report(found: Division) -> list[str]:
    counts = {slots: [layer for layer, chosen in enumerate(found.slots) if chosen == slots] for slots in sorted(set(found.slots))}
    return [
        f"Budget: {sum(found.slots)} of {found.budget} slots over {len(found.slots)} layers reach {found.reached:.4f} on the "
        f"planning window; {found.alike:.4f} with the same slots on all layers; no division of them exceeds {found.limit:.4f} "
        "(proven).",
        *(f"  {slots} slots: layers {', '.join(map(str, layers))}" for slots, layers in counts.items()),
    ]


def as_dict(result: Capacity) -> dict[str, Any]:
    """Return the result as JSON-serialisable data."""
    told = asdict(result)
    del told["imbalances"]  # they are told with the times that follow from them
    return {
        **told,
        "planning": None if result.planning is None else result.planning.slots,
        "serving": None if result.serving is None else result.serving.slots,
        "fewest_is_proven": result.fewest_is_proven,
    }
