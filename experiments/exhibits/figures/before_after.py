"""GPU loads of DeepSeek's map and of the certified one, and of the latter one window later.

Message: under the hierarchical policy the nodes are what is unequal, which no map can mend; the next window undoes the rest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eplb_gap.analysis.figures.style import figure, save
from eplb_gap.experiments.loads.traces import DRAWN_CASE, HOTTEST_WINDOW, gap_cases, trace
from eplb_gap.experiments.measuring.rows import Rows
from eplb_gap.problem import metrics
from eplb_gap.problem.placement import Placement

SUITES = ("gap",)
PANELS = (
    ("initial_program", 0, "DeepSeek EPLB"),
    ("auto", 0, "certified map"),
    ("auto", 1, "certified map, next window"),
)
"""Method, windows after the one planned on, title."""
MOST = 1.5
"""Upper end of the scale, in mean loads; the lower one is as far from 1."""


def draw(rows: Rows, folder: Path) -> list[Path]:
    """Draw one heat map per panel on one scale: layers by GPUs, load over the layer's mean."""
    deployment = gap_cases()[DRAWN_CASE].deployment
    gpus, nodes = deployment.num_gpus, deployment.num_nodes
    fig, axes = figure(7.2, 2.5, ncols=len(PANELS), sharey=True)
    for axis, (method, later, title) in zip(axes, PANELS, strict=True):
        loads = trace("recorded").window(HOTTEST_WINDOW + later)
        chosen = Placement(rows.one(suite="gap", instance=DRAWN_CASE, method=method)["phy2log"], deployment.num_experts)
        relative = metrics.gpu_loads(chosen, loads, gpus) / (loads.sum(axis=1, keepdims=True) / gpus)
        # A mesh stays a vector drawing; an image would be resampled by some viewers.
        mesh = axis.pcolormesh(by_load(relative, nodes), cmap="Greys", vmin=2 - MOST, vmax=MOST, edgecolors="face", linewidth=0.2)
        for node in range(1, nodes):
            axis.axvline(node * gpus / nodes, color="w", linewidth=1.6)
        axis.set_xticks([g + 0.5 for g in range(0, gpus, 8)], [str(g) for g in range(0, gpus, 8)])
        axis.set_yticks([layer + 0.5 for layer in range(len(loads))], [str(layer) for layer in range(len(loads))])
        axis.set_title(f"{title}\nbalancedness {float(metrics.balancedness_gpu(chosen, loads, gpus)):.3f}", fontsize=8.5)
    axes[1].set_xlabel("GPU: by load within its node, nodes by load")
    axes[0].set_ylabel("layer")
    axes[0].invert_yaxis()
    fig.colorbar(mesh, ax=axes, label="load / mean load", extend="both")
    return save(fig, folder, "before_after")


def by_load(loads: np.ndarray, num_nodes: int) -> np.ndarray:
    """Return loads with nodes and their GPUs in descending order: the names of both are arbitrary in a map."""
    nodes = -np.sort(-loads.reshape(len(loads), num_nodes, -1), axis=2)
    order = np.argsort(-nodes.sum(axis=2), axis=1, kind="stable")
    return np.take_along_axis(nodes, order[:, :, None], axis=1).reshape(loads.shape)
