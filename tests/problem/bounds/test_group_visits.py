"""The fewest visits of groups against every division over nodes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from eplb_gap.problem.bounds.group_visits import fewest_group_visits
from eplb_gap.problem.bounds.node_visits import room_bound
from eplb_gap.problem.errors import InputError


@pytest.mark.parametrize(("groups", "nodes"), [(4, 2), (6, 2), (6, 3), (6, 6), (3, 1), (1, 1)])
def test_no_division_of_300_instances_visits_fewer_and_one_as_few(groups: int, nodes: int) -> None:
    homes = np.array(sorted({tuple(some) for some in permutations(np.arange(groups) // (groups // nodes))}))
    for seed in range(50):
        rng = np.random.default_rng([groups, nodes, seed])
        rows = (rng.exponential(size=(25, 1)) * groups / 2 + rng.integers(0, 3, (25, 3))).astype(int) % groups
        visited = np.sort(homes[:, rows], axis=2)  # nodes of every token, division by division
        best = (1 + (np.diff(visited, axis=2) > 0).sum(axis=2)).sum(axis=1).min()
        assert fewest_group_visits(rows, groups, nodes) == best >= room_bound(rows, groups // nodes)


def test_what_cannot_be_divided_is_refused() -> None:
    for groups, nodes in ((6, 4), (17, 17), (0, 1), (4, 0)):
        with pytest.raises(InputError, match="num_groups is"):
            fewest_group_visits(np.array([[0]]), groups, nodes)
    for wrong in (-1, 4):
        with pytest.raises(InputError, match="0 to 3 are there"):
            fewest_group_visits(np.array([[wrong]]), 4, 2)
