"""Replication: how many replicas every expert gets.

Rules take float32 rows on the CPU, experts in ascending logical id, and return replicas in the order in which the
published programs list them: the first replica of every expert, then the extra ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Replication:
    """Replicas of every row.

    Parameters
    ----------
    expert : Tensor
        Expert of every replica, int64 [rows, slots].
    rank : Tensor
        Number of the replica within its expert, from 0 and dense, int64 [rows, slots].
    count : Tensor
        Replicas of every expert, int64 [rows, experts].
    """

    expert: Tensor
    rank: Tensor
    count: Tensor


Replicator = Callable[[Tensor, int], Replication]
"""``replicator(weight [rows, experts], slots)``."""


def adams(weight: Tensor, slots: int) -> Replication:
    """Adams' divisor method: each extra replica goes to the expert with the largest load per replica.

    It minimises the largest load per replica (Balinski and Young, *Fair Representation*). Ties go to the lower logical id.
    """
    rows, experts = weight.shape
    expert = torch.arange(slots).repeat(rows, 1)
    rank = torch.zeros(rows, slots, dtype=torch.int64)
    count = torch.ones(rows, experts, dtype=torch.int64)
    row = torch.arange(rows)
    for slot in range(experts, slots):
        chosen = (weight / count).max(dim=1).indices
        expert[:, slot] = chosen
        rank[:, slot] = count[row, chosen]
        count[row, chosen] += 1
    return Replication(expert, rank, count)


def hamilton(weight: Tensor, slots: int) -> Replication:
    """Hamilton's largest remainders (Hare quota) on the extra replicas; a row without load is spread evenly."""
    experts = weight.shape[1]
    extra = slots - experts
    total = weight.sum(dim=1, keepdim=True)
    quota = extra * torch.where(total > 0, weight / total.clamp(min=torch.finfo(weight.dtype).tiny), 1.0 / experts)
    whole = quota.floor()
    count = 1 + whole.to(torch.int64)
    by_remainder = (quota - whole).sort(dim=1, descending=True, stable=True).indices
    for row, missing in enumerate((slots - count.sum(dim=1)).tolist()):
        # Rounding of the quotas can hand out a replica too many in all; the smallest remainders give it back.
        takers = by_remainder[row, :missing] if missing >= 0 else by_remainder[row][count[row, by_remainder[row]] > 1][missing:]
        count[row, takers] += 1 if missing >= 0 else -1
    return _listed(count, slots)


def _listed(count: Tensor, slots: int) -> Replication:
    rows, experts = count.shape
    first = torch.arange(experts).repeat(rows, 1)
    extra = torch.stack([torch.arange(experts).repeat_interleave(row - 1) for row in count])
    starts = (count - 1).cumsum(dim=1) - (count - 1)
    rank = torch.arange(slots - experts) - starts.gather(1, extra) + 1
    return Replication(torch.cat([first, extra], dim=1), torch.cat([torch.zeros_like(first), rank], dim=1), count)


REPLICATORS: dict[str, Replicator] = {"adams": adams, "hamilton": hamilton}
"""Replication rules by name."""
