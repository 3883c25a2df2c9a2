"""Recorded routing in windows: which tokens are planned on and which are served, and the loads that they sum to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers.limits import MAX_ELEMENTS, check_elements
from eplb_gap.problem.loads import LoadTrace
from eplb_gap.problem.routing.trace import RoutingTrace

OF_WINDOWS = ("dropped_steps", "left_out_steps", "left_out_tokens", "older_calls", "added_experts", "joined")
"""What commands print of loads that were grouped, joined or widened: of routing this module says it, not a file."""

BLOCK = 1 << 12
"""Tokens whose choices in all layers are counted at once."""
MOST_COUNTS = MAX_ELEMENTS // 4
"""Of loads step by step beside those of windows."""


@dataclass(frozen=True)
class Routed:
    """Tokens in windows.

    Parameters
    ----------
    routing : RoutingTrace
    spans : tuple of tuple of int
        First token of every window and the one behind its last.
    trace : LoadTrace
        The loads of the windows.
    recorded : LoadTrace
        The same step by step; the windows again where no steps are recorded, or so many that they fill the memory.
    """

    routing: RoutingTrace
    spans: tuple[tuple[int, int], ...]
    trace: LoadTrace
    recorded: LoadTrace

    def tokens(self, window: int) -> RoutingTrace:
        """Return the tokens of a window."""
        return self.routing.part(*self.spans[window])


def layer_ids(routing: RoutingTrace) -> list[int]:
    """Return which layer of the model every layer of the routing is."""
    ids = routing.provenance.get("layer_ids", list(range(routing.num_layers)))
    if not isinstance(ids, list) or len(ids) != routing.num_layers or not all(type(layer) is int for layer in ids):
        raise InputError(f"layer_ids of the routing is {shown(ids)}; an index for each of {routing.num_layers} layers is needed")
    return ids


def without_layers(routing: RoutingTrace, leave_out_layers: Iterable[int]) -> RoutingTrace:
    """Return the routing without some layers.

    Raises
    ------
    InputError
        If it has no such layer or no other, or its provenance names other layers.
    """
    left_out, ids = set(leave_out_layers), layer_ids(routing)
    if not left_out <= set(ids):
        raise InputError(f"leave_out_layers names layer {min(left_out - set(ids))}; the routing has no such layer")
    kept = [row for row, layer in enumerate(ids) if layer not in left_out]
    if not kept:
        raise InputError(f"leave_out_layers names all {len(ids)} layers of the routing; at least one of them is needed")
    told = {key: value for key, value in routing.provenance.items() if key not in OF_WINDOWS}
    if left_out:
        told["layer_ids"] = [ids[row] for row in kept]
    return replace(routing, experts=routing.experts[:, kept], provenance=told)


def in_windows(routing: RoutingTrace, window: int | None = None) -> Routed:
    """Divide tokens into windows of as many recorded steps, as loads are divided.

    Where the routing has no steps, a window is of so many tokens, and without a number the tokens are halved, between two
    requests if they are recorded. What is unusual is among the ``notices`` of the provenance.

    Parameters
    ----------
    routing : RoutingTrace
    window : int, optional
        Steps of a window, by default one; the oldest that fill none are left out.

    Raises
    ------
    InputError
        If there are fewer.
    """
    tokens = len(routing.experts)
    told, said = {"window_steps": 1}, []
    if routing.step is not None:
        steps = [0, *(np.flatnonzero(np.diff(routing.step)) + 1).tolist()]
        length = 1 if window is None else window
        if type(length) is not int or not 1 <= length <= len(steps):
            raise InputError(f"window is {window!r}; 1 to {len(steps)} steps, as many as there are, is needed")
        left_out = len(steps) % length
        starts = steps[left_out::length]
        told = {"window_steps": length, "left_out_steps": left_out}
    elif window is not None:
        if type(window) is not int or not 1 <= window <= tokens:
            raise InputError(f"window is {window!r}; the routing has no steps, so that 1 to {tokens} tokens are needed")
        steps = starts = list(range(tokens % window, tokens, window))
        told["left_out_tokens"] = tokens % window
        said = [f"no steps are recorded; a window is {window} tokens"]
    else:
        steps = starts = [0, _middle(routing)]
        said = [f"no steps are recorded; the first {starts[1]} tokens are window 0, the other {tokens - starts[1]} window 1"]
    notices = {"notices": [*routing.provenance.get("notices", ()), *said]} if said else {}
    trace = LoadTrace(_loads(routing, starts), {**routing.provenance, **told, **notices})
    recorded = trace
    if steps is not starts and len(steps) * trace.loads[0].size <= MOST_COUNTS:
        recorded = LoadTrace(_loads(routing, steps), {**routing.provenance, "window_steps": 1})
    return Routed(routing, _spans(starts, tokens), trace, recorded)


def _loads(routing: RoutingTrace, starts: list[int]) -> np.ndarray:
    """Return the loads of the tokens from every start to the next, int64 [windows, layers, experts]."""
    layers, experts = routing.num_layers, routing.num_experts
    check_elements((len(starts), layers, experts), "the loads of the routing's windows")
    loads = np.empty((len(starts), layers, experts), dtype=np.int64)
    offsets = experts * np.arange(layers)[:, None]
    for window, (first, end) in enumerate(_spans(starts, len(routing.experts))):
        counts = np.zeros(layers * experts, dtype=np.int64)
        for block in range(first, end, BLOCK):
            places = routing.experts[block : min(block + BLOCK, end)] + offsets
            counts += np.bincount(places.ravel(), minlength=counts.size)
        loads[window] = counts.reshape(layers, experts)
    return loads


def _spans(starts: list[int], tokens: int) -> tuple[tuple[int, int], ...]:
    return tuple(zip(starts, [*starts[1:], tokens], strict=True))


def along(routing: RoutingTrace, loads: LoadTrace, recorded: LoadTrace) -> Routed:
    """Divide tokens into the windows of loads that were recorded beside them, by the numbers of their steps.

    Parameters
    ----------
    routing : RoutingTrace
        All tokens of the steps, or those of some.
    loads : LoadTrace
        Windows; the oldest steps that filled none are left out.
    recorded : LoadTrace
        The same as they were recorded, from step 0 on.

    Raises
    ------
    InputError
        If layers or experts differ, the routing has no steps, or steps that the loads have not.
    """
    ids = list(recorded.provenance.get("layer_ids") or range(recorded.loads.shape[1]))
    if layer_ids(routing) != ids:
        raise InputError(f"the routing has {_named(layer_ids(routing))}; the loads have {_named(ids)}")
    if routing.num_experts != recorded.loads.shape[2]:
        raise InputError(f"the routing has {routing.num_experts} experts; the loads have {recorded.loads.shape[2]}")
    if routing.step is None:
        raise InputError("the routing has no steps to say which window of the loads its tokens are in; leave the loads out")
    row_steps = recorded.window_steps
    steps = len(recorded.loads) * row_steps
    if routing.step[-1] >= steps:
        raise InputError(f"the routing has step {routing.step[-1]}; the loads have steps 0 to {steps - 1}; leave the loads out")
    rows = len(recorded.loads) // len(loads.loads)
    first = (len(recorded.loads) - rows * len(loads.loads)) * row_steps
    edges = np.searchsorted(routing.step, first + rows * row_steps * np.arange(len(loads.loads) + 1)).tolist()
    return Routed(routing, tuple(itertools.pairwise(edges)), loads, recorded)


def _middle(routing: RoutingTrace) -> int:
    tokens = len(routing.experts)
    if tokens < 2:
        raise InputError("the routing has 1 token; at least two are needed, one to plan on and one to serve")
    between = [] if routing.request is None else (np.flatnonzero(np.diff(routing.request)) + 1).tolist()
    return min(between, key=lambda place: abs(place - tokens / 2), default=tokens // 2)


def _named(ids: list[int]) -> str:
    return f"{len(ids)} layers, {ids[0]} to {ids[-1]}"
