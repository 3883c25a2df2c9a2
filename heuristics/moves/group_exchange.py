"""Exchange of two expert groups between nodes, compiled: what no step inside a node can do for a node that is too full."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import descending, entry, holds, kernel
from eplb_gap.heuristics.kernels.greedy import adams_counts


@kernel
def _fill(loads: np.ndarray, first: int, size: int, free: np.ndarray, gpus: int, items: np.ndarray, k: int) -> bool:
    """Put a group on free slots, that of the largest old replica first; return False where two of an expert would meet."""
    group = loads[first : first + size]
    counts = adams_counts(group, free.size, gpus)
    sizes = np.empty(size)
    for e in range(size):
        sizes[e] = group[e] / counts[e]
    for slot in free:
        items[slot] = -1
    for e in descending(sizes):
        for _ in range(counts[e]):
            chosen = -1
            for slot in free:
                if items[slot] < 0 and not holds(items, slot // k * k, k, first + e):
                    chosen = slot
                    break
            if chosen < 0:
                return False
            items[chosen] = first + e
    return True


@entry
def exchange_groups(loads: np.ndarray, items: np.ndarray, gpus: int, nodes: int, groups: int) -> bool:
    """Exchange a group of the fullest node with one of another node so that the fuller of both becomes as light as possible.

    Each group takes the slots of the other, with Adams' counts, large replicas on the slots of large ones.

    Parameters
    ----------
    loads : ndarray
        float64 [experts].
    items : ndarray
        Expert of every slot, int64 [slots]; a legal hierarchical map, changed in place.
    gpus, nodes, groups : int

    Returns
    -------
    bool
        Whether an exchange helps and was made; if not, the map is undefined.
    """
    size, per_node, k = loads.size // groups, gpus // nodes, items.size // gpus
    home, counts = np.empty(groups, np.int64), np.zeros(loads.size, np.int64)
    for slot in range(items.size):
        home[items[slot] // size] = slot // (per_node * k)
        counts[items[slot]] += 1
    of_group, of_node = np.zeros(groups), np.zeros(nodes)
    for group in range(groups):
        for e in range(group * size, group * size + size):
            of_group[group] += loads[e]
        of_node[home[group]] += of_group[group]
    full = 0
    for node in range(1, nodes):
        if of_node[node] > of_node[full]:
            full = node
    best = of_node[full] * (1.0 - 1e-12)
    give = take = -1
    for x in range(groups):
        for y in range(groups):
            if home[x] == full and home[y] != full:
                moved = of_group[x] - of_group[y]
                larger = max(of_node[full] - moved, of_node[home[y]] + moved)
                if larger < best:
                    best, give, take = larger, x, y
    if give < 0:
        return False
    sizes = np.empty(items.size)
    for slot in range(items.size):
        sizes[slot] = loads[items[slot]] / counts[items[slot]]
    largest_first = descending(sizes)
    slots_x, slots_y = _slots_of(largest_first, items, give, size), _slots_of(largest_first, items, take, size)
    return _fill(loads, take * size, size, slots_x, per_node, items, k) and _fill(
        loads, give * size, size, slots_y, per_node, items, k
    )


@kernel
def _slots_of(slots: np.ndarray, items: np.ndarray, group: int, size: int) -> np.ndarray:
    """Return those of some slots that hold an expert of a group, in their order."""
    found, length = np.empty(slots.size, np.int64), 0
    for slot in slots:
        if items[slot] // size == group:
            found[length] = slot
            length += 1
    return found[:length]
