"""Time against imbalance: the maps that were timed, the hinge through them, and the part where a better balance buys nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eplb_gap.analysis.figures.style import save
from eplb_gap.analysis.figures.time_against_imbalance import Point, curve
from eplb_gap.analysis.step_time.hinge import Hinge
from eplb_gap.analysis.step_time.profile import Profile
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.timed_maps import MEASURED_ON, NAME, SUITE, TIMED, find

SUITES = (SUITE,)


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw the maps and the hinge as commands draw a user's."""
    row = find(rows)
    intervals: dict[str, Any] = {f"{name}_interval": tuple(row[f"{name}_interval"]) for name in ("beta", "knee")}
    hinge = Hinge(**{name: round(value, 3) for name, value in row["hinge"].items()}, **intervals)
    profile = Profile(f"hinge fitted to {NAME}", "published timings of seven maps", MEASURED_ON, TIMED, hinge)
    points = [Point(imbalance, time=seconds) for imbalance, seconds in zip(row["imbalance"], row["measured"], strict=True)]
    return save(curve(profile, points), folder, "step_time", png=True)
