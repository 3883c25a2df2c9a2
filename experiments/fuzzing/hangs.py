"""Does anything hang? Adversarial loads on every kind of deployment, in a process that can be killed, interrupted at random.

``python -m eplb_gap.experiments.fuzzing.hangs [--rounds N] [--seed S]`` solves N random instances within short time limits and
plans them by the millisecond planner; half of the rounds get Ctrl-C at a random moment. A round that is not back within its time
limit and :data:`SLACK` seconds, or :data:`REACTION` seconds after Ctrl-C, is late; one that is not back after :data:`PATIENCE`
more is a hang and its process is killed; one whose result :func:`eplb_gap.verify` does not confirm is wrong. The exit code is 1
if there is any of them, 130 if this program itself is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np

from eplb_gap.heuristics import rebalance
from eplb_gap.heuristics.environment import compile_first
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.problem import Deployment, child, verify
from eplb_gap.solvers import Interrupted, solve

SLACK = 2.0
"""Seconds that a round may take beyond its time limit."""
REACTION = 2.0
"""Seconds after Ctrl-C within which the call must be over."""
PATIENCE = 20.0
"""More seconds after which a round counts as a hang."""
COMPILING = 600.0
"""Seconds for the first answer of a process, which may have to compile all kernels."""
GAPS = (0.0, 1e-6, 1e-4, 1e-3, 1e-2)
DEPLOYMENTS: dict[str, dict[str, Any]] = {
    "enumerated": {"num_experts": 4, "num_slots": 8, "num_gpus": 4},
    "one slot a GPU": {"num_experts": 8, "num_slots": 12, "num_gpus": 12},
    "one GPU": {"num_experts": 6, "num_slots": 9, "num_gpus": 1},
    "no spare slot": {"num_experts": 24, "num_slots": 24, "num_gpus": 4},
    "covered": {"num_experts": 16, "num_slots": 24, "num_gpus": 8},
    "pairs": {"num_experts": 64, "num_slots": 80, "num_gpus": 40},
    "large pairs": {"num_experts": 256, "num_slots": 288, "num_gpus": 144},
    "triples": {"num_experts": 32, "num_slots": 48, "num_gpus": 16},
    "fours": {"num_experts": 64, "num_slots": 96, "num_gpus": 24, "duplicates": "forbidden"},
    "sixes": {"num_experts": 32, "num_slots": 48, "num_gpus": 8},
    "many a GPU": {"num_experts": 256, "num_slots": 288, "num_gpus": 8},
    "nodes": {"num_experts": 8, "num_slots": 8, "num_gpus": 4, "num_nodes": 2, "num_groups": 4},
    "many sets of groups": {"num_experts": 64, "num_slots": 80, "num_gpus": 16, "num_nodes": 2, "num_groups": 16},
    "large nodes": {"num_experts": 256, "num_slots": 288, "num_gpus": 32, "num_nodes": 4, "num_groups": 8},
    "unequal": {"num_experts": 8, "slots_per_gpu": [1, 3, 2, 2, 4]},
    "dead": {"num_experts": 16, "num_slots": 32, "num_gpus": 8, "active": [True] * 6 + [False, True]},
}
PRIMES = [n for n in range(2, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]


@dataclass(frozen=True)
class Round:
    """What one round asks for, as it is sent to the process.

    Parameters
    ----------
    kind : str
        Key of :data:`DEPLOYMENTS`.
    loads : list of list of int [layers, experts]
    target_gap, time_limit : float
    """

    kind: str
    loads: list[list[int]]
    target_gap: float
    time_limit: float


def adversarial(generator: np.random.Generator, experts: int) -> list[int]:
    """Return loads of one layer: zeros, ties, powers of two, primes or a skewed sample, mostly with one hot expert.

    Parameters
    ----------
    generator : numpy.random.Generator
    experts : int

    Returns
    -------
    list of int [experts]
        Up to 10**15 each.
    """
    kinds = (
        np.zeros(experts),
        np.ones(experts),
        np.full(experts, generator.integers(2, 10**9)),
        2.0 ** generator.integers(0, 40, experts),
        np.resize(PRIMES, experts),
        generator.integers(0, 12, experts),
        generator.multinomial(1000, generator.dirichlet(np.ones(experts) * 3)),
        np.exp(generator.normal(0.0, 2.3, experts) + 8.0),
    )
    loads = np.array(kinds[generator.integers(len(kinds))], dtype=np.int64)
    if generator.random() < 0.6:
        loads[generator.integers(experts)] = 10 ** int(generator.integers(2, 16))
    return list(map(int, loads))


def draw(seed: int, number: int) -> tuple[Round, float | None]:
    """Return a round, and after how many seconds it is interrupted if it is; the same for the same numbers."""
    generator = np.random.default_rng((seed, number))
    kind = list(DEPLOYMENTS)[number % len(DEPLOYMENTS)]
    experts = DEPLOYMENTS[kind]["num_experts"]
    layers = 1 + int(generator.integers(3) == 0)
    loads = [adversarial(generator, experts) for _ in range(layers)]
    limit = float(generator.uniform(0.1, 0.3))
    asked = Round(kind, loads, float(generator.choice(GAPS)), limit)
    return asked, float(generator.uniform(0.0, 1.2 * limit)) if generator.random() < 0.5 else None


def attempt(asked: Round) -> tuple[str, str]:
    """Solve, plan and replan one instance; return ``"done"``, ``"interrupted"`` or ``"wrong"``, and why."""
    deployment = Deployment(**DEPLOYMENTS[asked.kind])
    outcome, loads = "done", np.array(asked.loads)
    try:
        solution = solve(loads, deployment, target_gap=asked.target_gap, time_limit=asked.time_limit)
    except Interrupted as stop:
        outcome, solution = "interrupted", stop.solution
    upper = verify(solution.placement, loads, deployment)
    if upper != solution.upper or any(low > high for low, high in zip(solution.lower, upper, strict=True)):
        return "wrong", f"lower {solution.lower}, upper {solution.upper}, verified {upper}"
    if outcome == "done":
        planned = rebalance(loads, deployment, "fast-counts" if deployment.is_regular else "fast")
        again = replan(loads[:, ::-1], deployment, planned, total_moves=2)
        for name, placement in (("plan", planned), ("replan", again)):
            if any(low > high for low, high in zip(solution.lower, verify(placement, loads, deployment), strict=True)):
                return "wrong", f"the {name} is below the lower bound {solution.lower}"
    return outcome, ""


def serve() -> None:
    """Answer rounds on standard input by lines on standard output: the process that may hang."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    compile_first()
    for kind, shape in DEPLOYMENTS.items():  # the first calls compile; skewed loads without a pattern reach all kernels
        skewed = np.exp(np.random.default_rng(0).normal(0.0, 0.6, shape["num_experts"]) + 9.0).astype(int).tolist()
        attempt(Round(kind, [skewed], 0.0, 0.2))
    print(json.dumps(["ready", ""]), flush=True)
    for line in sys.stdin:
        outcome, why = "interrupted", "outside solve"
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print(json.dumps(["began", ""]), flush=True)
            outcome, why = attempt(Round(**json.loads(line)))
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            pass
        except Exception as error:
            outcome, why = "wrong", f"{type(error).__name__}: {error}"
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(json.dumps([outcome, why]), flush=True)


