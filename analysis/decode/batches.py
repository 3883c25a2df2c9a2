"""The decode steps that recorded routing stands for: its own forward passes, or batches of so many tokens drawn from them.

A decode step has one token of each of many requests. Where a trace is of longer passes, such as prefills, a batch takes its
tokens at even distances: batch i of n takes the tokens i, i + n, i + 2 n, ... of a pass, so that it mixes the requests in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.routing.trace import RoutingTrace


@dataclass(frozen=True)
class Steps:
    """Tokens in the order of their decode steps.

    Parameters
    ----------
    tokens : ndarray of int64 [n]
        Places in the trace, steps one after another.
    step : ndarray of int64 [n]
        Step of each, from 0.
    count : int
        Steps.
    left_out : int
        Tokens of the trace that fill no batch.
    longest : int or None
        Tokens of the longest forward pass; None where the trace tells none apart.
    """

    tokens: np.ndarray
    step: np.ndarray
    count: int
    left_out: int
    longest: int | None

    def counts(self, routing: RoutingTrace, layer: int, first: int = 0, end: int | None = None) -> np.ndarray:
        """Return the tokens of steps that go to each expert in one layer, int64 [steps, experts].

        Parameters
        ----------
        routing : RoutingTrace
            That the steps are of.
        layer : int
        first, end : int, optional
            First step, and the one behind the last; by default all.
        """
        end = self.count if end is None else end
        part = self.part(first, end)
        keys = (self.step[part, None] - first) * routing.num_experts + routing.rows(layer)[self.tokens[part]]
        counted = np.bincount(keys.ravel(), minlength=(end - first) * routing.num_experts)
        return counted.reshape(end - first, routing.num_experts)

    def part(self, first: int, end: int) -> slice:
        """Return where the tokens of the steps from ``first`` to before ``end`` are."""
        return slice(*np.searchsorted(self.step, [first, end]).tolist())


def decode_steps(routing: RoutingTrace, batch: int | None = None) -> Steps:
    """Return the decode steps of a trace.

    Parameters
    ----------
    routing : RoutingTrace
    batch : int, optional
        Tokens of a step, drawn from every forward pass that the trace tells apart, or from the whole of it. Without it the
        passes themselves are the steps.

    Raises
    ------
    InputError
        If a batch is not positive or larger than every pass, or is not given where the trace doesn't tell passes apart.

    Examples
    --------
    >>> from eplb_gap.analysis.decode.batches import decode_steps
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0]], [[1]], [[2]], [[0]], [[1]]], num_experts=3)
    >>> found = decode_steps(routing, batch=2)
    >>> found.tokens.tolist(), found.step.tolist(), found.left_out
    ([0, 2, 1, 3], [0, 0, 1, 1], 1)
    """
    tokens = len(routing.experts)
    if batch is None and routing.step is None:
        raise InputError("batch is missing; this trace does not say which token was in which step")
    ends = [tokens] if routing.step is None else [*(np.flatnonzero(np.diff(routing.step)) + 1).tolist(), tokens]
    starts = [0, *ends[:-1]]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    if batch is None:
        sizes = np.diff([0, *ends])
        return Steps(np.arange(tokens), np.repeat(np.arange(sizes.size), sizes), sizes.size, 0, longest)
    if not 1 <= batch <= longest:
        pass_is = "the trace has" if routing.step is None else "the longest step of the trace has"
        raise InputError(f"batch is {batch}; {pass_is} {longest} tokens, and 1 to {longest} are needed")
    picked = []
    for start, end in zip(starts, ends, strict=True):
        batches = (end - start) // batch
        picked.append(start + np.arange(batches * batch).reshape(batch, batches).T.ravel())
    chosen = np.concatenate(picked)
    known = None if routing.step is None else longest
    return Steps(chosen, np.arange(chosen.size) // batch, chosen.size // batch, tokens - chosen.size, known)
