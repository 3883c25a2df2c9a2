"""SGLang's own start of a scheduler process: spawned, its plug-ins loaded by its plug-in framework, from entry points.

Run in a process of its own: ``sglang_spawning.py PACKAGE FOLDER``. The scheduler's module is the released one; the first thing
that it does once its plug-ins are loaded, to publish its configuration, is where this test looks at what it has got.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from pathlib import Path

import sglang_world as world
import torch
from ending import follow_parent

follow_parent()  # also in the process that is spawned, which imports this file again
sys.path.insert(0, sys.argv[2])
if not (Path(sys.argv[2]) / "eplb_gap-0.dist-info").is_dir():
    world.install_entry_points(sys.argv[2])


def published(pipe, role, ranks):
    """Answer what a rebalance of this process would come to, and end it."""
    from sglang.srt.eplb import eplb_algorithms
    from sglang.srt.eplb.expert_location import ExpertLocationMetadata

    world.serve(ranks=4)
    kind = type(eplb_algorithms.rebalance_experts)
    loads = torch.arange(2 * 4 * 16).reshape(2, 4, 16)
    table = ExpertLocationMetadata.init_by_eplb(world.CONFIG, loads).physical_to_logical_map
    pipe.send((role, f"{kind.__module__}.{kind.__qualname__}", table.tolist()))
    raise SystemExit(0)


as_it_is = lambda *given: lambda method: method  # noqa: E731
world.enter(
    Path(sys.argv[1]),
    ["sglang.srt.managers.scheduler"],
    ["zmq", "setproctitle"],
    {
        "sglang.srt.runtime_context": {"publish": published},
        "sglang.srt.utils": {"DynamicGradMode": as_it_is},
        "sglang.srt.observability.scheduler_stage_metrics": {"scheduler_stage_method": as_it_is},
    },
)

if __name__ == "__main__":
    from sglang.srt.managers.scheduler import run_scheduler_process
    from sglang.srt.plugins import load_plugins

    logging.basicConfig(level=logging.INFO)
    load_plugins()
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=run_scheduler_process, args=(writer, None, 0, 0, 0, None, writer))
    process.start()
    writer.close()
    role, kind, table = reader.recv()
    process.join()
    assert process.exitcode == 0
    print(f"spawned {role}: rebalance_experts is {kind}, init_by_eplb answers {len(table)} layers of {len(table[0])} slots")
