"""One style for all figures: readable in grey, embedded fonts, byte-stable files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eplb_gap.problem.atomic import write_atomically

DARK, MIDDLE, LIGHT = "#1f3b57", "#c8641b", "#9fb4c7"
SHORT_NAMES = {
    "initial_program": "0 DeepSeek EPLB",
    "diversity_aware_gpu_packing": "1 diversity LPT",
    "local_swap_refine_in_packing": "2 unchecked swaps",
    "eplb_snake_pipeline": "3 snake (correct)",
    "diverse_pack_projload_and_incremental_ratio": "4 unchecked group swaps",
    "proportional_quota_replication": "5 Hamilton, diversity",
    "single_swap_refinement": "6 best swap",
    "moe_eplb_modular_refine": "7 extremes swap",
    "multi_swap_refinement_balanced_packing": "8 two best swaps",
    "rr_waterfill_hare": "9 Hamilton, round LPT",
}

STAMPS: dict[str, dict[str, None]] = {
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".png": {"Software": None},
}
"""What would make two files of the same figure differ, by their suffixes."""
MADE_BY = "eplb-gap figure"
CREATOR = {".svg": "Creator", ".pdf": "Creator", ".png": "Software"}
"""Where a figure that a command draws says so: it is known by it, and written over by the next one."""

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "figure.dpi": 150,
        "svg.hashsalt": "eplb-gap",
    }
)


def figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """Return a figure of a size in inches and its axes, laid out so that nothing is cut off."""
    return plt.subplots(figsize=(width, height), layout="constrained", **subplots)


def boxes(axis: Axes, samples: list[list[float]], width: float, median: float) -> None:
    """Draw a horizontal box per sample, whiskers to the extremes; ``width`` of a box, ``median`` line width in points."""
    axis.boxplot(
        samples,
        orientation="horizontal",
        whis=(0, 100),
        patch_artist=True,
        widths=width,
        boxprops={"facecolor": LIGHT, "edgecolor": DARK},
        medianprops={"color": MIDDLE, "linewidth": median},
        whiskerprops={"color": DARK},
        capprops={"color": DARK},
    )


def drawn(fig: Figure, suffix: str, signed: bool = False) -> bytes:
    """Return a figure as a file of the kind that a suffix says: .pdf, .png or .svg, without time stamps; close it.

    Parameters
    ----------
    fig : Figure
    suffix : str
    signed : bool, default False
        Whether it says that it is a figure of this package.
    """
    content = _rendered(fig, suffix, signed)
    plt.close(fig)
    return content


def save(fig: Figure, folder: Path, name: str, png: bool = False, signed: bool = False) -> list[Path]:
    """Write a figure as PDF, and as PNG where a page shows it, as of :func:`drawn`; close it and return the files."""
    paths = [folder / f"{name}{suffix}" for suffix in ((".pdf", ".png") if png else (".pdf",))]
    for path in paths:
        write_atomically(path, _rendered(fig, path.suffix, signed))
    plt.close(fig)
    return paths


def _rendered(fig: Figure, suffix: str, signed: bool) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format=suffix[1:], metadata={**STAMPS[suffix], **({CREATOR[suffix]: MADE_BY} if signed else {})})
    return buffer.getvalue()
