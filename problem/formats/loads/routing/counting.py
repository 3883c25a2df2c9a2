"""From the experts that every token chose to loads of steps of so many tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError
from eplb_gap.problem.formats.containers.limits import check_elements
from eplb_gap.problem.formats.loads.recording import Recording
from eplb_gap.problem.formats.routing.assembled import GUESSED
from eplb_gap.problem.formats.routing.rows import NO_TOKEN, Routed

STEP_TOKENS = 256
"""Tokens of a step; ``window`` sums steps."""


class Counter:
    """Counts of steps, filled token by token.

    Parameters
    ----------
    where : str
        With which messages begin.
    tokens : int
        Tokens of all requests, padding included.
    layers, choices : int
        Layers, and experts that a token chooses in each.
    """

    def __init__(self, where: str, tokens: int, layers: int, choices: int) -> None:
        self._where, self._layers, self._choices = where, layers, choices
        steps = -(-tokens // STEP_TOKENS)
        check_elements((steps, layers, 1), self._where)
        self._counts = np.zeros((steps, layers, 1), dtype=np.int64)
        self._tokens = self._blank = 0

    def recording(self, notes: dict[str, Any]) -> Recording:
        """Return the loads of all steps that are full, or of one step of all tokens; what was not captured is no load.

        Raises
        ------
        InputError
            If all tokens are padding.
        """
        if not self._tokens:
            raise InputError(f"{self._where} {NO_TOKEN}")
        full, rest = divmod(self._tokens, STEP_TOKENS)
        step_tokens, left = (STEP_TOKENS, rest) if full else (self._tokens, 0)
        counts = self._counts[: max(1, full)]
        if self._choices == 1:  # what was not captured is expert 0, as a choice can be: a layer of nothing else is taken for it
            counts[:, ~counts[:, :, 1:].any(axis=(0, 2))] = 0
        said = [f"a step is {step_tokens} tokens in the order of the file; experts up to {counts.shape[2] - 1} were chosen"]
        if left:
            said.append(f"the last {left} tokens, which fill no step, left out")
        if self._blank:
            said.append(f"{self._blank} tokens without routing (padding, or not captured) left out")
        told: dict[str, Any] = {
            "step_tokens": step_tokens,
            "top_k": self._choices,
            "left_out_tokens": left,
            "tokens_without_routing": self._blank,
            "experts": GUESSED,
            "order": "tokens as the file has them, one request after another",
            "tokens": "all that were returned; those of a prompt that the server had in its cache are among them",
        }
        return Recording(counts, range(self._layers), self._layers, notes={**told, **notes, "notices": said})

    def add(self, chosen: np.ndarray, routed: np.ndarray) -> None:
        """Count tokens that follow those before: choices int64 [tokens, layers, choices], and which of them are some."""
        held = routed.any(axis=1)
        chosen, routed = chosen[held], routed[held]
        self._blank += int((~held).sum())
        if not len(chosen):
            return
        self._grow(int(chosen.max()) + 1)
        tokens, layers = np.nonzero(routed)
        rows = (self._tokens + tokens) // STEP_TOKENS * self._layers + layers
        cells = rows[:, None] * self._counts.shape[2] + chosen[tokens, layers]
        first = int(cells.min())
        counts = np.bincount((cells - first).ravel())
        self._counts.reshape(-1)[first : first + counts.size] += counts
        self._tokens += len(chosen)

    def _grow(self, experts: int) -> None:
        steps, layers, held = self._counts.shape
        if experts <= held:
            return
        check_elements((steps, layers, experts), self._where)
        self._counts = np.pad(self._counts, ((0, 0), (0, 0), (0, experts - held)))


def count(routed: Routed) -> Recording:
    """Return the recording of what a file of routing holds; errors as of :class:`Routed`."""
    counter = Counter(routed.where, *routed.shape())
    for _, _, chosen, there in routed.checked():
        counter.add(chosen, there)
    return counter.recording({"requests": len(routed.shapes), **routed.notes})
