"""Replica counts and GPU loads of one layer before (DeepSeek's map) and after (certified map)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.figures.style import DARK, LIGHT, MIDDLE, figure, save
from experiments.rows import Row
from experiments.suites import DRAWN_CASE, HOTTEST_WINDOW, gap_cases
from experiments.tables import pick
from problem import metrics
from problem.placement import Placement

SUITES = ("gap",)


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Two panels for the layer where DeepSeek's map is worst: counts of the hottest experts, sorted GPU loads."""
    case = gap_cases()[DRAWN_CASE]
    gpus = case.deployment.num_gpus
    before, after = (
        Placement(pick(rows, "gap", DRAWN_CASE, method)["phy2log"], case.deployment.num_experts)
        for method in ("initial_program", "auto")
    )
    layer = int(np.argmax(metrics.imbalance(before, case.loads, gpus) - metrics.imbalance(after, case.loads, gpus)))
    loads = case.loads[layer]
    hottest = np.argsort(-loads, kind="stable")[:24]
    fig, (left, right) = figure(7.2, 2.9, ncols=2)
    at = np.arange(hottest.size)
    left.bar(at - 0.2, before.counts()[layer, hottest], 0.4, color=LIGHT, edgecolor=DARK, label="DeepSeek EPLB")
    left.bar(at + 0.2, after.counts()[layer, hottest], 0.4, color=MIDDLE, label="certified map")
    left.set_xticks(at[::4], [str(e) for e in hottest[::4]])
    left.set_xlabel("24 hottest experts (logical id, hottest first)")
    left.set_ylabel("replicas")
    left.yaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(top=1.3 * int(before.counts()[layer].max()))
    left.legend(fontsize=8, loc="upper right")
    mean = loads.sum() / gpus
    for placement, color, width, name in ((before, DARK, 1.2, "DeepSeek EPLB"), (after, MIDDLE, 2.4, "certified map")):
        per_gpu = np.sort(metrics.gpu_loads(placement, case.loads, gpus)[layer])[::-1] / mean
        right.plot(
            np.arange(1, gpus + 1),
            per_gpu,
            drawstyle="steps-mid",
            color=color,
            linewidth=width,
            label=f"{name}, max {per_gpu[0]:.3f}",
        )
    right.axhline(1.0, color=DARK, linewidth=0.8, linestyle=":")
    right.set_xlabel("GPU, sorted by load")
    right.set_ylabel("load / mean load")
    right.legend(fontsize=8)
    fig.suptitle(f"Recorded trace, window {HOTTEST_WINDOW}, layer {layer}: planning window, hierarchical", fontsize=9)
    return save(fig, folder, "before_after")
