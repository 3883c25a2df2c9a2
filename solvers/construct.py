"""First map of an instance: Adams' counts, LPT, exchanges. What every engine starts from."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.kernels.refinement import swap_descent
from eplb_gap.heuristics.planner.uneven import STEPS, plan_layer
from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.bounds.bounds import adams_counts
from eplb_gap.problem.instance import Instance

SMALL = 64
"""Slots up to which exchanges take less time interpreted than compiling them takes."""


def greedy_map(instance: Instance, stop: float = 0.0) -> tuple[int, ...]:
    """Return a legal map: Adams' counts in exact arithmetic, replicas by LPT, then :func:`swap_descent` down to ``stop``.

    On GPUs with unequal slots it is that of :mod:`eplb_gap.heuristics.planner.uneven`.
    """
    if not instance.is_even:
        return _uneven_map(instance)
    counts = adams_counts(instance.loads, instance.num_slots, instance.max_count)
    experts = np.array(_lpt(instance, counts), dtype=np.int64)
    sizes = np.array([instance.loads[e] / counts[e] for e in experts], dtype=np.float64)
    if experts.size > SMALL:
        _exchange.compile()
    _exchange(experts, sizes, instance.num_gpus, instance.duplicates == "forbidden", stop)
    return tuple(experts.tolist())


@tiered("(i8[::1], f8[::1], i8, b1, f8)")
def _exchange(experts: np.ndarray, sizes: np.ndarray, num_gpus: int, distinct: bool, stop: float) -> None:
    swap_descent(experts, sizes, num_gpus, distinct, stop)


def _uneven_map(instance: Instance) -> tuple[int, ...]:
    slots = np.empty(instance.num_slots, dtype=np.int64)
    distinct = max(instance.slots_by_gpu) <= instance.num_experts
    plan_layer(np.array(instance.loads, dtype=np.float64), np.array(instance.starts), distinct, 0.0, STEPS, slots)
    return tuple(slots.tolist())


def _lpt(instance: Instance, counts: list[int]) -> list[int]:
    """Put the replicas, largest first, on the emptiest GPU with room, copies of an expert on distinct GPUs where possible."""
    k = instance.slots_per_gpu
    loads = [0.0] * instance.num_gpus
    held: list[list[int]] = [[] for _ in loads]
    for expert in sorted(range(instance.num_experts), key=lambda e: (-instance.loads[e] / counts[e], e)):
        for _ in range(counts[expert]):
            room = [g for g in range(instance.num_gpus) if len(held[g]) < k]
            fresh = [g for g in room if expert not in held[g]]
            if not fresh and instance.duplicates == "forbidden":
                return _dealt(instance, counts)
            gpu = min(fresh or room, key=loads.__getitem__)
            held[gpu].append(expert)
            loads[gpu] += instance.loads[expert] / counts[expert]
    return [expert for experts in held for expert in experts]


def _dealt(instance: Instance, counts: list[int]) -> list[int]:
    """Deal the replicas, expert after expert, round the GPUs: at most G consecutive copies never meet on one GPU."""
    replicas = [expert for expert, count in enumerate(counts) for _ in range(count)]
    return [replicas[position] for gpu in range(instance.num_gpus) for position in range(gpu, len(replicas), instance.num_gpus)]
