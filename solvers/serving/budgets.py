"""Replica budgets per layer: how many slots each layer gets under one memory limit.

Serving systems give every layer the same slots, though hot layers gain more from replicas than even ones. With the makespan of
every layer at every number of slots (:func:`slot_curves`) the best division of a memory limit is a knapsack problem of a few
thousand states: :func:`divide_slots` solves it exactly. On proven lower bounds the same programme bounds every division there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import as_loads
from eplb_gap.problem.placement import Placement
from eplb_gap.solvers.facade import solve


@dataclass(frozen=True)
class SlotCurves:
    """What every layer makes of every number of slots.

    Parameters
    ----------
    slots : list of int [options]
        Slots of a layer, ascending.
    upper, lower : list of list of Fraction [layers][options]
        Makespan of the map found, and the proven bound below any.
    placements : list of Placement [options]
        Maps of all layers with that many slots.
    """

    slots: list[int]
    upper: list[list[Fraction]]
    lower: list[list[Fraction]]
    placements: list[Placement]


@dataclass(frozen=True)
class BudgetPlan:
    """A division of a memory limit over the layers.

    Parameters
    ----------
    slots : list of int [layers]
    upper : Fraction
        Sum over layers of the makespans of the maps found.
    lower : Fraction
        No division of the limit, whatever the maps, has a smaller sum.
    """

    slots: list[int]
    upper: Fraction
    lower: Fraction


def slot_curves(
    loads: Any,
    deployment: Deployment,
    slots: Sequence[int],
    method: str = "auto",
    target_gap: float = 1e-3,
    time_limit: float = 60.0,
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> SlotCurves:
    """Solve all layers at every number of slots.

    Parameters
    ----------
    loads : array_like of int [layers, experts]
    deployment : Deployment
        GPUs, nodes, groups, duplicates; its own number of slots does not matter. Slots of dead GPUs are counted but hold nothing.
    slots : sequence of int [options]
        Slots of a layer, each a legal ``num_slots`` of the deployment.
    method, target_gap
        As :func:`eplb_gap.solvers.solve`.
    time_limit : float, default 60.0
        Wall seconds for the whole call, shared over the options.
    tick : callable, optional
        Called with (what, done, total) before every number of slots.

    Raises
    ------
    InputError
        If there is no option, one is given twice or is not legal, or the deployment has unequal slots.
    """
    if deployment.unequal_slots:
        raise InputError("deployment has unequal slots; budgets per layer need GPUs alike")
    options = sorted(slots)
    if not options or len(set(options)) < len(options):
        raise InputError(f"slots is {list(slots)}; one or more different numbers are needed")
    checked = as_loads(loads, "loads", 2)
    shapes = [replace(deployment, num_slots=count) for count in options]
    solutions = []
    for number, shape in enumerate(shapes):
        tick(f"{shape.num_slots} slots", number, len(shapes))
        solutions.append(solve(checked, shape, method, target_gap, time_limit / len(shapes)))
    layers = range(len(checked))
    return SlotCurves(
        options,
        [[solution.upper[layer] for solution in solutions] for layer in layers],
        [[solution.lower[layer] for solution in solutions] for layer in layers],
        [solution.placement for solution in solutions],
    )


def plan_budget(curves: SlotCurves, budget: int) -> BudgetPlan:
    """Divide a limit on the slots of all layers together so that the sum of the makespans is smallest.

    Parameters
    ----------
    curves : SlotCurves
    budget : int
        Most slots of all layers together.

    Raises
    ------
    InputError
        If the budget does not give every layer the smallest number of slots.
    """
    chosen = divide_slots(curves.upper, curves.slots, budget)
    proven = divide_slots(curves.lower, curves.slots, budget)
    return BudgetPlan(chosen, total(curves.upper, curves.slots, chosen), total(curves.lower, curves.slots, proven))


def total(curves: Sequence[Sequence[Fraction]], slots: Sequence[int], chosen: Sequence[int]) -> Fraction:
    """Return the sum over layers of the makespans with the chosen slots."""
    return sum((curve[slots.index(count)] for curve, count in zip(curves, chosen, strict=True)), Fraction(0))


def divide_slots(curves: Sequence[Sequence[Fraction]], slots: Sequence[int], budget: int) -> list[int]:
    """Return the slots of every layer with the smallest sum of makespans, of equal ones the one with fewest slots; exact.

    Dynamic programming over layers and slots spent, in steps of what the options have in common.

    Parameters
    ----------
    curves : sequence of sequence of Fraction [layers][options]
        Makespan of every layer at every number of slots; curves of any shape.
    slots : sequence of int [options]
        Ascending.
    budget : int
        Most slots of all layers together.

    Raises
    ------
    InputError
        If the budget does not give every layer the smallest number of slots.
    """
    layers = len(curves)
    if budget < layers * slots[0]:
        raise InputError(f"budget is {budget} slots; {layers} layers of at least {slots[0]} need {layers * slots[0]}")
    step = math.gcd(*(count - slots[0] for count in slots)) or 1
    sizes = [(count - slots[0]) // step for count in slots]
    room = min((budget - layers * slots[0]) // step, layers * sizes[-1])
    scale = math.lcm(*(value.denominator for curve in curves for value in curve))
    best: list[int | None] = [0] + [None] * room  # smallest scaled sum so far that spends exactly so many steps
    picks: list[list[int]] = []
    for curve in curves:
        costs = [int(value * scale) for value in curve]
        after: list[int | None] = [None] * (room + 1)
        pick = [-1] * (room + 1)
        for spent, cost in enumerate(best):
            if cost is None:
                continue
            for option, size in enumerate(sizes):
                if spent + size > room:
                    break
                known = after[spent + size]
                if known is None or cost + costs[option] < known:
                    after[spent + size], pick[spent + size] = cost + costs[option], option
        best = after
        picks.append(pick)
    spent = min((cost, spent) for spent, cost in enumerate(best) if cost is not None)[1]
    chosen = []
    for pick in reversed(picks):
        chosen.append(slots[pick[spent]])
        spent -= sizes[pick[spent]]
    return chosen[::-1]
