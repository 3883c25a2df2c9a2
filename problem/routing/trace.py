"""Recorded routing: the experts of every token, layer by layer, where the token came from, and what they sum to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eplb_gap.problem.arrays.trace_file import read_trace_file, write_trace_file
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.loads import LoadTrace

ROUTING_FORMAT = "eplb-gap routing trace"
ROUTING_VERSION = 1
COLUMNS = ("source", "request", "step")
MOST_BYTES = 4 << 30
"""Of one entry of a file, decompressed."""
CHECKED_AT_ONCE = 1 << 20
"""Choices whose copies are in memory at once while they are checked."""
MOST_EXPERTS = 1 << 16
"""Experts that the widest type of a trace tells apart."""
BLOCK = 1 << 14
"""Tokens whose pairs of experts are held at once."""


@dataclass(frozen=True)
class RoutingTrace:
    """The logical experts that every token was routed to, in the order of the tokens.

    Parameters
    ----------
    experts : array_like of int [tokens, layers, topk]
        Logical experts, no one twice in a row; kept in the narrowest unsigned type that ``num_experts`` needs, without
        a copy where it is a read-only array of that type.
    num_experts : int
        Logical experts of a layer.
    source : array_like of int [tokens], optional
        Rank that the token was on before it was dispatched.
    request : array_like of int [tokens], optional
        Request that it belongs to.
    step : array_like of int [tokens], optional
        Forward pass that it was in; never falls.
    provenance : dict
        Where the routing comes from, JSON-serialisable.

    Raises
    ------
    InputError
        If the shape is wrong, an expert is unknown or repeated in a row, or a column of tokens isn't what it must be; naming
        token and layer.

    Examples
    --------
    >>> from eplb_gap.problem.routing.trace import RoutingTrace
    >>> routing = RoutingTrace([[[0, 2]], [[2, 1]], [[2, 0]]], num_experts=4)  # three tokens, one layer, top-2
    >>> routing.loads().tolist()
    [[2, 1, 3, 0]]
    >>> routing.co_activation(0).tolist()
    [[2, 0, 2, 0], [0, 1, 1, 0], [2, 1, 3, 0], [0, 0, 0, 0]]
    """

    experts: np.ndarray
    num_experts: int
    source: np.ndarray | None = None
    request: np.ndarray | None = None
    step: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.num_experts) is not int or not 1 <= self.num_experts <= MOST_EXPERTS:
            raise InputError(f"num_experts is {self.num_experts!r}; an integer from 1 to {MOST_EXPERTS} is needed")
        experts = _as_experts(self.experts, self.num_experts)
        object.__setattr__(self, "experts", experts)
        for name in COLUMNS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _as_column(name, getattr(self, name), len(experts)))
        if self.step is not None and (np.diff(self.step) < 0).any():
            token = int(np.argmax(np.diff(self.step) < 0)) + 1
            raise InputError(
                f"step[{token}] is {self.step[token]}, less than the {self.step[token - 1]} before it; steps never fall"
            )

    def loads(self) -> np.ndarray:
        """Return how many tokens went to each expert, int64 [layers, experts]."""
        return np.stack(
            [np.bincount(self.experts[:, layer].ravel(), minlength=self.num_experts) for layer in range(self.num_layers)]
        )

    @property
    def num_layers(self) -> int:
        """Layers recorded."""
        return int(self.experts.shape[1])

    @property
    def topk(self) -> int:
        """Experts of a token in a layer."""
        return int(self.experts.shape[2])

    def part(self, first: int, end: int) -> RoutingTrace:
        """Return the tokens from ``first`` to before ``end``."""
        if not 0 <= first < end <= len(self.experts):
            raise InputError(f"tokens are {first} to {end}; a stretch within the {len(self.experts)} of the trace is needed")
        columns = {name: None if (all_of := getattr(self, name)) is None else all_of[first:end] for name in COLUMNS}
        return RoutingTrace(self.experts[first:end], self.num_experts, **columns, provenance=self.provenance)

    def load_trace(self, window_tokens: int | None = None) -> LoadTrace:
        """Return the loads of consecutive windows.

        Parameters
        ----------
        window_tokens : int, optional
            Tokens of a window; what is left at the end is a window of its own. Without it a window is a forward pass, if ``step``
            says which token was in which, else the whole trace.

        Raises
        ------
        InputError
            If it is not positive.
        """
        if window_tokens is None and self.step is not None:
            ends = [*(np.flatnonzero(np.diff(self.step)) + 1).tolist(), len(self.experts)]
        else:
            length = len(self.experts) if window_tokens is None else window_tokens
            if length < 1:
                raise InputError(f"window_tokens is {window_tokens}; a positive number of tokens is needed")
            ends = [*range(length, len(self.experts), length), len(self.experts)]
        starts = [0, *ends[:-1]]
        windows = [self.part(first, end).loads() for first, end in zip(starts, ends, strict=True)]
        return LoadTrace(np.stack(windows), dict(self.provenance))

    def co_activation(self, layer: int) -> np.ndarray:
        """Return for every two experts how many tokens went to both, int64 [experts, experts]; the loads on the diagonal."""
        experts, rows = self.num_experts, self.rows(layer)
        counts = np.zeros(experts**2, dtype=np.int64)
        for first in range(0, len(rows), BLOCK):  # pairs are many more than tokens, and their counts are few
            block = rows[first : first + BLOCK].astype(np.int64)
            counts += np.bincount((block[:, :, None] * experts + block[:, None, :]).ravel(), minlength=experts**2)
        return counts.reshape(experts, experts)

    def rows(self, layer: int) -> np.ndarray:
        """Return the experts of every token in one layer, [tokens, topk]."""
        if not 0 <= layer < self.num_layers:
            raise InputError(f"layer is {layer}; the trace has layers 0 to {self.num_layers - 1}")
        return np.asarray(self.experts[:, layer])

    def bundles(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sets of experts that tokens went to, each once, and how many tokens went to each.

        Returns
        -------
        tuple of ndarray
            Sets [sets, topk], experts of a set and sets ascending, and int64 [sets].
        """
        sets, weights = np.unique(np.sort(self.rows(layer), axis=1), axis=0, return_counts=True)
        return sets, weights.astype(np.int64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a compressed npz without pickle; atomic."""
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        narrow = {name: column.astype(np.min_scalar_type(int(column.max()))) for name, column in columns.items()}
        arrays = {"experts": self.experts, "num_experts": np.array([self.num_experts]), **narrow}
        write_trace_file(path, ROUTING_FORMAT, ROUTING_VERSION, self.provenance, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RoutingTrace:
        """Read a trace that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file does not exist, is truncated, is no trace, is of another version, is too large, or holds pickled objects
            or no routing.
        """
        needed = ("experts", "num_experts")
        provenance, arrays = read_trace_file(path, ROUTING_FORMAT, ROUTING_VERSION, needed, MOST_BYTES, COLUMNS)
        told = arrays.pop("num_experts")
        if told.shape != (1,) or told.dtype.kind not in "iu":
            raise InputError(f"trace file {path}: entry 'num_experts' has shape {told.shape}; one integer is needed")
        arrays["experts"].flags.writeable = False  # nobody else has it: it is kept without a copy
        return cls(**arrays, num_experts=int(told[0]), provenance=provenance)


def _as_experts(value: Any, num_experts: int) -> np.ndarray:
    try:
        given = np.asarray(value)
    except ValueError:
        raise InputError("experts is ragged; a rectangular array [tokens, layers, topk] is needed") from None
    if given.ndim != 3 or not given.size or given.dtype.kind not in "iu":
        raise InputError(f"experts is {given.dtype} of shape {given.shape}; integers [tokens, layers, topk] are needed")
    most = max(1, CHECKED_AT_ONCE // given[0].size)
    for start in range(0, len(given), most):
        _check_rows(given[start : start + most], num_experts, start)
    narrow = np.dtype(np.uint8 if num_experts <= 1 << 8 else np.uint16)
    experts = given.astype(narrow, copy=given.dtype != narrow or given.flags.writeable)
    experts.flags.writeable = False
    return experts


def _check_rows(rows: np.ndarray, num_experts: int, first: int) -> None:
    """Refuse a row with an expert that is unknown or there twice; ``first`` is the number of the first token."""
    unknown = (rows < 0) | (rows >= num_experts)
    if unknown.any():
        token, layer, place = (int(i) for i in np.argwhere(unknown)[0])
        raise InputError(
            f"experts[{first + token}, {layer}, {place}] is {rows[token, layer, place]}; one of 0 to {num_experts - 1} is needed"
        )
    in_order = np.sort(rows, axis=2)
    repeated = (in_order[:, :, 1:] == in_order[:, :, :-1]).any(axis=2)
    if repeated.any():
        token, layer = (int(i) for i in np.argwhere(repeated)[0])
        raise InputError(f"token {first + token} names an expert twice in layer {layer}: {rows[token, layer].tolist()}")


def _as_column(name: str, value: Any, tokens: int) -> np.ndarray:
    given = np.asarray(value)
    if given.shape != (tokens,) or given.dtype.kind not in "iu" or (given < 0).any():
        raise InputError(
            f"{name} is {given.dtype} of shape {given.shape}; {tokens} integers of at least 0, one a token, are needed"
        )
    if given.max(initial=0) > np.iinfo(np.int64).max:
        raise InputError(f"{name} has {given.max()}; at most {np.iinfo(np.int64).max} is needed")
    column = given.astype(np.int64)
    column.flags.writeable = False
    return column
