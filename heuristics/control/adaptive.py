"""The controller that chooses how to plan by what every way of planning would have served so far: experts' advice.

Its advisers are windows of several lengths, planned on as a sum or step by step (sample-average), and, where moves are limited,
the map in use as it is. At a decision every adviser makes a map from the map in use, within the moves that are allowed; when the
next decision comes, all maps are judged on the steps in between. The adviser is followed that served best so far, in a mean in
which a decision counts half after ``HALF_LIFE`` more; of those that differ by less than noise the one that looks back furthest.
One layer's steps are few and noisy: a layer follows another adviser than all layers together only where it served it better
by ``STANDARD_ERRORS``. Where loads of an interval differ from those before by far more than intervals usually do, traffic has
changed at once: windows then begin behind the change, whatever their length.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.control.controller import Controller, Kind
from eplb_gap.heuristics.control.kinds import most_moves, plan_window
from eplb_gap.heuristics.control.saved_moves import SavedMoves, saved_moves
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import moved, relabel
from eplb_gap.heuristics.moves.window_moves import replan_on_windows
from eplb_gap.heuristics.registry import in_windows
from eplb_gap.heuristics.serving import sample_average
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.step_makespans import step_makespans

HALF_LIFE = 24
"""Decisions after which a judgement counts half."""
MEMORY = 64
"""Decisions that are remembered."""
TIE = 0.75
"""Standard errors of the mean difference below which the adviser of the longest window is followed rather than the best."""
STANDARD_ERRORS = 2.0
"""Of the mean difference: by so many another adviser must have been better before a layer follows it on its own."""
CHANGE = 2.0
"""An interval further than so many times the median distance from the one before begins another traffic."""
FIRST = 4
"""Intervals before the first map where moves are limited: what it gets wrong, nodes of groups above all, is dear to mend."""
FEWEST = 4
"""Decisions at which it must have been judged before, and distances that a median needs."""


class Adviser(NamedTuple):
    """One way of planning.

    Parameters
    ----------
    intervals : int
        Length of its window in intervals; 0 keeps the map in use.
    by_step : bool
        Whether it plans on the window in parts rather than on its sum.
    """

    intervals: int
    by_step: bool


SUMS = tuple(Adviser(1 << doublings, by_step=False) for doublings in range(6))
FREE = (*SUMS, *(Adviser(intervals, by_step=True) for intervals in (1, 2, 8)))
"""Advisers where any number of replicas may move."""
LIMITED = (Adviser(0, by_step=False), SUMS[0], SUMS[-1], *(Adviser(intervals, by_step=True) for intervals in (2, 8)))
"""Advisers where moves are limited: planning within a limit takes longer, and short windows differ less."""


LONGEST = max(adviser.intervals for adviser in (*FREE, *LIMITED))
"""Intervals of the longest window."""


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
    advisers: tuple[Adviser, ...] = field(init=False)
    followed: np.ndarray | None = None
    """Adviser of every layer at the last decision, int64 [layers]."""
    _advised: dict[int, Placement] = field(default_factory=dict)
    _pending: list[tuple[dict[int, Placement], Placement]] = field(default_factory=list)
    _losses: list[np.ndarray] = field(default_factory=list)
    _regrets: np.ndarray = field(init=False)
    _judged: int = 0
    _started: bool = False
    _saved: SavedMoves | None = None
    _distances: list[float] = field(default_factory=list)
    _since: int = 0
    """Intervals since the traffic changed at once, the last one included."""

    def __post_init__(self) -> None:
        found = FREE if self.controller.moves is None else LIMITED
        if self.deployment.live.unequal_slots and self.controller.moves is None:
            found = SUMS  # sample-average refuses them
        self.advisers = found
        self._regrets = np.zeros(len(found))

    @property
    def regret(self) -> float:
        """Excess above the single adviser that was best in hindsight, in parts of the mean load, per decision that was judged.

        Of a decision, the makespans of the map that served less those of the adviser's map, summed over the steps that it served
        and all layers, over the sum of their means; of an adviser, the sum of these over the decisions at which it was asked,
        half its window at least having passed, divided by all. The largest counts, so that it is below zero only if every
        adviser was beaten. Every adviser started from the map in use, not from one that following it would have led to.
        """
        return float(self._regrets.max() / self._judged) if self._judged else 0.0

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        """Return the maps of the advisers that did best so far, layer by layer, after judging the last advice."""
        self._judge(past)
        self._notice(past)
        limited = self.controller.moves is not None and self._started  # the first map may move anything
        most = self._allowed(in_use) if limited else 0
        full = {
            number: self._map(past[-self.steps(adviser) :], in_use, adviser, most)
            for number, adviser in enumerate(self.advisers)
            if adviser.intervals * self.controller.interval <= 2 * len(past) and (limited or adviser.intervals)
        }
        self._advised = full
        best, own = self._choose(past.shape[1])
        self.followed, new = own, self._mixed(own, in_use)
        if limited and moved(new, in_use, self.deployment).sum() > most:
            self.followed = np.full_like(own, best)  # advisers divide the moves over the layers differently
            new = full[best]
        if limited and self._saved is not None:
            self._saved.spend(int(moved(new, in_use, self.deployment).sum()))
        self._pending.append((full, new))
        self._started = True
        return new

    def steps(self, adviser: Adviser) -> int:
        """Return how many of the newest steps an adviser plans on."""
        return max(1, min(adviser.intervals, self._since)) * self.controller.interval

    def _notice(self, past: np.ndarray) -> None:
        """Compare the last interval with the one before: mean over layers of the total variation of their shares."""
        interval = self.controller.interval
        self._since = min(LONGEST, self._since + 1 if self._started else len(past) // interval)
        if len(past) < 2 * interval:
            return
        sums = np.stack([past[-2 * interval : -interval].sum(axis=0), past[-interval:].sum(axis=0)]).astype(np.float64)
        shares = sums / np.maximum(sums.sum(axis=2, keepdims=True), 1.0)
        distance = float(np.abs(shares[1] - shares[0]).sum(axis=1).mean() / 2)
        if len(self._distances) >= FEWEST and distance > CHANGE * float(np.median(self._distances)):
            self._since = 1
        self._distances = [*self._distances[1 - MEMORY :], distance]

    def _allowed(self, in_use: Placement) -> int:
        """Return how many replicas this decision may move: its own share, or what is saved where moves can be."""
        if not self.controller.burst:
            return most_moves(self.controller, in_use)
        if self._saved is None:
            self._saved = saved_moves(self.controller, in_use)
        self._saved.add()
        return self._saved.moves

    def _map(self, window: np.ndarray, in_use: Placement, adviser: Adviser, most: int) -> Placement:
        if not adviser.intervals:
            return in_use
        history = in_windows(window)
        if self.controller.moves is not None and self._started:
            if adviser.by_step:  # it knows no price: it would spend all that is saved
                return replan_on_windows(history, self.deployment, in_use, min(most, most_moves(self.controller, in_use)))
            loads, cost = history.sum(axis=0), 0.0
            if self._saved is not None:
                cost = self._saved.cost(loads, in_use, self.deployment)
            return replan(loads, self.deployment, in_use, total_moves=most, cost_per_move=cost)
        if adviser.by_step and not self.deployment.live.unequal_slots:
            return sample_average.plan(history, self.deployment, trials=0)  # perturbations would cost seconds on small maps
        return plan_window(self.controller, window, self.deployment)

    def _mixed(self, own: np.ndarray, in_use: Placement) -> Placement:
        """Return the map of which every layer is that of its own adviser."""
        phy2log, ranks = in_use.phy2log.copy(), in_use.ranks.copy()
        for number in np.unique(own).tolist():
            rows = own == number
            phy2log[rows], ranks[rows] = self._advised[number].phy2log[rows], self._advised[number].ranks[rows]
        new = Placement(phy2log, in_use.num_experts, ranks)
        return relabel(new, in_use, self.deployment) if self.controller.moves is None or not self._started else new

    def _choose(self, layers: int) -> tuple[int, np.ndarray]:
        """Return the adviser that was best for all layers, and that of every layer, int64 [layers]."""
        known = np.array([loss[:, -1] for loss in self._losses]).reshape(-1, len(self.advisers))
        there = ~np.isnan(known)
        ready = [number for number in self._advised if there[:, number].any()]
        if not ready:
            best = max(self._advised)
            return best, np.full(layers, best)
        weights = 0.5 ** (np.arange(len(known))[::-1] / HALF_LIFE)
        above = np.where(there, known - np.nanmin(known, axis=1, keepdims=True), 0.0)
        scores = weights @ above / np.maximum(weights @ there, np.finfo(float).tiny)
        best = min(reversed(ready), key=lambda number: float(scores[number]))  # of equal ones the longest window
        longest = max(ready, key=lambda number: self.advisers[number].intervals)
        if longest != best:
            both = there[:, longest] & there[:, best]
            mean, error = _mean_and_error(known[both, longest] - known[both, best], weights[both])
            if mean < TIE * error:
                best = longest
        own, gains = np.full(layers, best), np.zeros(layers)
        losses = np.array(self._losses)[:, :, :-1]
        for number in ready:
            both = there[:, number] & there[:, best]
            if number == best or both.sum() < FEWEST:
                continue
            mean, error = _mean_and_error(losses[both, number] - losses[both, best], weights[both])
            found = mean + STANDARD_ERRORS * error
            own[found < gains] = number
            gains = np.minimum(gains, found)
        return best, own

    def _judge(self, past: np.ndarray) -> None:
        """Judge the advice whose maps have served by now: where they serve after a lag, that of the decision before the last."""
        interval, lag = self.controller.interval, self.controller.lag
        if len(self._pending) < (2 if lag else 1):
            return
        advised, served = self._pending.pop(0)
        steps = past[len(past) - 2 * interval + lag : len(past) - interval + lag] if lag else past[-interval:]
        if not len(steps):
            return
        means = steps.sum(axis=(0, 2), dtype=np.float64) / self.deployment.live.num_gpus
        losses = np.full((len(self.advisers), steps.shape[1] + 1), np.nan)
        for number, placement in advised.items():
            losses[number] = self._excess(placement, steps, means)
        self._losses = [*self._losses[1 - MEMORY :], losses]
        excess = self._excess(served, steps, means)[-1]
        self._regrets += np.where(np.isnan(losses[:, -1]), 0.0, excess - losses[:, -1])
        self._judged += 1

    def _excess(self, placement: Placement, steps: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Return the makespans over the means less one, of every layer and, last, of all together; float64 [layers + 1]."""
        tops, below = step_makespans(placement, steps, self.deployment)
        sums = (tops.sum(axis=0, dtype=object) / below).astype(np.float64)
        sums, units = np.append(sums, sums.sum()), np.append(means, means.sum())
        return np.asarray(np.divide(sums, units, out=np.ones_like(sums), where=units > 0) - 1)


def _mean_and_error(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean of values and its standard error, over the first axis."""
    part = weights / weights.sum()
    mean = part @ values
    # Unequal weights: as many equal ones as have the same variance of the mean.
    count = 1.0 / float(part @ part)
    return mean, np.sqrt(part @ (values - mean) ** 2 / max(count - 1.0, 1.0))


ADAPTIVE = Kind(
    "adaptive",
    "chooses window and planning by what each would have served so far",
    frozenset({"interval", "moves", "burst", "method"}),
    Adaptive,
    needs=lambda controller: controller.interval * (1 if controller.moves is None else FIRST),
    looks_back=lambda controller: LONGEST * controller.interval,
)