class Worker:
    """A process that answers rounds, with a clock on every answer."""

    def __init__(self) -> None:
        program = "from eplb_gap.experiments.fuzzing.hangs import serve; serve()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}  # a line in a buffer wakes no selector
        self._process = child.start(["-c", program], child.ONE_THREAD, **pipes)
        assert self._process.stdin is not None and self._process.stdout is not None  # both are pipes
        self._in: IO[bytes] = self._process.stdin
        self._out: IO[bytes] = self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._out, selectors.EVENT_READ)

    def answer(self, seconds: float) -> tuple[str, str] | None:
        """Return the next line of the process, ``"ended"`` if there is none; None if it does not come in time."""
        if not self._ready.select(max(0.0, seconds)):
            return None
        line = self._out.readline()
        if not line:
            return "ended", f"code {self._process.wait()}"
        outcome, why = json.loads(line)
        return outcome, why

    def ask(self, asked: Round) -> None:
        """Send a round."""
        with contextlib.suppress(BrokenPipeError):
            self._in.write(json.dumps(asdict(asked)).encode() + b"\n")

    def interrupt(self) -> None:
        """Send Ctrl-C."""
        os.kill(self._process.pid, signal.SIGINT)

    def end(self) -> None:
        """Kill the process."""
        child.end(self._process)
        self._ready.close()
        self._out.close()
        with contextlib.suppress(BrokenPipeError):
            self._in.close()


