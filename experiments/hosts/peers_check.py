"""Our balancers of serving systems against the released packages: ``python -m eplb_gap.experiments.hosts.peers_check``.

Every original runs in a process of its own, ours beside it there, both on one thread. The table says how many layers have equal
makespans and replica counts, apart from those that a tie can decide, and how long ours takes compared with the original: medians
of calls in turns, 58 layers of 256 experts on 288 slots and 32 GPUs. ``--only WORD`` takes some of them. The exit code is 0 where
all are alike and none of ours is slower, 1 where one is not, 2 where a package cannot be had and nothing else is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eplb_gap import heuristics
from eplb_gap.analysis.text import markdown
from eplb_gap.experiments.hosts.command import Parser
from eplb_gap.experiments.hosts.originals import ORIGINALS, Original
from eplb_gap.experiments.hosts.packages import Unavailable, unpacked
from eplb_gap.experiments.hosts.peer_cases import Case, cases, host_map, random_loads
from eplb_gap.experiments.hosts.peer_tally import Ours, Tally, compare, time_ratio
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.placement import Placement

LEAST_EQUAL, MOST_SECONDS = 0.99, 1.05
"""Part of the layers whose makespans must be equal, ties apart, and most time of ours for one of the original's: 1 and the noise
of a median of nine."""
LEAST_LAYERS = 300
"""Without ties that must have been compared; the opponent with the fewest cases has 395."""
TIMED, TIMED_LAYERS = Deployment.preset("dsv3-prefill-ep32"), 58
LIMIT = 900
"""Seconds given to one comparison."""
NOTE = (
    "TensorRT-LLM's balancer is C++ and not among them: its published test vectors are tests of ours. Tied: layers in which two "
    "experts, with any replica counts that came into question, or two groups have the same load; which of them goes first is up "
    "to the sorting of numpy, torch or numba there. Failed: the original returned no legal map, or one that its host "
    "discards: FlashLB's where a replica finds no GPU without its expert, of at most 4 % of all layers; the others fail on none. "
    f"At least {LEAST_LAYERS} layers that are not tied must have been compared."
)


@dataclass(frozen=True)
class Result:
    """A comparison with one original.

    Parameters
    ----------
    tally : Tally
    seconds : tuple of float
        CPU seconds of a call of the original and of ours.
    most_failed : float
        Of :class:`~eplb_gap.experiments.hosts.originals.Original`.
    """

    tally: Tally
    seconds: tuple[float, float]
    most_failed: float = 0.0

    @property
    def ratio(self) -> float:
        """Our time for one of the original's."""
        return self.seconds[1] / self.seconds[0]

    @property
    def alike(self) -> bool:
        """Whether the levels are met."""
        tally = self.tally
        enough = tally.layers >= LEAST_LAYERS and tally.failed <= self.most_failed * (tally.layers + tally.tied + tally.failed)
        return enough and tally.equal >= LEAST_EQUAL * tally.layers and self.ratio <= MOST_SECONDS


def our_plan(method: str) -> Ours:
    """Return a heuristic of ours as a call on cases, from the map in use if it improves one."""
    improves = heuristics.HEURISTICS[method].improve is not None

    def plan(case: Case) -> Placement:
        return heuristics.rebalance(case.loads, case.deployment, method, previous=case.in_use if improves else None)

    return plan


def check_one(original: Original) -> Result:
    """Compare with one original in this process.

    Raises
    ------
    Unavailable
        If its package cannot be had.
    """
    loaded, ours = original.load(unpacked(original.release)), our_plan(original.method)
    refuses = heuristics.HEURISTICS[original.method].refusal
    asked = cases(original.policy, original.steps, original.dead, original.kinds)
    tally = compare(loaded, ours, (case for case in asked if refuses(case.deployment.live) is None), original.discards)
    generator = np.random.default_rng(0)
    timed = TIMED if original.policy == "hierarchical" else TIMED.as_global()
    loads = random_loads("lognormal", TIMED_LAYERS, timed.num_experts, original.steps, generator)
    case = Case(loads, timed, host_map(timed, TIMED_LAYERS, generator))
    return Result(tally, time_ratio(loaded, ours, case), original.most_failed)


def check_apart(number: int) -> Result | str:
    """Compare with an original, by its place in :data:`ORIGINALS`, in a process of its own; return the reason if that fails."""
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name if __spec__ else __name__, "--one", str(number)]
    environment = {**os.environ, **one_thread, "EPLB_GAP_INTERPRET": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    except subprocess.TimeoutExpired:
        return f"it did not end in {LIMIT} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    said = json.loads(done.stdout.splitlines()[-1])
    return Result(Tally(**said["tally"]), tuple(said["seconds"]), said["most_failed"])


def table(results: list[tuple[Original, Result]]) -> str:
    """Return the table of comparisons; two stars mark one that misses a level."""
    header = ["opponent", "package", "ours", "layers", "equal makespans", "equal counts", "worst difference"]
    header += ["tied layers", "equal of them", "worst of them", "failed", "ms, theirs", "ms, ours", "ratio"]
    body = []
    for original, result in results:
        tally, theirs, ours = result.tally, *result.seconds
        body.append(
            [
                original.key + ("" if result.alike else " **"),
                str(original.release),
                f"`{original.method}`",
                str(tally.layers),
                _part(tally.equal, tally.layers),
                _part(tally.counts, tally.layers),
                f"{100 * tally.worst:+.2g} %",
                str(tally.tied),
                _part(tally.tied_equal, tally.tied),
                f"{100 * tally.tied_worst:+.2g} %",
                str(tally.failed),
                f"{1000 * theirs:.1f}",
                f"{1000 * ours:.1f}",
                f"{result.ratio:.2f}",
            ]
        )
    return markdown(header, body)


def _part(found: int, of: int) -> str:
    return f"{100 * found / of:.2f} %" if of else "-"


def _chosen(word: str) -> list[int]:
    """Return the places of the originals that a word names, in their names, packages or what ours are called."""
    names = [f"{one.key} {one.release} {one.method}".lower() for one in ORIGINALS]
    found = [number for number, name in enumerate(names) if word.lower() in name]
    if not found:
        known = dict.fromkeys(str(name) for one in ORIGINALS for name in (one.method, one.release))
        raise argparse.ArgumentTypeError(f"{word!r} names no opponent; ours and the packages are {', '.join(known)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare with all originals and print the table, or with one and print what came of it."""
    parser = Parser("peers_check", "Hold our balancers of serving systems against the released packages, layer by layer.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only", type=_chosen, metavar="WORD", help="opponents whose name, package or method of ours contains this"
    )
    places = range(len(ORIGINALS))
    which.add_argument("--one", type=int, choices=places, metavar="NUMBER", help="that opponent alone, its figures as JSON")
    given = parser.parse_args(arguments)
    if given.one is not None:
        try:
            print(json.dumps(asdict(check_one(ORIGINALS[given.one]))))
        except Unavailable as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    missing = wrong = False
    found: list[tuple[Original, Result]] = []
    for number in places if given.only is None else given.only:
        original = ORIGINALS[number]
        try:
            unpacked(original.release)
        except Unavailable as error:
            missing = True
            print(f"{original.key}: {error}", flush=True)
            continue
        result = check_apart(number)
        if isinstance(result, str):
            wrong = True
            print(f"{original.key} of {original.release} was not compared: {result}", flush=True)
            continue
        wrong = wrong or not result.alike
        found.append((original, result))
        print(f"{original.key} of {original.release}: {'as ours' if result.alike else 'not as ours'}", flush=True)
    print(f"\n{table(found)}\n\n{NOTE}")
    return 1 if wrong else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
