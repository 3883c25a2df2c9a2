"""A fuzzer of all readers of files from outside: each must read a damaged file or refuse it with one line, and nothing else.

``python -m eplb_gap.experiments.fuzzing.fuzz [--count N] [--seed S] [--only NAME]`` damages the sample of every format of loads
and maps N times and reads the result in a process of its own with limits of memory and time. Any other error, a warning, the end
of the process or a limit reached is a crash: its files go to ``runs/fuzz/`` and the exit code is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
from random import Random

import numpy as np

from eplb_gap.experiments.fuzzing.format_samples import READ_ONLY_MAPS, ROUTING_SAMPLES, SAMPLES, SLOW, write_samples
from eplb_gap.experiments.fuzzing.mutations import mutated
from eplb_gap.problem import Deployment, InputError, Placement, PlacementError, child
from eplb_gap.problem.formats import MAP_FORMATS, read, read_map, write_map
from eplb_gap.problem.formats.routing.reading import read_routing

MEMORY_BYTES = 2 << 30
"""What a reader may allocate beyond what is there before: a small file does not need it."""
SECONDS = 20.0
MAX_MESSAGE = 1_000
MAP_DEPLOYMENT = Deployment(8, 12, 4)
MAP_LAYERS = [1, 2, 3]
CRASHES = Path("runs") / "fuzz"


@dataclass(frozen=True)
class Case:
    """A reader and its sample.

    Parameters
    ----------
    name : str
    files : dict of str to bytes
        The files of the sample.
    folder : bool
        Whether the reader gets the folder or its only file.
    read : callable
        ``read(path, format)``; ``format`` is None where the reader shall recognise it.
    format : str
    slow : bool, default False
        Whether the reader starts a process for every file; it gets a twentieth of the trials.
    """

    name: str
    files: dict[str, bytes]
    folder: bool
    read: Callable[[Path, str | None], object]
    format: str
    slow: bool = False


@cache
def cases() -> dict[str, Case]:
    """Return the cases of all formats by name."""
    found = {}
    for name in SAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            path = write_samples(Path(folder) / "sample", name)
            files = {file.name: file.read_bytes() for file in sorted((Path(folder) / "sample").iterdir())}
            format = name.partition(":")[0]
            found[f"loads {name}"] = Case(f"loads {name}", files, path.is_dir(), read, format, format in SLOW)
    for name in ROUTING_SAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            path = write_samples(Path(folder) / "sample", name)
            files = {file.name: file.read_bytes() for file in sorted((Path(folder) / "sample").iterdir())}
            format = name.partition(":")[0]
            found[f"routing {name}"] = Case(f"routing {name}", files, path.is_dir(), read_routing, format, format in SLOW)
    for name in MAP_FORMATS:
        found[f"map {name}"] = Case(f"map {name}", {"map": _map_sample(name)}, False, _read_map, name)
    return found


def _map_sample(name: str) -> bytes:
    slots = np.array([np.roll(np.resize(np.arange(8), 12), shift) for shift in range(len(MAP_LAYERS))])
    if name in READ_ONLY_MAPS:
        return READ_ONLY_MAPS[name](slots)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        write_map(path, Placement(slots, 8), MAP_DEPLOYMENT, name, MAP_LAYERS, MAP_LAYERS[-1] + 1)
        return path.read_bytes()


def _read_map(path: Path, format: str | None) -> object:
    return read_map(path, MAP_DEPLOYMENT, format)


def damaged(case: Case, seed: int, index: int) -> tuple[dict[str, bytes], str | None]:
    """Return the files of one trial and the format that the reader is told; the same for the same numbers."""
    random = Random(f"{seed} {case.name} {index}")
    return mutated(case.files, random), random.choice((None, case.format))


def trial(case: Case, files: dict[str, bytes], format: str | None, folder: Path) -> tuple[str, str]:
    """Read damaged files in an empty folder; return ``"read"``, ``"refused"`` or ``"crash"``, and why."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    path = folder if case.folder else folder / next(iter(files))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            case.read(path, format)
    except (InputError, PlacementError) as error:
        text = str(error)
        return (
            ("refused", text) if len(text.splitlines()) == 1 and len(text) < MAX_MESSAGE else ("crash", f"no one line: {text!r}")
        )
    except BaseException as error:  # also what is no Exception: a panic of a compiled library
        if isinstance(error, KeyboardInterrupt):
            raise
        return "crash", f"{type(error).__name__}: {error}"[:500]
    finally:
        for file in folder.iterdir():
            file.unlink()
    return "read", ""


