"""Which window of a trace is planned on and which one is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from eplb_gap.problem.errors import InputError, require_kind
from eplb_gap.problem.loads import LoadTrace


@dataclass(frozen=True)
class Windows:
    """A past and the window that follows.

    Parameters
    ----------
    history : ndarray
        int64 [windows, layers, experts], oldest first; its last window is planned on.
    serving : ndarray
        int64 [layers, experts].
    plan_window, serve_window : int
        Indices in the trace.
    """

    history: np.ndarray
    serving: np.ndarray
    plan_window: int
    serve_window: int

    @property
    def planning(self) -> np.ndarray:
        """Loads that are planned on, int64 [layers, experts]."""
        return np.asarray(self.history[-1])

    @classmethod
    def of(cls, trace: LoadTrace, plan_window: int | None = None, serve_window: int | None = None) -> Self:
        """Return planning and serving window: by default the last but one and the last, or the one behind the planning window.

        Raises
        ------
        InputError
            If the trace is none, a window does not exist, or the serving window does not come after the planning window.
        """
        require_kind("trace", trace, LoadTrace)
        count = len(trace.loads)
        if count < 2:
            raise InputError(f"the trace has {count} window; at least two are needed, one to plan on and one to serve")
        plan = _index("plan-window", -2 if plan_window is None else plan_window, count)
        serve = _index("serve-window", plan + 1 if serve_window is None else serve_window, count)
        if serve <= plan:
            raise InputError(f"serve-window is {serve}; a window after plan-window {plan} is needed")
        return cls(trace.loads[: plan + 1], trace.window(serve), plan, serve)


def _index(name: str, index: int, count: int) -> int:
    if not -count <= index < count:
        raise InputError(f"{name} is {index}; the trace has windows 0 to {count - 1}")
    return index % count
