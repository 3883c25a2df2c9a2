"""The best use of a number of moves over all layers: one point of every layer's front, exactly; compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel
from eplb_gap.heuristics.moves.relabel import ROUNDING


class Fronts(NamedTuple):
    """What every number of moves leads to in every layer; only points that are better than those of fewer moves.

    Parameters
    ----------
    moves : ndarray
        Of the points of each layer, ascending; int64 [layers, points], defined for the points that there are.
    costs : ndarray
        What each point costs, such as its makespan, descending; float64 [layers, points].
    sizes : ndarray
        Number of points, int64 [layers].
    """

    moves: np.ndarray
    costs: np.ndarray
    sizes: np.ndarray


def fronts_of(makespans: np.ndarray, units: np.ndarray, threshold: float, cost_per_move: float = 0.0) -> Fronts:
    """Return the fronts of all layers.

    Parameters
    ----------
    makespans : ndarray
        By number of moves, infinite where nothing was found; float64 [layers, moves].
    units : ndarray
        What a makespan of one costs, float64 [layers].
    threshold : float
        Points that gain less than this part of the first makespan are left out.
    cost_per_move : float, default 0.0
        What a move adds to a point's cost.
    """
    fronts = Fronts(np.empty(makespans.shape, np.int64), np.empty(makespans.shape), np.empty(len(makespans), np.int64))
    _find_points(makespans, units, threshold, cost_per_move, *fronts)
    return fronts


@entry
def _find_points(
    makespans: np.ndarray, units: np.ndarray, threshold: float, cost_per_move: float, moves: np.ndarray, costs: np.ndarray,
    sizes: np.ndarray,
) -> None:  # fmt: skip
    for layer in range(makespans.shape[0]):
        size, best, first, least = 0, np.inf, 0.0, np.inf
        for number in range(makespans.shape[1]):
            value = makespans[layer, number]
            if value == np.inf or (size > 0 and not value < best * (1.0 - ROUNDING)):
                continue
            best = value
            if size == 0:
                first = value
            elif not first - value >= first * (threshold - ROUNDING):
                continue
            cost = value * units[layer] + cost_per_move * number
            if size > 0 and cost_per_move > 0.0 and not cost < least:
                continue
            least = cost
            moves[layer, size], costs[layer, size] = number, cost
            size += 1
        sizes[layer] = size


def divide_moves(fronts: Fronts, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose a point for every layer so that the moves stay within a total and the sum of the costs is least.

    Parameters
    ----------
    fronts : Fronts
        The moves of the first points are not counted: no map has fewer.
    total : int

    Returns
    -------
    points : ndarray
        Index of the chosen point of every layer, int64 [layers]; of equal ones that of fewest moves.
    least : ndarray
        The least sum of the costs within every number of moves from 0 on, float64; up to the total, or up to the moves of all
        last points, with which nothing is left to gain.
    """
    moves, costs, sizes = fronts
    rows = np.arange(len(sizes))
    total = min(total, int((moves[rows, sizes - 1] - moves[:, 0]).sum()))
    points, least = np.empty(len(sizes), np.int64), np.zeros(total + 1)
    _divide(moves, costs, sizes, np.zeros((len(sizes), total + 1), np.int32), points, least)
    return points, least


@entry
def _divide(
    moves: np.ndarray, costs: np.ndarray, sizes: np.ndarray, chosen: np.ndarray, points: np.ndarray, least: np.ndarray
) -> None:
    # least[t] of the layers so far; one more layer adds the cheapest of its points that fits.
    layers, end = chosen.shape
    before = np.empty(end)
    for layer in range(layers):
        for t in range(end):
            before[t] = least[t]
            least[t] += costs[layer, 0]
        for point in range(1, sizes[layer]):
            spent, cost = moves[layer, point] - moves[layer, 0], costs[layer, point]
            cheapest, taken = least[spent:], chosen[layer, spent:]
            for t in range(end - spent):  # without branches, for several at once
                value = before[t] + cost
                better = value < cheapest[t]
                cheapest[t] = value if better else cheapest[t]
                taken[t] = point if better else taken[t]
    total = end - 1
    for layer in range(layers - 1, -1, -1):
        points[layer] = chosen[layer, total]
        total -= moves[layer, points[layer]] - moves[layer, 0]


@kernel
def _others(layer: int, left: int, total: int, fronts: Fronts, least: np.ndarray) -> float:
    """Return what all layers but one cost at least within a number of moves.

    With any point of that one they are a division of so many more moves, which costs no less than the best of these.
    """
    moves, costs, sizes = fronts
    cost = -np.inf
    for point in range(sizes[layer]):
        together = left + moves[layer, point] - moves[layer, 0]
        if together <= total:
            cost = max(cost, least[min(together, least.size - 1)] - costs[layer, point])
    return cost


@entry
def worth_searching(
    moves: np.ndarray, costs: np.ndarray, sizes: np.ndarray, least: np.ndarray, total: int, after: np.ndarray,
    bounds: np.ndarray, others: np.ndarray, other_bounds: np.ndarray, cost_per_move: float, worth: np.ndarray,
) -> None:  # fmt: skip
    """Write the most moves of every layer at which a map not yet found could improve on the division, -1 if there are none.

    What all other layers cost at least is exact, and no map costs less than its bound: nothing is missed.

    Parameters
    ----------
    moves, costs, sizes
        The fronts known.
    least : ndarray
        As of :func:`divide_moves`.
    total : int
        The moves that may be divided.
    after : ndarray
        The number of moves of every layer behind which maps may be found, int64 [layers].
    bounds : ndarray
        What maps of fewer than ``others`` moves cost at least beside their moves, float64 [layers].
    others, other_bounds : ndarray
        The fewest moves of maps of another kind, int64 [layers], and what any maps cost at least beside their moves, float64
        [layers].
    cost_per_move : float
    worth : ndarray
        int64 [layers]; overwritten.
    """
    now = least[least.size - 1]
    for layer in range(sizes.size):
        worth[layer] = -1
        forced, number = moves[layer, 0], after[layer] + 1
        for _ in range(total + 1):
            left = total - (number - forced)
            if left < 0:
                break
            same = number < others[layer]
            bound = (bounds[layer] if same else other_bounds[layer]) + cost_per_move * number
            if _others(layer, left, total, Fronts(moves, costs, sizes), least) + bound < now * (1.0 - ROUNDING):
                worth[layer] = number
                number += 1
            elif same:
                number = others[layer]
            else:
                break
