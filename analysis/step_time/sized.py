"""What slots buy in time: nothing more, once the imbalance is below the knee.

Served times of numbers of slots are compared on the same pairs of windows, by 95 % intervals (Student's t) of mean differences.
The smallest of several noisy means is no finding: a number of slots is called fastest only if all others are slower beyond their
intervals, which are wider there (Bonferroni), as there are several.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from eplb_gap.analysis.capacity import Capacity
from eplb_gap.analysis.step_time.predict import StepTime, step_time
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.timed import named
from eplb_gap.analysis.step_time.words import change, cited, knee, reached, signed
from eplb_gap.analysis.text import markdown

LEVEL = 0.95
FEWEST_PAIRS = 2
"""From one pair no interval follows."""


class Difference(NamedTuple):
    """A mean difference over pairs of windows and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SlotTime:
    """One number of slots.

    Parameters
    ----------
    slots : int
    planning, least : StepTime
        Of the best map found for the planning window, and what no map with so many slots goes below.
    pairs : tuple of float
        Time served of every pair of windows, in parts of that at perfect balance.
    serving_imbalance : float or None
        Mean over the pairs.
    serving_inside : bool
        Whether every pair is inside the dead zone.
    """

    slots: int
    planning: StepTime
    least: StepTime
    pairs: tuple[float, ...]
    serving_imbalance: float | None
    serving_inside: bool

    @property
    def serving(self) -> float | None:
        """Mean over the pairs of the time served; None without a pair."""
        return statistics.fmean(self.pairs) if self.pairs else None

    def less(self, other: SlotTime, comparisons: int = 1) -> Difference | None:
        """Return this time less the other's on the same pairs, for one of so many comparisons; None from fewer than two pairs."""
        if len(self.pairs) < FEWEST_PAIRS:
            return None
        found = np.subtract(self.pairs, other.pairs)
        quantile = float(student.ppf(1 - (1 - LEVEL) / (2 * comparisons), found.size - 1))
        half = quantile * float(found.std(ddof=1)) / math.sqrt(found.size)
        return Difference(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half)


