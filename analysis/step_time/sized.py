"""What slots buy in time: nothing more, once the imbalance is below the knee."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from eplb_gap.analysis.capacity import Capacity
from eplb_gap.analysis.step_time.predict import StepTime, step_time
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.timed import named
from eplb_gap.analysis.step_time.words import change, cited, knee, reached
from eplb_gap.analysis.text import markdown


@dataclass(frozen=True)
class SlotTime:
    """One number of slots.

    Parameters
    ----------
    slots : int
    planning, least : StepTime
        Of the best map found for the planning window, and what no map with so many slots goes below.
    serving : float or None
        Mean over the pairs of windows of the time served, in parts of that at perfect balance; None without a pair.
    serving_imbalance : float or None
        Mean over the pairs.
    serving_inside : bool
        Whether every pair is inside the dead zone.
    """

    slots: int
    planning: StepTime
    least: StepTime
    serving: float | None
    serving_imbalance: float | None
    serving_inside: bool


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
        """Fewest slots that serve fastest; None without a pair of windows."""
        served = [(step.serving, step) for step in self.steps if step.serving is not None]
        return min(served, key=lambda one: one[0])[1] if served else None

    def lines(self) -> list[str]:
        """Return the times in words: a table of slots, what each step buys, and the two answers."""
        body = []
        before: SlotTime | None = None
        for step in self.steps:
            body.append([str(step.slots), *self._cells(step, before)])
            before = step
        header = ["slots", "planning: imbalance", "time", "change", "no map below", "serving: imbalance", "time", "change"]
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
        if before is None or before.serving is None:
            return [*cells, ""]
        nothing = step.serving_inside and before.serving_inside
        return [*cells, "nothing: dead zone" if nothing else change(profile, step.serving - before.serving)]

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
        found = self.fastest
        if found is None or found.serving is None:
            return []
        where = ", inside the dead zone in every pair of windows" if found.serving_inside else ""
        more = "; more of those looked at buy nothing" if found is not self.steps[-1] else ""
        return [f"Serving: {found.slots} slots serve fastest, {reached(self.profile, found.serving)} on average{where}{more}."]


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
                statistics.fmean(map(_relative, served)) if served else None,
                statistics.fmean(imbalance.serving) if served else None,
                bool(served) and all(time.inside_dead_zone for time in served),
            )
        )
    return SlotTimes(profile, found)


def _relative(time: StepTime) -> float:
    assert time.relative is not None  # of a profile with a hinge
    return time.relative
