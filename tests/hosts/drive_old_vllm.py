"""A vLLM without policies to replace: its plug-in loader runs, one line is logged, and its own EPLB plans as before."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

from eplb_gap.experiments.hosts.shells import shell


def main(root: Path) -> None:
    lines: list[str] = []
    handler = logging.StreamHandler(sys.stdout)
    handler.emit = lambda record: lines.append(f"{record.levelname}: {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger("eplb_gap").addHandler(handler)
    logging.getLogger("eplb_gap").setLevel(logging.INFO)
    shell(
        root,
        ["vllm.distributed.eplb.*", "vllm.plugins*"],
        ["vllm"],
        {"vllm.envs": {"VLLM_PLUGINS": ["eplb_gap"]}, "vllm.logger": {"init_logger": logging.getLogger}},
    )
    sys.path.append(str(root))  # its metadata, which say its version
    from vllm.distributed.eplb.rebalance_algo import rebalance_experts
    from vllm.plugins import load_general_plugins

    before = rebalance_experts
    load_general_plugins()
    load_general_plugins()
    from vllm.distributed.eplb import rebalance_algo

    assert rebalance_algo.rebalance_experts is before
    found = rebalance_algo.rebalance_experts(torch.arange(1, 33).reshape(2, 16), 24, 1, 1, 4)
    assert found[0].shape == (2, 24)
    [line] = lines
    print(f"  {line}")
    print("  vllm's own EPLB plans as before")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
