"""What every reader of routing yields: the choices of tokens piece by piece, checked in one place, for traces and for counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from eplb_gap.problem.errors import InputError, shown
from eplb_gap.problem.formats.containers.limits import MAX_LAYERS

MAX_EXPERTS = 1 << 16
"""Experts that a model can have: servers write their numbers as 16 bits."""
MAX_CHOICES = 4 << 30
"""Tokens x layers x experts of a token, of one file."""
PADDING = -1
PIECE_CHOICES = 1 << 20
"""Choices that are looked at at once."""

Piece = tuple[str, int, np.ndarray]
"""Key or request for messages, the number there of its first token, and choices int [tokens, layers, top-k]."""


@dataclass(frozen=True)
class Routed:
    """The choices of tokens as a file holds them, read once, piece by piece.

    Parameters
    ----------
    where : str
        With which messages begin.
    shapes : list of tuple
        Of the choices of every request, [tokens, layers, top-k], known before they are read.
    pieces : iterable of Piece
        Request after request.
    num_experts : int, optional
        Where the file tells.
    columns : dict of str to ndarray of int [tokens]
        Of ``source``, ``request`` and ``step`` those that the file tells.
    layer_ids : list of int, optional
        Index of each layer in the model; without it the layers are all of the model.
    blank_zeros : bool, default False
        Whether zeros in place of all choices are what servers leave where a layer has no experts, or nothing was captured.
    notes : dict
        What a user must know of it; JSON-serialisable.
    """

    where: str
    shapes: list[tuple[int, ...]]
    pieces: Iterable[Piece]
    num_experts: int | None = None
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    layer_ids: list[int] | None = None
    blank_zeros: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    def shape(self) -> tuple[int, int, int]:
        """Return tokens of all requests, layers, and experts of a token.

        Raises
        ------
        InputError
            If there is no token, requests differ in layers or top-k, or there is more than is read.
        """
        for index, shape in enumerate(self.shapes):
            if len(shape) != 3 or min(shape[1:], default=0) < 1:
                raise InputError(
                    f"{self.where}: routed experts of request {index} have shape {shape}; [tokens, layers, top-k] is needed"
                )
            if shape[1:] != self.shapes[0][1:]:
                raise InputError(
                    f"{self.where}: request {index} has {shape[1:]} layers and choices; {self.shapes[0][1:]}, as the first, is "
                    "needed"
                )
        tokens = sum(shape[0] for shape in self.shapes)
        if not tokens:
            raise InputError(f"{self.where} {NO_TOKEN}")
        _, layers, choices = self.shapes[0]
        if layers > MAX_LAYERS or choices > MAX_EXPERTS:
            raise InputError(
                f"{self.where}: {layers} layers and {choices} choices; at most {MAX_LAYERS} and {MAX_EXPERTS} are read"
            )
        if tokens * layers * choices > MAX_CHOICES:
            raise InputError(f"{self.where} has {tokens} tokens x {layers} layers x {choices}; at most {MAX_CHOICES} are read")
        return tokens, layers, choices

    def checked(self, experts: int = MAX_EXPERTS) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Yield the pieces, their choices as int64, with a flag for each token and layer: whether it was routed there.

        Whole rows of -1 are padding.

        Raises
        ------
        InputError
            If an expert is none of so many, or a token chose one twice.
        """
        for inside, first, given in self.pieces:
            if given.dtype.kind not in "iu":
                raise InputError(f"{self.where}: {inside} is {given.dtype}; integers are needed")
            for start, part in _parts(given):
                wrong = np.asarray(((part < PADDING) | (part >= experts)).any(axis=2))  # before int64 makes -1 of 2^64 - 1
                self._refuse(wrong, part, inside, first + start, f"0 to {experts - 1} are needed")
                chosen = part.astype(np.int64)
                yield inside, first + start, chosen, self._routed(chosen, inside, first + start)

    def _routed(self, chosen: np.ndarray, inside: str, first: int) -> np.ndarray:
        padding = chosen == PADDING
        routed = np.asarray(~padding.all(axis=2))
        self._refuse(
            np.asarray(padding.any(axis=2) & routed), chosen, inside, first, "-1 is padding, in place of all choices or of none"
        )
        if chosen.shape[2] > 1:
            if self.blank_zeros:
                routed &= chosen.any(axis=2)
            in_order = np.sort(chosen, axis=2)
            twice = (in_order[:, :, 1:] == in_order[:, :, :-1]).any(axis=2) & routed
            self._refuse(twice, chosen, inside, first, "different experts are needed")
        return routed

    def _refuse(self, wrong: np.ndarray, chosen: np.ndarray, inside: str, first: int, needed: str) -> None:
        """Refuse choices, a flag for each token and layer."""
        if wrong.any():
            token, layer = (int(place) for place in np.argwhere(wrong)[0])
            said = shown(chosen[token, layer].tolist())
            raise InputError(f"{self.where}: {inside}: token {first + token}, layer {layer} chose {said}; {needed}")


NO_TOKEN = "has no token with routed experts; [tokens, layers, top-k] is needed"


def _parts(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    most = max(1, PIECE_CHOICES // max(1, array[0].size if len(array) else 1))
    for start in range(0, len(array), most):
        yield start, array[start : start + most]


def requests_of(inside: str, array: np.ndarray) -> list[Piece]:
    """Return an array as a piece for each request: one, or those along a first of four axes."""
    return [(inside, 0, part) for part in (array if array.ndim == 4 else [array])]


def streamed(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, inside: str, where: str) -> Iterator[Piece]:
    """Yield the requests of an array whose header was read from an open npy stream, in C order, a piece at a time.

    Raises
    ------
    InputError
        If the stream ends before the array does, or holds more.
    """
    tokens, *row = shape[-3:]
    row_bytes = row[0] * row[1] * dtype.itemsize
    most = max(1, PIECE_CHOICES // max(1, row[0] * row[1]))
    for _ in range(shape[0] if len(shape) == 4 else 1):
        for start in range(0, tokens, most):
            count = min(most, tokens - start)
            data = member.read(count * row_bytes)
            if len(data) < count * row_bytes:
                raise InputError(f"{where}: {inside} is truncated: it claims shape {shape} of {dtype} and ends before")
            yield inside, start, np.frombuffer(data, dtype).reshape(count, *row)
    if member.read(1):
        raise InputError(f"{where}: {inside} claims shape {shape} of {dtype}, and holds more")
