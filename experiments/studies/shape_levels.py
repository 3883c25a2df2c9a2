"""The project's planner away from the flagship: hot loads, low slots per GPU, growing size (``eplb-gap bench heuristics``)."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from statistics import fmean, median

import numpy as np

from eplb_gap import heuristics, solvers
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.loads.synthetic import family_loads
from eplb_gap.experiments.loads.traces import HOTTEST_WINDOW, trace
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.rows import Row, layer_gaps
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.fractions import fractions
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.metrics import duplicates
from eplb_gap.problem.validation import verify
from eplb_gap.solvers.engines.pairing import fold

LAYERS = 8
CALLS = 5
"""Calls of a method, of whose times the median counts."""
TOTAL = 10**6
METHODS = ("fast-lpt", "fast", "fast-counts")
BOUND_SECONDS = 40.0
"""For the certified bound of all layers of a cell."""
BOUND_GAP = 1e-4
SHAPES: tuple[tuple[Deployment, tuple[str, ...]], ...] = (
    (Deployment(128, 160, 32), ("ln1.0", "zipf.8", "zipf1.2")),
    (Deployment(64, 96, 32), ("ln1.0", "zipf.8", "zipf1.2")),
    (Deployment(64, 80, 16), ("zipf1.2",)),
    (Deployment(256, 288, 32, 4, 8), ("zipf1.2", "recorded, hottest window")),
    (Deployment(256, 288, 32), ("zipf1.2", "recorded, hottest window")),
    (Deployment(256, 288, 144), ("ln.6", "ln1.0", "zipf.8")),
)
SCALING_METHODS = ("fast-lpt", "fast", "fast-split", "openevolve", "tensorrt-llm")
SCALING_GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
SLOTS_PER_GPU, EXPERTS_PER_GPU = 9, 8
SCALING_LAYERS, SCALING_ROUNDS = 4, 7


def name_of(deployment: Deployment) -> str:
    """Return experts/slots/GPUs and the policy where it is hierarchical."""
    shape = f"{deployment.num_experts}/{deployment.num_slots}/{deployment.num_gpus}"
    return f"{shape} hierarchical" if deployment.policy == "hierarchical" else shape


def shape_cell(number: int, family: str) -> Row:
    """Plan some layers with every effort, warm, and compare with the certified bound."""
    deployment, loads = SHAPES[number][0], _loads(SHAPES[number][0].num_experts, family)
    solution = solvers.solve(loads, deployment, "auto", 0.0 if deployment.slots_per_gpu == 2 else BOUND_GAP, BOUND_SECONDS)
    found = {}
    for method in METHODS:
        seconds = []
        for _ in range(CALLS):
            start = time.perf_counter()
            placement = heuristics.rebalance(loads, deployment, method)
            seconds.append(time.perf_counter() - start)
        found[method] = {
            "ms_per_layer": 1000 * median(seconds) / len(loads),
            "upper": fractions(verify(placement, loads, deployment)),
            "duplicates": int(duplicates(placement, deployment.num_gpus).sum()),
        }
    if deployment.slots_per_gpu == 2:
        layers = [Instance.of_layer(row, deployment) for row in loads]
        folded = [i.makespan(fold(i, adams_counts(i.loads, i.num_slots, i.max_count))) for i in layers]
        found["Adams + fold"] = {"ms_per_layer": None, "upper": fractions(folded), "duplicates": None}
    return {
        "kind": "heuristic",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"layers": len(loads), "target_gap": BOUND_GAP, "time_limit": BOUND_SECONDS},
        "status": solution.status,
        "lower": fractions(solution.lower),
        "methods": found,
    }


def _loads(experts: int, family: str) -> np.ndarray:
    if family.startswith("recorded"):
        return trace("recorded").window(HOTTEST_WINDOW)
    return np.array([family_loads(family, experts, TOTAL, seed) for seed in range(LAYERS)])


def scaling_cell(gpus: int) -> Row:
    """Time the efforts and two vectorised opponents on one size, interleaved, per layer."""
    import torch

    torch.set_num_threads(1)
    deployment = Deployment(EXPERTS_PER_GPU * gpus, SLOTS_PER_GPU * gpus, gpus)
    loads = np.array([family_loads("ln1.0", deployment.num_experts, TOTAL * 100, seed) for seed in range(SCALING_LAYERS)])
    seconds: dict[str, list[float]] = {method: [] for method in SCALING_METHODS}
    for turn in range(SCALING_ROUNDS + 1):
        for method in SCALING_METHODS:
            heuristics.rebalance(loads, deployment, method)
            start = time.perf_counter()
            heuristics.rebalance(loads, deployment, method)
            if turn:
                seconds[method].append((time.perf_counter() - start) / SCALING_LAYERS)
    return {
        "kind": "runtime",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"layers": SCALING_LAYERS, "rounds": SCALING_ROUNDS, "threads": 1},
        "status": "timed",
        "slots": deployment.num_slots,
        "seconds_per_layer": {method: median(values) for method, values in seconds.items()},
    }


def cells() -> list[Cell]:
    """Return the cells of shapes and scaling."""
    shapes = [
        Cell("shapes", f"{name_of(deployment)} {family}", "fast", shape_cell, {"number": number, "family": family})
        for number, (deployment, families) in enumerate(SHAPES)
        for family in families
    ]
    return shapes + [Cell("scaling", f"{gpus} GPUs", "fast", scaling_cell, {"gpus": gpus}) for gpus in SCALING_GPUS]


def exponent(measured: list[Row], method: str) -> float:
    """Return the slope of log time against log slots, least squares over all sizes."""
    sized = [row for row in measured if row["suite"] == "scaling"]
    x, y = [math.log(r["slots"]) for r in sized], [math.log(r["seconds_per_layer"][method]) for r in sized]
    return float(np.polyfit(x, y, 1)[0])


def gaps(row: Row, method: str) -> list[float]:
    """Return the gap of every layer of a shape's row to the certified bound."""
    return layer_gaps(row["methods"][method], [Fraction(value) for value in row["lower"]])


def tables(measured: list[Row]) -> str:
    """Shapes and scaling."""
    body = []
    for row in (r for r in measured if r["suite"] == "shapes"):
        for method, found in row["methods"].items():
            of = gaps(row, method)
            body.append(
                [
                    row["instance"],
                    f"`{method}`" if method in METHODS else method,
                    "-" if found["ms_per_layer"] is None else f"{found['ms_per_layer']:.2f}",
                    f"{100 * fmean(of):.3f} / {100 * max(of):.3f} %",
                    "-" if found["duplicates"] is None else str(found["duplicates"]),
                ]
            )
    sized = [r for r in measured if r["suite"] == "scaling"]
    timed = [
        [f"`{method}`", *(f"{1000 * r['seconds_per_layer'][method]:.3f}" for r in sized), f"{exponent(measured, method):.2f}"]
        for method in SCALING_METHODS
    ]
    return (
        "## Other shapes and hot loads\n\n"
        f"Experts/slots/GPUs; {LAYERS} layers each, synthetic unless named; gap to the bound certified by `solve` in "
        f"{BOUND_SECONDS:.0f} s for all layers.\n\n"
        + markdown(["instances", "method", "ms a layer", "gap mean / worst", "duplicates"], body)
        + f"\n\n## Scaling\n\nms per layer, lognormal loads (sigma 1), {EXPERTS_PER_GPU} experts and {SLOTS_PER_GPU} slots per "
        f"GPU, global, one thread, median of {SCALING_ROUNDS}; exponent of time in slots over all sizes.\n\n"
        + markdown(["method", *(f"{r['slots']} slots" for r in sized), "exponent"], timed)
    )
