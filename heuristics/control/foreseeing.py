"""The controller that knows the steps its maps will serve: nobody can, so it is a limit and no choice.

It plans on the steps themselves, not on their sum, for it is judged step by step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.control.controller import Controller, Kind
from eplb_gap.heuristics.control.kinds import full_plan, most_moves
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import relabel
from eplb_gap.heuristics.moves.window_moves import replan_on_windows
from eplb_gap.heuristics.serving.sample_average import patient_plan
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.step_makespans import by_layer, step_makespans, total


@dataclass
class _Foreseeing:
    """Plan on the very steps that the map will serve; of several plans take the best on them. The first may move anything."""

    controller: Controller
    deployment: Deployment
    known: int | None = None

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        before, self.known = self.known, len(past)
        steps = past[-self.controller.interval :] if before is None else past[before:]
        if not len(steps):
            return None
        if before is None or self.controller.moves is None:
            return _best_of_each(self._free(steps, in_use), steps, self.deployment)
        within = most_moves(self.controller, in_use)
        found = [
            in_use,
            replan(steps.sum(axis=0), self.deployment, in_use, total_moves=within),
            replan_on_windows(steps, self.deployment, in_use, within),
        ]
        return min(found, key=lambda placement: _served(placement, steps, self.deployment))

    def _free(self, steps: np.ndarray, in_use: Placement) -> list[Placement]:
        found = [full_plan(self.controller, steps, in_use, self.deployment)]
        if not self.deployment.live.unequal_slots:
            found.append(relabel(patient_plan(steps, self.deployment), in_use, self.deployment))
        return found


def _served(placement: Placement, steps: np.ndarray, deployment: Deployment) -> Fraction:
    return total(*step_makespans(placement, steps, deployment))


def _best_of_each(plans: list[Placement], steps: np.ndarray, deployment: Deployment) -> Placement:
    """Return the best map of every layer, of several."""
    sums = [by_layer(*step_makespans(placement, steps, deployment)) for placement in plans]
    best = [min(range(len(plans)), key=lambda one: sums[one][layer]) for layer in range(steps.shape[1])]
    maps = np.stack([plans[one].phy2log[layer] for layer, one in enumerate(best)])
    ranks = np.stack([plans[one].ranks[layer] for layer, one in enumerate(best)])
    return Placement(maps, plans[0].num_experts, ranks)


CLAIRVOYANT = Kind(
    "clairvoyant",
    "planned on the steps that it will serve: a limit that nobody reaches by looking back",
    frozenset({"interval", "method", "moves"}),
    _Foreseeing,
    foresees=True,
)
