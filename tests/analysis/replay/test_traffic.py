"""Changes of the traffic: told phases count where they cover the recording, else the loads' own jumps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eplb_gap import LoadTrace
from eplb_gap.analysis.replay.traffic import drift, traffic

PHASES = [{"name": "a", "steps": 8}, {"name": "b", "steps": 4}, {"name": "c", "steps": 12}]
MIXES = np.array([[60, 20, 10, 10], [10, 20, 10, 60], [25, 25, 25, 25]])


def loads(seed: int = 0) -> np.ndarray:
    """Return 24 steps of one layer whose mix changes at steps 8 and 12."""
    mixes = np.repeat(MIXES, [8, 4, 12], axis=0)[:, None]
    return np.random.default_rng(seed).poisson(100 * mixes)


@pytest.mark.parametrize(
    ("told", "windows", "expected"),
    [
        ({}, 24, [(0.0, "a"), (8.0, "b"), (12.0, "c")]),
        ({"window_steps": 2}, 12, [(0.0, "a"), (4.0, "b"), (6.0, "c")]),
        ({"window_steps": 5, "left_out_steps": 4}, 4, [(0.0, "a"), (0.8, "b"), (1.6, "c")]),
        ({"window_steps": 5, "left_out_steps": 9}, 3, [(0.0, "b"), (0.6, "c")]),
    ],
)
def test_phases_are_told_on_the_axis_of_the_windows(
    told: dict[str, Any], windows: int, expected: list[tuple[float, str]]
) -> None:
    found = traffic(LoadTrace(np.ones((windows, 1, 4), dtype=np.int64), {"phases": PHASES, **told}), 1)
    assert found.changes == expected
    assert found.how == "phases of the recording"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"phases": []},
        {"phases": "a"},
        {"phases": PHASES[:2]},
        {"phases": PHASES, "dropped_steps": 2},
        {"phases": PHASES, "left_out_steps": []},
        {"phases": [*PHASES[:2], {"name": "c"}]},
        {"phases": [*PHASES[:2], {"name": "c", "steps": True}]},
        {"phases": [*PHASES[:2], {"name": "\x1b[2J", "steps": 12}]},
        {"phases": [*PHASES[:2], 12]},
    ],
)
def test_where_nothing_fitting_is_told_the_jumps_of_the_loads_are_found(told: dict[str, Any]) -> None:
    found = traffic(LoadTrace(loads(), told), 1)
    assert found.changes == [(8.0, ""), (12.0, "")]
    assert found.how == "drift above 3 times its median"


def test_steady_traffic_has_no_changes() -> None:
    steady = np.random.default_rng(1).poisson(np.full((60, 2, 8), 50))
    assert traffic(LoadTrace(steady), 2).changes == []
    for steps in (1, 2):
        assert traffic(LoadTrace(steady[:steps]), 1).changes == []


@pytest.mark.parametrize("width", [1, 3, 5])
def test_drift_is_that_of_the_trace_in_windows(width: int) -> None:
    whole = 24 // width * width
    starts, distances = drift(LoadTrace(loads()), width)
    assert starts.tolist() == list(range(width, whole, width))
    assert distances == pytest.approx(LoadTrace(loads()[:whole]).windowed(width).drift())
