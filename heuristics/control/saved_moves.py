"""Moves that were allowed and not made, saved for when they pay, and the price of a move that says when they do.

Traffic stands still for long and then changes: a decision that spends all it may on gains of no weight has nothing left for an
exchange of two groups between nodes, which takes more moves than one decision is allowed. This is an online knapsack; its rule is
that of Zhou, Chakrabarty and Lukose (2008), a price that depends only on how much is left, here falling to nothing where further
moves could not be saved. It knows nothing of what comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from eplb_gap.heuristics.control.controller import Controller
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

HIGHEST = 8.0
"""Price with nothing saved: in mean GPU loads of a layer, for as many moves as the layer has replicas."""
BEND = 3.0
"""The price falls by the factor exp(-BEND) on the way from nothing to all that can be saved, less a little, to reach zero."""


@dataclass
class SavedMoves:
    """A token bucket, exact.

    Parameters
    ----------
    per_decision : Fraction
        Moves that every decision adds.
    burst : Fraction
        Most moves that are kept from earlier decisions.
    saved : Fraction, default 0
        Moves that may be made now.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from eplb_gap.heuristics.control.saved_moves import SavedMoves
    >>> saved = SavedMoves(Fraction(5, 2), Fraction(3))
    >>> for _ in range(3):
    ...     saved.add()
    >>> saved.moves, saved.price
    (5, 0.0)
    >>> saved.spend(4)
    >>> saved.moves, round(saved.price, 2)
    (1, 3.8)
    """

    per_decision: Fraction
    burst: Fraction
    saved: Fraction = Fraction(0)

    def add(self) -> None:
        """Begin a decision."""
        self.saved = min(self.saved, self.burst) + self.per_decision

    def spend(self, moves: int) -> None:
        """End a decision that made some moves."""
        self.saved -= moves

    @property
    def moves(self) -> int:
        """Most moves of the decision."""
        return math.floor(self.saved)

    @property
    def price(self) -> float:
        """What a move must gain: in mean GPU loads of a layer, for as many moves as the layer has replicas."""
        room = self.per_decision + self.burst
        left = float(self.saved / room) if room else 0.0
        return HIGHEST * math.expm1(BEND * (1 - left)) / math.expm1(BEND)

    def cost(self, loads: np.ndarray, in_use: Placement, deployment: Deployment) -> float:
        """Return the price in the unit of loads, [layers, experts], that are planned on."""
        mean = float(loads.sum(dtype=np.float64)) / deployment.live.num_gpus
        return self.price * mean / int((in_use.ranks >= 0).sum())


def saved_moves(controller: Controller, in_use: Placement) -> SavedMoves:
    """Return the bucket of a controller whose moves can be saved, empty."""
    assert controller.moves is not None
    replicas = int((in_use.ranks >= 0).sum())
    return SavedMoves(Fraction(controller.moves) * replicas, Fraction(controller.burst) * replicas)
