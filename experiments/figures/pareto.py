"""Time against planning gap of every balancer on the flagship, one panel per policy."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from experiments.figures.style import DARK, MIDDLE, figure, save
from experiments.head_to_head import POLICIES, mean_gaps, seconds
from experiments.rows import Row
from heuristics.peers import PEERS
from heuristics.registry import FAST

SHOWN = {"initial_program": "DeepSeek EPLB", "sglang-vec": "SGLang vec", "tensorrt-llm": "TensorRT-LLM", "flashlb": "FlashLB"}


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Scatter on logarithmic axes with every name beside its point and the front as a line."""
    fig, axes = figure(7.2, 3.6, ncols=2, sharey=True)
    for axis, policy in zip(axes, POLICIES, strict=True):
        timed = seconds(rows, policy)
        points = [
            (1000 * row["median_seconds"], 100 * fmean(mean_gaps(rows, "calibrated", policy, method)), method)
            for method, row in timed.items()
            if method in PEERS or method in FAST or method in SHOWN
        ]
        front = [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]
        front.sort()
        axis.plot([p[0] for p in front], [p[1] for p in front], color="0.8", lw=1, zorder=1)
        axis.set_xscale("log")
        axis.set_yscale("log")
        for x, y, method in points:
            own = method in FAST
            axis.plot(
                x, y, marker="o" if own else "s", ms=5, color=DARK if own else MIDDLE, mfc=DARK if own else "none", ls="none"
            )
        axis.set_xlim(min(p[0] for p in points) / 2, max(p[0] for p in points) * 12)
        _label(axis, points)
        axis.set_xlabel("median ms for 58 layers, one thread")
        axis.set_title(policy, fontsize=9)
        axis.grid(color="0.94", which="major")
    axes[0].set_ylabel("mean gap to the certified bound, %")
    return save(fig, folder, "pareto")


def _label(axis: object, points: list[tuple[float, float, str]]) -> None:
    """Write names to the right of their points, pushed upwards where names of neighbours would overlap."""
    placed: list[tuple[float, float]] = []
    for x, y, method in sorted(points, key=lambda p: (p[1], p[0])):
        at = y
        while any(abs(at / other - 1) < 0.22 and 1 / 12 < x / left < 12 for left, other in placed):
            at *= 1.12
        placed.append((x, at))
        axis.annotate(  # type: ignore[attr-defined]
            SHOWN.get(method, method),
            (x, y),
            (x * 1.35, at),
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.8", "linewidth": 0.5, "relpos": (0, 0.5)},
        )