@dataclass(frozen=True)
class SlotTimes:
    """All numbers of slots, ascending.

    Parameters
    ----------
    profile : Profile
        With a hinge.
    steps : list of SlotTime
    """

    profile: Profile
    steps: list[SlotTime]

    @property
    def enough(self) -> SlotTime | None:
        """Fewest slots whose planning window is inside the dead zone; None if none is."""
        return next((step for step in self.steps if step.planning.inside_dead_zone), None)

    @property
    def fastest(self) -> SlotTime | None:
        """Slots that serve faster than all others beyond the scatter of the pairs of windows; None if none is known to."""
        alike = self.alike
        return alike[0] if len(alike) == 1 else None

    @property
    def alike(self) -> list[SlotTime]:
        """Slots not known to serve slower than those of the smallest mean, ascending; none without a pair of windows."""
        served = [(step.serving, step) for step in self.steps if step.serving is not None]
        if not served:
            return []
        best = min(served, key=lambda one: one[0])[1]
        found = []
        for step in self.steps:
            slower = step.less(best, max(1, len(self.steps) - 1))
            if step is best or slower is None or slower.low <= 0:
                found.append(step)
        return found

    def lines(self) -> list[str]:
        """Return the times in words: a table of slots, what each step buys, and the two answers."""
        body = []
        before: SlotTime | None = None
        for step in self.steps:
            body.append([str(step.slots), *self._cells(step, before)])
            before = step
        header = ["slots", "planning: imbalance", "time", "change", "no map below", "serving: imbalance", "time"]
        header.append(f"against {self.steps[0].slots} slots, 95 % interval")
        return [
            cited(self.profile), knee(self.profile), "", markdown(header, body), "", self._planning(), *self._serving(),
        ]  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return the times as JSON-ready data; in seconds, or in parts of the time at perfect balance."""
        hinge = self.profile.hinge
        assert hinge is not None
        unit = 1.0 if hinge.seconds is None else hinge.seconds
        enough, fastest = self.enough, self.fastest
        return {
            **named(self.profile),
            "enough": None if enough is None else enough.slots,
            "fastest_served": None if fastest is None else fastest.slots,
            "not_slower_served": [step.slots for step in self.alike],
            "pairs": len(self.steps[0].pairs),
            "slots": [
                {
                    "slots": step.slots,
                    "imbalance": step.planning.imbalance,
                    "relative": step.planning.relative,
                    "seconds": step.planning.seconds,
                    "lower": unit * (step.least.relative or 0.0),
                    "gap": _relative(step.planning) / _relative(step.least) - 1,
                    "dead_zone": step.planning.inside_dead_zone,
                    "serving_imbalance": step.serving_imbalance,
                    "serving": None if step.serving is None else unit * step.serving,
                    "serving_against_fewest": None if (less := step.less(self.steps[0])) is None else [unit * x for x in less],
                    "serving_dead_zone": step.serving_inside,
                }
                for step in self.steps
            ],
        }

    def _cells(self, step: SlotTime, before: SlotTime | None) -> list[str]:
        profile, time = self.profile, _relative(step.planning)
        cells = [f"{step.planning.imbalance:.4f}", reached(profile, time)]
        if before is None:
            cells.append("")
        elif step.planning.inside_dead_zone and before.planning.inside_dead_zone:
            cells.append("nothing: dead zone")
        else:
            cells.append(change(profile, time - _relative(before.planning)))
        cells.append(reached(profile, _relative(step.least)))
        if step.serving is None or step.serving_imbalance is None:
            return [*cells, "", "", ""]
        cells += [f"{step.serving_imbalance:.4f}", reached(profile, step.serving)]
        first = self.steps[0]
        less = step.less(first)
        if step is first or less is None:
            return [*cells, ""]
        if step.serving_inside and first.serving_inside:
            return [*cells, "nothing: dead zone"]
        ends = " to ".join(signed(profile, end) for end in (less.low, less.high))
        return [*cells, f"{change(profile, less.mean)} ({ends})"]

    def _planning(self) -> str:
        found, last = self.enough, self.steps[-1]
        if found is None:
            proven = "; no map of them is" if not last.least.inside_dead_zone else ""
            return f"Planning: no number of slots up to {last.slots} is inside the dead zone{proven}."
        fewer = [step for step in self.steps if step.slots < found.slots]
        if not fewer:
            return (
                f"Planning: {found.slots} slots, the fewest that hold every expert, are inside the dead zone: more buy nothing."
            )
        proven = "fewer are proven not to be" if not any(step.least.inside_dead_zone for step in fewer) else "fewer may be"
        return f"Planning: from {found.slots} slots on, inside the dead zone, more buy nothing; {proven}."

    def _serving(self) -> list[str]:
        alike, pairs = self.alike, len(self.steps[0].pairs)
        if not alike:
            return []
        over = f"mean over {pairs} pairs of windows" if pairs > 1 else "on one pair of windows, from which no interval follows"
        inside = next((step for step in self.steps if step.serving_inside), None)
        if inside is not None:
            where = "all pairs" if pairs > 1 else "the one pair"
            return [f"Serving: {inside.slots} slots are inside the dead zone in {where} of windows; more buy nothing."]
        said = {step.slots: reached(self.profile, step.serving or 0.0) for step in alike}
        if len(alike) == 1 and len(self.steps) > 1:
            return [
                f"Serving: {alike[0].slots} slots serve fastest, {said[alike[0].slots]}, {over}; every other number is slower "
                "beyond the interval of the difference."
            ]
        if pairs < FEWEST_PAIRS or len(alike) == 1:
            return [
                f"Serving: {', '.join(f'{slots} slots {time}' for slots, time in said.items())}, {over}; no fastest is named."
            ]
        return [
            f"Serving: no number of slots is known to be fastest, {over}: those of {', '.join(map(str, said))} slots differ by "
            f"no more than the interval of the difference; the fewest of them, {alike[0].slots}, serve in {said[alike[0].slots]}."
        ]


def slot_times(profile: Profile, result: Capacity) -> SlotTimes:
    """Return what slots buy in time.

    Parameters
    ----------
    profile : Profile
        With a hinge.
    result : Capacity
    """
    found = []
    for step, imbalance in zip(result.steps, result.imbalances, strict=True):
        served = [step_time(profile, one) for one in imbalance.serving]
        found.append(
            SlotTime(
                step.slots,
                step_time(profile, imbalance.planning),
                step_time(profile, imbalance.limit),
                tuple(map(_relative, served)),
                statistics.fmean(imbalance.serving) if served else None,
                bool(served) and all(time.inside_dead_zone for time in served),
            )
        )
    return SlotTimes(profile, found)


def _relative(time: StepTime) -> float:
    assert time.relative is not None  # of a profile with a hinge
    return time.relative
