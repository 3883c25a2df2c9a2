"""What the steps of an explanation, and the alternatives to the map, are worth in time.

The time is no sum over layers or steps, but a hinge in the imbalance, the mean over layers of makespan over mean. So every level
of the chain has its time, and a step is worth the difference of the times of its two ends: these add up again. Layers count alike
in the imbalance, while in the excess of an explanation they weigh by their loads: a small step may have different signs in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eplb_gap.analysis.evaluate import makespan_imbalance
from eplb_gap.analysis.explain import STEPS, Explanation, Step
from eplb_gap.analysis.step_time.predict import StepTime, step_time
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.timed import Timed, as_dict, by_hinge, named
from eplb_gap.analysis.step_time.words import WORTH_NOTHING, change, reached, within_scatter
from eplb_gap.analysis.verdict import WINNING_SHARE, recommended

NO_SUM = (
    "A step is worth the difference of the times before and after it; layers count alike in an imbalance, and by their loads in "
    "points, so that small steps may have different signs."
)


@dataclass(frozen=True)
class Saving:
    """What an alternative saves.

    Parameters
    ----------
    name : str
    relative : float
        Mean over pairs of windows of the method's time less the alternative's, in parts of the time at perfect balance.
    wins, pairs : int
        Pairs in which the alternative is faster, of how many.
    worth_nothing : bool
        Whether both are inside the dead zone in every pair.
    is_limit : bool
        Whether nobody can plan so.
    recommended : bool
        Whether it is in points (:func:`eplb_gap.analysis.verdict.recommended`), is faster on average by more than the
        timings scatter, and in as many of the pairs as that asks for. Never for a limit.
    """

    name: str
    relative: float
    wins: int
    pairs: int
    worth_nothing: bool
    is_limit: bool
    recommended: bool


@dataclass(frozen=True)
class ChainTimes:
    """An explanation in time.

    Parameters
    ----------
    profile : Profile
    serve_window : int
    levels : dict of str to StepTime
        Of every level of the chain by its key, from perfect balance to the planned map; of an optimum its upper value.
    planned : Timed
        The planned map, and what no map goes below.
    savings : list of Saving
        Of the alternatives, the largest first.
    """

    profile: Profile
    serve_window: int
    levels: dict[str, StepTime]
    planned: Timed
    savings: list[Saving]

    def worth(self, step: Step) -> float:
        """Return the time that a step adds, in parts of the time at perfect balance; 0 without a hinge."""
        start, end = self.levels[step.start].relative, self.levels[step.end].relative
        return 0.0 if start is None or end is None else end - start

    def worth_nothing(self, step: Step) -> bool:
        """Return whether a step lies inside the dead zone."""
        return bool(self.levels[step.start].inside_dead_zone and self.levels[step.end].inside_dead_zone)

    def as_dict(self) -> dict[str, Any]:
        """Return the times as JSON-ready data; what is worth something in seconds, or in parts of the time at perfect balance."""
        told = {**named(self.profile), **as_dict(self.planned)}
        hinge = self.profile.hinge
        if hinge is None:
            return told
        unit = 1.0 if hinge.seconds is None else hinge.seconds
        told["levels"] = {
            key: {"imbalance": one.imbalance, "relative": one.relative, "seconds": one.seconds, "dead_zone": one.inside_dead_zone}
            for key, one in self.levels.items()
        }
        told["steps"] = {step.label: unit * self.worth(step) for step in STEPS}
        told["alternatives"] = [
            {
                "name": one.name,
                "is_limit": one.is_limit,
                "saves": unit * one.relative,
                "wins": one.wins,
                "pairs": one.pairs,
                "recommended": one.recommended,
                "dead_zone": one.worth_nothing,
            }
            for one in self.savings
        ]
        return told


def chain_times(profile: Profile, result: Explanation) -> ChainTimes:
    """Return an explanation in time.

    Parameters
    ----------
    profile : Profile
    result : Explanation

    Examples
    --------
    >>> from eplb_gap import Deployment, LoadTrace, Placement, explain
    >>> from eplb_gap.analysis.step_time.explained import chain_times
    >>> from eplb_gap.analysis.step_time.profile import read_profile
    >>> trace = LoadTrace([[[6, 2, 1, 1]], [[2, 6, 1, 1]]])
    >>> found = explain(trace, Deployment(4, 6, 2), Placement([[0, 2, 3, 0, 1, 1]], 4))
    >>> times = chain_times(read_profile("qwen2-57b-ep8-h20"), found)
    >>> round(times.planned.time.seconds, 2)  # an imbalance of 1.4: 82.86 s (1 + 0.285 (1.4 - 1.099))
    89.97
    """
    levels = {level.key: step_time(profile, makespan_imbalance(level.upper, result.mean)) for level in result.levels}
    own = next(level for level in result.levels if level.key == "hierarchical")
    planned = by_hinge(profile, result.levels[-1].upper, own.lower, result.mean)
    savings = []
    for one in result.alternatives if profile.hinge is not None else ():
        pairs = [(step_time(profile, old), step_time(profile, new)) for old, new in one.imbalances]
        saved = [(old.relative or 0.0) - (new.relative or 0.0) for old, new in pairs]
        nothing = all(old.inside_dead_zone and new.inside_dead_zone for old, new in pairs)
        mean, wins = sum(saved) / len(saved), sum(gain > 0 for gain in saved)
        helps = (
            not one.is_limit
            and recommended(one)
            and mean > 0
            and not within_scatter(profile, mean)
            and wins >= WINNING_SHARE * len(saved)
        )
        savings.append(Saving(one.name, mean, wins, len(saved), nothing, one.is_limit, helps))
    savings.sort(key=lambda one: -one.relative)
    return ChainTimes(profile, result.serve_window, levels, planned, savings)


COLUMNS = ("step", "imbalance reached", "time reached", "worth in time")


def step_rows(times: ChainTimes) -> list[list[str]]:
    """Return a row of :data:`COLUMNS` for perfect balance and for every step of the chain."""
    rows = [["perfect balance", *_level(times, "mean"), ""]]
    for step in STEPS:
        worth = "nothing: dead zone" if times.worth_nothing(step) else change(times.profile, times.worth(step))
        rows.append([step.label, *_level(times, step.end), worth])
    return rows


def sentences(times: ChainTimes) -> list[str]:
    """Return what the chain means in time."""
    time, least = times.planned.time, times.planned.least
    if time.relative is None or least.relative is None or times.planned.gap is None:
        return []
    said = (
        f"Predicted for window {times.serve_window}: {reached(times.profile, time.relative)} at an imbalance of "
        f"{time.imbalance:.4f}"
    )
    if time.inside_dead_zone:
        return [f"{said}, inside the dead zone: a better balance is worth nothing."]
    more = f"{100 * (time.relative - 1):.2f} % above perfect balance"
    low = reached(times.profile, least.relative)
    found = [f"{said}, {more}; no map goes below {low} (gap {100 * times.planned.gap:.2f} %)."]
    if nothing := [step.label for step in STEPS if times.worth_nothing(step)]:
        found.append(f"Inside the dead zone, worth nothing: {', '.join(nothing)}.")
    return [*found, NO_SUM]


def alternative_lines(times: ChainTimes) -> list[str]:
    """Return a line for every alternative, the one that saves most first: the change in time, in how many pairs, the verdict."""
    return [_saving(times.profile, one) for one in times.savings]


def _level(times: ChainTimes, key: str) -> list[str]:
    time = times.levels[key]
    return [f"{time.imbalance:.4f}", "-" if time.relative is None else reached(times.profile, time.relative)]


def _saving(profile: Profile, one: Saving) -> str:
    name = f"{one.name} (a limit, which nobody can plan to)" if one.is_limit else one.name
    if one.worth_nothing:
        return f"{name}: {WORTH_NOTHING}"
    over = "on one pair of windows" if one.pairs == 1 else f"mean over {one.pairs} pairs"
    judged = "" if one.recommended or one.is_limit else ", not recommended"
    return f"{name}: {change(profile, -one.relative)}, {over}, faster in {one.wins} of {one.pairs}{judged}"
