"""The controllers whose settings never change while they run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.heuristics.control.controller import Controller, Kind, Session
from eplb_gap.heuristics.control.saved_moves import SavedMoves, saved_moves
from eplb_gap.heuristics.moves.migration import replan
from eplb_gap.heuristics.moves.relabel import adopt_where_better, moved, relabel
from eplb_gap.heuristics.registry import get_method, in_windows, rebalance
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.metrics import balancedness_gpu
from eplb_gap.problem.placement import Placement
from eplb_gap.problem.validation import legal_layers


def plan_window(controller: Controller, window: np.ndarray, deployment: Deployment) -> Placement:
    """Return the map of the controller's method for a window of steps."""
    loads = in_windows(window) if get_method(controller.method).history else window.sum(axis=0)
    return rebalance(loads, deployment, controller.method)


def full_plan(controller: Controller, window: np.ndarray, in_use: Placement, deployment: Deployment) -> Placement:
    """Return the same, renamed so that few replicas move; a method that improves a legal map in use starts from it."""
    if get_method(controller.method).improve is not None and legal_layers(in_use, deployment).all():
        return rebalance(window.sum(axis=0), deployment, controller.method, previous=in_use)
    return relabel(plan_window(controller, window, deployment), in_use, deployment)


def most_moves(controller: Controller, in_use: Placement) -> int:
    """Return how many replicas a decision may move, over all layers; filler of dead GPUs is no replica."""
    assert controller.moves is not None
    return int(controller.moves * int((in_use.ranks >= 0).sum()))


@dataclass
class _Never:
    """Keep the map that the server started with."""

    controller: Controller
    deployment: Deployment

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        return None


@dataclass
class _Once:
    """Plan on the first window and keep that map."""

    controller: Controller
    deployment: Deployment
    planned: bool = False

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        if self.planned:
            return None
        self.planned = True
        return full_plan(self.controller, past[: self.controller.steps_needed], in_use, self.deployment)


@dataclass
class _Windowed:
    """Plan on the last window whenever the map in use is not balanced enough on it, within the moves that are allowed.

    The first map may move anything: a server loads its weights once in any case.
    """

    controller: Controller
    deployment: Deployment
    started: bool = False

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        controller, deployment = self.controller, self.deployment
        window = past[-controller.steps_needed :]
        loads = window.sum(axis=0)
        if not self.started:
            self.started = True
            return full_plan(controller, window, in_use, deployment)
        if controller.below < 1 and balancedness_gpu(in_use, loads, deployment) >= controller.below:
            return None
        if controller.moves is not None:
            return replan(loads, deployment, in_use, total_moves=most_moves(controller, in_use), threshold=controller.gain)
        new = full_plan(controller, window, in_use, deployment)
        if controller.gain:
            return adopt_where_better(new, in_use, loads, deployment, controller.gain)
        return new


@dataclass
class _Saving:
    """Plan on the last window at a price per move, which falls as unspent moves are saved.

    The first map may move anything. Since then a number of decisions has never moved more than ``moves`` allows all of them, and
    no run of decisions more than that and ``burst``.
    """

    controller: Controller
    deployment: Deployment
    saved: SavedMoves | None = None

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        controller, deployment = self.controller, self.deployment
        window = past[-controller.steps_needed :]
        if self.saved is None:
            self.saved = saved_moves(controller, in_use)
            return full_plan(controller, window, in_use, deployment)
        self.saved.add()
        loads = window.sum(axis=0)
        new = replan(
            loads,
            deployment,
            in_use,
            total_moves=self.saved.moves,
            threshold=controller.gain,
            cost_per_move=self.saved.cost(loads, in_use, deployment),
        )
        self.saved.spend(int(moved(new, in_use, deployment).sum()))
        return new


def _budgeted(controller: Controller, deployment: Deployment) -> Session:
    return _Saving(controller, deployment) if controller.burst else _Windowed(controller, deployment)


@dataclass
class _InTurn:
    """Re-plan some layers at every decision, one after the other, on decayed loads."""

    controller: Controller
    deployment: Deployment
    following: int = 0

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        controller = self.controller
        window = past[-controller.steps_needed :]
        weights = controller.decay ** np.arange(len(window))[::-1]
        layers = (self.following + np.arange(min(controller.layers, window.shape[1]))) % window.shape[1]
        self.following = int(layers[-1] + 1) % window.shape[1]
        # Integers, as all methods take; the largest load becomes 2^40, so that rounding does not show.
        loads = np.tensordot(weights, window[:, layers], axes=1)
        scaled = np.rint(loads * (2.0**40 / max(float(loads.max()), 1e-300))).astype(np.int64)
        part = Placement(in_use.phy2log[layers], in_use.num_experts, in_use.ranks[layers])
        new = full_plan(controller, scaled[None], part, self.deployment)
        phy2log, ranks = in_use.phy2log.copy(), in_use.ranks.copy()
        phy2log[layers], ranks[layers] = new.phy2log, new.ranks
        return Placement(phy2log, in_use.num_experts, ranks)


NONE = Kind("none", "no EPLB: the contiguous map for ever", frozenset(), _Never, plans=False)
STATIC = Kind("static", "planned once, on the first window", frozenset({"interval", "window", "method"}), _Once)
PERIODIC = Kind("periodic", "a full re-plan every interval", frozenset({"interval", "window", "method"}), _Windowed)
BUDGETED = Kind(
    "budgeted",
    "every interval the best map within a number of moves",
    frozenset({"interval", "window", "moves", "burst", "gain"}),
    _budgeted,
)
THRESHOLD = Kind(
    "threshold",
    "a full re-plan where balancedness is below a threshold, layers that gain too little kept",
    frozenset({"interval", "window", "method", "below", "gain"}),
    _Windowed,
)
ROUND_ROBIN = Kind(
    "round-robin",
    "some layers re-planned at every decision, in turn, on decayed loads",
    frozenset({"interval", "window", "method", "layers", "decay"}),
    _InTurn,
)
