"""A vLLM-Ascend server without a model: its real EPLB modules, weights that name their expert, gloo in place of HCCL.

``python vllm_ascend_server.py PACKAGE FOLDER RANKS MAP``: PACKAGE is the unpacked release, FOLDER an empty one, MAP what the host
calls ``expert_map_path`` or "". Every rank is a process, started by this script with its number as a fifth argument, and has the
process beside it in which the host runs its policy. What is done is what the host's model runner does. In every forward pass each
token goes where its rank's own table says, and the weights that it meets must be its expert's. Rank 0 prints a line of JSON for
each phase of the traffic. In the environment ``POLICY`` is the host's type of policy, ``START`` the way in which its process is
started, ``ODD`` a setting of rank 1 alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
import torch.distributed as dist
from ending import follow_parent

from eplb_gap.experiments.hosts.shells import shell

PACKAGE, FOLDER, RANKS, MAP = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
RANK = int(sys.argv[5]) if len(sys.argv) > 5 else None
LAYERS, EXPERTS, REDUNDANT = 3, 12, 4
COLLECTED, PLANNED = 5, 3
"""Forward passes in which loads are collected, and those after them in which the policy has time to plan."""
POLICY = int(os.environ.get("POLICY", "2"))
PHASES = ("first plan", "same loads", "one layer only", "all layers")


def traffic() -> list[np.ndarray]:
    """Return the tokens of every expert in a forward pass of each phase, int64 [layers, experts]."""
    hot = np.random.default_rng(3).zipf(1.6, (2, LAYERS, EXPERTS)).clip(max=40) * 60
    other = hot[0].copy()
    other[1] = other[1][::-1] * 2
    return [hot[0], hot[0], other, hot[1]]


class Group:
    """What the host asks of its groups of ranks."""

    world_size, rank_in_group, ranks = RANKS, RANK, tuple(range(RANKS))
    device_group: ClassVar = None
    cpu_group: ClassVar = None

    def all_gather(self, tensor: torch.Tensor, dim: int) -> torch.Tensor:
        parts = [torch.empty_like(tensor) for _ in range(RANKS)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts, dim)


def stand_in() -> None:
    """Let this process, and one that it spawns, import the host."""
    logging.basicConfig(
        format=f"rank {RANK} %(processName)s %(name)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stdout
    )
    torch.npu = SimpleNamespace(device_count=lambda: RANKS)
    torch.Tensor.npu = lambda tensor: tensor
    shell(
        PACKAGE,
        ["vllm_ascend.eplb.*", "vllm_ascend.ascend_config", "vllm_ascend.quantization.quant_type"],
        ["vllm", "vllm_ascend", "torch_npu"],
        {
            "vllm.logger": {"logger": logging.getLogger("vllm")},
            "vllm.distributed": {"get_ep_group": Group},
            "vllm.distributed.parallel_state": {"get_pp_group": Group},
            "vllm.v1.utils": {"record_function_or_nullcontext": contextlib.nullcontext},
            "vllm_ascend.distributed.parallel_state": {"get_dynamic_eplb_group": Group},
        },
    )


class Layer:
    """A layer of experts as the host's adaptor sees it; an expert's weights are its number."""

    quant_type, ep_rank = None, RANK

    def __init__(self, index: int, config: object) -> None:
        from vllm_ascend.eplb.core.eplb_utils import init_eplb_config

        moe = SimpleNamespace(num_experts=EXPERTS, ep_size=RANKS, ep_rank=RANK)
        self.global_expert_map, own, self.log2phy, redundant = init_eplb_config(config, index, moe, tp_size=1)
        self.local_num_experts = (EXPERTS + redundant) // RANKS
        slots = torch.zeros(self.local_num_experts, dtype=torch.int64)
        slots[own[own >= 0].long()] = torch.nonzero(own >= 0).ravel()
        number = (slots + 100 * index).to(torch.float32)
        self.w13_weight = number[:, None, None].repeat(1, 4, 2).contiguous()
        self.w2_weight = -number[:, None, None].repeat(1, 2, 2).contiguous()
        # Type 3 looks at every forward pass, the others at their sum.
        shape = (COLLECTED, self.local_num_experts) if POLICY == 3 else (self.local_num_experts,)
        self.moe_load, self.passes = torch.zeros(shape, dtype=torch.int64), 0

    def serve(self, load: torch.Tensor) -> None:
        if POLICY == 3:
            self.moe_load[self.passes % COLLECTED] += load
        else:
            self.moe_load += load
        self.passes += 1

    def get_log2phy_map(self) -> torch.Tensor:
        return self.log2phy

    def clear_moe_load(self) -> None:
        self.moe_load.zero_()


class Server:
    """What the host's model runner does about EPLB, and the tokens."""

    def __init__(self) -> None:
        import vllm_ascend.ascend_config as settings

        asked = {"dynamic_eplb": True, "num_redundant_experts": REDUNDANT, "expert_map_path": MAP or None}
        asked["eplb_policy_type"] = POLICY
        intervals = {"expert_heat_collection_interval": COLLECTED, "algorithm_execution_interval": PLANNED}
        config = settings.EplbConfig(asked | intervals)
        settings.get_ascend_config = lambda: SimpleNamespace(enable_fused_mc2=0, eplb_config=config)
        from vllm_ascend.eplb.adaptor.vllm_adaptor import VllmEplbAdaptor
        from vllm_ascend.eplb.core.eplb_device_transfer_loader import D2DExpertWeightLoader
        from vllm_ascend.eplb.core.eplb_worker import EplbProcess
        from vllm_ascend.eplb.eplb_updator import EplbUpdator

        loader = D2DExpertWeightLoader()
        self.manager = multiprocessing.Manager()
        shared = self.manager.dict({"expert_map": None, "moe_load": None, "expert_maps": None})
        process = EplbProcess(shared_dict=shared, policy_type=config.eplb_policy_type, enable_d2d=True, tp_size=1)
        self.updator = EplbUpdator(config, loader, process, process._launch_process())  # noqa: SLF001
        self.layers = [Layer(index, config) for index in range(LAYERS)]
        for layer in self.layers:
            VllmEplbAdaptor.register_layer(layer)
        self.adaptor = VllmEplbAdaptor(SimpleNamespace(config=SimpleNamespace(), quant_config=None))
        loader.set_adator(self.adaptor)
        self.updator.set_adaptor(self.adaptor)
        self.updator.warm_up_eplb()

    def table(self) -> torch.Tensor:
        """Return the experts of all slots by what their weights say, int64 [layers, ranks, slots]."""
        own = torch.stack([layer.w13_weight[:, 0, 0].long() - 100 * index for index, layer in enumerate(self.layers)])
        table = Group().all_gather(own[:, None], 1)
        slots = self.updator.shared_dict["expert_maps"].gather(2, table)  # what the host takes to be in use
        assert (slots == torch.arange(table.shape[2])).all(), "the host's table is not that of the weights"
        return table

    def forward(self, counts: np.ndarray) -> tuple[list[float], list[int] | None]:
        """Serve a step; return every layer's balancedness and, once it is known, how many experts it receives in this cycle."""
        self.updator.forward_before()
        received = None
        if self.updator.get_update_info_flag():
            found = torch.tensor([len(entry[1]) for entry in sorted(self.updator.update_info_all, key=lambda entry: entry[-1])])
            dist.all_reduce(found)
            received = found.tolist()
        balance = [self._serve(index, layer, counts[index]) for index, layer in enumerate(self.layers)]
        self.updator.forward_end(True)
        return balance, received

    def _serve(self, index: int, layer: Layer, counts: np.ndarray) -> float:
        tables, slots = Group().all_gather(layer.log2phy[None].long(), 0).numpy(), layer.local_num_experts
        load = np.zeros(RANKS * slots, dtype=np.int64)
        for source, table in enumerate(tables):
            np.add.at(load, table, counts // RANKS + (source < counts % RANKS))
            for expert in np.flatnonzero(table // slots == RANK):
                slot, number = table[expert] % slots, expert + 100 * index
                assert (layer.w13_weight[slot] == number).all(), f"layer {index}: slot {slot} is not expert {expert}"
                assert (layer.w2_weight[slot] == -number).all(), f"layer {index}: slot {slot} is not wholly expert {expert}"
        layer.serve(torch.from_numpy(load.reshape(RANKS, slots)[RANK]))
        gpus = load.reshape(RANKS, slots).sum(axis=1)
        return float(gpus.mean() / gpus.max())


def serve() -> None:
    """Be one rank."""
    if os.environ.get("START"):
        multiprocessing.set_start_method(os.environ["START"])
    if RANK == 1 and os.environ.get("ODD"):
        name, _, value = os.environ["ODD"].partition("=")
        os.environ[name] = value
    dist.init_process_group(
        "gloo", init_method=f"file://{FOLDER}/store", rank=RANK, world_size=RANKS, timeout=timedelta(seconds=120)
    )
    from eplb_gap.heuristics.plugins import vllm_ascend

    vllm_ascend.register()
    server = Server()
    for name, counts in zip(PHASES, traffic(), strict=True):
        before = server.table()
        passes = [server.forward(counts) for _ in range(COLLECTED + PLANNED + LAYERS)]
        after = server.table()
        told = {
            "phase": name,
            "received": next(received for _, received in passes if received is not None),
            "changed": (after != before).flatten(1).sum(dim=1).tolist(),
            "collected": (counts * COLLECTED).tolist(),
            "balance": [float(np.mean(passes[at][0])) for at in (0, -1)],
            "before": before.tolist(),
            "after": after.tolist(),
        }
        if RANK == 0:
            print(json.dumps(told), flush=True)
    server.adaptor._export_tensor_to_file(server.updator.shared_dict["expert_maps"], str(FOLDER / "record.json"))  # noqa: SLF001
    dist.barrier()
    server.updator.shutdown()
    server.manager.shutdown()
    dist.destroy_process_group()


def main() -> int:
    """Start all ranks, and return how many failed."""
    ranks = [subprocess.Popen([sys.executable, *sys.argv, str(rank)]) for rank in range(RANKS)]
    return sum(rank.wait() != 0 for rank in ranks)


follow_parent()
if RANK is not None:
    stand_in()  # also in a process that the host spawns, which imports this file again

if __name__ == "__main__":
    if RANK is None:
        sys.exit(main())
    serve()
