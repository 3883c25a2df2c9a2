"""Recorded expert loads: a checked int64 array, where it comes from, and how skewed and how stable it is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eplb_gap.problem.arrays.trace_file import read_trace_file, write_trace_file
from eplb_gap.problem.errors import InputError, next_divisors, such_as

TRACE_FORMAT = "eplb-gap load trace"
TRACE_VERSION = 1
MAX_TRACE_BYTES = 4 << 30  # decompressed; a file that claims more is refused before anything is read


def as_loads(value: Any, name: str, ndim: int) -> np.ndarray:
    """Check loads and return them as a C-contiguous int64 array.

    Parameters
    ----------
    value : array_like
        Integers; floating-point numbers are taken only where every one is integral.
    name : str
        Name of the argument, for messages.
    ndim : int
        Number of axes it must have.

    Raises
    ------
    InputError
        If the shape is wrong or an entry is negative, not finite, not integral or beyond int64.
    """
    array = _rectangular(value, name)
    if array.ndim != ndim or not array.size:
        raise InputError(f"{name} has shape {array.shape}; {ndim} non-empty axes are needed")
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} has dtype {array.dtype}; integers are needed")
    if array.dtype.kind == "f":
        array = array.astype(np.promote_types(array.dtype, np.float64))
        _refuse(name, array, ~np.isfinite(array), "finite")
        _refuse(name, array, array != np.floor(array), "integral")
    _refuse(name, array, array < 0, "non-negative")
    _refuse(name, array, array > _largest(array), "small enough for a layer's sum to fit int64")
    return np.ascontiguousarray(array, dtype=np.int64)


def as_numbers(value: Any, name: str) -> np.ndarray:
    """Return an array of real numbers, of whatever type and shape it is.

    Raises
    ------
    InputError
        If it is ragged or holds anything but real numbers.
    """
    array = _rectangular(value, name)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}; real numbers are needed")
    return array


def _rectangular(value: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(f"{name} is ragged; a rectangular array is needed") from None


def _largest(array: np.ndarray) -> int | float:
    """Largest load whose layer sum fits int64, in the number type of the array so that comparing rounds nothing upwards."""
    limit = int(np.iinfo(np.int64).max) // int(array.shape[-1])
    if array.dtype.kind != "f":
        return limit
    nearest = float(limit)
    return nearest if int(nearest) <= limit else float(np.nextafter(nearest, 0.0))


def _refuse(name: str, array: np.ndarray, bad: np.ndarray, needed: str) -> None:
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(f"{name}{list(where)} is {array[where]}; loads must be {needed}")


@dataclass(frozen=True)
class LoadTrace:
    """Expert loads of consecutive windows of a served model.

    Parameters
    ----------
    loads : array_like of int [windows, layers, experts]
        Tokens routed to each logical expert.
    provenance : dict
        Where the loads come from, JSON-serialisable; ``provenance["window_steps"]`` says how many steps a window sums.

    Raises
    ------
    InputError
        As :func:`as_loads`.

    Examples
    --------
    >>> from eplb_gap import LoadTrace
    >>> trace = LoadTrace([[[6, 2]], [[2, 6]]])  # two windows of one layer with two experts
    >>> trace.window(-1).tolist()
    [[2, 6]]
    >>> trace.drift().tolist()
    [0.5]
    """

    loads: np.ndarray
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = as_loads(self.loads, "loads", 3).copy()
        checked.flags.writeable = False
        object.__setattr__(self, "loads", checked)

    @property
    def window_steps(self) -> int:
        """Steps that every window sums: 1, unless the provenance says more.

        Raises
        ------
        InputError
            If what it says is no positive integer, a list of lengths that differ, say.
        """
        told = self.provenance.get("window_steps", 1)
        if type(told) is not int or told < 1:
            raise InputError(f"window_steps is {told!r:.80}; one positive integer, the steps of every window, is needed")
        return told

    def window(self, index: int) -> np.ndarray:
        """Return the loads of one window, int64 [layers, experts]; negative indices count from the end."""
        count = self.loads.shape[0]
        if not -count <= index < count:
            raise InputError(f"window is {index}; the trace has windows 0 to {count - 1}")
        return np.asarray(self.loads[index])

    def windowed(self, steps: int) -> LoadTrace:
        """Return the trace summed over ``steps`` consecutive windows; they must divide the number of windows."""
        count = self.loads.shape[0]
        if steps < 1 or count % steps:
            near = such_as(("", next_divisors(steps, count)))
            raise InputError(f"steps is {steps}; a divisor of the trace's {count} windows is needed{near}")
        stretches = self.loads.reshape(count // steps, steps, *self.loads.shape[1:])
        summed = stretches.sum(axis=1)
        if int(self.loads.max()) * steps > _largest(self.loads):
            summed = stretches.sum(axis=1, dtype=object)
            _refuse("summed loads", summed, summed > _largest(self.loads), "small enough for a layer's sum to fit int64")
            summed = summed.astype(np.int64)
        return LoadTrace(summed, {**self.provenance, "window_steps": steps * self.window_steps})

    def skew(self, num_groups: int = 1, top: int = 8) -> dict[str, np.ndarray]:
        """Return how uneven each window is, averaged over its layers.

        Returns
        -------
        dict
            float64 [windows] each: ``max_over_mean``, ``cv`` (standard deviation / mean), ``top_share`` (share of the
            ``top`` hottest experts), ``group_max_over_mean`` (of the groups' summed loads). A layer without load counts as flat.
        """
        loads = self.loads.astype(np.float64)
        windows, layers, experts = loads.shape
        if num_groups < 1 or experts % num_groups:
            near = such_as(("", next_divisors(num_groups, experts)))
            raise InputError(f"num_groups is {num_groups}; a divisor of the {experts} experts is needed{near}")
        loads[loads.sum(axis=2) == 0] = 1.0
        mean = loads.mean(axis=2)
        groups = loads.reshape(windows, layers, num_groups, -1).sum(axis=3)
        shares = np.sort(loads, axis=2)[:, :, -top:].sum(axis=2) / loads.sum(axis=2)
        return {
            "max_over_mean": (loads.max(axis=2) / mean).mean(axis=1),
            "cv": (loads.std(axis=2) / mean).mean(axis=1),
            "top_share": shares.mean(axis=1),
            "group_max_over_mean": (groups.max(axis=2) / groups.mean(axis=2)).mean(axis=1),
        }

    def drift(self) -> np.ndarray:
        """Return the total-variation distance of consecutive windows, averaged over layers; float64 [windows - 1]."""
        loads = self.loads.astype(np.float64)
        loads[loads.sum(axis=2) == 0] = 1.0
        shares = loads / loads.sum(axis=2, keepdims=True)
        return np.asarray(0.5 * np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a compressed npz without pickle, in the narrowest unsigned integer type; atomic."""
        narrow = self.loads.astype(np.min_scalar_type(int(self.loads.max())))
        write_trace_file(path, TRACE_FORMAT, TRACE_VERSION, self.provenance, {"loads": narrow})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LoadTrace:
        """Read a trace that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file does not exist, is truncated, is no trace, is of another version, is too large, or holds pickled objects.
        """
        provenance, arrays = read_trace_file(path, TRACE_FORMAT, TRACE_VERSION, ("loads",), MAX_TRACE_BYTES)
        return cls(arrays["loads"], provenance)
