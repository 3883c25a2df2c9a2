"""Forecasts: each on a history whose answer is known, and a choice that only the past decides."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.heuristics.serving.forecast import FORECASTS, choose, decayed_mean, last_window, mean_window, successors, trend
from eplb_gap.problem import Deployment, InputError

SHAPE = Deployment(8, 8, 4)
A, B, C = np.array([[[8, 7, 6, 5, 1, 1, 1, 1]], [[1, 1, 8, 8, 9, 1, 9, 1]], [[9, 1, 1, 9, 1, 9, 1, 9]]], dtype=float)


def test_simple_forecasts() -> None:
    history = np.array([[[8.0, 0.0]], [[4.0, 2.0]], [[2.0, 8.0]]])
    assert last_window(history).tolist() == [[2.0, 8.0]]
    assert mean_window(history).tolist() == [[14 / 3, 10 / 3]]
    assert np.allclose(decayed_mean(history), [[(8 + 2 * 4 + 4 * 2) / 7, (2 * 2 + 4 * 8) / 7]])
    assert trend(history).tolist() == [[1.0, 11.0]]
    assert trend(np.array([[[9.0]], [[2.0]]])).tolist() == [[0.0]]


def test_successors_know_what_followed() -> None:
    assert np.allclose(successors(np.stack([A, B, C, A, B, C, A])), B, atol=0.2)
    assert np.allclose(successors(np.stack([A, B, C, A, B])), C, atol=0.2)
    assert successors(np.stack([A, B])).tolist() == B.tolist()


def test_histories_without_load_are_forecast_too() -> None:
    for forecast in FORECASTS.values():
        for windows in (1, 2, 4):
            assert not forecast(np.zeros((windows, 2, 8))).any()


def test_alternating_traffic_is_recognised_from_the_past() -> None:
    found = choose(np.stack([A, B, C] * 4).astype(int), SHAPE)
    assert found.name == "successors" and found.beats_last_window
    assert np.abs(found.loads - A).max() <= 1


def test_where_nothing_beats_the_last_window_it_is_chosen_and_said() -> None:
    steady = np.stack([A] * 4).astype(int)
    found = choose(steady, SHAPE)
    assert (found.name, found.beats_last_window) == ("last", False)
    assert found.scores.keys() == FORECASTS.keys()
    assert found.loads.dtype == np.int64 and (found.loads == steady[-1]).all()


def test_the_future_is_not_looked_at() -> None:
    past = np.stack([A, B, C, A, C, B]).astype(int)
    assert choose(past[:4], SHAPE).scores == choose(past.copy()[:4], SHAPE).scores
    changed = past.copy()
    changed[-1] = 77
    for name in FORECASTS:
        assert (FORECASTS[name](changed[:-1].astype(float)) == FORECASTS[name](past[:-1].astype(float))).all()


def test_one_window_has_no_past() -> None:
    found = choose(A[None].astype(int), SHAPE)
    assert (found.name, found.scores, found.beats_last_window) == ("last", {}, False)


def test_bad_histories_are_named() -> None:
    with pytest.raises(InputError, match="history has 7 experts"):
        choose(np.ones((2, 1, 7), int), SHAPE)
    with pytest.raises(InputError, match="history has shape"):
        choose(np.ones((2, 8), int), SHAPE)
