"""Loads of the classical scheduling instances: integers in the ranges of their class, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from eplb_gap.experiments.loads.scheduling import processing_times


@pytest.mark.parametrize("largest", [100, 1000, 10_000])
def test_a_class_has_its_ranges(largest: int) -> None:
    uniform = processing_times("uniform", 5000, largest, 0)
    assert 1 <= uniform.min() <= 0.01 * largest
    assert 0.99 * largest <= uniform.max() <= largest
    times = processing_times("nonuniform", 5000, largest, 0)
    few = times[times <= 0.2 * (largest - 1)]
    assert len(few) == 100
    assert few.min() >= 1
    others = times[times > 0.2 * (largest - 1)]
    assert others.min() >= 0.9 * (largest - 1)
    assert others.max() <= largest


def test_a_seed_is_an_instance() -> None:
    assert np.array_equal(processing_times("nonuniform", 50, 1000, 3), processing_times("nonuniform", 50, 1000, 3))
    assert not np.array_equal(processing_times("uniform", 50, 1000, 3), processing_times("uniform", 50, 1000, 4))


def test_small_jobs_are_rounded_down_to_none() -> None:
    assert processing_times("nonuniform", 10, 100, 0).min() >= 90
