"""How long a plan inside a server keeps Python's lock: a thread that wakes every millisecond beside one that plans.

vLLM plans in a thread of the worker whose main thread launches the forward passes. What the planning thread computes between two
wake-ups of the main thread bounds how long it kept the lock from it: as CPU time, less the millisecond that was slept anyway. It
is an upper bound, as compiled kernels let the lock go, and a busy machine may not give the waking thread a core at once.

Run ``python -m eplb_gap.experiments.measuring.lock_held``; 58 layers of 256 experts, 288 slots, 32 GPUs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from eplb_gap.heuristics.plugins import CONTROLLER, SETTINGS, hosted, settings
from eplb_gap.heuristics.plugins.vllm import MapPolicy
from eplb_gap.problem.deployment import Deployment

LAYERS = 58
PLANS = 20
REPEATS = 5
"""The same plans so many times, of which the least counts: what keeps the lock does so in each, a busy machine does not."""
TICK = 1e-3
MOST = 5e-3
"""Seconds that a plan may keep the lock."""
DEPLOYMENTS = {
    "hierarchical": Deployment.preset("dsv3-prefill-ep32"),
    "global": Deployment.preset("dsv3-prefill-ep32").as_global(),
}
CONTROLLERS = ("", "budgeted:interval=1,window=2,moves=0.02", "adaptive:interval=1,moves=0.02")
"""Every call plans."""


def longest_between_ticks(work: Callable[[], None]) -> list[float]:
    """Return the most CPU seconds of work between two ticks beside it, run by run.

    Parameters
    ----------
    work : callable
        Called :data:`PLANS` times, in a thread of its own.
    """
    longest = [0.0] * PLANS
    run = 0

    def all_work() -> None:
        nonlocal run
        for number in range(PLANS):
            run = number
            work()

    thread = threading.Thread(target=all_work)
    thread.start()
    clock = time.pthread_getcpuclockid(thread.ident or 0)
    before = time.clock_gettime(clock)
    while thread.is_alive():
        time.sleep(TICK)
        try:
            now = time.clock_gettime(clock)
        except OSError:  # the thread has ended
            break
        longest[run] = max(longest[run], now - before)
        before = now
    thread.join()
    return longest


def measure(deployment: Deployment, controller: str) -> list[float]:
    """Return for plans of a server, one after the other on drifting loads, the most CPU seconds between two ticks."""
    for name in SETTINGS:
        os.environ.pop(name, None)
    os.environ[CONTROLLER] = controller
    settings.forget()
    hosted.MODELS.clear()
    generator = np.random.default_rng(0)
    heat = generator.gamma(0.5, 1.0, (LAYERS, deployment.num_experts)) + 0.01
    numbers = deployment.num_slots, deployment.num_groups, deployment.num_nodes, deployment.num_gpus
    in_use = torch.arange(deployment.num_slots).remainder(deployment.num_experts).repeat(LAYERS, 1)

    traffic = []
    for _ in range(PLANS + 1):
        heat = heat * np.exp(generator.normal(0, 0.3, heat.shape))
        traffic.append(torch.from_numpy(generator.poisson(1e4 * heat / heat.mean())))

    def plan() -> None:
        nonlocal in_use
        in_use = MapPolicy.rebalance_experts(traffic.pop(), *numbers, in_use)

    plan()
    return longest_between_ticks(plan)


def main() -> int:
    """Print the table; return 1 where a plan may keep the lock for too long."""
    os.environ.setdefault("EPLB_GAP_INTERPRET", "0")
    failed = 0
    print(f"{LAYERS} layers: CPU ms of the planning thread between ticks of {1e3 * TICK:g} ms, the most in each of {PLANS} plans")
    print(f"{'policy':<14}{'controller':<46}{'median':>8}{'largest':>9}")
    for name, deployment in DEPLOYMENTS.items():
        for controller in CONTROLLERS:
            found = np.min([measure(deployment, controller) for _ in range(REPEATS)], axis=0)
            failed |= int(found.max() > MOST + TICK)
            print(
                f"{name:<14}{controller or 'none, method fast':<46}{1e3 * np.median(found):8.2f}{1e3 * found.max():9.2f}",
                flush=True,
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
