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


def drawn(fig: Figure, suffix: str) -> bytes:
    """Return a figure as a file of the kind that a suffix says: .pdf, .png or .svg, without time stamps; close it."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format=suffix[1:], metadata=STAMPS[suffix])
    plt.close(fig)
    return buffer.getvalue()


def save(fig: Figure, folder: Path, name: str, png: bool = False) -> list[Path]:
    """Write a figure as PDF, and as PNG where a page shows it, without time stamps; close it and return the files."""
    paths = [folder / f"{name}.pdf"]
    fig.savefig(paths[0], metadata=STAMPS[".pdf"])
    if png:
        paths.append(folder / f"{name}.png")
        fig.savefig(paths[1], metadata=STAMPS[".png"])
    plt.close(fig)
    return paths
