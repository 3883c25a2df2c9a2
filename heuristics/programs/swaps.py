"""Swap refinements of the published programs: exchange items between the heaviest and the lightest pack.

They look at the difference between those two packs, not at the maximum over all, and may therefore leave the maximum as
it is. A refinement changes a :class:`eplb_gap.heuristics.programs.packing.Packing` in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eplb_gap.heuristics.programs.packing import Packing

SwapRule = Callable[[Tensor, Tensor, float], tuple[int, int] | None]
"""``rule(heavy [k], light [k], difference)`` -> positions of the two items to exchange, or None."""


def unchecked(heavy: Tensor, light: Tensor, difference: float) -> tuple[int, int] | None:
    """Heaviest item of the heavy pack against the lightest of the light one, whenever the first is heavier.

    Generations 2 and 4 accept the exchange without asking whether it improves anything, which is their defect.
    """
    a, b = int(heavy.argmax()), int(light.argmin())
    return (a, b) if float(heavy[a]) > float(light[b]) else None


def extremes(heavy: Tensor, light: Tensor, difference: float) -> tuple[int, int] | None:
    """As :func:`unchecked`, only if the difference of the two packs strictly falls."""
    a, b = int(heavy.argmax()), int(light.argmin())
    left = abs(difference - 2 * (float(heavy[a]) - float(light[b])))
    return (a, b) if left < difference else None


def nearest(heavy: Tensor, light: Tensor, difference: float) -> tuple[int, int] | None:
    """For every heavy item the light item nearest to ``item - difference / 2``; the best pair if it strictly helps."""
    partner = (light[None, :] - (heavy[:, None] - difference / 2)).abs().argmin(dim=1)
    left = (difference - 2 * (heavy - light[partner])).abs()
    a = int(left.argmin())
    return (a, int(partner[a])) if float(left[a]) < difference else None


def best_of_candidates(heavy: Tensor, light: Tensor, difference: float, candidates: int = 2) -> tuple[int, int] | None:
    """The best pair of the ``candidates`` heaviest items of the heavy pack and as many lightest of the light one, if it helps.

    The pair that leaves the smallest ``|difference - 2 (a - b)|`` is exchanged, only if that is strictly less than the
    difference; of equal ones the heavier item wins, then the lighter partner.
    """
    a = heavy.sort(descending=True, stable=True).indices[:candidates]
    b = light.sort(stable=True).indices[:candidates]
    left = (difference - 2 * (heavy[a][:, None] - light[b][None, :])).abs()
    best = int(left.argmin())
    row, column = divmod(best, len(b))
    return (int(a[row]), int(b[column])) if float(left[row, column]) < difference else None


def refine(weight: Tensor, packing: Packing, packs: int, rule: SwapRule, steps: int) -> None:
    """Apply up to ``steps`` exchanges per row between its heaviest and lightest pack, until the rule declines."""
    rows, items = weight.shape
    if items == packs:
        return
    loads = weight.new_zeros(rows, packs).scatter_add_(1, packing.pack, weight)
    for row in range(rows):
        pack, rank = packing.pack[row], packing.rank[row]
        for _ in range(steps):
            heaviest, lightest = int(loads[row].argmax()), int(loads[row].argmin())
            if heaviest == lightest:
                break
            heavy, light = (pack == heaviest).nonzero().flatten(), (pack == lightest).nonzero().flatten()
            found = rule(weight[row, heavy], weight[row, light], float(loads[row, heaviest] - loads[row, lightest]))
            if found is None:
                break
            a, b = heavy[found[0]], light[found[1]]
            pack[a], pack[b] = lightest, heaviest
            held = rank[a].clone()
            rank[a], rank[b] = rank[b], held
            moved = weight[row, a] - weight[row, b]
            loads[row, heaviest] -= moved
            loads[row, lightest] += moved


def rank_by_item(packing: Packing, packs: int) -> None:
    """Renumber the items of every pack by ascending item id, in place."""
    rows, items = packing.pack.shape
    order = packing.pack.sort(dim=1, stable=True).indices
    packing.rank.scatter_(1, order, (torch.arange(items) % (items // packs)).expand(rows, items))


RULES: dict[str, SwapRule] = {
    "unchecked": unchecked,
    "extremes": extremes,
    "nearest": nearest,
    "candidates": best_of_candidates,
}
"""Swap rules by name."""