@dataclass
class Tally:
    """What came of all rounds.

    Parameters
    ----------
    outcomes : Counter of str
        Rounds by outcome.
    overrun, reaction : float
        Most seconds beyond a time limit, and after Ctrl-C.
    faults : list of str
        One line for every round that is late, hangs, ends its process or is wrong.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    overrun: float = 0.0
    reaction: float = 0.0
    faults: list[str] = field(default_factory=list)


def one(worker: Worker, asked: Round, interrupt: float | None) -> tuple[str, str, float | None, float | None]:
    """Run a round; return its outcome, why, the seconds beyond its time limit and those after Ctrl-C."""
    worker.ask(asked)
    first = worker.answer(PATIENCE)
    if first is None or first[0] != "began":
        return ("hang", "before it began", None, None) if first is None else (*first, None, None)
    began, interrupted = time.monotonic(), None
    found = None
    if interrupt is not None:
        found = worker.answer(interrupt)
        if found is None:
            interrupted = time.monotonic()
            worker.interrupt()
    if found is None:
        found = worker.answer(asked.time_limit + SLACK + PATIENCE - (time.monotonic() - began))
    if found is None:
        return "hang", f"no end {PATIENCE + SLACK:.0f} s beyond its time limit", None, None
    ended = time.monotonic()
    outcome, why = found
    overrun = None if interrupted else max(0.0, ended - began - asked.time_limit)
    reaction = ended - interrupted if interrupted else None
    if outcome in ("done", "interrupted") and ((overrun or 0.0) > SLACK or (reaction or 0.0) > REACTION):
        outcome, why = "late", f"{reaction:.2f} s after Ctrl-C" if interrupted else f"{overrun:.2f} s beyond its time limit"
    return outcome, why, overrun, reaction


def run(rounds: int, seed: int, progress: bool = False, first: int = 0) -> Tally:
    """Run rounds one after the other, in one process as long as it lives.

    Parameters
    ----------
    rounds, seed : int
    progress : bool, default False
        Whether to print a line every hundred rounds.
    first : int, default 0
        Number of the first round.

    Returns
    -------
    Tally
    """
    tally, worker = Tally(), None
    try:
        for number in range(first, first + rounds):
            if worker is None:
                worker = Worker()
                answer = worker.answer(COMPILING)
                if answer != ("ready", ""):
                    raise RuntimeError(f"the process for the rounds did not start: {answer}")
            asked, interrupt = draw(seed, number)
            outcome, why, overrun, reaction = one(worker, asked, interrupt)
            tally.outcomes[outcome] += 1
            tally.overrun, tally.reaction = max(tally.overrun, overrun or 0.0), max(tally.reaction, reaction or 0.0)
            if outcome not in ("done", "interrupted"):
                tally.faults.append(f"round {number} of seed {seed}: {outcome}, {why}: {asked}, interrupted after {interrupt} s")
            if outcome in ("hang", "ended"):
                worker.end()
                worker = None
            if progress and (number - first + 1) % 100 == 0:
                print(_line(tally), flush=True)
    except KeyboardInterrupt:
        tally.outcomes["stopped"] = 1
    finally:
        if worker is not None:
            worker.end()
    return tally


def _line(tally: Tally) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in sorted(tally.outcomes.items()))
    return f"{counts}; at most {tally.overrun:.2f} s beyond a time limit, {tally.reaction:.2f} s after Ctrl-C"


def main() -> int:
    """Run the rounds that the command line asks for and print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m eplb_gap.experiments.fuzzing.hangs", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    given = parser.parse_args()
    started = time.monotonic()
    tally = run(given.rounds, given.seed, progress=True, first=given.first)
    print(f"{_line(tally)}; {time.monotonic() - started:.0f} s")
    for fault in tally.faults:
        print(f"  {fault[:1000]}")
    if "stopped" in tally.outcomes:
        return 130
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())
