"""Four ranks of vLLM's own state machine as processes, with the plug-in registered, driven through what a server meets.

Run as ``python drive_vllm.py FOLDER``; it starts itself once for every rank. Three ranks serve, the fourth joins them later. Each
rank checks after every change that its expert weights are those that the map says, and that all ranks have the same map; a line
of rank 0 says what was driven, and how balanced the loads are on the map before, on ours and on that of vLLM's own policy.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from ending import follow_parent
from vllm_ranks import EXPERTS, LAYERS, LOCAL, SPARE, WORLD, Rank

from eplb_gap.heuristics.plugins import CONTROLLER, MAP, METHOD, calls, hosted, planning, recording, settings
from eplb_gap.heuristics.plugins.guard import COMPLAINTS

SECONDS = 180
"""After so many the ranks are killed, and what they have printed is shown."""
THREE = 3 * LOCAL
BUDGETED = """[[controller]]
kind = "budgeted"
interval = 2
window = 2
moves = 0.1
"""


def scenario(rank: Rank) -> None:
    """Drive one server without a thread of its own, then one that moves weights beside its work."""
    rank.load_plugins()
    logging.getLogger("eplb_gap").setLevel(logging.WARNING)
    rank.listen()
    serving = rank.rank != SPARE
    rank.start(use_async=False)
    rank.profile()
    dist.barrier()
    if serving:
        for number, what in enumerate(("first plan", "rebalanced", "rebalanced")):
            before = rank.map.clone()
            rank.serve(number)
            rank.check(f"sync, {what}", 3, before)
            rank.register()  # which must change nothing
        before = rank.map.clone()
        rank.lose()
        rank.check("sync, one rank lost", 2, before)
    dist.barrier()
    rank.start(use_async=True)
    rank.profile()
    dist.barrier()
    if serving:
        for number, what in enumerate(("first plan", "rebalanced")):
            before = rank.map.clone()
            rank.serve(10 + number)
            rank.check(f"async, {what}", 3, before)
    dist.barrier()
    before = rank.map.clone() if serving else torch.zeros((LAYERS, THREE), dtype=torch.int64)
    dist.broadcast(before, 0)
    rank.join()
    rank.check("scaled up", 4, before)
    before = rank.map.clone()
    rank.serve(20)
    rank.check(f"{'async' if rank.state.is_async else 'sync'}, rebalanced on two nodes", 4, before)
    dist.barrier()


def settings_of_a_server(rank: Rank, folder: Path) -> None:
    """Drive one server of three ranks after the other, each with settings of its own, which may differ from rank to rank."""
    table = np.random.default_rng(7).permuted(np.tile(np.arange(THREE) % EXPERTS, (LAYERS, 1)), axis=1)
    if rank.rank == 0:
        np.save(folder / "map.npy", table)
        (folder / "budgeted.toml").write_text(BUDGETED)
    dist.barrier(group=rank.three.cpu_group)
    fresh_server(rank, {METHOD: "host"})
    assert rank.whose(3) == ["own"] * 3
    rank.say("METHOD=host: vllm's own policy answers three times")
    fresh_server(rank, {MAP: str(folder / "map.npy")})
    dist.barrier(group=rank.three.cpu_group)
    if rank.rank == 0:
        (folder / "map.npy").unlink()  # it was read when the plug-in was registered
    dist.barrier(group=rank.three.cpu_group)
    rank.serve(0)
    assert rank.answers[-1].equal(torch.from_numpy(table))
    assert rank.whose(2) == ["ours"] * 2
    rank.say("MAP=FILE: the planned map is served first, then plans follow; the file may vanish")
    fresh_server(rank, {CONTROLLER: str(folder / "budgeted.toml")})
    moves = []
    for step in range(1, 7):
        before = rank.map.clone()
        rank.serve(step)
        moves.append(int((rank.map != before).sum()))
        rank.register()
    steps = hosted.MODELS[LAYERS, EXPERTS].steps
    assert steps == 6, steps
    assert moves[1] > 0 == moves[2] == moves[4] and max(moves[3:]) <= 0.1 * LAYERS * THREE < moves[1] + moves[0], moves
    rank.say(f"CONTROLLER=budgeted.toml, interval 2, moves 0.1 of {LAYERS * THREE}: moves {moves}, registered again after each")
    if not rank.compares:
        return
    fresh_server(rank, {METHOD: "initial_program" if rank.rank == 1 else "fast"})
    assert rank.whose(2) == ["own"] * 2
    rank.say("METHOD of rank 1 differs: all ranks take the answers of vllm's own policy")
    fresh_server(rank, {METHOD: "nonsense"} if rank.rank == 2 else {})
    assert rank.whose(2) == ["own"] * 2
    rank.say("METHOD of rank 2 is unknown: likewise")
    fresh_server(rank, {})
    plans = planning.replan
    if rank.rank == 1:
        planning.replan = calls.replan = out_of_memory
    assert rank.whose(1) == ["own"]
    planning.replan = calls.replan = plans
    assert rank.whose(1) == ["ours"]
    rank.say("rank 1 runs out of memory once: all ranks take vllm's own answer, then ours again")


def out_of_memory(*given: object) -> None:
    raise MemoryError


def fresh_server(rank: Rank, environment: dict[str, str]) -> None:
    """Start a server whose processes remember nothing."""
    for name in (METHOD, MAP, CONTROLLER):
        os.environ.pop(name, None)
    os.environ.update(environment)
    settings.forget()
    hosted.MODELS.clear()
    planning.SERVED.clear()
    COMPLAINTS.forget()
    rank.register()
    rank.start(use_async=False)


def run_rank(root: Path, rank: int, store: str) -> None:
    logging.basicConfig(level=logging.WARNING, format=f"  rank {rank}: %(message)s", stream=sys.stdout)
    logging.getLogger("eplb_gap").setLevel(logging.INFO)
    threading.excepthook = lambda found: sys.excepthook(found.exc_type, found.exc_value, found.exc_traceback)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    one = Rank(root, rank)
    scenario(one)
    if rank != SPARE:
        settings_of_a_server(one, Path(store).parent)
    assert recording.flush(10.0)


def main(arguments: list[str]) -> int:
    follow_parent()
    if len(arguments) > 1:
        code = 1
        try:
            run_rank(Path(arguments[0]), int(arguments[1]), arguments[2])
            code = 0
        except Exception:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)  # threads that wait for the next plan would be waited for
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_files:
        outputs = [Path(folder, f"{rank}.txt") for rank in range(WORLD)]
        ranks = [
            subprocess.Popen(
                [sys.executable, __file__, arguments[0], str(rank), f"{folder}/store"],
                stdout=open_files.enter_context(output.open("w")),
                stderr=subprocess.STDOUT,
            )
            for rank, output in enumerate(outputs)
        ]
        end = time.monotonic() + SECONDS
        while any(one.poll() is None for one in ranks) and not any(one.poll() for one in ranks) and time.monotonic() < end:
            time.sleep(0.1)
        failed = any(one.poll() != 0 for one in ranks)
        for one in ranks:
            one.kill()
            one.wait()
        print("".join(output.read_text() for output in (outputs if failed else outputs[:1])), end="")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
