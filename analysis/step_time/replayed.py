"""The time that controllers lose over recorded steps: to imbalance by a profile's hinge, and to moves if their costs are known.

The hinge is taken at every window: the time of the mean imbalance is less than the mean time. For the same reason a window that
sums several steps loses less than they do, weighted by their loads: the hinge is convex, and a sum is no worse balanced than its
parts. Seconds are added up over steps only where the profile's are those of a step; where it times a whole benchmark, what is
lost is a part of that, and waiting for moves cannot be added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eplb_gap.analysis.replay.replay import Replay, Replayed
from eplb_gap.analysis.step_time.hinge import Hinge
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.analysis.step_time.timed import named
from eplb_gap.analysis.step_time.words import cited, knee, within_scatter
from eplb_gap.analysis.text import markdown

STEP = "a step"
"""What a profile says that it timed where its seconds are those of one step."""


@dataclass(frozen=True)
class TimeLost:
    """What a controller loses on the judged windows, each a step or the sum of several.

    Parameters
    ----------
    name : str
    relative : float
        Mean over windows of what imbalance adds, in parts of the time at perfect balance.
    inside : float
        Share of the windows inside the dead zone.
    seconds : float or None
        The same over all steps in seconds; None where the profile has none of a step.
    waiting : float or None
        Seconds waited for moves; None without their costs, or where they cannot be compared.
    moves : float or None
        The same in parts of the time at perfect balance, per step.
    """

    name: str
    relative: float
    inside: float
    seconds: float | None
    waiting: float | None
    moves: float | None

    @property
    def total(self) -> float:
        """What imbalance adds and, where it is known, waiting."""
        return self.relative + (self.moves or 0.0)


@dataclass(frozen=True)
class ReplayTimes:
    """All controllers on the same windows.

    Parameters
    ----------
    profile : Profile
        With a hinge.
    runs : list of TimeLost
    windows : int
        Windows that are judged.
    each : int
        Steps that a window sums.
    costed : bool
        Whether costs of moves were given.
    """

    profile: Profile
    runs: list[TimeLost]
    windows: int
    each: int
    costed: bool

    @property
    def in_seconds(self) -> bool:
        """Whether the profile has seconds of a step."""
        return _step_seconds(self.profile) is not None

    @property
    def _units(self) -> str:
        return "steps" if self.each == 1 else "windows"

    def lines(self) -> list[str]:
        """Return the times in words: what is known of them, and a table of controllers."""
        moves = self.in_seconds and self.costed
        head = ["controller", "imbalance adds", *(["moves add", "both"] if moves else [])]
        least = "" if self.each == 1 else ", at least"
        head += [*([f"seconds lost{least}"] if self.in_seconds else []), "inside the dead zone"]
        body = []
        for run in self.runs:
            near = " (within the timings' scatter)" if within_scatter(self.profile, run.relative) else ""
            cells = [run.name.replace("|", r"\|"), _percent(run.relative) + near]
            if moves:
                cells += [_percent(run.moves or 0.0), _percent(run.total)]
            if run.seconds is not None:
                cells.append(f"{run.seconds + (run.waiting or 0.0):.4g}")
            body.append([*cells, f"{100 * run.inside:.0f} % of {self._units}"])
        return [cited(self.profile), knee(self.profile), *self._notes(), "", markdown(head, body)]

    def as_dict(self) -> dict[str, Any]:
        """Return the times as JSON-ready data."""
        return {
            **named(self.profile),
            "windows": self.windows,
            "steps": self.windows * self.each,
            "lower_bound": self.each > 1,
            "controllers": [
                {
                    "name": run.name,
                    "relative": run.relative,
                    "seconds": run.seconds,
                    "waiting_seconds": run.waiting,
                    "total_relative": run.total,
                    "dead_zone": run.inside,
                }
                for run in self.runs
            ],
        }

    def _notes(self) -> list[str]:
        over = f"Time lost: percent of the time at perfect balance, mean over {self.windows} {self._units}"
        if self.each > 1:
            over += f" of {self.each} steps each; a lower bound on what the steps lose, which a sum balances out"
        said = [f"{over}."]
        if self.costed and not self.in_seconds:
            why = "has no seconds" if self.profile.hinge is None or self.profile.hinge.seconds is None else "has none of a step"
            said.append(f"Waiting for moves is not among it: it is known in seconds, and the profile {why}.")
        elif not self.costed:
            said.append("What moves cost is not known without --costs, and not among it.")
        return said


def replay_times(profile: Profile, result: Replay) -> ReplayTimes:
    """Return the time that every controller of a replay loses.

    Parameters
    ----------
    profile : Profile
        With a hinge.
    result : Replay
    """
    hinge = profile.hinge
    assert hinge is not None
    windows = result.steps - result.first
    balanced = _step_seconds(profile)
    runs = [_lost(run, hinge, balanced, windows * result.window_steps) for run in result.runs]
    return ReplayTimes(profile, runs, windows, result.window_steps, result.costs is not None)


def _lost(run: Replayed, hinge: Hinge, balanced: float | None, steps: int) -> TimeLost:
    judged = run.imbalance[run.first : run.last]
    relative = float(hinge.beta * np.maximum(judged - hinge.knee, 0.0).mean())
    inside = float((judged <= hinge.knee).mean())
    if balanced is None:
        return TimeLost(run.controller.label, relative, inside, None, None, None)
    waiting = run.waiting
    moves = None if waiting is None else waiting / (balanced * steps)
    return TimeLost(run.controller.label, relative, inside, relative * balanced * steps, waiting, moves)


def _step_seconds(profile: Profile) -> float | None:
    """Return the seconds of a step at perfect balance; None where the profile has none, or those of something else."""
    return None if profile.hinge is None or profile.timed != STEP else profile.hinge.seconds


def _percent(value: float) -> str:
    return f"{100 * value:+.2f} %"
