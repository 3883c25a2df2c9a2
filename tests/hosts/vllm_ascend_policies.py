"""vLLM-Ascend's own policies and ours, each through the host's worker over windows of drifting loads; and its configuration.

``python vllm_ascend_policies.py PACKAGE`` prints a line of JSON for each policy: the mean over layers of largest over mean device
load before and after every plan, as the host's worker reckons it, and how many experts were to be received. The last line is the
defaults of ``eplb_config``, and what the host says of other keys and values.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from eplb_gap.experiments.hosts.shells import shell

PACKAGE = Path(sys.argv[1])
LAYERS, RANKS, EXPERTS, SLOTS, WINDOWS, STEPS = 6, 16, 128, 9, 6, 4


def loads() -> np.ndarray:
    """Return synthetic loads that drift, int64 [windows, steps, layers, experts]."""
    generator = np.random.default_rng(11)
    level, found = generator.normal(0.0, 1.0, (LAYERS, EXPERTS)), []
    for _ in range(WINDOWS * STEPS):
        level = 0.9 * level + generator.normal(0.0, 0.35, level.shape)
        found.append(generator.poisson(400 * np.exp(level)))
    return np.stack(found).reshape(WINDOWS, STEPS, LAYERS, EXPERTS).astype(np.int64)


def plan(policy_type: int, ours: bool) -> dict[str, object]:
    """Run the host's worker over all windows."""
    from vllm_ascend.eplb.core.eplb_utils import generate_global_placement
    from vllm_ascend.eplb.core.eplb_worker import EplbWorker

    from eplb_gap.heuristics.plugins.vllm_ascend import Policy

    table = generate_global_placement(EXPERTS, RANKS, RANKS * SLOTS - EXPERTS, 0).long().repeat(LAYERS, 1, 1)
    shared: dict[str, torch.Tensor] = {}
    worker = EplbWorker(shared, policy_type)
    if ours:
        worker.policy = Policy(worker.policy)
    shared["expert_maps"] = worker.local2global(table)
    before, after, received, seconds = [], [], 0, 0.0
    for window in loads():
        table = worker.global2local(shared["expert_maps"], SLOTS)
        counts = torch.stack([torch.bincount(row, minlength=EXPERTS) for row in table.flatten(1)])
        share = torch.from_numpy(window) // counts  # what a replica serves; the rest of the division is nobody's
        served = share.gather(2, table.flatten(1).expand(STEPS, -1, -1)).reshape(STEPS, *table.shape)
        shared["moe_load"] = served if policy_type == 3 else served.sum(dim=0)
        began = time.perf_counter()
        packed = worker.do_update()
        seconds += time.perf_counter() - began
        before.append(worker.latest_expert_hotness["current_mean"])
        after.append(worker.latest_expert_hotness["update_mean"])
        new = worker.global2local(shared["expert_maps"], SLOTS)
        received += sum(
            int((~torch.isin(new[layer][rank], table[layer][rank])).sum()) for layer, rank in np.ndindex(LAYERS, RANKS)
        )
        assert len(packed) == LAYERS
    return {"before": before, "after": after, "received": received, "seconds": seconds}


def main() -> None:
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stdout)
    torch.npu = SimpleNamespace(device_count=lambda: 8)
    shell(
        PACKAGE,
        ["vllm_ascend.eplb.*", "vllm_ascend.ascend_config"],
        ["vllm", "vllm_ascend", "torch_npu"],
        {
            "vllm.logger": {"logger": logging.getLogger("vllm")},
            "vllm.distributed": {"get_ep_group": lambda: SimpleNamespace(rank_in_group=0)},
        },
    )
    from eplb_gap.heuristics.plugins import CONTROLLER
    from eplb_gap.heuristics.plugins.settings import forget

    for name, policy_type, ours, controller in (
        ("1 default", 1, False, ""),
        ("2 SwiftBalance", 2, False, ""),
        ("3 FlashLB", 3, False, ""),
        ("eplb-gap for 2", 2, True, ""),
        ("eplb-gap for 3", 3, True, ""),
        ("eplb-gap for 3, " + (budget := f"budgeted:interval={STEPS},window={STEPS},moves=0.25"), 3, True, budget),
    ):
        os.environ[CONTROLLER] = controller
        forget()
        print(json.dumps({"policy": name, **plan(policy_type, ours)}), flush=True)
    from vllm_ascend.ascend_config import EplbConfig

    refused = {}
    for key, value in (("no_such_key", 1), ("eplb_policy_type", 4), ("expert_map_path", "map.txt"), ("dynamic_eplb", True)):
        try:
            EplbConfig({key: value})
        except Exception as error:
            refused[key] = f"{type(error).__name__}: {error}"
    print(json.dumps({"defaults": EplbConfig().config, "refused": refused}))


if __name__ == "__main__":
    main()
