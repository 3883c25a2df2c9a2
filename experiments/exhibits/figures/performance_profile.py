"""Share of instances on which every method's makespan and bound have met, and gap after a minute against size.

Message: engines made for the regimes close more than half of the instances, the textbook models only the smallest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.analysis.figures.style import DARK, LIGHT, MIDDLE, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.method_profile import METHODS, SECONDS, SHAPES, gap_at, seconds_to_end

SUITES = ("profile",)
LOOKS = {"auto": (DARK, "-", "o"), "milp": (MIDDLE, "--", "s"), "cpsat": ("0.35", "-.", "^"), "milp-cbc": (LIGHT, ":", "v")}
LABELS = {"auto": "eplb-gap engines", "milp": "MILP (HiGHS)", "cpsat": "CP-SAT", "milp-cbc": "MILP (CBC), run up to 96 slots"}
SHIFTS = {"auto": 0.91, "milp": 0.97, "cpsat": 1.03, "milp-cbc": 1.09}
"""Factors on the slots, so that marks do not hide each other."""
SMALLEST_PERCENT = 1e-4
"""Below it the axis is linear, so that zero has its place."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw time until makespan and bound meet on the left, remaining gap by size on the right."""
    fig, (left, right) = figure(7.2, 3.2, ncols=2)
    profiled = rows.where(suite="profile")
    instances = len({(row["instance"], row["seed"]) for row in profiled})
    for method in METHODS:
        color, line, marker = LOOKS[method]
        at = profiled.where(method=method)
        times = np.sort([seconds_to_end(row) for row in at])
        ended = times[np.isfinite(times)]
        share = np.arange(1, len(ended) + 1) / instances
        steps = [0, *share, share[-1] if len(ended) else 0]
        left.step([1e-3, *ended, SECONDS], steps, where="post", color=color, ls=line, label=LABELS[method])
        sizes = [SHIFTS[method] * row["deployment"]["num_slots"] for row in at]
        gaps = [100 * gap_at(row, SECONDS) for row in at]
        right.plot(sizes, gaps, ls="none", marker=marker, ms=5, color=color, mfc="none", label=LABELS[method])
    left.set_xscale("log")
    left.set_ylim(0, 1)
    left.set_xlabel("seconds, one thread")
    left.set_ylabel("share of instances closed")
    left.legend(fontsize=7.5)
    right.set_xscale("log", base=2)
    right.set_yscale("symlog", linthresh=SMALLEST_PERCENT, linscale=0.6)
    right.set_yticks([0, 1e-4, 1e-3, 1e-2, 0.1, 1, 10], ["0", ".0001", ".001", ".01", ".1", "1", "10"])
    right.set_ylim(-4e-5, 40)
    right.minorticks_off()
    slots = [shape[1] for shape in SHAPES]
    right.set_xticks(slots, [str(s) for s in slots])
    right.set_xlabel("slots")
    right.set_ylabel(f"gap to its own bound after {SECONDS:.0f} s, %\n(symlog axis: linear below {SMALLEST_PERCENT:g})")
    right.grid(color="0.92", which="major")
    return save(fig, folder, "performance_profile", png=True)
