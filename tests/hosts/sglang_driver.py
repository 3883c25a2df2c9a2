"""Drives SGLang's own EPLB modules with the plug-in in them, without ranks.

Run in a process of its own: ``sglang_driver.py PACKAGE STEP FOLDER``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import sglang_world as world
import torch

from eplb_gap.heuristics.plugins import sglang as plugin
from eplb_gap.problem import Deployment, Placement, verify
from eplb_gap.problem.dead_ranks import live_slots, with_dead
from eplb_gap.problem.metrics import balancedness_gpu

LINES = []


def say(*words):
    print(*words, flush=True)


class Kept(logging.Handler):
    def emit(self, record):
        LINES.append(record.getMessage())


def skewed(steps, layers, experts, seed=0):
    heat = np.exp(1.2 * np.random.default_rng(seed).normal(size=(layers, experts)))
    loads = np.random.default_rng(seed + 1).poisson(300 * heat, (steps, layers, experts))
    loads[:, 0] = 0  # a dense layer
    return loads


def judged(triple, loads, deployment):
    """Return the balancedness of an answer whose tensors agree and are legal; raise otherwise."""
    phy2log, log2phy, logcnt = (tensor.numpy() for tensor in triple)
    found = with_dead(Placement(phy2log[:, live_slots(deployment)], loads.shape[-1]), deployment)
    assert (phy2log == found.phy2log).all()
    listed = found.log2phy()
    slots = np.sort(log2phy, axis=2)
    assert (slots[:, :, -listed.shape[2] :] == np.sort(listed, axis=2)).all()
    assert (slots[:, :, : -listed.shape[2]] == -1).all()
    assert (logcnt == found.counts()).all()
    verify(found, loads, deployment)
    return balancedness_gpu(found, loads, deployment)


def dispatch():
    """All algorithms, on one node and on two, with groups, with groups that do not divide, and without."""
    world.serve()
    from sglang.srt.eplb import eplb_algorithms

    theirs = eplb_algorithms.rebalance_experts
    plugin.register()
    assert eplb_algorithms.rebalance_experts.own is theirs
    state = SimpleNamespace(active_ranks=None)
    world.set_elastic_state(state)
    loads = skewed(5, 4, 32)
    total = loads.sum(axis=0)
    for lost in (None, 5):
        state.active_ranks = torch.tensor([rank != lost for rank in range(8)], dtype=torch.int32)
        for algorithm in eplb_algorithms.EplbAlgorithm:
            for groups in (4, 3, None):
                given = {
                    "tokens_per_expert": torch.tensor(loads, dtype=torch.int32),
                    "num_physical_experts": 48,
                    "num_local_physical_experts": 6,
                    "num_groups": groups,
                    "num_nodes": 2,
                    "algorithm": algorithm,
                }
                dead = lost is not None and "elastic" in algorithm.name
                if lost is not None and not dead:
                    continue
                hierarchical = "hierarchical" in algorithm.name and groups == 4 and not dead
                deployment = Deployment(32, 48, 8, num_nodes=2, num_groups=4) if hierarchical else Deployment(32, 48, 8)
                if dead:
                    deployment = Deployment(32, slots_per_gpu=[6] * 8, active=[rank != lost for rank in range(8)])
                ours = judged(eplb_algorithms.rebalance_experts(**given), total, deployment)
                try:
                    own = judged(theirs(**given), total, deployment)
                except Exception as error:
                    own = f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
                assert isinstance(own, str) or ours >= own - 1e-9, (algorithm, groups, ours, own)
                shown = own if isinstance(own, str) else f"{own:.4f}"
                say(f"dispatch {algorithm.name}, groups {groups}, lost rank {lost}: ours {ours:.4f}, theirs {shown}")
    assert not [line for line in LINES if "answers" in line], LINES


def maps(folder):
    """Maps that this project writes, and loads, as ``--init-expert-location``: by the released readers, through the plug-in."""
    from sglang.srt.eplb import expert_location

    plugin.register()
    deployment = Deployment(16, 24, 4, num_nodes=2, num_groups=4)
    table = Placement(np.load(folder / "map.npy"), 16)
    layers = table.num_layers
    loads = skewed(3, layers, 16)
    for path in (folder / "location.json", folder / "location.pt"):
        for backend in ("none", "deepep"):
            world.serve(layers=layers, init_expert_location=str(path), moe_a2a_backend=backend)
            found = expert_location.compute_initial_expert_location_metadata(world.CONFIG, 0)
            assert (found.physical_to_logical_map.numpy() == table.phy2log).all()
            assert found.logical_to_all_physical_map.shape == (layers, 16, 24)
            if backend == "none":
                assert (found.logical_to_all_physical_map_num_valid.numpy() == table.counts()).all()
        say(f"init_by_mapping {path.name}: {found.num_layers} layers, {found.num_physical_experts} slots, as they were written")
    text = json.dumps({"logical_count": loads.tolist()})
    (folder / "count.json").write_text(text)
    torch.save({"logical_count": torch.from_numpy(loads)}, folder / "count.pt")
    given = {"inline JSON": text, "count.json": str(folder / "count.json"), "count.pt": str(folder / "count.pt")}
    for name, data in given.items():
        for algorithm in ("auto", "deepseek", "deepseek_vec"):
            world.serve(layers=layers, init_expert_location=data, eplb_algorithm=algorithm)
            found = expert_location.compute_initial_expert_location_metadata(world.CONFIG, 0)
            judge = deployment if algorithm == "auto" else deployment.as_global()
            valid = found.logical_to_all_physical_map_num_valid
            share = judged((found.physical_to_logical_map, found.logical_to_all_physical_map, valid), loads.sum(axis=0), judge)
            say(f"init_by_eplb {name}, {algorithm}: balancedness {share:.4f}")
    assert not [line for line in LINES if "answers" in line], LINES


if __name__ == "__main__":
    logging.getLogger("eplb_gap").addHandler(Kept())
    logging.getLogger("eplb_gap").setLevel(logging.INFO)
    world.enter(Path(sys.argv[1]))
    {"dispatch": dispatch, "maps": maps}[sys.argv[2]](*map(Path, sys.argv[3:]))
    for line, times in Counter(LINES).items():
        say(f"log: {line}" + (f" ({times} times)" if times > 1 else ""))
