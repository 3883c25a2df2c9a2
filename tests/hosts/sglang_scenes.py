"""What four ranks of :mod:`sglang_server`, a process each, go through on the released modules, one scene after the other.

Run in a process of its own: ``sglang_scenes.py PACKAGE FOLDER``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import sglang_world as world
import torch
import torch.distributed as dist
from ending import follow_parent
from sglang_server import DENSE, EXPERTS, INTERVAL, LAYERS, LINES, RANKS, SLOTS, Ghost, Kept, Server

from eplb_gap.heuristics.moves.relabel import moved
from eplb_gap.heuristics.plugins import SETTINGS, hosted, planning, sglang
from eplb_gap.heuristics.plugins.guard import COMPLAINTS
from eplb_gap.heuristics.plugins.recording import flush
from eplb_gap.heuristics.plugins.settings import forget
from eplb_gap.problem import Deployment, Placement
from eplb_gap.problem.validation import check

HIERARCHICAL = Deployment(EXPERTS, SLOTS, RANKS, num_nodes=2, num_groups=4)


def set_up(**environment):
    """Begin with the settings of another server."""
    for name in SETTINGS:
        os.environ.pop(name, None)
    os.environ.update(environment)
    forget()
    LINES.clear()
    hosted.MODELS.clear()
    planning.SERVED.clear()
    COMPLAINTS.forget()
    sglang.register()


def say(rank, *words):
    if rank == 0:
        print(*words, flush=True)


def halves(server):
    first, rest = server.balances[: INTERVAL + 1], server.balances[INTERVAL + 1 :]
    return f"balancedness {np.mean(first):.4f} before the first rebalance, {np.mean(rest):.4f} after"


def no_trouble():
    assert not [line for line in LINES if "answers" in line or "failed" in line], LINES


def every_way_of_planning(rank, folder):
    """The same traffic under SGLang's own algorithm, the plan of the plug-in, with a threshold, and a map that comes first."""
    for algorithm in ("auto", "deepseek_vec"):
        for name, variables in {
            "sglang's own": {"EPLB_GAP_METHOD": "host"},
            "fast": {},
            "fast, threshold 0.02": {"EPLB_GAP_THRESHOLD": "0.02"},
            "initial_program": {"EPLB_GAP_METHOD": "initial_program"},
        }.items():
            set_up(**variables)
            server, changed = Server(rank, eplb_algorithm=algorithm), 0
            for _ in range(3 * INTERVAL + 2):
                before = server.map.copy()
                server.step()
                changed += int((server.map != before).sum())
                server.agree()
            if algorithm == "auto":
                check(Placement(server.map[1:], EXPERTS), HIERARCHICAL)
            no_trouble()
            say(rank, f"{algorithm}, {name}: {halves(server)}; {changed} slots changed in 3 rebalances")


def ranks_that_differ(rank, folder):
    """One rank has other settings, one cannot load what plans: all take SGLang's own map, and weights stay right."""
    for trouble in ("settings", "import"):
        set_up(**({"EPLB_GAP_METHOD": "initial_program"} if trouble == "settings" and rank == 1 else {}))
        calls = "eplb_gap.heuristics.plugins.calls"
        kept = sys.modules[calls]
        if trouble == "import" and rank == 1:
            sys.modules[calls] = None
        server = Server(rank)
        for _ in range(2 * INTERVAL + 1):
            server.step()
            server.agree()
        sys.modules[calls] = kept
        lines = [line for line in LINES if "sglang's own policy answers" in line]
        assert len(lines) == 1, LINES  # one a minute
        said = [None] * RANKS
        dist.all_gather_object(said, lines[0].partition(": ")[2])
        say(rank, f"ranks that differ, {trouble}: {halves(server)}; they say {sorted(set(said))}")


