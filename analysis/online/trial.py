"""Replays of single controllers, counted for a progress bar, and what they serve net of costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eplb_gap.analysis.replay.costs import Costs
from eplb_gap.analysis.replay.replay import Change, Replayed, replay
from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.loads import LoadTrace

Tick = Callable[[str, int, int], None]
"""``tick(what, replays done, replays)``."""


def copies(run: Replayed) -> list[Change]:
    """Return the changes on judged steps without a controller's first map, which a server loads together with the weights."""
    return [change for change in run.changes[1:] if run.first <= change.serves < run.last]


def moves(run: Replayed) -> float:
    """Return the replicas copied per judged step and layer."""
    return sum(change.moves for change in copies(run)) / ((run.last - run.first) * run.layers)


@dataclass(frozen=True)
class Price:
    """What waiting costs.

    Parameters
    ----------
    costs : Costs
    step_seconds : float
        Seconds that a step of the loads takes at perfect balance.
    """

    costs: Costs
    step_seconds: float

    def net(self, run: Replayed) -> float:
        """Return balancedness if serving's waiting seconds are added to those of the fullest GPUs."""
        perfect = (run.last - run.first) * self.step_seconds
        return perfect / (perfect / run.balancedness + sum(change.waiting or 0.0 for change in copies(run)))

    def tokens(self, run: Replayed, mean: np.ndarray) -> np.ndarray:
        """Return waiting as the tokens that a GPU could have served meanwhile at perfect balance.

        Parameters
        ----------
        run : Replayed
        mean : ndarray
            Mean GPU load of every judged step, float64 [steps].

        Returns
        -------
        ndarray
            float64 [judged steps], at the steps that a map served first.
        """
        found = np.zeros(mean.size)
        for change in copies(run):
            found[change.serves - run.first] += change.waiting or 0.0
        return found * float(mean.mean() / self.step_seconds)


@dataclass
class Trials:
    """Runs controllers on steps and counts them.

    Parameters
    ----------
    tick : Tick
    price : Price or None
    """

    tick: Tick
    price: Price | None
    done: int = 0
    announced: int = 0

    def announce(self, number: int) -> None:
        """Say how many replays are to come."""
        self.announced += number

    def run(self, steps: LoadTrace, deployment: Deployment, controller: Controller, first: int) -> Replayed:
        """Replay a controller, judged from a step on.

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C: half a calibration is none.
        """
        self.tick(f"{deployment.num_slots} slots: {controller.label}", self.done, self.announced)
        result = replay(steps, deployment, [controller], warm_up=first, costs=None if self.price is None else self.price.costs)
        if result.interrupted:
            raise KeyboardInterrupt
        self.done += 1
        return result.runs[0]
