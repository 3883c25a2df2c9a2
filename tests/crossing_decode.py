"""What decode steps read and pay for, on every kind of deployment, for test_crossing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from crossing import WINDOWS, Case, Entry, irregular, unequal
from crossing_routing import ROUTING

from eplb_gap.analysis.decode import activation, by_slots, planning, redundancy
from eplb_gap.analysis.decode.batches import decode_steps
from eplb_gap.analysis.step_time.profile import Tiles
from eplb_gap.heuristics.dispatch import mixed_cost as planned
from eplb_gap.problem.routing import activated, mixed_cost
from eplb_gap.solvers.serving import mixed_cost as solved

COST = mixed_cost.StepCost(expert=3, token=1)
COUNTS = WINDOWS[:, 0]


def read(x: Case) -> None:
    """The best choice reads what is proven and no more than another one; dead GPUs take no part."""
    found = activation.activation(ROUTING, x.placement, x.deployment, batch=2)
    assert (found.read["best"] == found.bound).all()
    assert all((found.read["best"] <= found.read[choice]).all() for choice in activation.CHOICES)
    assert found.num_gpus == x.deployment.live.num_gpus


def compared(x: Case) -> None:
    """Without redundant slots a map costs nothing more."""
    found = redundancy.redundancy(ROUTING, WINDOWS, x.placement, x.deployment, batch=None, past=ROUTING)
    assert (found.planned is None) == (found.slots == 4)
    assert found.slots > 4 or "no redundant slots" in redundancy.report(found)


def fitted(x: Case) -> None:
    """A map planned on steps is legal."""
    x.legal(type(x.placement)(planning.plan_for_steps(ROUTING, x.deployment, None), 4))


def sized(x: Case) -> None:
    """Every number of slots is looked at."""
    found = by_slots.activated_by_slots(ROUTING, WINDOWS, x.deployment, 12, batch=4)
    assert [step.slots for step in found] == sorted({step.slots for step in found})


def counted(x: Case) -> None:
    """Copies that go in turn are counted by the kernel, which refuses slots that do not hold the expert."""
    rows, phy2log = ROUTING.rows(0), x.placement.phy2log[0]
    slots = activation.in_turn(rows, phy2log, 4)
    experts, copies = activated.read_by_tokens(rows, slots, np.zeros(8, np.int64), phy2log, x.deployment)
    assert 1 <= experts[0] <= copies[0]
    seconds = activation.expert_seconds(rows, slots, decode_steps(replace(ROUTING, step=None), 8), x.deployment, Tiles(0, 1.0, 8))
    assert seconds.tolist() == experts.tolist()  # a tile each


def paid(x: Case) -> None:
    """A plan is legal, costs what the kernel says, and the exact model's no more."""
    phy2log, gpus = planned.plan_for_cost(COUNTS, x.deployment, COST, moves=50)
    x.legal(type(x.placement)(np.tile(phy2log, (4, 1)), 4))
    value = mixed_cost.step_costs(gpus, COUNTS, phy2log, x.deployment, COST).sum()
    chosen = planned.choose_for_cost(COUNTS, phy2log, x.deployment, COST)
    assert mixed_cost.step_costs(chosen, COUNTS, phy2log, x.deployment, COST).sum() == value
    best = solved.solve_mixed_cost(COUNTS, x.deployment, COST)
    x.legal(type(x.placement)(np.tile(best.phy2log, (4, 1)), 4))
    assert best.lower <= best.upper <= value


DECODED: dict[Callable[..., Any], Entry] = {
    activation.activation: Entry(read, unequal),
    redundancy.redundancy: Entry(compared, unequal),
    planning.plan_for_steps: Entry(fitted, irregular),
    by_slots.activated_by_slots: Entry(sized, unequal),
    activation.expert_seconds: Entry(counted, irregular),
    activated.read_by_tokens: Entry(counted, irregular),
    mixed_cost.step_costs: Entry(paid, irregular),
    planned.choose_for_cost: Entry(paid, irregular),
    planned.plan_for_cost: Entry(paid, irregular),
    solved.solve_mixed_cost: Entry(paid, irregular),
}
DECODE: tuple[ModuleType, ...] = (activation, by_slots, planning, redundancy)
