"""The best use of a number of moves over all layers: one point of every layer's front, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def divide_moves(moves: Sequence[np.ndarray], costs: Sequence[np.ndarray], total: int) -> list[int]:
    """Choose a point for every layer so that the moves stay within a total and the sum of the costs is least.

    Parameters
    ----------
    moves : sequence of ndarray
        Moves of the points of each layer, int64 [points], ascending; the first is 0.
    costs : sequence of ndarray
        What each point costs, such as its makespan, float64 [points].
    total : int

    Returns
    -------
    list of int
        Index of the chosen point of every layer; of equal ones that of fewest moves.
    """
    total = min(total, sum(int(m[-1]) for m in moves))
    # best[t]: least cost of the layers so far within t moves; one more layer adds the cheapest of its points that fits.
    best = np.zeros(total + 1)
    chosen = np.zeros((len(moves), total + 1), dtype=np.int64)
    for layer, (spent, cost) in enumerate(zip(moves, costs, strict=True)):
        after = best + cost[0]
        for point in range(1, len(spent)):
            used = int(spent[point])
            if used > total:
                break
            value = best[: total + 1 - used] + cost[point]
            better = value < after[used:]
            after[used:][better] = value[better]
            chosen[layer, used:][better] = point
        best = after
    points = []
    for layer in range(len(moves) - 1, -1, -1):
        points.append(int(chosen[layer, total]))
        total -= int(moves[layer][points[-1]])
    return points[::-1]