def _work(pipe: Connection, name: str, seed: int, start: int, count: int) -> None:
    """Run trials and send the outcome of each; ends in any way a damaged file can make it end."""
    case = cases()[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "sample"
        folder.mkdir()
        trial(case, case.files, case.format, folder)  # loads the libraries, whose memory is not the reader's
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        child.limit_memory(pages * os.sysconf("SC_PAGESIZE") + MEMORY_BYTES, for_good=True)
        for index in range(start, count):
            files, format = damaged(case, seed, index)
            pipe.send(trial(case, files, format, folder))


def run(name: str, seed: int, count: int) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Run all trials of a case; return how many had which outcome, and index and reason of each crash."""
    context: ForkContext | SpawnContext = (
        multiprocessing.get_context("spawn") if "torch" in sys.modules else multiprocessing.get_context("fork")
    )
    outcomes, crashes = Counter[str](), list[tuple[int, str]]()
    while (done := outcomes.total()) < count:
        near, far = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(far, name, seed, done, count), daemon=True)
        worker.start()
        far.close()
        reason = None
        while outcomes.total() < count and reason is None:
            # The first answer of a process also takes the time of loading the libraries.
            patience = SECONDS + (60 if outcomes.total() == done else 0)
            if not near.poll(patience):
                reason = f"no end within {patience:.0f} s"
                break
            try:
                outcome, why = near.recv()
            except EOFError:
                worker.join()
                reason = f"the process ended with code {worker.exitcode}"
                break
            if outcome == "crash":
                crashes.append((outcomes.total(), why))
            outcomes[outcome] += 1
        if reason is not None:
            crashes.append((outcomes.total(), reason))
            outcomes["crash"] += 1
        worker.kill()
        worker.join()
        near.close()
    return outcomes, crashes


def keep(name: str, seed: int, index: int, reason: str) -> Path:
    """Write the files of a crash beside its reason; return their folder."""
    folder = CRASHES / f"{name.replace(' ', '-').replace(':', '-')}-{seed}-{index}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, format = damaged(cases()[name], seed, index)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    (folder / "REASON.txt").write_text(f"format {format}\n{reason}\n", encoding="utf-8")
    return folder


def main() -> int:
    """Run the fuzzer that the command line asks for and print a table."""
    parser = argparse.ArgumentParser(prog="python -m eplb_gap.experiments.fuzzing.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="damaged files per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="readers whose name contains this")
    given = parser.parse_args()
    names = [name for name in cases() if given.only is None or given.only in name]
    if not names:
        parser.error(f"--only is {given.only!r}; the readers are {', '.join(cases())}")
    failed = False
    print(f"{'reader':34} {'read':>7} {'refused':>7} {'crashes':>7} {'seconds':>7}", flush=True)
    for name in names:
        start = time.perf_counter()
        count = -(-given.count // 20) if cases()[name].slow else given.count
        outcomes, crashes = run(name, given.seed, count)
        numbers = [outcomes[kind] for kind in ("read", "refused", "crash")]
        print(f"{name:34} " + " ".join(f"{n:7d}" for n in numbers) + f" {time.perf_counter() - start:7.1f}", flush=True)
        for index, reason in crashes:
            print(f"  {keep(name, given.seed, index, reason)}: {reason.splitlines()[0]}", flush=True)
        failed |= bool(crashes)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
