"""What ``--map`` and ``--previous`` stand for."""

from __future__ import annotations

import numpy as np

from eplb_gap import Deployment, rebalance
from eplb_gap.cli.maps import planned_map


def test_a_method_that_improves_a_map_starts_from_the_one_in_use() -> None:
    deployment = Deployment(16, 24, 4)
    history = np.random.default_rng(4).integers(1, 900, (2, 3, 16))
    in_use = rebalance(history[0], deployment, method="fast")
    improved = planned_map("swift-balance", history, deployment, None, [0, 1, 2], in_use).regular("--map")
    expected = rebalance(history[1], deployment, method="swift-balance", previous=in_use)
    assert (improved.phy2log == expected.phy2log).all()
    alone = planned_map("swift-balance", history, deployment, None, [0, 1, 2]).regular("--map")
    assert (improved.phy2log != alone.phy2log).any()
    fast = planned_map("fast", history, deployment, None, [0, 1, 2], in_use).regular("--map")
    assert (fast.phy2log == rebalance(history[1], deployment, method="fast").phy2log).all()
