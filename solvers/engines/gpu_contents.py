"""What one GPU may hold within a band of loads: all multisets of k replicas, one count per expert, compiled."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry, kernel


@entry
def enumerate_patterns(
    size: np.ndarray, expert: np.ndarray, most: np.ndarray, low: int, high: int, max_steps: int, out: np.ndarray
) -> int:
    """Write all multisets of k types with a load from ``low`` to ``high`` and one type per expert; return how many.

    Parameters
    ----------
    size : ndarray
        int64 [types], descending.
    expert, most : ndarray
        int64 [types]: the expert of a type, and how many replicas of the type one GPU may hold.
    low, high : int
    max_steps : int
    out : ndarray
        uint16 [room, k]; types ascend within a pattern.

    Returns
    -------
    int
        -1 if there are more patterns than room, or it takes more steps.
    """
    n, k = size.size, out.shape[1]
    item = np.zeros(k + 1, dtype=np.int64)
    total = np.zeros(k + 1, dtype=np.int64)
    found = steps = depth = 0
    pair = max(0, k - 2)
    while depth >= 0:
        steps += 1
        if steps > max_steps:
            return -1
        first = item[depth]
        if depth < pair:
            if first == n or total[depth] + (k - depth) * size[first] < low:
                depth -= 1
                if depth >= 0:
                    item[depth] += 1
            elif total[depth] + size[first] + (k - depth - 1) * size[n - 1] > high or not _fits(item, depth, first, expert, most):
                item[depth] += 1
            else:
                total[depth + 1] = total[depth] + size[first]
                depth += 1
                item[depth] = first
            continue
        base = total[depth]
        edge = n  # the first type that is small enough to go with a; it moves left as a gets smaller
        for a in range(first, n):
            steps += 1
            if base + min(2, k) * size[a] < low:
                break
            if k == 1:
                if size[a] <= high:
                    if found == out.shape[0]:
                        return -1
                    out[found, 0] = a
                    found += 1
                continue
            while edge > 0 and base + size[a] + size[edge - 1] <= high:
                edge -= 1
            if not _fits(item, depth, a, expert, most):
                continue
            item[depth] = a
            for b in range(max(a, edge), n):
                steps += 1
                if base + size[a] + size[b] < low:
                    break
                if _fits(item, depth + 1, b, expert, most):
                    if found == out.shape[0]:
                        return -1
                    for j in range(depth + 1):
                        out[found, j] = item[j]
                    out[found, depth + 1] = b
                    found += 1
        depth -= 1
        if depth >= 0:
            item[depth] += 1
    return found


@kernel
def _fits(item: np.ndarray, length: int, new: int, expert: np.ndarray, most: np.ndarray) -> bool:
    same = 1
    for j in range(length):
        if item[j] == new:
            same += 1
        elif expert[item[j]] == expert[new]:
            return False
    return bool(same <= most[new])
