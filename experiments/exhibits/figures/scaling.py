"""Time per layer against the number of slots, with fitted exponents.

Message: time a layer grows about linearly with the slots.
"""

from __future__ import annotations

from pathlib import Path

from eplb_gap.analysis.figures.style import DARK, MIDDLE, figure, save
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.experiments.studies.scaling import METHODS, exponent

SUITES = ("scaling",)
LOOKS = {
    "fast-lpt": (DARK, "-", "o"),
    "fast": (DARK, "--", "s"),
    "fast-split": (DARK, ":", "^"),
    "openevolve": (MIDDLE, "-", "v"),
    "tensorrt-llm": (MIDDLE, "--", "D"),
}


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Lines on logarithmic axes; the legend names the exponents."""
    fig, axis = figure(4.6, 3.4)
    sized = sorted(rows.where(suite="scaling"), key=lambda row: row["slots"])
    for method in METHODS:
        color, line, marker = LOOKS[method]
        axis.plot(
            [row["slots"] for row in sized],
            [1000 * row["seconds_per_layer"][method] for row in sized],
            color=color,
            ls=line,
            marker=marker,
            ms=4,
            mfc="none",
            label=f"{method} (exponent {exponent(rows, method):.2f})",
        )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    slots = [row["slots"] for row in sized]
    axis.set_xticks(slots, [str(s) for s in slots])
    axis.set_xlabel("slots (9 a GPU, 8 experts per GPU)")
    axis.set_ylabel("ms a layer, one thread")
    axis.legend(fontsize=7.5)
    axis.grid(color="0.94", which="major")
    return save(fig, folder, "scaling")
