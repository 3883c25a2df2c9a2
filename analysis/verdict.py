"""What an explanation means, in words: every sentence carries the number it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from eplb_gap.analysis.alternatives import Alternative
from eplb_gap.analysis.explain import STEPS, Explanation

NOTHING = Fraction(1, 1000)
"""Excess below a tenth of a point is called nothing."""
WINNING_SHARE = Fraction(2, 3)
"""Share of the window pairs in which an alternative must be better before it is recommended."""


@dataclass(frozen=True)
class Verdict:
    """An explanation in words.

    Parameters
    ----------
    sentences : list of str
        What is lost, where, and what would help most.
    items : list of str
        One line for every alternative: those that were measured, best first, then what was left out.
    """

    sentences: list[str]
    items: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the sentences, and the items behind a dash."""
        return [*self.sentences, *(f"- {item}" for item in self.items)]


def verdict(result: Explanation) -> Verdict:
    """Return what an explanation means; where nothing is left to win, no alternative is listed."""
    excess = result.excess()
    said = [
        f"On window {result.serve_window}, planned on window {result.plan_window}, the fullest GPUs carry "
        f"{points(excess)} % more than the mean: balancedness {float(1 / (1 + excess)):.4f}."
    ]
    if excess < NOTHING:
        return Verdict(["Keep this map: nothing is left to win here.", *said])
    said.append(_largest(result))
    helpful = sorted((a for a in result.alternatives if recommended(a)), key=lambda a: -a.mean_gain)
    said.insert(0, _headline(result, next((a for a in helpful if not a.is_limit), None)))
    pairs = len(result.alternatives[0].gains)
    what = f"mean over {pairs} pairs of windows" if pairs > 1 else "on this one pair of windows, which says little"
    if helpful:
        best = helpful[0]
        said.append(f"What would help most: {best.name} ({best.what}), {_gain(best)} points, {what}.")
        reachable = next((a for a in helpful if not a.is_limit), None)
        if best.is_limit and reachable is not None:
            said.append(
                f"That is a limit nobody can plan to; of what can be done, the best is {reachable.name} "
                f"({reachable.what}): {_gain(reachable)} points."
            )
        elif best.is_limit:
            said.append("That is a limit nobody can plan to; nothing else that was measured helps.")
    else:
        said.append(f"None of the alternatives that were measured helps ({what}).")
    items = [_item(alternative) for alternative in sorted(result.alternatives, key=lambda a: -a.mean_gain)]
    return Verdict(said, [*items, *(f"{left.name}: left out; {left.what}: {left.why}" for left in result.left_out)])


def _headline(result: Explanation, reachable: Alternative | None) -> str:
    """Return what to do, and the largest reason."""
    steps = result.steps()
    largest = max(STEPS, key=lambda step: steps[step.key])
    reason = f"the largest loss is {points(steps[largest.key])} points: {largest.label}."
    if reachable is None:
        return f"Keep this map: no other plan that was measured helps; {reason}"
    return f"Change to {reachable.name}: {_gain(reachable)} points of the {points(result.excess())} that this map loses; {reason}"


def recommended(alternative: Alternative) -> bool:
    """Return whether an alternative saves at least a tenth of a point on average and is better in two thirds of the pairs."""
    return alternative.mean_gain >= NOTHING and alternative.wins >= WINNING_SHARE * len(alternative.gains)


def points(value: Fraction) -> str:
    """Return an excess in percent of the mean, to two digits."""
    return f"{100 * float(value):.2f}"


def _largest(result: Explanation) -> str:
    labels = {step.key: step.label for step in STEPS}
    ranked = sorted(result.steps().items(), key=lambda step: -step[1])
    named = [f"{labels[key]} {points(value)}" for key, value in ranked if value >= NOTHING]
    return f"Of that, in points: {', '.join(named)}; every other step is below a tenth of a point or negative."


def _gain(alternative: Alternative) -> str:
    return f"{100 * float(alternative.mean_gain):+.2f}"


def _item(alternative: Alternative) -> str:
    judged = "" if recommended(alternative) else ", not recommended"
    limit = " (a limit)" if alternative.is_limit else ""
    return (
        f"{alternative.name}{limit}: {_gain(alternative)} points, better in {alternative.wins} of {len(alternative.gains)} "
        f"pairs{judged}; {alternative.what}"
    )
