"""Lines from points to their labels do not cross."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from eplb_gap.experiments.exhibits.figures.pareto import uncrossed


def _meet(points, column, heights, one, other):
    """Whether two lines meet left of the column, by their heights on a fine grid over what both span."""
    at = np.linspace(max(points[one][0], points[other][0]), column, 2000)
    lines = [points[k][1] + (heights[k] - points[k][1]) * (at - points[k][0]) / (column - points[k][0]) for k in (one, other)]
    differences = np.sign(lines[0] - lines[1])
    return differences.min() < 0 < differences.max()


@pytest.mark.parametrize("seed", range(5))
def test_no_two_leaders_cross(seed):
    points = [tuple(point) for point in np.random.default_rng(seed).uniform(0, 1, (9, 2))]
    pairs = list(combinations(range(9), 2))
    asked = np.linspace(0, 1, 9)
    assert any(_meet(points, 1.5, asked, *pair) for pair in pairs)  # as they come, they do
    found = uncrossed(points, 1.5, asked)
    assert sorted(found) == pytest.approx(asked)
    assert not any(_meet(points, 1.5, found, *pair) for pair in pairs)
