"""Packing: put items into packs of equal size (groups on nodes, replicas on GPUs) so that the fullest pack is light.

All rules take rows of floats on the CPU and return a :class:`Packing`. Each loops over rows and items, or is vectorised,
as the published programs are, so that its measured time is theirs; ties go to the first index, sorts are stable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace
from typing import Any

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
        loads: list[Any] = [0.0] * packs  # tensors as soon as there is something, as the published program has them
        sizes = [0] * packs
        for item in order[row]:
            lightest = min((p for p in range(packs) if sizes[p] < capacity), key=loads.__getitem__)
            pack[row, item] = lightest
            rank[row, item] = sizes[lightest]
            loads[lightest] += weight[row, item]
            sizes[lightest] += 1
    return Packing(pack, rank)


def snake(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Boustrophedon deal: the sorted items go to the packs forwards, then backwards, and so on."""
    return _deal(weight, [number % 2 for number in range(weight.shape[1] // packs)])


def thue_morse(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Deal the sorted items as :func:`snake` does; a round goes backwards if its number has an odd count of one bits."""
    return _deal(weight, [number.bit_count() % 2 for number in range(weight.shape[1] // packs)])


def _deal(weight: Tensor, backwards: list[int]) -> Packing:
    """Give every pack one item per round, heaviest items first; ``backwards`` names the rounds that start at the last pack."""
    packs = weight.shape[1] // len(backwards)
    if len(backwards) == 1:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    position = torch.arange(weight.shape[1])
    rank, column = position // packs, position % packs
    dealt = torch.where(torch.tensor(backwards)[rank] == 0, column, packs - 1 - column)
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
    loads = weight.new_zeros(rows, packs)
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


def epsilon_lpt(weight: Tensor, label: Tensor, packs: int, epsilon: float = 0.0) -> Packing:
    """LPT in which, of the packs at most ``epsilon`` mean pack loads above the lightest, the one with fewest repeats is taken.

    Repeats are replicas of the item's expert that the pack already holds; ties go to the lighter pack, then to the first.
    """

    def choose(packs_with_room: list[int], loads: list[float], repeats: list[int], mean: float) -> int:
        limit = min(loads[p] for p in packs_with_room) + epsilon * mean
        return min((p for p in packs_with_room if loads[p] <= limit), key=lambda p: (repeats[p], loads[p]))

    return _greedy(weight, label, packs, choose)


def penalty_lpt(weight: Tensor, label: Tensor, packs: int, penalty: float = 0.0) -> Packing:
    """LPT on ``load + penalty * repeats``, the penalty in mean pack loads; ties go to the first pack."""

    def choose(packs_with_room: list[int], loads: list[float], repeats: list[int], mean: float) -> int:
        return min(packs_with_room, key=lambda p: loads[p] + penalty * mean * repeats[p])

    return _greedy(weight, label, packs, choose)


def _greedy(
    weight: Tensor, label: Tensor, packs: int, choose: Callable[[list[int], list[float], list[int], float], int]
) -> Packing:
    """Heaviest item next, into the pack that ``choose(packs with room, loads, repeats, mean pack load)`` names."""
    capacity = weight.shape[1] // packs
    if capacity == 1:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    pack, rank = torch.empty_like(order), torch.empty_like(order)
    for row, (sizes, labels) in enumerate(zip(weight.tolist(), label.tolist(), strict=True)):
        loads, filled = [0.0] * packs, [0] * packs
        held: dict[int, list[int]] = {expert: [0] * packs for expert in labels}
        mean = sum(sizes) / packs
        for item in order[row].tolist():
            repeats = held[labels[item]]
            best = choose([p for p in range(packs) if filled[p] < capacity], loads, repeats, mean)
            pack[row, item] = best
            rank[row, item] = filled[best]
            loads[best] += sizes[item]
            filled[best] += 1
            repeats[best] += 1
    return Packing(pack, rank)


def heap_lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """LPT as in :func:`lpt`, with a heap of the packs that have room in place of the scan over all."""
    if weight.shape[1] == packs:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices.tolist()
    rows = [_Row(sizes, packs) for sizes in weight.tolist()]
    for row, items in zip(rows, order, strict=True):
        row.deal(items)
    return Packing(torch.tensor([row.pack for row in rows]), torch.tensor([row.rank for row in rows]))


def spread_lpt(weight: Tensor, label: Tensor, packs: int) -> Packing:
    """Replicated experts first, each over as many of the lightest packs as it has replicas; LPT for the rest.

    Experts come by load per replica, heaviest first. Replicas share a pack only where too few packs have room.
    """
    if weight.shape[1] == packs:
        return identity(weight, packs)
    order = weight.sort(dim=1, descending=True, stable=True).indices
    rows = [_Row(sizes, packs) for sizes in weight.tolist()]
    for row, items, labels in zip(rows, order.tolist(), label.gather(1, order).tolist(), strict=True):
        replicas: dict[int, list[int]] = {}
        for item, expert in zip(items, labels, strict=True):
            replicas.setdefault(expert, []).append(item)
        for bundle in replicas.values():
            if len(bundle) > 1:
                row.spread(bundle)
        row.deal([bundle[0] for bundle in replicas.values() if len(bundle) == 1])
    return Packing(torch.tensor([row.pack for row in rows]), torch.tensor([row.rank for row in rows]))


class _Row:
    """One row while its packs fill up: a heap of the packs with room by load, ties to the lower pack."""

    def __init__(self, sizes: list[float], packs: int) -> None:
        self.sizes = sizes
        self.capacity = len(sizes) // packs
        self.open = [(0.0, p) for p in range(packs)]
        self.filled = [0] * packs
        self.pack = [0] * len(sizes)
        self.rank = [0] * len(sizes)

    def deal(self, items: list[int]) -> None:
        """Put every item on the lightest pack with room."""
        sizes, capacity, heap, filled, pack, rank = self.sizes, self.capacity, self.open, self.filled, self.pack, self.rank
        for item in items:
            load, lightest = heap[0]
            pack[item] = lightest
            rank[item] = filled[lightest]
            filled[lightest] += 1
            if filled[lightest] < capacity:
                heapreplace(heap, (load + sizes[item], lightest))
            else:
                heappop(heap)

    def spread(self, items: list[int]) -> None:
        """Put the items on the lightest packs with room, one each, while there are enough of them."""
        lightest = [heappop(self.open) for _ in range(min(len(items), len(self.open)))]
        for (load, p), item in zip(lightest, items, strict=False):
            self.pack[item], self.rank[item] = p, self.filled[p]
            self.filled[p] += 1
            if self.filled[p] < self.capacity:
                heappush(self.open, (load + self.sizes[item], p))
        self.deal(items[len(lightest) :])


PACKERS: dict[str, Packer] = {
    "lpt": lpt,
    "snake": snake,
    "thue_morse": thue_morse,
    "round_lpt": round_lpt,
    "diversity_lpt": diversity_lpt,
    "projected_diversity_lpt": projected_diversity_lpt,
    "epsilon_lpt": epsilon_lpt,
    "penalty_lpt": penalty_lpt,
    "heap_lpt": heap_lpt,
    "spread_lpt": spread_lpt,
}
"""Packing rules by name."""
