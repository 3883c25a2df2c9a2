"""When the traffic changed: the phases that a recording tells of, or where its loads jump."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eplb_gap.problem.loads import LoadTrace

JUMP = 3.0
"""A change is a drift of more than so many times the median drift, and no less than its neighbours."""


@dataclass(frozen=True)
class Traffic:
    """Changes of the traffic on the axis of a trace's windows.

    Parameters
    ----------
    changes : list of (float, str)
        Where something new begins, 0 for the first phase, and what it is called; no names where nothing tells them.
    how : str
        How they are known.
    """

    changes: list[tuple[float, str]]
    how: str


def stretches(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and means of consecutive stretches of ``width``; the last is shorter where they do not divide the steps.

    Parameters
    ----------
    values : ndarray
        [steps, ...], of any number type.
    width : int

    Returns
    -------
    starts : ndarray
        int64 [stretches].
    means : ndarray
        float64 [stretches, ...].
    """
    starts = np.arange(0, len(values), width)
    lengths = np.diff(np.append(starts, len(values)))
    sums = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
    return starts, sums / lengths.reshape(-1, *[1] * (values.ndim - 1))


def drift(trace: LoadTrace, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where stretches of ``width`` windows meet, and how far the loads of both are apart.

    The distance is the total variation of the experts' shares, 0 to 1, mean over the layers; a layer without load counts as flat.
    Windows at the end that fill no stretch are left out.

    Returns
    -------
    starts : ndarray
        int64 [stretches - 1].
    distances : ndarray
        float64 [stretches - 1].
    """
    starts, loads = stretches(trace.loads[: len(trace.loads) // width * width], width)
    loads[loads.sum(axis=2) == 0] = 1.0
    shares = loads / loads.sum(axis=2, keepdims=True)
    return starts[1:], 0.5 * np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1)


def traffic(trace: LoadTrace, width: int) -> Traffic:
    """Return when the traffic changed, as the provenance tells it or, where it does not, as the drift shows it.

    Parameters
    ----------
    trace : LoadTrace
        ``provenance["phases"]`` counts where it is a list of ``{"name": ..., "steps": ...}`` that covers the recorded steps.
    width : int
        Windows of a stretch whose drift is looked at.

    Examples
    --------
    >>> from eplb_gap import LoadTrace
    >>> from eplb_gap.analysis.replay.traffic import traffic
    >>> phases = [{"name": "chat", "steps": 4}, {"name": "code", "steps": 2}]
    >>> traffic(LoadTrace([[[3, 1]]] * 6, {"phases": phases}), 1).changes
    [(0.0, 'chat'), (4.0, 'code')]
    >>> traffic(LoadTrace([[[90 + step, 10]] for step in range(5)] + [[[10, 90]]] * 5), 1).changes
    [(5.0, '')]
    """
    told = _phases(trace)
    if told is not None:
        return Traffic(told, "phases of the recording")
    starts, distances = drift(trace, width)
    padded = np.pad(distances, 1)
    peaks = (distances >= padded[:-2]) & (distances >= padded[2:])
    jumps = starts[peaks & (distances > JUMP * np.median(distances))] if len(distances) else starts
    return Traffic([(float(at), "") for at in jumps], f"drift above {JUMP:g} times its median")


def _phases(trace: LoadTrace) -> list[tuple[float, str]] | None:
    told, provenance = trace.provenance.get("phases"), trace.provenance
    if not isinstance(told, list) or not all(_is_phase(phase) for phase in told) or provenance.get("dropped_steps"):
        return None
    each, before = trace.window_steps, provenance.get("left_out_steps", 0)
    ends = np.cumsum([phase["steps"] for phase in told]).tolist()
    if not ends or type(before) is not int or ends[-1] != before + each * len(trace.loads):
        return None
    begins = [max(0.0, (start - before) / each) for start in (0, *ends[:-1])]
    return [(begin, phase["name"]) for begin, phase, end in zip(begins, told, ends, strict=True) if end > before]


def _is_phase(phase: object) -> bool:
    if not isinstance(phase, dict):
        return False
    name, steps = phase.get("name"), phase.get("steps")
    return isinstance(name, str) and name.isprintable() and type(steps) is int and 0 < steps < 1 << 32
