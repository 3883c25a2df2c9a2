"""A new map within a number of moves: which replicas to copy when not all of them may be, and what every move buys.

A *move* copies a replica onto a GPU that did not hold its expert (:func:`eplb_gap.heuristics.moves.relabel.moved`); where on a
GPU a replica lies is free. Per layer the front of moves against the largest GPU load comes from one search
(:mod:`eplb_gap.heuristics.moves.sticky_search`) from the map in use, from that map with one or two pairs of groups exchanged
between nodes, and from a full re-plan, relabelled. Where GPUs have died, the search is on those left, and the experts that were
on dead ones alone must be copied (:mod:`eplb_gap.heuristics.moves.lost_experts`): no map has fewer moves than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eplb_gap.heuristics.moves.group_exchange import exchange_groups
from eplb_gap.heuristics.moves.lost_experts import least_moves, lost_experts, named, with_lost_experts
from eplb_gap.heuristics.moves.move_budget import divide_moves
from eplb_gap.heuristics.moves.relabel import ROUNDING, keep_slots, normalised, relabel
from eplb_gap.heuristics.moves.sticky_search import sticky_path
from eplb_gap.heuristics.planner import uneven
from eplb_gap.heuristics.planner.fast import plan
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.metrics import per_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check

GROUP_EXCHANGES = 2
"""Most pairs of groups that change their nodes without a full re-plan; each moves all replicas of both."""

Front = list[tuple[int, float]]
"""Moves, ascending, and the largest GPU load they lead to in the unit of the loads, descending; the first has fewest moves."""


def replan(
    loads: Any,
    deployment: Deployment,
    previous: Placement,
    max_moves: int | Sequence[int] | None = None,
    total_moves: int | None = None,
    threshold: float = 0.0,
) -> Placement:
    """Return the best map found that the map in use can become within a number of moves.

    Parameters
    ----------
    loads : array_like [layers, experts]
        Loads to plan on, finite and non-negative; the sum over layers of the largest GPU load is made small.
    deployment : Deployment
        With the GPUs that are dead by now.
    previous : Placement
        The map in use; it may have been planned on other loads, and before GPUs died.
    max_moves : int or sequence of int [layers], optional
        Most moves of any layer, or of each.
    total_moves : int, optional
        Most moves of all layers together; they go to the layers that gain most by them, exactly for the fronts that are known.
    threshold : float, default 0.0
        Least part of its largest GPU load that a layer must gain; layers that gain less stay as they are, lost experts apart.

    Returns
    -------
    Placement
        Without new duplicates on a GPU where avoidable; what stays on its GPU stays in its slot.

    Raises
    ------
    InputError
        If loads, map and deployment do not belong together, a limit is no non-negative integer, or is too small to bring back
        the experts that were on dead GPUs alone, which are then named, or the threshold is negative or not finite.
    PlacementError
        If the map in use is not legal.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, replan
    >>> in_use = Placement([[0, 1, 2, 3]], 4)  # the two hottest experts share a GPU
    >>> replan([[9, 8, 2, 1]], Deployment(4, 4, 2), in_use, total_moves=2).phy2log.tolist()
    [[0, 3, 2, 1]]
    """
    if not 0.0 <= threshold < np.inf:
        raise InputError(f"threshold is {threshold!r}; a finite number of at least 0 is needed")
    lost = lost_experts(previous, deployment)
    limits = _limits(max_moves, previous.num_layers, deployment.live.num_slots)
    forced = least_moves(lost, limits, "max_moves")
    total = None if total_moves is None else _limit(total_moves, "total_moves")
    spare = None if total is None else total - int(forced.sum())
    if spare is not None and spare < 0:
        where = "; ".join(f"layer {layer}: {named(gone)}" for layer, gone in enumerate(lost) if gone)
        raise InputError(
            f"total_moves is {total}; experts that were on dead GPUs alone need at least {forced.sum()} moves ({where})"
        )
    if spare is not None:
        limits = np.minimum(limits, forced + spare)
    fronts, units = _search(loads, deployment, previous, lost, limits)
    fronts = [front.gaining(threshold) for front in fronts]
    if spare is None:
        points = [front.moves.size - 1 for front in fronts]
    else:
        costs = [front.makespans * unit for front, unit in zip(fronts, units, strict=True)]
        points = divide_moves([front.moves - front.moves[0] for front in fronts], costs, spare)
    rows = np.stack([front.maps[point] for front, point in zip(fronts, points, strict=True)])
    kept = keep_slots(rows, without_dead(previous, deployment).phy2log, deployment.live)
    return with_dead(Placement(kept, previous.num_experts), deployment)


def front(loads: Any, deployment: Deployment, previous: Placement) -> list[Front]:
    """Return for every layer what every number of moves leads to; only points that are better than those of fewer moves.

    Parameters
    ----------
    loads, deployment, previous
        As :func:`replan`.

    Returns
    -------
    list of list of (int, float)
        Moves and makespan in the unit of the loads, layer by layer; the first point has no moves but forced ones, the last is the
        best map found.

    Raises
    ------
    InputError, PlacementError
        As :func:`replan`.
    """
    lost = lost_experts(previous, deployment)
    limits = _limits(None, previous.num_layers, deployment.live.num_slots)
    fronts, units = _search(loads, deployment, previous, lost, limits)
    return [
        [(int(moves), float(makespan * unit)) for moves, makespan in zip(found.moves, found.makespans, strict=True)]
        for found, unit in zip(fronts, units, strict=True)
    ]


def break_even(fronts: Sequence[Front], cost_per_move: float, horizon: float = 1.0) -> list[tuple[int, float]]:
    """Return for every layer the point of its front at which ``makespan * horizon + cost_per_move * moves`` is least.

    Parameters
    ----------
    fronts : sequence of Front
        As of :func:`front`.
    cost_per_move : float
        What copying one replica costs, in the unit of the loads (tokens that a GPU could have served meanwhile).
    horizon : float, default 1.0
        How many windows of these loads the map will serve.

    Returns
    -------
    list of (int, float)
        Moves and makespan; the moves can be given to :func:`replan` as ``max_moves``.

    Raises
    ------
    InputError
        If a number is negative or not finite.
    """
    for name, value in (("cost_per_move", cost_per_move), ("horizon", horizon)):
        if not 0.0 <= value < np.inf:
            raise InputError(f"{name} is {value!r}; a finite number of at least 0 is needed")
    return [min(points, key=lambda point: point[1] * horizon + point[0] * cost_per_move) for points in fronts]


@dataclass(frozen=True)
class _LayerFront:
    """Moves int64 [points], makespans float64 [points] in units of the layer's largest load, maps int64 [points, slots]."""

    moves: np.ndarray
    makespans: np.ndarray
    maps: np.ndarray

    def gaining(self, threshold: float) -> _LayerFront:
        """Return the front without points that gain less than a part of the makespan; the one of fewest moves stays."""
        kept = self.makespans[0] - self.makespans >= self.makespans[0] * (threshold - ROUNDING)
        kept[0] = True
        return _LayerFront(self.moves[kept], self.makespans[kept], self.maps[kept])


