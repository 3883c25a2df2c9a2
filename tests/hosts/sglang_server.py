"""One rank of a server of SGLang's own EPLB modules: passes are recorded, maps change, weights are exchanged.

Routing is made up, each rank has tokens of its own, an expert's weights are its number, and after every pass every slot must hold
the weights that the map says.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import sglang_world as world
import torch
import torch.distributed as dist

RANKS, LAYERS, EXPERTS, SLOTS, TOKENS = 4, 4, 16, 24, 64
DENSE = 0
INTERVAL = 6
LINES = []


class Kept(logging.Handler):
    def emit(self, record):
        LINES.append(record.getMessage())


class Ghost:
    """The updater of a rank that is lost: it takes part in what the others wait for, and exchanges nothing."""

    def update(self, weights, new, update_layer_ids, **rest):
        from sglang.srt.eplb.expert_location import get_global_expert_location_metadata

        get_global_expert_location_metadata().update(new, update_layer_ids)
        return {}


class Server:
    """One rank, as its model runner drives it."""

    def __init__(self, rank, **moe):
        from sglang.srt.eplb import expert_distribution, expert_location
        from sglang.srt.eplb.eplb_manager import EPLBManager
        from sglang.srt.eplb.expert_location_updater import ExpertLocationUpdater

        world.serve(EXPERTS, LAYERS, ranks=RANKS, rank=rank, **moe)
        self.rank, self.passes, self.reloads = rank, 0, 0
        metadata = expert_location.compute_initial_expert_location_metadata(world.CONFIG, rank)
        expert_location.set_global_expert_location_metadata(metadata)
        self.recorder = expert_distribution.ExpertDistributionRecorder.init_new(metadata, rank)
        expert_distribution.set_global_expert_distribution_recorder(self.recorder)
        self.updater = ExpertLocationUpdater()
        self.weights = {layer: [torch.zeros(SLOTS // RANKS, 3)] for layer in range(LAYERS) if layer != DENSE}
        self.reload()
        self.counts, self.balances = [], []
        self.manager = None
        if world.MOE.expert_distribution_recorder_mode == "stat":
            self.manager = EPLBManager(
                model_config=world.CONFIG,
                get_model=lambda: SimpleNamespace(routed_experts_weights_of_layer=self.weights),
                get_expert_location_updater=lambda: self.updater,
                get_expert_backup_client=lambda: None,
                get_weight_updater=lambda: SimpleNamespace(update_weights_from_disk=self.reload),
            )

    @property
    def map(self):
        return world.RESOURCES.expert_location_metadata.physical_to_logical_map.numpy()

    def reload(self, *given, **named):
        """Read all weights of this rank from disk."""
        self.reloads += bool(given)
        for layer, (tensor,) in self.weights.items():
            tensor[:] = torch.from_numpy(self.map[layer].reshape(RANKS, -1)[self.rank].astype(np.float32))[:, None]

    def route(self, active, phase=0):
        """Return physical experts of this rank's tokens, int64 [layers, tokens, 8]; none if it is lost."""
        rng = np.random.default_rng([self.passes, self.rank])
        heat = np.exp(1.3 * np.random.default_rng(phase).normal(size=(LAYERS, EXPERTS)))
        tokens = TOKENS if active[self.rank] else 0
        chosen = np.full((LAYERS, tokens, 8), -1)
        places = world.RESOURCES.expert_location_metadata.logical_to_all_physical_map.numpy()
        valid = world.RESOURCES.expert_location_metadata.logical_to_all_physical_map_num_valid.numpy()
        for layer in self.weights:
            logical = np.array([rng.choice(EXPERTS, 2, replace=False, p=heat[layer] / heat[layer].sum()) for _ in range(tokens)])
            if tokens:
                chosen[layer, :, :2] = places[layer][logical, rng.integers(0, 1 << 30, logical.shape) % valid[layer][logical]]
        return chosen

    def step(self, active=(1,) * RANKS, phase=0):
        """One forward pass."""
        self.passes += 1
        chosen, table = self.route(active, phase), self.map.copy()
        modes = SimpleNamespace(value=1)
        batch = SimpleNamespace(
            input_ids=torch.arange(chosen.shape[1]),
            positions=torch.arange(chosen.shape[1]),
            extend_seq_lens_cpu=[chosen.shape[1]],
            forward_mode=modes,
        )
        counts = np.zeros((LAYERS, SLOTS), dtype=np.int64)
        with self.recorder.with_forward_pass(self.passes, batch):
            for layer in self.weights:
                np.add.at(counts[layer], chosen[layer][chosen[layer] >= 0], 1)
                with self.recorder.with_current_layer(layer):
                    if world.MOE.expert_distribution_recorder_mode != "stat_approx":
                        self.recorder.on_select_experts(topk_ids=torch.from_numpy(chosen[layer]).int())
            if world.MOE.expert_distribution_recorder_mode == "stat_approx":
                total = torch.from_numpy(counts)
                dist.all_reduce(total)
                for layer in self.weights:
                    with self.recorder.with_current_layer(layer):
                        own = total[layer].reshape(RANKS, -1)[self.rank].tolist()
                        self.recorder.on_deepep_dispatch_normal(own, None, None, None)
        total = torch.from_numpy(counts)
        if world.MOE.expert_distribution_recorder_mode != "stat_approx":
            dist.all_reduce(total)
        gpus = total.numpy().reshape(LAYERS, RANKS, -1).sum(axis=2)
        self.balances.append(gpus.mean(axis=1).sum() / gpus.max(axis=1).sum())
        logical = np.zeros((LAYERS, EXPERTS), dtype=np.int64)
        for layer in range(LAYERS):
            np.add.at(logical[layer], table[layer], total[layer].numpy())
        self.counts.append(logical)
        self.gpus = gpus
        if self.manager is not None:
            self.manager.on_forward_pass_end()
            if active[self.rank]:
                self.check()

    def check(self):
        for layer, (tensor,) in self.weights.items():
            own = self.map[layer].reshape(RANKS, -1)[self.rank]
            assert (tensor.numpy() == own[:, None]).all(), (layer, tensor[:, 0].tolist(), own.tolist())

    def agree(self):
        """Check that all ranks have the same map."""
        maps = [None] * RANKS
        dist.all_gather_object(maps, self.map.tolist())
        assert all(one == maps[0] for one in maps)
