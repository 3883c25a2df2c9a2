"""The two tables of DeepSeek's interface that follow from a map, compiled: with numpy they take a third of the planner's time."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.tiers import tiered
from eplb_gap.problem.placement import Placement


def log2phy_and_counts(placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    """Return what :meth:`Placement.log2phy` and :meth:`Placement.counts` do."""
    slots, ranks = (np.require(table, np.int64, ("C", "W")) for table in (placement.phy2log, placement.ranks))
    counts = np.zeros((len(slots), placement.num_experts), np.int64)
    width = _count(slots, ranks, counts)
    if width < 0:
        return placement.log2phy(), placement.counts()
    table = np.empty((*counts.shape, width), np.int64)
    _fill(slots, ranks, table)
    return table, counts


@tiered("(i8[:, ::1], i8[:, ::1], i8[:, ::1])")
def _count(slots: np.ndarray, ranks: np.ndarray, counts: np.ndarray) -> int:
    """Count the replicas of every expert, all 0 at first; return the largest count, -1 if ranks or experts are out of range."""
    largest = highest = 0
    for layer in range(slots.shape[0]):
        for slot in range(slots.shape[1]):
            expert = slots[layer, slot]
            if expert < 0 or expert >= counts.shape[1]:
                return -1
            if ranks[layer, slot] >= 0:
                counts[layer, expert] += 1
                largest = max(largest, counts[layer, expert])
                highest = max(highest, ranks[layer, slot] + 1)
    return largest if largest == highest else -1


@tiered("(i8[:, ::1], i8[:, ::1], i8[:, :, ::1])")
def _fill(slots: np.ndarray, ranks: np.ndarray, table: np.ndarray) -> None:
    """Write the slots of every expert by replica rank, -1 behind the last."""
    for layer in range(slots.shape[0]):
        for expert in range(table.shape[1]):
            for rank in range(table.shape[2]):
                table[layer, expert, rank] = -1
        for slot in range(slots.shape[1]):
            if ranks[layer, slot] >= 0:
                table[layer, slots[layer, slot], ranks[layer, slot]] = slot
