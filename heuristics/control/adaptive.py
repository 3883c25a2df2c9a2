"""The controller that chooses its window by what windows of every length would have served so far.

At a decision it makes, from the map in use, the best map within the moves that are allowed for each of several windows and serves
the one whose window did best on the past; when the next decision comes, it scores all of them on the steps in between. Scores are
means of served excess in which a decision counts half after ``HALF_LIFE`` more: it follows the best of a few advisers, with a
memory that a change of the traffic cannot fool for long. Its regret against the best single window in hindsight can be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eplb_gap.heuristics.control.controller import Controller, Kind
from eplb_gap.heuristics.control.kinds import full_plan, most_moves
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.step_makespans import step_makespans

DOUBLINGS = 5
"""Windows are one interval, two, four, ... so many times doubled, as far as they are full."""
HALF_LIFE = 8
"""Decisions after which a score counts half."""


@dataclass
class Adaptive:
    """State of the controller.

    Parameters
    ----------
    controller : Controller
    deployment : Deployment
    """

    controller: Controller
    deployment: Deployment
    _scores: np.ndarray = field(init=False)
    _weights: np.ndarray = field(init=False)
    _sums: np.ndarray = field(init=False)
    _known: np.ndarray = field(init=False)
    _advised: dict[int, Placement] = field(default_factory=dict)
    _chosen: int = 0
    _suffered: float = 0.0

    def __post_init__(self) -> None:
        self._scores, self._weights = np.zeros(DOUBLINGS + 1), np.zeros(DOUBLINGS + 1)
        self._sums = np.zeros(DOUBLINGS + 1)
        self._known = np.zeros(DOUBLINGS + 1, dtype=np.int64)

    @property
    def regret(self) -> float:
        """Mean served excess per decision above that of the best single window in hindsight, in parts of the mean load."""
        judged = self._known.max(initial=0)
        whole = self._known == judged
        return float((self._suffered - self._sums[whole].min()) / judged) if judged else 0.0

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        """Return the map of the window that did best so far, after scoring the last advice."""
        self._judge(past)
        self._advised = {
            choice: self._map(past[-self.controller.interval << choice :], in_use)
            for choice in range(DOUBLINGS + 1)
            if self.controller.interval << choice <= len(past)
        }
        known = [choice for choice in self._advised if self._known[choice]]
        self._chosen = (
            min(known, key=lambda choice: self._scores[choice] / self._weights[choice]) if known else max(self._advised)
        )
        return self._advised[self._chosen]

    def _map(self, window: np.ndarray, in_use: Placement) -> Placement:
        if self.controller.moves is None or not self._advised:  # the first map may move anything
            return full_plan(self.controller, window, in_use, self.deployment)
        return replan(window.sum(axis=0), self.deployment, in_use, total_moves=most_moves(self.controller, in_use))

    def _judge(self, past: np.ndarray) -> None:
        steps = past[len(past) - self.controller.interval + self.controller.lag :]
        if not self._advised or not len(steps):
            return
        excess = {choice: self._excess(placement, steps) for choice, placement in self._advised.items()}
        least = min(excess.values())
        for memory in (self._scores, self._weights):
            memory *= 0.5 ** (1 / HALF_LIFE)
        for choice in range(DOUBLINGS + 1):
            if choice in excess:
                self._scores[choice] += excess[choice] - least
                self._weights[choice] += 1
                self._sums[choice] += excess[choice]
                self._known[choice] += 1
        self._suffered += excess[self._chosen]

    def _excess(self, placement: Placement, steps: np.ndarray) -> float:
        tops, below = step_makespans(placement, steps, self.deployment)
        mean = float(steps.sum(dtype=np.float64)) / self.deployment.live.num_gpus
        return float((tops / below).sum()) / mean - 1 if mean else 0.0


ADAPTIVE = Kind(
    "adaptive",
    "chooses its window by what each would have served so far",
    frozenset({"interval", "moves", "method"}),
    Adaptive,
    looks_back=lambda controller: controller.interval << DOUBLINGS,
)
