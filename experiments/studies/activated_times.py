"""How many decode steps a second the best choice of replicas is found for (part of ``eplb-gap bench network``)."""

from __future__ import annotations

import time
from statistics import median

from eplb_gap import heuristics
from eplb_gap.analysis.decode.batches import decode_steps
from eplb_gap.analysis.text import yes_or_no
from eplb_gap.experiments.loads.routing_sample import PLANNED, parts, sample
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.dispatch.activated import fewest_activated
from eplb_gap.problem.deployment import Deployment

SUITE = "activated_seconds"
BATCH, CALLS, ASKED = 64, 7, 20_000
DEPLOYMENTS = {"256/288/32": Deployment(256, 288, 32), "256/320/8": Deployment(256, 320, 8)}


def instance(shape: str) -> Instance:
    """Return the loads of the tokens planned on and the deployment."""
    return parts()[PLANNED].loads(), DEPLOYMENTS[shape]


def timed_cell(shape: str) -> Fields:
    """Time the best choice on all steps of every layer, warm, on one thread."""
    loads, deployment = instance(shape)
    maps = heuristics.rebalance(loads, deployment).phy2log
    routing = sample()
    steps = decode_steps(routing, BATCH)
    active = [steps.counts(routing, layer) > 0 for layer in range(routing.num_layers)]
    wall, cpu = [], []
    for _ in range(CALLS + 1):
        start, started = time.perf_counter(), time.process_time()
        for layer, of_layer in enumerate(active):
            fewest_activated(of_layer, maps[layer], deployment)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - started)
    return {
        "kind": "timing",
        "hash": rows.instance_hash(loads, deployment),
        "parameters": {"batch": BATCH, "steps": steps.count * routing.num_layers, "threads": 1},
        "status": "timed",
        "seconds": wall[1:],
        "cpu_seconds": cpu[1:],
    }


def cells() -> list[Cell]:
    """Return a cell per deployment."""
    return [Cell(SUITE, f"sample {shape}", "matching", timed_cell, {"shape": shape}) for shape in DEPLOYMENTS]


def rate(measured: Rows, shape: str) -> float:
    """Return steps of one layer per CPU second, by the median call."""
    row = measured.one(suite=SUITE, instance=f"sample {shape}")
    return float(row["parameters"]["steps"] / median(row["cpu_seconds"]))


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of its speed."""
    body = []
    for shape in DEPLOYMENTS:
        found = rate(measured, shape)
        what = f"best choice of replicas, {BATCH} tokens a step, {shape}"
        body.append([what, f">= {ASKED:,} steps/s", f"{found:,.0f} steps of a layer a CPU second", yes_or_no(found >= ASKED)])
    return body


STUDY = Study(
    SUITE,
    job="network",
    about="times of the best choice of replicas for decode steps",
    cells=cells,
    shapes=(Shape("timing", CELL | {"seconds": NUMBERS, "cpu_seconds": NUMBERS}),),
    instance=instance,
    levels=levels,
    timed=True,
)
