"""A new map within a number of moves: which replicas to copy when not all of them may be, and what every move buys.

A *move* copies a replica onto a GPU that did not hold its expert (:func:`eplb_gap.heuristics.moves.relabel.moved`); where on a
GPU a replica lies is free. Per layer the front of moves against the largest GPU load comes from one search
(:mod:`eplb_gap.heuristics.moves.sticky_search`) from the map in use, from that map with one or two pairs of groups exchanged
between nodes, and from a full re-plan, relabelled. Where all layers share a number of moves, fronts are searched only as far as
more points could matter to its division, by bounds on them. Where GPUs have died, the search is on those left, and the experts
that were on dead ones alone must be copied (:mod:`eplb_gap.heuristics.moves.lost_experts`): no map has fewer moves than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eplb_gap.heuristics.moves.full_plan import judge_full_plan
from eplb_gap.heuristics.moves.group_exchange import exchange_groups
from eplb_gap.heuristics.moves.lost_experts import least_moves, lost_experts, named, with_lost_experts
from eplb_gap.heuristics.moves.move_budget import Fronts, divide_moves, fronts_of, worth_searching
from eplb_gap.heuristics.moves.relabel import ROUNDING, keep_slots, moved, normalised, relabel, replica_ranks
from eplb_gap.heuristics.moves.sticky_search import read_maps, sticky_paths
from eplb_gap.heuristics.planner import uneven
from eplb_gap.heuristics.planner.fast import plan
from eplb_gap.problem.dead_ranks import with_dead, without_dead
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError, PlacementError
from eplb_gap.problem.metrics import per_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import check

ANSWER = 1
"""Of the two maps of every number of moves the one of least makespan."""
FIRST_MOVES, MORE_MOVES, SHARED_MOVES = 4, 3, 100
"""Layers are first searched to their equal share of the budget and so many moves more; then by so many, by a quarter, or by their
share of so many, whatever is most: where few are left, a call costs more than moves that turn out to be of no use."""
WORK_PER_CALL = 1_000_000
"""Steps times slots of one compiled call: some 30 ms."""
GROUP_EXCHANGES = 2
"""Most pairs of groups that change their nodes without a full re-plan; each moves all replicas of both."""
GROUPS_LAST = 3
"""How many times longer groups of experts stay the right ones for a node than replicas for a GPU; 2 to 6 serve nearly alike."""

Front = list[tuple[int, float]]
"""Moves, ascending, and the largest GPU load they lead to in the unit of the loads, descending; the first has fewest moves."""


def replan(
    loads: Any,
    deployment: Deployment,
    previous: Placement,
    max_moves: int | Sequence[int] | None = None,
    total_moves: int | None = None,
    threshold: float = 0.0,
    cost_per_move: float = 0.0,
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
    cost_per_move : float, default 0.0
        What copying one replica costs, in the unit of the loads: the sum over layers of the largest GPU load and of this for
        every move is made small. Where it is positive, groups change their nodes first, if what the GPUs of the fullest node lose
        by that is worth a :data:`GROUPS_LAST`-th of the cost, and if the largest GPU load falls: on these loads alone such a
        layer may cost more than the map in use, for groups stay the right ones for longer.

    Returns
    -------
    Placement
        Without new duplicates on a GPU where avoidable; what stays on its GPU stays in its slot.

    Raises
    ------
    InputError
        If loads, map and deployment do not belong together, a limit is no non-negative integer, or is too small to bring back
        the experts that were on dead GPUs alone, which are then named, or the threshold or the cost is negative or not finite.
    PlacementError
        If the map in use is not legal.

    Examples
    --------
    >>> from eplb_gap import Deployment, Placement, replan
    >>> in_use = Placement([[0, 1, 2, 3]], 4)  # the two hottest experts share a GPU
    >>> replan([[9, 8, 2, 1]], Deployment(4, 4, 2), in_use, total_moves=2).phy2log.tolist()
    [[0, 3, 2, 1]]
    """
    for name, value in (("threshold", threshold), ("cost_per_move", cost_per_move)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 <= value < np.inf:
            raise InputError(f"{name} is {value!r}; a finite number of at least 0 is needed")
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
    search = _Search(loads, deployment, previous, lost, limits)
    if cost_per_move > 0.0 and search.nodes > 1:
        fewest = search.exchange(forced, spare, cost_per_move)
        spare, forced = None if spare is None else spare - int((fewest - forced).sum()), fewest
    if spare is None:
        search.go_on(limits)
        fronts = fronts_of(search.makespans, search.units, threshold, cost_per_move)
        points = fronts.sizes - 1
    else:
        fronts, points = search.divide(forced, spare, threshold, cost_per_move)
    found = search.answers(fronts.moves[np.arange(previous.num_layers), points])
    search.undo_exchanges(found, threshold)
    kept = keep_slots(found, search.in_use.phy2log, deployment.live)
    return with_dead(Placement(kept, previous.num_experts, replica_ranks(kept, previous.num_experts)), deployment)


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
    search = _Search(loads, deployment, previous, lost, limits)
    search.go_on(limits)
    found = fronts_of(search.makespans, search.units, 0.0)
    return [list(zip(moves[:size].tolist(), cost[:size].tolist(), strict=True)) for moves, cost, size in zip(*found, strict=True)]


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


class _Search:
    """The fronts of all layers on the live GPUs, as far as they have been searched.

    Parameters
    ----------
    loads, deployment, previous
        As of :func:`replan`.
    lost : list of list of int
        Lost experts of every layer.
    limits : ndarray
        Most moves of every layer, int64 [layers].
    """

    def __init__(
        self, loads: Any, deployment: Deployment, previous: Placement, lost: list[list[int]], limits: np.ndarray
    ) -> None:
        live, layers = deployment.live, previous.num_layers
        self.live, self.limits = live, limits
        self.in_use = without_dead(previous, deployment)
        self.weight = normalised(loads, (layers, previous.num_experts))
        self.units = np.asarray(loads, dtype=np.float64).max(axis=1)
        self.nodes = live.num_nodes if live.policy == "hierarchical" else 1
        self.begin = np.cumsum((0, *live.slots_by_gpu))
        self.whole = _without_loss(self.weight, deployment, previous, lost)
        self.planned = plan(loads, live) if live.is_regular else uneven.plan(loads, live)
        self.targets, self.others = np.empty(layers), np.empty(layers, np.int64)
        judge_full_plan(self.weight, self.in_use.phy2log, self.planned.phy2log, self.begin, self.targets, self.others)
        if live.policy == "hierarchical":  # every expert of two groups that change their nodes is copied
            np.minimum(self.others, 2 * live.experts_per_group, out=self.others)
        self.unchanged = self.whole
        self.complete = np.zeros(layers, bool)  # whether all starts are known
        self.reached, self.scores = np.zeros(layers, np.int64), np.full(layers, np.inf)
        narrow = np.int16 if live.num_experts <= 2**15 else np.int32
        self._starts = np.empty((layers, 2 + GROUP_EXCHANGES, live.num_slots), narrow)
        self._starts[:, 0] = self.whole
        self._keys, self._origins = np.full((layers, 2, 0), np.inf), np.empty((layers, 2, 0, 3), np.int32)
        self._maps = np.empty((layers, 0, live.num_slots), narrow)

    @property
    def makespans(self) -> np.ndarray:
        """By number of moves, infinite where nothing was found; float64 [layers, moves], in units of the largest loads."""
        return self._keys[:, ANSWER]

    def exchange(self, forced: np.ndarray, spare: int | None, cost_per_move: float) -> np.ndarray:
        """Exchange a pair of groups in each layer where that is worth its moves, those that gain most by a move first.

        The search starts from those maps then, so that what is copied in any case goes to the best GPU of its new node.

        Parameters
        ----------
        forced : ndarray
            Moves of every layer that no map does without, int64 [layers].
        spare : int or None
            Moves of all layers together beyond them, where there is a limit.
        cost_per_move : float
            In the unit of the loads.

        Returns
        -------
        ndarray
            The fewest moves of every layer now, int64 [layers].
        """
        live, changed, self.whole = self.live, self.unchanged.copy(), self.unchanged.copy()
        helped = np.array(
            [
                exchange_groups(weight, row, live.num_gpus, live.num_nodes, live.num_groups)
                for weight, row in zip(self.weight, changed, strict=True)
            ]
        )
        changed[~helped] = self.whole[~helped]
        moves = moved(Placement(changed, live.num_experts), self.in_use, live)
        saved = self._fullest_nodes(self.whole) - self._fullest_nodes(changed)
        gain = GROUPS_LAST * saved - cost_per_move * (moves - forced)
        fewest, left = forced.copy(), np.inf if spare is None else spare
        for layer in np.argsort(-saved / np.maximum(moves - forced, 1), kind="stable").tolist():
            needed = int(moves[layer] - forced[layer])
            if helped[layer] and gain[layer] > 0.0 and moves[layer] <= self.limits[layer] and 0 < needed <= left:
                left -= needed
                fewest[layer] = moves[layer]
                self.whole[layer] = changed[layer]
                # No other starts: they could have fewer moves than this one, which is taken to have the fewest.
                self.complete[layer], self.others[layer] = True, live.num_slots + 1
        self._starts[:, 0] = self.whole
        return fewest

    def undo_exchanges(self, found: np.ndarray, threshold: float) -> None:
        """Keep the map in use of layers whose groups were exchanged where the map found does not gain enough after all.

        Parameters
        ----------
        found : ndarray
            Map of every layer, int64 [layers, slots]; changed in place.
        threshold : float
        """
        for layer in np.flatnonzero((self.whole != self.unchanged).any(axis=1)).tolist():
            before, after = (_makespan(self.weight[layer], maps[layer], self.live) for maps in (self.unchanged, found))
            if not before - after > before * (threshold + ROUNDING):
                found[layer] = self.unchanged[layer]

    def divide(self, forced: np.ndarray, spare: int, threshold: float, cost_per_move: float) -> tuple[Fronts, np.ndarray]:
        """Search as far as it can matter to the best division of a number of moves.

        Parameters
        ----------
        forced : ndarray
            Moves of every layer that no map does without, int64 [layers].
        spare : int
            Moves of all layers together beyond them.
        threshold, cost_per_move : float

        Returns
        -------
        fronts : Fronts
        points : ndarray
            Chosen point of every layer, int64 [layers].
        """
        bounds, other_bounds = self._bounds()
        worth = np.empty_like(forced)
        until = np.minimum(self.limits, forced + spare // forced.size + FIRST_MOVES)
        while True:
            self.go_on(until)
            fronts = fronts_of(self.makespans, self.units, threshold, cost_per_move)
            points, least = divide_moves(fronts, spare)
            ended = self.reached > self.limits
            behind = np.where(ended, np.where(self.complete, self.limits, np.maximum(until, self.others - 1)), until)
            worth_searching(*fronts, least, spare, behind, bounds, self.others, other_bounds, cost_per_move, worth)
            np.minimum(worth, self.limits, out=worth)
            more = worth > until
            if not more.any():
                return fronts, points
            least_more = max(MORE_MOVES, SHARED_MOVES // int(more.sum()))
            further = np.where(ended, worth, np.minimum(worth, np.maximum(until + least_more, until * 5 // 4)))
            until = np.where(more, further, until)

    def go_on(self, until: np.ndarray) -> None:
        """Search on to a number of moves of every layer, int64 [layers]."""
        new = np.flatnonzero(~self.complete & (self.others <= until))
        fresh = int(self._keys.shape[2] > 0)
        numbers = np.ones(len(until), np.int64)
        if new.size:
            full = relabel(self._rows(self.planned, new), self._rows(self.in_use, new), self.live)
            for layer, row in zip(new.tolist(), full.phy2log, strict=True):
                own = _starts(self.weight[layer], self.whole[layer], row, self.live)
                self.targets[layer] = _makespan(self.weight[layer], row, self.live)  # its sums are those of the renamed GPUs
                numbers[layer] = len(own)
                self._starts[layer, : len(own)] = own
            self.complete[new] = True
        # Starts may be far ahead of the search, steps go two moves beyond it.
        last = int(self.limits.max())
        searched = min(last, int(until.max()))
        self._make_room(last + 1 if new.size else min(last, searched + 2) + 1, searched + 1)
        work = np.cumsum((np.maximum(until - self.reached + 1, 0) + numbers) * self.live.num_slots)
        for part in _parts(work):
            sticky_paths(
                self.weight[part], self.in_use.phy2log[part], self._starts[part], fresh, numbers[part], self.begin, self.nodes,
                self.targets[part], self.limits[part], until[part], self.reached[part], self.scores[part], self._keys[part],
                self._origins[part], self._maps[part],
            )  # fmt: skip

    def answers(self, moves: np.ndarray) -> np.ndarray:
        """Return the map of least makespan of a number of moves of every layer, int64 [layers, slots]."""
        found = np.empty_like(self.in_use.phy2log)
        read_maps(self._starts, self._origins, self._maps, moves, found)
        return found

    def _make_room(self, known: int, searched: int) -> None:
        """Make room for so many numbers of moves from 0 on, and for the maps of fewer that are searched on."""
        layers, most = len(self.limits), int(self.limits.max()) + 1
        if known > self._keys.shape[2]:
            known = min(2 * known, most)
            keys, origins = np.full((layers, 2, known), np.inf), np.empty((layers, 2, known, 3), np.int32)
            before = self._keys.shape[2]
            keys[:, :, :before], origins[:, :, :before] = self._keys, self._origins
            self._keys, self._origins = keys, origins
        if searched > self._maps.shape[1]:
            maps = np.empty((layers, min(2 * searched, most), self.live.num_slots), self._maps.dtype)
            maps[:, : self._maps.shape[1]] = self._maps
            self._maps = maps

    def _rows(self, placement: Placement, layers: np.ndarray) -> Placement:
        return Placement(placement.phy2log[layers], placement.num_experts, placement.ranks[layers])

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what maps cost at least: with the experts on the nodes that they are on, and whatever their nodes.

        Returns
        -------
        here, anywhere : ndarray
            float64 [layers], in the unit of the loads.
        """
        anywhere = self.weight.sum(axis=1) / self.live.num_gpus
        if self.nodes == 1:
            return anywhere * self.units, anywhere * self.units
        groups = self._groups()
        gpus, per_node = self.live.num_gpus // self.nodes, self.live.groups_per_node
        groups.sort(axis=1)
        # The largest group has others beside it; of two groups a node the fold leaves the fullest lightest.
        fullest = groups[:, -1] + groups[:, : per_node - 1].sum(axis=1)
        if per_node == 2:
            fullest = (groups + groups[:, ::-1]).max(axis=1)
        anywhere = np.maximum(anywhere, fullest / gpus)
        return self._fullest_nodes(self.whole), anywhere * self.units

    def _groups(self) -> np.ndarray:
        """Return the load of every group, float64 [layers, groups], in units of the largest loads."""
        return np.asarray(self.weight.reshape(len(self.weight), self.live.num_groups, -1).sum(axis=2))

    def _fullest_nodes(self, maps: np.ndarray) -> np.ndarray:
        """Return what a GPU of every layer's fullest node holds on average, float64 [layers], in the unit of the loads."""
        groups = self._groups()
        homes = np.empty(groups.shape, np.int64)
        layers = np.arange(len(groups))[:, None]
        homes[layers, maps // self.live.experts_per_group] = np.arange(self.live.num_slots) // self.live.slots_per_node
        by_node = np.bincount((layers * self.nodes + homes).ravel(), groups.ravel(), len(groups) * self.nodes)
        fullest = by_node.reshape(len(groups), -1).max(axis=1)
        return np.asarray(fullest / (self.live.num_gpus // self.nodes) * self.units)


def _parts(work: np.ndarray) -> Iterator[slice]:
    """Cut layers into parts of some work each, of which the sums up to every layer are given: Ctrl-C is heard in between."""
    begin = 0
    while begin < len(work):
        done = work[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(work, done + WORK_PER_CALL, "right")))
        yield slice(begin, end)
        begin = end


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
