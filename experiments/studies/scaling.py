"""The project's planner and two vectorised opponents at growing size: time per layer from 8 to 1024 GPUs."""

from __future__ import annotations

import math
import time
from statistics import median

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.problem.deployment import Deployment

SUITE = "scaling"
METHODS = ("fast-lpt", "fast", "fast-split", "openevolve", "tensorrt-llm")
OURS = ("fast-lpt", "fast", "fast-split")
GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
SLOTS_PER_GPU, EXPERTS_PER_GPU = 9, 8
LAYERS, ROUNDS = 4, 7
TOTAL = 10**8
"""Tokens of a layer."""
MOST_EXPONENT = 1.2


def instance(gpus: int) -> Instance:
    """Return lognormal loads for so many GPUs."""
    deployment = Deployment(EXPERTS_PER_GPU * gpus, SLOTS_PER_GPU * gpus, gpus)
    return np.array([family_loads("ln1.0", deployment.num_experts, TOTAL, seed) for seed in range(LAYERS)]), deployment


def scaling_cell(gpus: int) -> Fields:
    """Time the efforts and two vectorised opponents on one size, interleaved, per layer."""
    import torch

    torch.set_num_threads(1)
    loads, deployment = instance(gpus)
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(ROUNDS + 1):
        for method in METHODS:
            heuristics.rebalance(loads, deployment, method)
            start = time.perf_counter()
            heuristics.rebalance(loads, deployment, method)
            if turn:
                seconds[method].append((time.perf_counter() - start) / LAYERS)
    return {
        "kind": "runtime",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"layers": LAYERS, "rounds": ROUNDS, "threads": 1},
        "status": "timed",
        "slots": deployment.num_slots,
        "seconds_per_layer": {method: median(values) for method, values in seconds.items()},
    }


def cells() -> list[Cell]:
    """Return one cell per size."""
    return [Cell(SUITE, f"{gpus} GPUs", "fast", scaling_cell, {"gpus": gpus}) for gpus in GPUS]


def exponent(measured: Rows, method: str) -> float:
    """Return the slope of log time against log slots, least squares over all sizes."""
    sized = measured.where(suite=SUITE)
    x, y = [math.log(r["slots"]) for r in sized], [math.log(r["seconds_per_layer"][method]) for r in sized]
    return float(np.polyfit(x, y, 1)[0])


def table(measured: Rows) -> str:
    """Time per layer of every method at every size, and the exponents."""
    sized = measured.where(suite=SUITE)
    timed = [
        [f"`{method}`", *(f"{1000 * r['seconds_per_layer'][method]:.3f}" for r in sized), f"{exponent(measured, method):.2f}"]
        for method in METHODS
    ]
    return (
        f"## Scaling\n\nms per layer, lognormal loads (sigma 1), {EXPERTS_PER_GPU} experts and {SLOTS_PER_GPU} slots per "
        f"GPU, global, one thread, median of {ROUNDS}; exponent of time in slots over all sizes.\n\n"
        + markdown(["method", *(f"{r['slots']} slots" for r in sized), "exponent"], timed)
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return the exponent that is asked of the planner, and those measured."""
    worst = {method: exponent(measured, method) for method in OURS}
    found = ", ".join(f"{method} {value:.2f}" for method, value in worst.items())
    met = yes_or_no(max(worst.values()) <= MOST_EXPONENT)
    return [["time exponent in slots, 9 a GPU, 8 to 1024 GPUs", f"<= {MOST_EXPONENT:g}", found, met]]


STUDY = Study(
    SUITE,
    job="heuristics",
    about="the planner on other shapes and hot loads, and up to 1024 GPUs",
    cells=cells,
    shapes=(Shape("runtime", CELL | {"slots": "integer", "seconds_per_layer": "object of number"}),),
    instance=instance,
    table=table,
    levels=levels,
    figures=("scaling",),
    timed=True,
)