def a_map_that_is_planned_before(rank, folder):
    """The first rebalance serves the map of a file; the next ones plan, or with the controller that never plans leave it."""
    path = folder / "planned.json"
    planned = np.tile(np.arange(SLOTS) % EXPERTS, (LAYERS, 1))
    planned[:, [3, SLOTS // RANKS + 3]] = planned[:, [SLOTS // RANKS + 3, 3]]
    if rank == 0:
        path.write_text(json.dumps({"physical_to_logical_map": planned.tolist()}))
    dist.barrier()
    for text in ("", "none"):
        set_up(EPLB_GAP_MAP=str(path), EPLB_GAP_CONTROLLER=text)
        server, served = Server(rank), []
        for _ in range(3 * INTERVAL + 1):
            server.step()
            served.append((server.map[1:] == planned[1:]).all())
        server.agree()
        no_trouble()
        assert served[INTERVAL - 1 : 2 * INTERVAL] == [False, *[True] * INTERVAL]
        assert served[-1] == (text == "none")
        say(
            rank,
            f"a planned map, controller {text!r}: served in passes {[number + 1 for number, one in enumerate(served) if one]}",
        )


def layers_in_chunks(rank, folder):
    """A layer is exchanged in each pass; the rest of the old map serves until then."""
    set_up()
    server, changes = Server(rank, eplb_rebalance_layers_per_chunk=1), []
    for _ in range(INTERVAL + LAYERS + 3):
        before = server.map.copy()
        server.step()
        changes.append(np.flatnonzero((server.map != before).any(axis=1)).tolist())
    server.agree()
    no_trouble()
    assert [layers for layers in changes if layers] == [[layer] for layer in range(LAYERS) if layer != DENSE]
    say(rank, f"layers in chunks of one: layers {changes} change in passes 1 to {len(changes)}")


def controller(rank, folder):
    """Its past is what was served, pass by pass and in order; a rebalance hands the passes over that came since the last."""
    for size in (INTERVAL, 4, -1):
        set_up(EPLB_GAP_CONTROLLER="budgeted:interval=6,window=9,moves=0.125")
        server, moves, steps = Server(rank, expert_distribution_recorder_buffer_size=size), [], []
        for _ in range(4 * INTERVAL + 2):
            before = server.map.copy()
            server.step()
            hosting = hosted.MODELS.get((LAYERS, EXPERTS))
            if hosting is not None and hosting.steps != sum(steps):
                steps.append(hosting.steps - sum(steps))
                seen = np.stack(hosting.past)[-steps[-1] :]
                assert (seen == np.stack(server.counts[-steps[-1] :])).all(), (size, len(server.counts))
                moves.append(int(moved(Placement(server.map, EXPERTS), Placement(before, EXPERTS), HIERARCHICAL).sum()))
                if len(steps) == 2:
                    sglang.register()  # a second time: nothing is put around the plug-in, nothing is forgotten
        server.agree()
        no_trouble()
        assert steps == {INTERVAL: [6] * 4, 4: [4] * 4, -1: [7, 6, 6, 6]}[size], steps
        assert sum(moves[1:]) > 0
        assert max(moves[1:]) <= 0.125 * SLOTS * LAYERS < moves[0], moves  # trivial, the first one is not hierarchical
        say(rank, f"controller, recorder buffer of {size}: rebalances saw {steps} passes, in order, and moved {moves} replicas")


def a_rank_is_lost_and_comes_back(rank, folder):
    from sglang.srt.elastic_ep.elastic_ep import ElasticEPStateManager, maybe_rebalance_after_rank_fault
    from sglang.srt.eplb.expert_location import broadcast_global_expert_location_metadata

    lost = 2
    for algorithm in ("elasticity_aware", "elasticity_aware_hierarchical"):
        for text in ("", "budgeted:interval=6,window=9,moves=0.3"):
            set_up(EPLB_GAP_CONTROLLER=text)
            server = Server(
                rank, elastic_ep_backend="mooncake", eplb_algorithm=algorithm, ep_num_redundant_experts=SLOTS - EXPERTS
            )
            state = ElasticEPStateManager.instance()
            assert len(state.active_ranks) == RANKS + 2
            for _ in range(INTERVAL + 3):
                server.step()
            active = [index != lost for index in range(RANKS)]
            state.active_ranks[lost] = 0
            updater = server.updater
            if rank == lost:
                server.updater = Ghost()
            assert maybe_rebalance_after_rank_fault(eplb_manager=server.manager)
            if rank != lost:
                server.check()
            left = Deployment(EXPERTS, slots_per_gpu=[SLOTS // RANKS] * RANKS, active=active)
            table = server.map[1:]  # the dense layer keeps its map
            assert (table.reshape(LAYERS - 1, RANKS, -1)[:, lost] == 0).all()
            check(
                Placement(np.delete(table.reshape(LAYERS - 1, RANKS, -1), lost, axis=1).reshape(LAYERS - 1, -1), EXPERTS),
                left.live,
            )
            listed = world.RESOURCES.expert_location_metadata.logical_to_all_physical_map[1:]
            dead = torch.arange(SLOTS).reshape(RANKS, -1)[lost]
            assert not torch.isin(listed, dead).any()
            since = len(server.balances)
            for _ in range(INTERVAL + 1):
                server.step(active)
                assert not server.gpus[:, lost].any()
            lone = np.mean(server.balances[since:]) * RANKS / (RANKS - 1)
            # It comes back as SGLang lets it: with the map of the others, and weights from disk.
            server.updater = updater
            server.manager.reset_generator()
            broadcast_global_expert_location_metadata(world.CONFIG, rank)
            state.reset()
            if rank == lost:  # a new process: it has recorded nothing, begins at its first row, and remembers no call
                buffer = attrgetter("_accumulator._global_physical_count_of_buffered_step")(server.recorder)
                buffer.reset()
                vars(buffer)["_curr_index"] = 0
                hosted.MODELS.clear()
                server.reload()
            since = len(server.balances)
            for _ in range(2 * INTERVAL + 2):
                server.step()
            server.agree()
            no_trouble()
            whole = np.mean(server.balances[since + INTERVAL + 1 :])
            reloads = [None] * RANKS
            dist.all_gather_object(reloads, server.reloads)
            say(
                rank,
                f"{algorithm}, {text or 'fast'}: rank {lost} of {RANKS} lost, the others balanced to {lone:.4f}, "
                f"reloads from disk {reloads}; back again {whole:.4f}",
            )


def recorder_modes(rank, folder):
    """Every mode of the recorder writes a dump; what was routed is kept beside it for the reader."""
    for mode in ("stat", "stat_approx", "per_pass", "per_token"):
        set_up(EPLB_GAP_METHOD="host")
        world.ENVIRONMENT["SGLANG_EXPERT_DISTRIBUTION_RECORDER_DIR"] = str(folder / mode)
        deepep = {"moe_a2a_backend": "deepep", "deepep_mode": "normal"} if mode == "stat_approx" else {}
        server = Server(rank, expert_distribution_recorder_mode=mode, **deepep)
        if not server.recorder.recording:  # EPLB records from the start
            server.recorder.start_record()
        for _ in range(4):
            server.step()
        server.recorder.stop_record()
        server.recorder.dump_record()
        dist.barrier()
        if rank == 0:
            np.save(folder / mode / "routed.npy", np.stack(server.counts))
            say(rank, f"recorder {mode}: {sorted(path.name.split('_')[-1] for path in (folder / mode).glob('*.pt'))}")


def recorded_by_the_plug_in(rank, folder):
    """The plug-in records what it sees, with SGLang's own algorithm at work."""
    set_up(EPLB_GAP_METHOD="host", EPLB_GAP_RECORD=str(folder / "calls"))
    server = Server(rank)
    for _ in range(3 * INTERVAL + 1):
        server.step()
    if rank == 0:
        assert flush(20)
        np.save(folder / "calls.npy", np.stack(server.counts[1:]))
        np.save(folder / "map.npy", server.map)
        say(rank, "recorded by the plug-in:", sorted(path.name for path in (folder / "calls").rglob("*") if path.is_file()))


SCENES = [
    every_way_of_planning,
    ranks_that_differ,
    a_map_that_is_planned_before,
    layers_in_chunks,
    controller,
    a_rank_is_lost_and_comes_back,
    recorder_modes,
    recorded_by_the_plug_in,
]


def run(rank, port, root, folder):
    os.environ["RANK"] = str(rank)
    logging.getLogger("eplb_gap").addHandler(Kept())
    logging.getLogger("eplb_gap").setLevel(logging.INFO)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    world.enter(root)
    for scene in SCENES:
        scene(rank, folder)
        dist.barrier()


if __name__ == "__main__":
    follow_parent()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    ranks = torch.multiprocessing.get_context("fork")
    started = [ranks.Process(target=run, args=(rank, number, Path(sys.argv[1]), Path(sys.argv[2]))) for rank in range(RANKS)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    sys.exit(any(process.exitcode for process in started))
