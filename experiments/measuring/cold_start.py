"""First answers: commands on an empty cache of compiled kernels, with one that is full, and the drop-in against its parts.

``python -m eplb_gap.experiments.measuring.cold_start``. Every command runs three times in a process of its own: *cold*, as a new
installation does, kernels interpreted until another process has compiled them; *compiling first*, which fills the cache; and
*warm*. CPU seconds are those of the command; kernels are the specialisations compiled when it had answered. Times, not rows:
nothing is stored.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.measuring.rows import ROOT
from eplb_gap.heuristics.environment import INTERPRET
from eplb_gap.problem import child

_LOADS = ("--loads", str(ROOT / "results/traces/recorded-windows.npz"), "--deployment", "dsv3-prefill-ep32")
_COMMAND = "import sys; sys.argv[0] = 'eplb-gap'; from eplb_gap.cli.main import main; main()"
_REBALANCE = """
import numpy as np
from eplb_gap import heuristics
from eplb_gap.problem.deployment import Deployment
loads = np.random.default_rng(0).poisson(np.exp(0.7 * np.random.default_rng(1).normal(size=(58, 256))) * 5000)
heuristics.rebalance(loads, Deployment(256, 288, 32, num_nodes=4, num_groups=8))
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "`--help`": (_COMMAND, "--help"),
    "`solve --example deepseek-readme`": (_COMMAND, "solve", "--example", "deepseek-readme"),
    "`rebalance`, 58 x 256 in Python": (_REBALANCE,),
    "`evaluate --map fast`, recorded": (_COMMAND, "evaluate", *_LOADS, "--map", "fast"),
    "`explain`, recorded": (_COMMAND, "explain", *_LOADS),
}
"""Arguments of ``python -c`` by what they do."""
_DROP_IN = "from eplb_gap.experiments.measuring.cold_start import time_drop_in; print(*time_drop_in())"
RIVAL = "shinkaevolve"
"""The fastest vectorised program of others."""
CALLS = 200


@dataclass(frozen=True)
class Run:
    """Seconds of a command, and how many kernels lay compiled when it had answered."""

    wall: float
    cpu: float
    kernels: int


def observed(command: tuple[str, ...], cache: Path, interpret: bool) -> Run:
    """Run a command in a process of its own with a folder as numba's cache.

    Raises
    ------
    CalledProcessError
        If it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != INTERPRET} | {"NUMBA_CACHE_DIR": str(cache)}
    if not interpret:
        environment[INTERPRET] = "0"
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return Run(wall, usage.ru_utime + usage.ru_stime, len(list(cache.rglob("*.nbi"))))


def first_answers() -> str:
    """Return the table of all commands as Markdown."""
    body = []
    for name, command in COMMANDS.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cold, tempfile.TemporaryDirectory() as full:
            runs = observed(command, Path(cold), True), observed(command, Path(full), False), observed(command, Path(full), True)
        body.append([name, *(cell for run in runs for cell in (f"{run.wall:.2f} / {run.cpu:.2f}", str(run.kernels)))])
    head = [f"{state}{unit}" for state in ("cold", "compiling first", "warm") for unit in (", wall / CPU s", ", kernels")]
    return "## First answers\n\n" + markdown(["command", *head], body)


def time_drop_in(calls: int = CALLS) -> tuple[float, float, float]:
    """Return the median seconds of the planner alone, the drop-in and the rival as drop-in, calls interleaved."""
    import torch

    from eplb_gap.heuristics.eplb import rebalance_experts
    from eplb_gap.heuristics.planner import fast
    from eplb_gap.problem.deployment import Deployment

    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    loads = generator.poisson(np.exp(0.7 * generator.normal(size=(58, 256))) * 5000)
    weight, deployment = torch.from_numpy(loads), Deployment(256, 288, 32, num_nodes=4, num_groups=8)
    programs: tuple[Callable[[], object], ...] = (
        lambda: fast.plan(loads, deployment),
        lambda: rebalance_experts(weight, 288, 8, 4, 32),
        lambda: rebalance_experts(weight, 288, 8, 4, 32, method=RIVAL),
    )
    seconds: list[list[float]] = [[], [], []]
    for turn in range(calls + 1):
        for number, program in enumerate(programs):
            started = time.perf_counter()
            program()
            if turn:
                seconds[number].append(time.perf_counter() - started)
    planner, drop_in, rival = map(median, seconds)
    return planner, drop_in, rival


def drop_in() -> str:
    """Return the drop-in's time beside the planner's and the rival's as Markdown; measured in a process of one thread."""
    environment = {**os.environ, **child.ONE_THREAD, INTERPRET: "0"}
    done = subprocess.run([sys.executable, "-c", _DROP_IN], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    planner, own, rival = map(float, done.stdout.split())
    body = [
        ["the planner alone, arrays in and out", f"{1000 * planner:.2f}", ""],
        ["`rebalance_experts`, tensors in and out", f"{1000 * own:.2f}", f"{own / planner:.2f} x the planner"],
        [f"the same with `{RIVAL}`", f"{1000 * rival:.2f}", f"{own / rival:.2f} x of it takes ours"],
    ]
    return "## Drop-in, 58 x 256 -> 288 -> 32\n\n" + markdown(["what", "median ms", "ratio"], body)


def tables() -> str:
    """Return both tables as Markdown."""
    return f"{first_answers()}\n{drop_in()}"


if __name__ == "__main__":
    print(tables())
