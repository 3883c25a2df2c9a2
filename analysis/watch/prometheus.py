"""What a watched server does, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from eplb_gap.analysis.watch.scored import Score, Window

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _of(score: Score | None, name: str) -> float | None:
    return None if score is None else float(getattr(score, name))


GAUGES: dict[str, tuple[str, Callable[[Window], float | None]]] = {
    "eplb_gap_served_balancedness_ratio": (
        "Mean over largest GPU load of the map in use on the last loads, over all layers; 1 is perfect.",
        lambda window: _of(window.served, "balancedness"),
    ),
    "eplb_gap_planned_balancedness_ratio": (
        "Mean over largest GPU load of the map that was planned on the last loads, over all layers; 1 is perfect.",
        lambda window: _of(window.planned, "balancedness"),
    ),
    "eplb_gap_best_balancedness_ratio": (
        "Mean over largest GPU load that no map can exceed on the last loads, by a certified bound.",
        lambda window: window.best,
    ),
    "eplb_gap_served_gap_ratio": (
        "Largest GPU loads of the map in use over their certified lower bound, less 1, over all layers; 0 is optimal.",
        lambda window: _of(window.served, "gap"),
    ),
    "eplb_gap_served_worst_layer_gap_ratio": (
        "Largest GPU load of the map in use over its certified lower bound, less 1, of the worst layer.",
        lambda window: _of(window.served, "worst_gap"),
    ),
    "eplb_gap_planned_gap_ratio": (
        "Largest GPU loads of the planned map over their certified lower bound, less 1, over all layers; 0 is optimal.",
        lambda window: _of(window.planned, "gap"),
    ),
    "eplb_gap_moved_replicas": (
        "Replicas that the last call had copied to a GPU that did not hold their expert.",
        lambda window: window.moved,
    ),
    "eplb_gap_live_gpus": ("GPUs of the deployment that are alive.", lambda window: window.live_gpus),
    "eplb_gap_last_call_timestamp_seconds": ("When the last call was recorded, since 1970, UTC.", lambda window: window.time),
}
"""Name -> what it says, and its value of the newest window."""
COUNTERS: dict[str, tuple[str, Callable[[Window], float | None]]] = {
    "eplb_gap_calls_total": ("Calls of the serving system.", lambda window: 1),
    "eplb_gap_routed_tokens_total": ("Tokens routed to experts, over all layers.", lambda window: window.tokens),
    "eplb_gap_moved_replicas_total": ("Replicas copied to a GPU that did not hold their expert.", lambda window: window.moved),
    "eplb_gap_not_recorded_calls_total": ("Calls that could not be recorded.", lambda window: window.not_recorded),
}
"""Name -> what it counts, and what a window adds to it."""


@dataclass
class Exposition:
    """The newest window of every model, and sums over those that were seen.

    Parameters
    ----------
    counting : bool
        Whether the sums are exported: those of a process that looks once would start anew each time.
    """

    counting: bool
    _newest: dict[str, Window] = field(default_factory=dict)
    _sums: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, windows: Iterable[Window]) -> None:
        """Take windows, oldest first."""
        for window in windows:
            self._newest[window.model] = window
            for name, (_, value) in COUNTERS.items():
                key = name, window.model
                self._sums[key] = self._sums.get(key, 0) + (value(window) or 0)

    def text(self) -> str:
        """Return all metrics that have a value."""
        lines = []
        for name, (told, value) in GAUGES.items():
            lines += _family(name, told, "gauge", {model: value(window) for model, window in self._newest.items()})
        for name, (told, _) in COUNTERS.items() if self.counting else ():
            lines += _family(name, told, "counter", {model: self._sums[name, model] for model in self._newest})
        return "".join(f"{line}\n" for line in lines)


def _family(name: str, told: str, kind: str, values: dict[str, float | None]) -> list[str]:
    # A model is two numbers: its label needs no escapes.
    samples = [f'{name}{{model="{model}"}} {value!r}' for model, value in sorted(values.items()) if value is not None]
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *samples] if samples else []
