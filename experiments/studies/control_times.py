"""What controllers take: one re-plan within a budget, and a whole replay (part of ``eplb-gap bench control``)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown, yes_or_no
from eplb_gap.experiments.loads.series import series
from eplb_gap.experiments.loads.traces import POLICIES
from eplb_gap.experiments.measuring import rows
from eplb_gap.experiments.measuring.cell import Cell
from eplb_gap.experiments.measuring.replan_seconds import replan_seconds
from eplb_gap.experiments.measuring.row_schema import CELL, NUMBERS, Shape
from eplb_gap.experiments.measuring.rows import Fields, Instance, Rows
from eplb_gap.experiments.studies.controllers import ADAPTIVE_SMALL, CONTROLLERS, MOVES, SMALL
from eplb_gap.experiments.studies.study import Study
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.problem.loads import LoadTrace

SUITE = "control_seconds"
FLAGSHIP_NAME = "dsv3-prefill-ep32"
COMMAND = """
import sys
sys.argv[0] = 'eplb-gap'
from eplb_gap.cli.main import main
try:
    main()
finally:
    print(open('/proc/self/status').read(), file=sys.stderr)
"""
"""The command line, which tells its largest resident memory itself: what the system tells of a child has its parent's in it."""
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
LAYERS, CALLS, WINDOW = 58, 60, 20
REPLAN, IN_A_ROW = "replan 2 %", "re-plans in a row, 2 %"
REPLAYED = (SMALL, ADAPTIVE_SMALL)
ASKED_MS = {"hierarchical": 5.0, "global": 10.0}
ASKED_SECONDS, ASKED_BYTES = 30.0, 1 << 30


def instance(policy: str, **_: object) -> Instance:
    """Return the recorded steps under a policy, their layers repeated to as many as a large model has."""
    loads = series("steps").loads
    return loads[:, np.arange(LAYERS) % loads.shape[1]], POLICIES[policy]


def replan_cell(policy: str, in_a_row: bool) -> Fields:
    """Time re-plans, each from a full plan of the window before, or one after the other, through all changes of the traffic."""
    loads, deployment = instance(policy)
    fields = _fields(policy, {"threads": 1, "moves": MOVES}) | {"peak_bytes": 0}
    windows = np.stack([loads[at : at + WINDOW].sum(axis=0) for at in range(400, 400 + 10 * (CALLS + 1), 10)])
    if not in_a_row:
        found = replan_seconds(windows[:-1:2], deployment, LAYERS, MOVES, CALLS)
        return fields | {"seconds": list(found.all), "cpu_seconds": list(found.all)}
    in_use = heuristics.rebalance(loads[300:400].sum(axis=0), deployment)
    budget = int(MOVES * in_use.phy2log.size)
    wall, cpu = [], []
    for window in windows:
        start, started = time.perf_counter(), time.process_time()
        in_use = replan(window, deployment, in_use, total_moves=budget)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - started)
    return fields | {"seconds": wall[1:], "cpu_seconds": cpu[1:]}


def replay_cell(policy: str, controller: str) -> Fields:
    """Time the whole command on all steps as a user runs it, with its largest resident memory."""
    loads, _ = instance(policy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steps.npz"
        LoadTrace(loads).save(path)
        shape = ["--deployment", FLAGSHIP_NAME, *(["--policy", "global"] if policy == "global" else [])]
        command = [sys.executable, "-c", COMMAND, "replay", "--loads", str(path), *shape, "--controller", controller]
        start = time.perf_counter()
        before = os.times()
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
        after = os.times()
        seconds = time.perf_counter() - start
    decisions = json.loads(done.stdout)["controllers"][0]["decisions"]
    return _fields(policy, {"threads": 1, "controller": controller, "decisions": decisions}) | {
        "seconds": [seconds],
        "cpu_seconds": [sum(after[2:4]) - sum(before[2:4])],
        "peak_bytes": int(PEAK.findall(done.stderr)[-1]) * 1024,
    }


def _fields(policy: str, parameters: dict[str, object]) -> Fields:
    return {
        "kind": "timing",
        "hash": rows.instance_hash(*instance(policy)),
        "parameters": parameters,
        "status": "legal",
        "layers": LAYERS,
    }


def cells() -> list[Cell]:
    """Return one cell for re-plans and one per replayed controller, under both policies."""
    return [
        *(
            Cell(SUITE, f"steps {policy}", method, replan_cell, {"policy": policy, "in_a_row": method == IN_A_ROW})
            for policy in POLICIES
            for method in (REPLAN, IN_A_ROW)
        ),
        *(
            Cell(SUITE, f"steps {policy}", method, replay_cell, {"policy": policy, "controller": CONTROLLERS[method]})
            for policy in POLICIES
            for method in REPLAYED
        ),
    ]


def table(measured: Rows) -> str:
    """Return medians and extremes as Markdown."""
    body = [
        [
            f"{row['instance']}, `{row['method']}`",
            f"{1000 * median(row['seconds']):.1f}",
            f"{1000 * min(row['seconds']):.1f}",
            f"{1000 * median(row['cpu_seconds']):.1f}",
            f"{row['peak_bytes'] / 1e6:.0f}" if row["peak_bytes"] else "-",
            str(len(row["seconds"])),
        ]
        for row in measured.where(suite=SUITE)
    ]
    return (
        f"## Times of controllers\n\nRecorded steps, their layers repeated to {LAYERS}, flagship, one thread: one re-plan of at "
        "most 2 % of all replicas, warm, and the whole command `eplb-gap replay` on 1200 steps with one controller.\n\n"
        + markdown(["policy, what", "median, ms", "least", "CPU, ms", "peak memory, MB", "calls"], body)
        + "\n"
    )


def levels(measured: Rows) -> list[list[str]]:
    """Return what is asked and measured of times and memory."""
    body = []
    for policy, asked in ASKED_MS.items():
        for method, what in ((REPLAN, "from a plan of the window before"), (IN_A_ROW, "one after the other, steps 400 to 1010")):
            ms = 1000 * median(measured.one(suite=SUITE, policy=policy, method=method)["cpu_seconds"])
            text = f"`replan`, {LAYERS} layers, 2 %, {policy}, {what}"
            body.append([text, f"<= {asked:g} ms", f"{ms:.1f} ms CPU, median", yes_or_no(ms <= asked)])
    for row in measured.where(suite=SUITE):
        if row["method"] in REPLAYED:
            seconds, memory = row["seconds"][0], row["peak_bytes"]
            body.append(
                [
                    f"`replay`, 1200 steps x {LAYERS} layers, `{row['method']}`, {row.policy}",
                    f"<= {ASKED_SECONDS:g} s, <= 1 GB",
                    f"{seconds:.1f} s, {memory / 1e9:.2f} GB",
                    yes_or_no(seconds <= ASKED_SECONDS and memory <= ASKED_BYTES),
                ]
            )
    return body


STUDY = Study(
    SUITE,
    job="control",
    about="times of re-plans within a budget and of whole replays",
    cells=cells,
    shapes=(Shape("timing", CELL | {"layers": "integer", "seconds": NUMBERS, "cpu_seconds": NUMBERS, "peak_bytes": "integer"}),),
    instance=instance,
    table=table,
    levels=levels,
    timed=True,
    appendix=True,
)
