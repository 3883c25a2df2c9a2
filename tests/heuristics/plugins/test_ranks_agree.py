from __future__ import annotations

import numpy as np
import pytest
import torch

from eplb_gap.heuristics.plugins.agreement import same_everywhere
from eplb_gap.problem import Placement

MAPS = [None, Placement([[0, 1, 2]], 3), Placement([[0, 2, 1]], 3)]


@pytest.mark.parametrize("others", MAPS)
def test_ranks_agree_where_all_have_one_map_or_none_has_one(monkeypatch, others):
    words = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, op, group: words.append(tensor.clone()))
    for placement in [others, *MAPS]:
        same_everywhere(placement, None)

    def together(tensor, op, group):
        assert op == torch.distributed.ReduceOp.MAX
        tensor.copy_(torch.maximum(tensor, words[0]))

    monkeypatch.setattr(torch.distributed, "all_reduce", together)
    for placement in MAPS:
        again = None if placement is None else Placement(np.array(placement.phy2log), 3)
        assert same_everywhere(again, None) == (placement is others)
