"""From the experts that every token chose to loads of steps of so many tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers.limits import MAX_LAYERS, check_elements
from eplb_gap.problem.formats.loads.recording import Recording

STEP_TOKENS = 256
"""Tokens of a step; ``window`` sums steps."""
MAX_EXPERTS = 1 << 16
"""Experts that a model can have: servers write their numbers as 16 bits."""
PADDING = -1
CHUNK_CHOICES = 1 << 20


class Counter:
    """Counts of steps, filled token by token.

    Parameters
    ----------
    path : Path
        With which messages begin.
    tokens : int
        Tokens of all requests, padding included.
    layers, choices : int
        Layers, and experts that a token chooses in each.
    """

    def __init__(self, path: Path, tokens: int, layers: int, choices: int) -> None:
        self._where, self._layers, self._choices = f"file {path}", layers, choices
        steps = -(-tokens // STEP_TOKENS)
        check_elements((steps, layers, 1), self._where)
        self._counts = np.zeros((steps, layers, 1), dtype=np.int64)
        self._tokens = self._blank = 0

    def add(self, chosen: np.ndarray, inside: str) -> None:
        """Count tokens that follow those before.

        Parameters
        ----------
        chosen : ndarray of int [tokens, layers, choices]
        inside : str
            Key and request, for messages.

        Raises
        ------
        InputError
            If an expert is none, or a token chose one twice.
        """
        if chosen.dtype.kind not in "iu":
            raise InputError(f"{self._where}: {inside} is {chosen.dtype}; integers are needed")
        most = max(1, CHUNK_CHOICES // (self._layers * self._choices))
        for start in range(0, len(chosen), most):
            self._add(chosen[start : start + most].astype(np.int64), inside, start)

    def recording(self, notes: dict[str, Any]) -> Recording:
        """Return the loads of all steps that are full, or of one step of all tokens; what was not captured is no load.

        Raises
        ------
        InputError
            If all tokens are padding.
        """
        if not self._tokens:
            raise InputError(f"{self._where} has no token with routed experts; [tokens, layers, top-k] is needed")
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
            "experts": "as many as the largest number that was chosen says",
            "order": "tokens as the file has them, one request after another",
        }
        return Recording(counts, range(self._layers), self._layers, notes={**told, **notes, "notices": said})

    def _add(self, chosen: np.ndarray, inside: str, start: int) -> None:
        wrong = (chosen < PADDING) | (chosen >= MAX_EXPERTS)
        self._refuse(wrong.any(axis=2), chosen, inside, start, f"0 to {MAX_EXPERTS - 1} are needed")
        padding = chosen == PADDING
        counted = ~padding.all(axis=2)
        self._refuse(padding.any(axis=2) & counted, chosen, inside, start, "-1 is padding, in place of all choices or of none")
        if self._choices > 1:
            counted &= chosen.any(axis=2)  # servers leave zeros where a layer has no experts, or nothing was captured
            in_order = np.sort(chosen, axis=2)
            twice = (in_order[:, :, 1:] == in_order[:, :, :-1]).any(axis=2) & counted
            self._refuse(twice, chosen, inside, start, "different experts are needed")
        held = counted.any(axis=1)
        chosen, counted = chosen[held], counted[held]
        self._blank += int((~held).sum())
        if not len(chosen):
            return
        self._grow(int(chosen.max()) + 1)
        tokens, layers = np.nonzero(counted)
        rows = (self._tokens + tokens) // STEP_TOKENS * self._layers + layers
        cells = rows[:, None] * self._counts.shape[2] + chosen[tokens, layers]
        first = int(cells.min())
        counts = np.bincount((cells - first).ravel())
        self._counts.reshape(-1)[first : first + counts.size] += counts
        self._tokens += len(chosen)

    def _refuse(self, wrong: np.ndarray, chosen: np.ndarray, inside: str, start: int, needed: str) -> None:
        """Refuse choices, a flag for each token and layer."""
        if wrong.any():
            token, layer = (int(place) for place in np.argwhere(wrong)[0])
            said = shown(chosen[token, layer].tolist())
            raise InputError(f"{self._where}: {inside}: token {start + token}, layer {layer} chose {said}; {needed}")

    def _grow(self, experts: int) -> None:
        steps, layers, held = self._counts.shape
        if experts <= held:
            return
        check_elements((steps, layers, experts), self._where)
        self._counts = np.pad(self._counts, ((0, 0), (0, 0), (0, experts - held)))


def count(
    path: Path, requests: Iterable[tuple[str, np.ndarray]], shapes: list[tuple[int, ...]], notes: dict[str, Any]
) -> Recording:
    """Return the recording of requests.

    Parameters
    ----------
    path : Path
    requests : iterable of (str, ndarray)
        Key, and part of the choices int [tokens, layers, choices], in order.
    shapes : list of tuple
        Of the choices of all requests, known before they are read.
    notes : dict

    Raises
    ------
    InputError
        If there is no token, requests differ in layers or choices, or as of :meth:`Counter.add`.
    """
    where = f"file {path}"
    for index, shape in enumerate(shapes):
        if len(shape) != 3 or min(shape[1:], default=0) < 1:
            raise InputError(f"{where}: routed experts of request {index} have shape {shape}; [tokens, layers, top-k] is needed")
        if shape[1:] != shapes[0][1:]:
            raise InputError(
                f"{where}: request {index} has {shape[1:]} layers and choices; {shapes[0][1:]}, as the first, is needed"
            )
    tokens = sum(shape[0] for shape in shapes)
    if not tokens:
        raise InputError(f"{where} has no token with routed experts; [tokens, layers, top-k] is needed")
    _, layers, choices = shapes[0]
    if layers > MAX_LAYERS or choices > MAX_EXPERTS:
        raise InputError(f"{where}: {layers} layers and {choices} choices; at most {MAX_LAYERS} and {MAX_EXPERTS} are read")
    counter = Counter(path, tokens, layers, choices)
    for inside, chosen in requests:
        counter.add(chosen, inside)
    return counter.recording({"requests": len(shapes), **notes})
