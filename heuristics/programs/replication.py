"""Replication: how many replicas every expert gets.

Rules take rows of floats on the CPU, experts in ascending logical id, and return replicas in the order in which the
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


BISECTION_STEPS = 24  # the digits of a float32

Replicator = Callable[[Tensor, int], Replication]
"""``replicator(weight [rows, experts], slots)``."""


def adams(weight: Tensor, slots: int) -> Replication:
    """Adams' divisor method: each extra replica goes to the expert with the largest load per replica.

    It minimises the largest load per replica (Balinski and Young, *Fair Representation*). Ties go to the lower logical id.
    """
    return _one_by_one(weight, slots, lambda count: (weight / count).max(dim=1).indices)


def _one_by_one(weight: Tensor, slots: int, choose: Callable[[Tensor], Tensor]) -> Replication:
    """Hand out the extra replicas one at a time: ``choose(count)`` names the next expert of every row."""
    rows, experts = weight.shape
    expert = torch.arange(slots).repeat(rows, 1)
    rank = torch.zeros(rows, slots, dtype=torch.int64)
    count = torch.ones(rows, experts, dtype=torch.int64)
    row = torch.arange(rows)
    for slot in range(experts, slots):
        chosen = choose(count)
        expert[:, slot] = chosen
        rank[:, slot] = count[row, chosen]
        count[row, chosen] += 1
    return Replication(expert, rank, count)


def hybrid_on_copies(weight: Tensor, slots: int) -> Replication:
    """D'Hondt, then Sainte-Laguë for the last tenth of the extra replicas, with r the copies an expert holds.

    D'Hondt's priority ``w / (r + 1)`` is then Jefferson's method, not Adams'.
    """
    return _hybrid(weight, slots, lambda count: weight / (count + 1), lambda count: weight / (2 * count + 1))


def hybrid_on_extras(weight: Tensor, slots: int) -> Replication:
    """D'Hondt, then Sainte-Laguë for the last tenth of the extra replicas, with r the extra replicas an expert got.

    D'Hondt's priority ``w / (r + 1)`` is then ``w / c``, Adams' method on all copies.
    """
    return _hybrid(weight, slots, lambda count: weight / count, lambda count: weight / (2 * count - 1))


def _hybrid(weight: Tensor, slots: int, bulk: Callable[[Tensor], Tensor], tail: Callable[[Tensor], Tensor]) -> Replication:
    """Hand out replicas by the largest ``bulk(count)``, the last tenth of the extra ones, at least one, by ``tail(count)``."""
    experts = weight.shape[1]
    last = max(1, (slots - experts) // 10)

    def choose(count: Tensor) -> Tensor:
        left = slots - int(count[0].sum())
        return (tail(count) if left <= last else bulk(count)).max(dim=1).indices

    return _one_by_one(weight, slots, choose)


def fix_up(weight: Tensor, replication: Replication, moves: int) -> Replication:
    """Move up to ``moves`` replicas per row from the smallest ``w / c`` to the largest while that strictly falls.

    The donor is the expert of smallest ``w / c`` among those with more than one replica; ties go to the lower logical id. A
    row in which nothing moves keeps the order of its replicas.
    """
    count = replication.count.clone()
    for _ in range(moves):
        average = weight / count
        largest, receiver = average.max(dim=1, keepdim=True)
        donor = torch.where(count > 1, average, torch.inf).argmin(dim=1, keepdim=True)
        after = count.scatter_add(1, receiver, torch.ones_like(receiver)).scatter_add(1, donor, -torch.ones_like(donor))
        movable = count.gather(1, donor) > 1  # a row where every expert has one replica has no donor
        better = movable & ((weight / after.clamp(min=1)).amax(dim=1, keepdim=True) < largest)
        if not better.any():
            break
        count = torch.where(better, after, count)
    moved = (count != replication.count).any(dim=1, keepdim=True)
    listed = _listed(count, replication.expert.shape[1])
    return Replication(
        torch.where(moved, listed.expert, replication.expert), torch.where(moved, listed.rank, replication.rank), count
    )


def adams_top_k(weight: Tensor, slots: int) -> Replication:
    """Adams' counts without a loop: the extra replicas go to the largest of all ``w / 1, w / 2, ...`` of a row."""
    rows, experts = weight.shape
    extra = slots - experts
    count = torch.ones(rows, experts, dtype=torch.int64)
    if extra:
        hottest, expert = weight.topk(min(extra + 1, experts), dim=1)  # no other expert gets an extra replica
        priority = (hottest[:, :, None] / torch.arange(1, extra + 1)).flatten(1)
        values, place = priority.topk(min(extra + 1, priority.shape[1]), dim=1)
        chosen = expert.gather(1, place[:, :extra] // extra)
        count.scatter_add_(1, chosen, torch.ones_like(chosen))
        # topk takes any of equal priorities: where the last place is tied, the lower expert must win.
        tied = values[:, extra - 1] == values[:, -1]
        if tied.any():
            count[tied] = adams(weight[tied], slots).count
    return _listed(count, slots)


def hamilton(weight: Tensor, slots: int) -> Replication:
    """Hamilton's largest remainders (Hare quota) on the extra replicas; a row without load is spread evenly."""
    return _listed(_hamilton_counts(weight, slots), slots)


def _hamilton_counts(weight: Tensor, slots: int) -> Tensor:
    experts = weight.shape[1]
    extra = slots - experts
    total = weight.sum(dim=1, keepdim=True)
    quota = extra * torch.where(total > 0, weight / total.clamp(min=torch.finfo(weight.dtype).tiny), 1.0 / experts)
    whole = quota.floor()
    count = 1 + whole.to(torch.int64)
    by_remainder = (quota - whole).sort(dim=1, descending=True, stable=True).indices
    missing = slots - count.sum(dim=1, keepdim=True)
    count.scatter_add_(1, by_remainder, (torch.arange(experts) < missing).to(torch.int64))
    for row in (missing < 0).nonzero()[:, 0].tolist():
        # Rounding of the quotas can hand out a replica too many in all; the smallest remainders give it back.
        givers = by_remainder[row][count[row, by_remainder[row]] > 1][int(missing[row]) :]
        count[row, givers] -= 1
    return count


def threshold(weight: Tensor, slots: int) -> Replication:
    """Give every expert ``ceil(w / T)`` replicas, T the smallest that fits (bisection); the largest ``w / c`` get spare slots."""
    return _listed(_threshold_counts(weight, slots), slots)


def hamilton_or_threshold(weight: Tensor, slots: int) -> Replication:
    """Hamilton's counts, and :func:`threshold` for rows whose largest replica is more than 6 % above the mean slot load."""
    count = _hamilton_counts(weight, slots)
    poor = (weight / count).amax(dim=1) > 1.06 * weight.sum(dim=1) / slots
    if poor.any():
        count[poor] = _threshold_counts(weight[poor], slots)
    return _listed(count, slots)


def _threshold_counts(weight: Tensor, slots: int) -> Tensor:
    tiny = torch.finfo(weight.dtype).tiny

    def needed(limit: Tensor) -> Tensor:
        return (weight / limit.clamp(min=tiny)).ceil_().clamp_(min=1)

    low, high = weight.sum(dim=1, keepdim=True) / slots, weight.amax(dim=1, keepdim=True)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        fits = needed(middle).sum(dim=1, keepdim=True) <= slots
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    count = needed(high).to(torch.int64)
    while (spare := slots - count.sum(dim=1, keepdim=True)).any():
        by_size = (weight / count).sort(dim=1, descending=True, stable=True).indices
        count.scatter_add_(1, by_size, (torch.arange(weight.shape[1]) < spare).to(torch.int64))
    return count


def _listed(count: Tensor, slots: int) -> Replication:
    """List the first replica of every expert, then the extra ones by ascending expert."""
    rows, experts = count.shape
    first = torch.arange(experts).repeat(rows, 1)
    ends = (count - 1).cumsum(dim=1)
    position = torch.arange(slots - experts).repeat(rows, 1)
    extra = torch.searchsorted(ends, position, right=True)
    rank = position - (ends - count).gather(1, extra)
    return Replication(torch.cat([first, extra], dim=1), torch.cat([torch.zeros_like(first), rank], dim=1), count)


REPLICATORS: dict[str, Replicator] = {
    "adams": adams,
    "hamilton": hamilton,
    "adams_top_k": adams_top_k,
    "threshold": threshold,
    "hamilton_or_threshold": hamilton_or_threshold,
    "hybrid_on_copies": hybrid_on_copies,
    "hybrid_on_extras": hybrid_on_extras,
}
"""Replication rules by name."""
