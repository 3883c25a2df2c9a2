"""Where a controller's excess over the mean comes from: a chain of values whose differences add up exactly.

Makespans are summed over the judged steps and all layers. Every set of controllers holds the next, so no part is negative:

1. a map of its own for every step: what no balance of whole replicas on these nodes avoids;
2. the best map of every interval: the price of keeping a map for an interval;
3. the best maps within the controller's moves, by a clairvoyant controller with the same moves at the same interval: the price of
   the budget;
4. the controller: the price of not knowing the future;
5. what could have been served while maps were copied, where a cost profile says how fast a GPU serves: the price of moving.

The optima of 1 to 3 lie between a certified bound and the value found, which enters the chain. What is known of 3 from below is
the bound of 2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from eplb_gap.problem.fractions import fraction

if TYPE_CHECKING:
    from eplb_gap.analysis.replay.replay import Replay, Replayed

PARTS = {
    "step": "whole replicas and nodes",
    "interval": "the interval",
    "budget": "the moves",
    "future": "not knowing the future",
    "moving": "moving",
}
"""What each part is the price of."""


@dataclass(frozen=True)
class Chain:
    """Sums of makespans in tokens, from the mean to a controller; each is at least the one before.

    Parameters
    ----------
    mean : Fraction
    step_lower, step : Fraction
        A map of its own for every step: certified bound, and value found.
    interval_lower, interval : Fraction
        The best map of every interval: certified bound on every controller, and value found.
    budget : Fraction, optional
        Maps within the controller's moves found with the future known; None where its moves are not limited.
    served : Fraction
        The controller's.
    waited : Fraction, optional
        Tokens of a GPU's time while maps were copied; None where costs say nothing of them.
    """

    mean: Fraction
    step_lower: Fraction
    step: Fraction
    interval_lower: Fraction
    interval: Fraction
    budget: Fraction | None
    served: Fraction
    waited: Fraction | None

    @property
    def parts(self) -> dict[str, Fraction]:
        """Parts of :data:`PARTS` that are known, in tokens; with the mean their sum is :attr:`total`."""
        before_served = self.interval if self.budget is None else self.budget
        return {
            "step": self.step - self.mean,
            "interval": self.interval - self.step,
            **({} if self.budget is None else {"budget": self.budget - self.interval}),
            "future": self.served - before_served,
            **({} if self.waited is None else {"moving": self.waited}),
        }

    @property
    def total(self) -> Fraction:
        """What the controller served, and what it waited where that is known."""
        return self.served + (self.waited or 0)

    @property
    def regret(self) -> Fraction:
        """Certified: tokens above what every controller that changes its maps at these intervals needs at least."""
        return self.served - self.interval_lower


def chain_of(result: Replay, run: Replayed) -> Chain | None:
    """Return the chain of a controller; None without a limit, or where its maps change at other steps than the limit's.

    None as well where the work on the limit was interrupted before what its moves allow was known.
    """
    limit = result.limit
    if limit is None or result.regret(run) is None:
        return None
    budget = result.within_moves(run)
    if budget is None and run.controller.moves is not None:  # interrupted before it was known
        return None
    # Whatever was found under more restrictions is possible under fewer.
    budget = None if budget is None else min(budget, run.served)
    interval = min(limit.interval_upper, run.served if budget is None else budget)
    step = min(limit.step_upper, interval)
    speed = None if result.costs is None else result.costs.tokens_per_second
    waited = None if speed is None or run.waiting is None else Fraction(run.waiting) * Fraction(speed)
    return Chain(limit.mean, limit.step_lower, step, limit.interval_lower, interval, budget, run.served, waited)


def chain_lines(result: Replay) -> list[str]:
    """Return one line for every controller that has a chain: its parts in points of the mean, and the certified regret."""
    found = []
    for run in result.runs:
        chain = chain_of(result, run)
        if chain is None or not chain.mean:
            continue
        points = {name: 100 * float(part / chain.mean) for name, part in chain.parts.items()}
        said = " + ".join(f"{value:.2f} {PARTS[name]}" for name, value in points.items())
        found.append(
            f"{run.controller.label}: {sum(points.values()):.2f} points over the mean = {said}; certified regret at most "
            f"{100 * float(chain.regret / chain.mean):.2f}"
        )
    if found:
        found.append(
            "the parts are of the best maps found; an optimum may be lower, the bounds above say how much, and what is known of "
            "maps within the moves from below is the bound of the intervals"
        )
    return found


def chain_as_dict(chain: Chain | None) -> dict[str, Any] | None:
    """Return a chain as JSON-serialisable data: exact fractions of tokens, and the parts of the mean as numbers."""
    if chain is None:
        return None
    values = {field.name: getattr(chain, field.name) for field in fields(chain)}
    return {
        **{name: None if value is None else fraction(value) for name, value in values.items()},
        "parts": {name: fraction(part) for name, part in chain.parts.items()},
        "shares": {name: float(part / chain.mean) if chain.mean else 0.0 for name, part in chain.parts.items()},
    }
