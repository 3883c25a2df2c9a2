"""What a controller is: its settings, and the record of each kind of controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from eplb_gap.heuristics.registry import get_method
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.placement import Placement


@dataclass(frozen=True)
class Controller:
    """Settings of a controller; a kind of controller reads some of them, and no others may be changed.

    Parameters
    ----------
    kind : str
        Name of its :class:`Kind`.
    name : str, optional
        What reports call it; by default its kind and what was set.
    interval : int, default 100
        Steps from one decision to the next.
    window : int, optional
        Steps before a decision that it looks at; as many as the interval by default.
    lag : int, default 0
        Steps from a decision until its map serves, at most the interval.
    method : str, default "fast"
        Heuristic of full re-plans, a key of :data:`eplb_gap.HEURISTICS`; one of histories gets the window in up to eight parts,
        one that improves the map in use ("swift-balance") starts from it.
    moves : float, optional
        Largest part of all replicas that may be copied at a decision, all layers together, 0 to 1; any number by default.
    burst : float, default 0.0
        Largest part of all replicas that a decision may copy beyond ``moves`` because earlier ones copied fewer; 0 to 1. With 0
        every decision keeps to ``moves`` by itself.
    below : float, default 1.0
        Re-plan only where the map in use has a lower balancedness than this on the window, 0 to 1.
    gain : float, default 0.0
        Adopt a layer's new map only if its makespan on the window is smaller by more than this part of it, 0 to 1.
    layers : int, default 1
        Layers that are re-planned at a decision, in turn.
    decay : float, default 0.9
        Weight of a step's loads against those of the step after.

    Raises
    ------
    InputError
        If a setting is out of range.

    Examples
    --------
    >>> from eplb_gap import Controller
    >>> Controller("budgeted", interval=10, window=20, moves=0.02).label
    'budgeted (interval 10, window 20, moves 0.02)'
    """

    kind: str
    name: str = ""
    interval: int = 100
    window: int | None = None
    lag: int = 0
    method: str = "fast"
    moves: float | None = None
    burst: float = 0.0
    below: float = 1.0
    gain: float = 0.0
    layers: int = 1
    decay: float = 0.9

    def __post_init__(self) -> None:
        for key, least in (("interval", 1), ("window", 1), ("lag", 0), ("layers", 1)):
            found = getattr(self, key)
            if found is None and key == "window":
                continue
            if isinstance(found, bool) or not isinstance(found, int) or found < least:
                raise InputError(f"{key} is {found!r}; an integer of at least {least} is needed")
        for key in ("moves", "burst", "below", "gain", "decay"):
            found = getattr(self, key)
            if found is None and key == "moves":
                continue
            if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
                raise InputError(f"{key} is {found!r}; a number from 0 to 1 is needed")
        if self.burst and self.moves is None:
            raise InputError(
                f"burst is {self.burst!r}, but moves is not set; there are moves to save only where they are limited"
            )
        if self.lag > self.interval:
            raise InputError(f"lag is {self.lag}; at most the interval, {self.interval} steps, is allowed")
        get_method(self.method)

    @property
    def steps_needed(self) -> int:
        """Steps of the window."""
        return self.interval if self.window is None else self.window

    def changed(self) -> dict[str, object]:
        """Return the settings that differ from their defaults, without kind and name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("kind", "name") and getattr(self, field.name) != field.default
        }

    @property
    def label(self) -> str:
        """What reports call it: its kind and what was set, with the interval always, unless it never decides anything."""
        told = self.changed() if self.kind == "none" else {"interval": self.interval, **self.changed()}
        said = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in told.items())
        return self.name or (f"{self.kind} ({said})" if said else self.kind)


class Session(Protocol):
    """A controller at work on one deployment."""

    def plan(self, past: np.ndarray, in_use: Placement) -> Placement | None:
        """Return a new map, or None to keep the one in use.

        Parameters
        ----------
        past : ndarray
            Loads of the steps so far, int64 [steps, layers, experts], oldest first, read-only; there is nothing behind its end.
            Of the older ones only those that :meth:`Kind.reach` counts need be there: a session may number steps from the
            end alone.
        in_use : Placement
            The newest map, which serves by now or is on its way.
        """
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of controller.

    Parameters
    ----------
    name : str
        Key of :data:`eplb_gap.heuristics.control.catalogue.KINDS`.
    about : str
        What it does, in a few words.
    reads : frozenset of str
        Settings of :class:`Controller` that it reads beside ``lag``.
    start : callable
        ``start(controller, deployment)`` returns its :class:`Session`.
    foresees : bool
        Whether ``past`` ends with the steps that the map will serve: nobody can, so that it is a limit.
    plans : bool
        Whether it ever makes a map.
    needs : callable
        ``needs(controller)`` says how many steps must have passed before the first decision.
    looks_back : callable, optional
        ``looks_back(controller)`` says how many of the newest steps a decision looks at, at most; as many as there are at the
        first decision by default.
    """

    name: str
    about: str
    reads: frozenset[str]
    start: Callable[[Controller, Deployment], Session]
    foresees: bool = False
    plans: bool = True
    needs: Callable[[Controller], int] = lambda controller: controller.steps_needed
    looks_back: Callable[[Controller], int] | None = None

    def first_decision(self, controller: Controller) -> int:
        """Return the steps before the first decision: the first multiple of the interval that is enough."""
        return -(-self.needs(controller) // controller.interval) * controller.interval

    def reach(self, controller: Controller) -> int:
        """Return how many of the newest steps a decision looks at, at most."""
        return self.first_decision(controller) if self.looks_back is None else self.looks_back(controller)

    def check(self, controller: Controller) -> None:
        """Refuse settings that the kind does not read.

        Raises
        ------
        InputError
            Naming the first.
        """
        for key in controller.changed():
            if key not in self.reads | {"lag"}:
                read = ", ".join(sorted(self.reads | {"lag"}))
                raise InputError(f"{key} is set, which a controller of kind {self.name!r} does not read; it reads {read}")
