"""What a full re-plan reaches and the fewest moves that it can take, before the costly search for its best names; compiled."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry


@entry
def judge_full_plan(
    loads: np.ndarray, in_use: np.ndarray, planned: np.ndarray, begin: np.ndarray, makespans: np.ndarray, moves: np.ndarray
) -> None:
    """Write the makespan of every layer of a plan and a lower bound on its moves, however its GPUs are renamed.

    Parameters
    ----------
    loads : ndarray
        float64 [layers, experts].
    in_use, planned : ndarray
        int64 [layers, slots].
    begin : ndarray
        First slot of every GPU and, last, the number of slots, int64 [gpus + 1].
    makespans : ndarray
        float64 [layers]; overwritten.
    moves : ndarray
        int64 [layers]; overwritten: the slots less the most that every GPU can keep of its own.
    """
    layers, experts = loads.shape
    slots, gpus = planned.shape[1], begin.size - 1
    counts, first, after = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(slots, np.int64)
    home, shared = np.empty(slots, np.int64), np.empty(gpus, np.int64)
    for gpu in range(gpus):
        for slot in range(begin[gpu], begin[gpu + 1]):
            home[slot] = gpu
    for layer in range(layers):
        for e in range(experts):
            counts[e], first[e] = 0, -1
        for slot in range(slots):
            e = planned[layer, slot]
            counts[e] += 1
            after[slot] = first[e]
            first[e] = slot
        makespans[layer] = 0.0
        moves[layer] = slots
        for gpu in range(gpus):
            total, most = 0.0, 0
            for other in range(gpus):
                shared[other] = 0
            for slot in range(begin[gpu], begin[gpu + 1]):
                e = planned[layer, slot]
                total += loads[layer, e] / counts[e]
                e = in_use[layer, slot]
                at = first[e]
                for _ in range(counts[e]):
                    shared[home[at]] += 1
                    most = max(most, shared[home[at]])
                    at = after[at]
            makespans[layer] = max(makespans[layer], total)
            moves[layer] -= min(most, begin[gpu + 1] - begin[gpu])
        moves[layer] = max(moves[layer], 0)
