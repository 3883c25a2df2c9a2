"""Packing: put items into packs of equal size (groups on nodes, replicas on GPUs) so that the fullest pack is light.

All rules take float32 rows on the CPU and return a :class:`Packing`. They loop over rows and items, as the published
programs do, so that their measured time is the published programs' time; ties go to the first index, sorts are stable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where every item is.

    Parameters
    ----------
    pack : Tensor
        Pack of every item, int64 [rows, items].
    rank : Tensor
        Position of every item inside its pack, 0 to items / packs - 1, int64 [rows, items].
    """

    pack: Tensor
    rank: Tensor


Packer = Callable[[Tensor, Tensor, int], Packing]
"""``packer(weight [rows, items], label [rows, items], packs)``; items of one label are replicas of one expert."""


def identity(weight: Tensor, packs: int) -> Packing:
    """Put item i into pack i: the shortcut of every program where a pack has one slot."""
    pack = torch.arange(packs).expand(weight.shape[0], packs).clone()
    return Packing(pack, torch.zeros_like(pack))


def lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Longest processing time first with a cardinality limit: heaviest item next, into the lightest pack with room."""
    rows, items = weight.shape
    capacity = items // packs
    if capacity == 1:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    pack, rank = torch.empty_like(order), torch.empty_like(order)
    for row in range(rows):
        loads = [torch.zeros(())] * packs
        sizes = [0] * packs
        for item in order[row]:
            lightest = min((p for p in range(packs) if sizes[p] < capacity), key=loads.__getitem__)
            pack[row, item] = lightest
            rank[row, item] = sizes[lightest]
            loads[lightest] = loads[lightest] + weight[row, item]
            sizes[lightest] += 1
    return Packing(pack, rank)


def snake(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Boustrophedon deal: the sorted items go to the packs forwards, then backwards, and so on."""
    if weight.shape[1] == packs:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    position = torch.arange(weight.shape[1])
    rank, column = position // packs, position % packs
    dealt = torch.where(rank % 2 == 0, column, packs - 1 - column)
    return Packing(
        torch.empty_like(order).scatter_(1, order, dealt.expand_as(order)),
        torch.empty_like(order).scatter_(1, order, rank.expand_as(order)),
    )


def round_lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Round-robin water-filling: every round gives the next ``packs`` heaviest items to the packs, lightest pack first."""
    rows, items = weight.shape
    if items == packs:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    pack, rank = torch.empty_like(order), torch.empty_like(order)
    loads = torch.zeros(rows, packs)
    for number in range(items // packs):
        chosen = order[:, number * packs : (number + 1) * packs]
        lightest = loads.sort(dim=1, stable=True).indices
        pack.scatter_(1, chosen, lightest)
        rank.scatter_(1, chosen, number)
        loads.scatter_add_(1, lightest, weight.gather(1, chosen))
    return Packing(pack, rank)


def diversity_lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """LPT whose first criterion is how many replicas of the expert a pack already holds, then load, then size."""
    return _by_repeats(weight, label, packs, project=False)


def projected_diversity_lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """As :func:`diversity_lpt`, with the load that the pack would have with the item."""
    return _by_repeats(weight, label, packs, project=True)


def _by_repeats(weight: Tensor, label: Tensor, packs: int, project: bool) -> Packing:
    rows, items = weight.shape
    capacity = items // packs
    if capacity == 1:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    pack, rank = torch.empty_like(order), torch.empty_like(order)
    for row in range(rows):
        loads = [torch.zeros(())] * packs
        sizes = [0] * packs
        held: list[dict[int, int]] = [{} for _ in range(packs)]
        labels = label[row].tolist()
        for item in order[row].tolist():
            load = weight[row, item]
            # Adding the same item to every pack keeps their order in exact arithmetic; float32 rounding can change it.
            key = [(held[p].get(labels[item], 0), loads[p] + load if project else loads[p], sizes[p], p) for p in range(packs)]
            best = min(key[p] for p in range(packs) if sizes[p] < capacity)[-1]
            pack[row, item] = best
            rank[row, item] = sizes[best]
            loads[best] = loads[best] + load
            sizes[best] += 1
            held[best][labels[item]] = held[best].get(labels[item], 0) + 1
    return Packing(pack, rank)


PACKERS: dict[str, Packer] = {
    "lpt": lpt,
    "snake": snake,
    "round_lpt": round_lpt,
    "diversity_lpt": diversity_lpt,
    "projected_diversity_lpt": projected_diversity_lpt,
}
"""Packing rules by name."""
