"""Times in words: in seconds where a profile has them, else in percent of the step at perfect balance."""

from __future__ import annotations

import math

from eplb_gap.analysis.step_time.hinge import Interval
from eplb_gap.analysis.step_time.profile import Profile

WORTH_NOTHING = "inside the dead zone: worth nothing"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
DIGITS = 4
"""Digits of the time at perfect balance; what is compared with it has as many decimals."""


def cited(profile: Profile) -> str:
    """Return the profile's name and source, what it was measured on and what its times are times of."""
    hinge = profile.hinge
    said = profile.timed != "a step" if hinge is None else hinge.seconds is not None
    timed = f"; seconds of {profile.timed}" if said else ""
    return f"profile {profile.name}: {profile.source}; measured on {profile.measured_on}{timed}"


def knee(profile: Profile) -> str:
    """Return what the hinge says, in one sentence."""
    hinge = profile.hinge
    assert hinge is not None
    between = "" if hinge.knee_interval is None else f" ({interval(hinge.knee_interval)})"
    said = (
        f"Imbalance: mean over layers of the fullest GPU over the mean. Up to {hinge.knee:g}{between}, the dead zone, a better "
        f"one is worth nothing; above it every 0.01 takes {hinge.beta:.3g} % of the balanced time longer."
    )
    if profile.scatter is None:
        return said
    return f"{said} The timings scatter by {100 * profile.scatter:.2g} %: smaller differences are within it."


def interval(ends: Interval) -> str:
    """Return a 95 % interval, and on which sides it is not bounded."""
    low, high = ends
    if low is not None and high is not None:
        return f"95 % interval {low:.3f} to {high:.3f}"
    known = [*([] if low is None else [f"from {low:.3f}"]), *([] if high is None else [f"up to {high:.3f}"])]
    free = " and ".join([*(["below"] if low is None else []), *(["above"] if high is None else [])])
    return f"95 % interval {', '.join([*known, f'not bounded {free}'])}"


def unit(profile: Profile) -> str:
    """Return the unit of what JSON does not name as seconds, relative or a share."""
    return "seconds" if profile.hinge is None or profile.hinge.seconds is not None else "part of the balanced step"


def within_scatter(profile: Profile, difference: float) -> bool:
    """Return whether a difference, in parts of the time at perfect balance, is smaller than the scatter of the timings."""
    return profile.scatter is not None and 0 < abs(difference) < profile.scatter


def reached(profile: Profile, relative: float) -> str:
    """Return a time that is a multiple of that at perfect balance."""
    return _said(profile, relative, "")


def signed(profile: Profile, relative: float) -> str:
    """Return an end of an interval of a difference of times."""
    return _said(profile, relative, "+")


def change(profile: Profile, relative: float) -> str:
    """Return a difference of times, with its sign, in multiples of the time at perfect balance."""
    return signed(profile, relative) + (" (within the timings' scatter)" if within_scatter(profile, relative) else "")


def seconds(value: float) -> str:
    """Return a time to four digits, in the unit that reads best."""
    scale, unit = unit_of(value)
    return f"{value / scale:.{_decimals(value / scale)}f} {unit}"


def unit_of(value: float) -> tuple[float, str]:
    """Return the unit that a time of so many seconds reads best in: its seconds and its name."""
    return next((one for one in UNITS if value >= one[0]), UNITS[-1] if value else UNITS[0])


def _said(profile: Profile, relative: float, sign: str) -> str:
    assert profile.hinge is not None
    if (balanced := profile.hinge.seconds) is None:
        return f"{100 * relative:{sign}.2f} %"
    scale, unit = unit_of(balanced)
    return f"{relative * balanced / scale:{sign}.{_decimals(balanced / scale)}f} {unit}"


def _decimals(value: float) -> int:
    return max(0, DIGITS - 1 - math.floor(math.log10(value))) if value else 0
