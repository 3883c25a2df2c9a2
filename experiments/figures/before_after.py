"""GPU loads of DeepSeek's map and of the certified one.

Message: what is unequal under the hierarchical policy are the nodes, and the certified map cannot mend that either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.figures.style import figure, save
from experiments.rows import Row
from experiments.suites import DRAWN_CASE, HOTTEST_WINDOW, gap_cases
from experiments.tables import pick
from problem import metrics
from problem.placement import Placement

SUITES = ("gap",)
MAPS = {"initial_program": "DeepSeek EPLB", "auto": "certified map"}


def draw(rows: list[Row], folder: Path) -> list[Path]:
    """Draw one heat map per placement on one scale: layers by GPUs, load over the layer's mean, planning window."""
    case = gap_cases()[DRAWN_CASE]
    gpus = case.deployment.num_gpus
    mean = case.loads.sum(axis=1, keepdims=True) / gpus
    maps = [Placement(pick(rows, "gap", DRAWN_CASE, method)["phy2log"], case.deployment.num_experts) for method in MAPS]
    relative = [_sorted(metrics.gpu_loads(chosen, case.loads, gpus) / mean, case.deployment.num_nodes) for chosen in maps]
    low, high = min(map(float, (r.min() for r in relative))), max(map(float, (r.max() for r in relative)))
    fig, axes = figure(7.2, 2.6, ncols=2, sharey=True)
    for axis, chosen, shown, name in zip(axes, maps, relative, MAPS.values(), strict=True):
        # A mesh stays a vector drawing; an image would be resampled by some viewers.
        mesh = axis.pcolormesh(shown, cmap="Greys", vmin=low, vmax=high)
        for node in range(1, case.deployment.num_nodes):
            axis.axvline(node * gpus / case.deployment.num_nodes, color="w", linewidth=1.6)
        axis.set_xticks([g + 0.5 for g in range(0, gpus, 4)], [str(g) for g in range(0, gpus, 4)])
        axis.set_yticks([layer + 0.5 for layer in range(len(mean))], [str(layer) for layer in range(len(mean))])
        axis.set_xlabel("GPU by load, nodes apart, fullest first")
        axis.set_title(f"{name}: balancedness {float(metrics.balancedness_gpu(chosen, case.loads, gpus)):.4f}")
    axes[0].set_ylabel("layer")
    axes[0].invert_yaxis()
    fig.colorbar(mesh, ax=axes, label="load / mean load of the layer")
    fig.suptitle(f"Recorded trace, window {HOTTEST_WINDOW} (planning window), hierarchical policy", fontsize=9)
    return save(fig, folder, "before_after")


def _sorted(loads: np.ndarray, num_nodes: int) -> np.ndarray:
    """Return loads with nodes and their GPUs in descending order: the names of both are arbitrary in a map."""
    nodes = -np.sort(-loads.reshape(len(loads), num_nodes, -1), axis=2)
    order = np.argsort(-nodes.sum(axis=2), axis=1, kind="stable")
    return np.take_along_axis(nodes, order[:, :, None], axis=1).reshape(loads.shape)