def _search(
    loads: Any, deployment: Deployment, previous: Placement, lost: list[list[int]], limits: np.ndarray
) -> tuple[list[_LayerFront], np.ndarray]:
    """Return the front of every layer up to its limit, on the live GPUs, and the unit of its makespans."""
    weight = normalised(loads, (previous.num_layers, previous.num_experts))
    live, in_use = deployment.live, without_dead(previous, deployment)
    whole = _without_loss(weight, deployment, previous, lost)
    planned = plan(loads, live) if live.is_regular else uneven.plan(loads, live)
    full = relabel(planned, in_use, live)
    nodes = live.num_nodes if live.policy == "hierarchical" else 1
    begin = np.cumsum((0, *live.slots_by_gpu))
    found = []
    for layer, limit in enumerate(limits.tolist()):
        starts = _starts(weight[layer], whole[layer], full.phy2log[layer], live)
        target = _makespan(weight[layer], full.phy2log[layer], live)
        keys, maps = np.full((2, limit + 1), np.inf), np.empty((2, limit + 1, live.num_slots), np.int64)
        sticky_path(weight[layer], in_use.phy2log[layer], starts, begin, nodes, target, keys, maps)
        found.append(_pareto(keys[1], maps[1]))
    return found, np.asarray(loads, dtype=np.float64).max(axis=1)


def _without_loss(weight: np.ndarray, deployment: Deployment, previous: Placement, lost: list[list[int]]) -> np.ndarray:
    """Return the map in use on the live GPUs, with one replica of every lost expert, int64 [layers, live slots].

    Raises
    ------
    PlacementError
        If the map is not legal otherwise.
    """
    try:
        if not any(lost):
            check(previous, deployment)
            return without_dead(previous, deployment).phy2log
        maps = with_lost_experts(weight, previous, deployment, lost)
        check(with_dead(Placement(maps, previous.num_experts), deployment), deployment)
    except PlacementError as error:
        raise PlacementError(f"previous: {error}") from None
    return maps


def _starts(loads: np.ndarray, previous: np.ndarray, full: np.ndarray, deployment: Deployment) -> np.ndarray:
    """Return the maps that a layer is searched from, int64 [starts, slots], the one in use first."""
    starts = [previous, full]
    if deployment.policy == "hierarchical":
        items = previous.copy()
        for _ in range(GROUP_EXCHANGES):
            if not exchange_groups(loads, items, deployment.num_gpus, deployment.num_nodes, deployment.num_groups):
                break
            starts.append(items.copy())
    return np.stack(starts)


def _makespan(loads: np.ndarray, slots: np.ndarray, live: Deployment) -> float:
    sizes = loads / np.bincount(slots, minlength=loads.size)
    return float(per_gpu(sizes[slots], live.slots_by_gpu).max())


def _pareto(makespans: np.ndarray, maps: np.ndarray) -> _LayerFront:
    """Keep the numbers of moves that lead to less than every smaller number does, rounding apart."""
    first = int(np.argmax(np.isfinite(makespans)))  # lost experts cost moves that no map does without
    best, points = makespans[first], [first]
    for moves in range(first + 1, makespans.size):
        if makespans[moves] < best * (1.0 - ROUNDING):
            best = makespans[moves]
            points.append(moves)
    return _LayerFront(np.array(points), makespans[points], maps[points])


def _limits(max_moves: Any, layers: int, slots: int) -> np.ndarray:
    """Return the most moves of every layer, int64 [layers]."""
    if max_moves is None:
        return np.full(layers, slots)
    if not isinstance(max_moves, Sequence | np.ndarray):
        return np.full(layers, min(_limit(max_moves, "max_moves"), slots))
    if len(max_moves) != layers:
        raise InputError(f"max_moves has {len(max_moves)} entries; one for all or for each of the {layers} layers is needed")
    return np.array([min(_limit(value, f"max_moves[{layer}]"), slots) for layer, value in enumerate(max_moves)])


def _limit(value: Any, name: str) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise InputError(f"{name} is {value!r}; an integer of at least 0 is needed")
    return int(value)
