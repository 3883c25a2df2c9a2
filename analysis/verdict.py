"""What an explanation means, in words: every sentence carries the number it rests on."""

from __future__ import annotations

from fractions import Fraction

from eplb_gap.analysis.explain import STEPS, Alternative, Explanation

NOTHING = Fraction(1, 1000)
"""Excess below a tenth of a point is called nothing."""
WINNING_SHARE = Fraction(2, 3)
"""Share of the window pairs in which an alternative must be better before it is recommended."""


def verdict(result: Explanation) -> list[str]:
    """Return the verdict, one sentence or list item per line."""
    excess = result.excess()
    lines = [
        f"On window {result.serve_window}, planned on window {result.plan_window}, the fullest GPUs carry "
        f"{points(excess)} % more than the mean: balancedness {float(1 / (1 + excess)):.4f}."
    ]
    if excess < NOTHING:
        return [*lines, "Nothing is left to win here."]
    lines.append(_largest(result))
    helpful = sorted((a for a in result.alternatives if recommended(a)), key=lambda a: -a.mean_gain)
    pairs = len(result.alternatives[0].gains)
    what = f"mean over {pairs} pairs of windows" if pairs > 1 else "on this one pair of windows, which says little"
    if helpful:
        best = helpful[0]
        lines.append(f"What would help most: {best.name} ({best.what}), {_gain(best)} points, {what}.")
        reachable = next((a for a in helpful if not a.is_limit), None)
        if best.is_limit and reachable is not None:
            lines.append(
                f"That is a limit nobody can plan to; of what can be done, the best is {reachable.name} "
                f"({reachable.what}): {_gain(reachable)} points."
            )
        elif best.is_limit:
            lines.append("That is a limit nobody can plan to; nothing else that was measured helps.")
    else:
        lines.append(f"None of the alternatives that were measured helps ({what}).")
    lines += [_line(alternative) for alternative in sorted(result.alternatives, key=lambda a: -a.mean_gain)]
    return lines


def recommended(alternative: Alternative) -> bool:
    """Return whether an alternative saves at least a tenth of a point on average and is better in two thirds of the pairs."""
    return alternative.mean_gain >= NOTHING and alternative.wins >= WINNING_SHARE * len(alternative.gains)


def points(value: Fraction) -> str:
    """Return an excess in percent of the mean, to two digits."""
    return f"{100 * float(value):.2f}"


def _largest(result: Explanation) -> str:
    ranked = sorted(result.steps().items(), key=lambda step: -step[1])
    named = [f"{STEPS[key]} {points(value)}" for key, value in ranked if value >= NOTHING]
    return f"Of that, in points: {', '.join(named)}; every other step is below a tenth of a point or negative."


def _gain(alternative: Alternative) -> str:
    return f"{100 * float(alternative.mean_gain):+.2f}"


def _line(alternative: Alternative) -> str:
    judged = "" if recommended(alternative) else ", not recommended"
    limit = " (a limit)" if alternative.is_limit else ""
    return (
        f"- {alternative.name}{limit}: {_gain(alternative)} points, better in {alternative.wins} of {len(alternative.gains)} "
        f"pairs{judged}; {alternative.what}"
    )
