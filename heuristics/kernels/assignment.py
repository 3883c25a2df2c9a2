"""Assignment: one column for every row of a table so that what is picked sums up highest."""

from __future__ import annotations

import numpy as np

from eplb_gap.heuristics.compiled import entry

NOBODY = -1
FAR = np.iinfo(np.int64).max


def most(tables: np.ndarray) -> np.ndarray:
    """Return the column that every row of every table gets, so that the picked entries of a table sum up highest.

    Rows are added one by one along shortest augmenting paths, as Crouse describes it ("On implementing 2D rectangular assignment
    algorithms", 2016): the cube of the rows in the worst case. Among equal paths the order of the columns is that of SciPy's
    ``linear_sum_assignment``, so that both pick the same of several best assignments.

    Parameters
    ----------
    tables : ndarray [..., n, n]
        Whole numbers of at most 2**53, of any type.

    Returns
    -------
    ndarray
        int64 [..., n]: a permutation of the columns for each table.

    Examples
    --------
    >>> most(np.array([[[5, 9], [4, 5]]])).tolist()
    [[1, 0]]
    """
    size = tables.shape[-1]
    costs = -np.ascontiguousarray(tables, dtype=np.int64).reshape(-1, size, size)
    columns = np.empty(costs.shape[:2], dtype=np.int64)
    _assign(costs, columns)
    return columns.reshape(tables.shape[:-1])


@entry
def _assign(costs: np.ndarray, columns: np.ndarray) -> None:
    size = costs.shape[1]
    of_row, of_column = np.empty(size, np.int64), np.empty(size, np.int64)  # dual prices
    row_of, came_from, left = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    distance = np.empty(size, np.int64)
    for table in range(costs.shape[0]):
        cost, column_of = costs[table], columns[table]
        for i in range(size):
            of_row[i] = of_column[i] = 0
            row_of[i] = column_of[i] = NOBODY
        for start in range(size):
            for j in range(size):
                left[j], distance[j] = size - 1 - j, FAR
            remaining, reached, row, end = size, 0, start, NOBODY
            while end == NOBODY:
                nearest, best = FAR, NOBODY
                for position in range(remaining):
                    j = left[position]
                    through = reached + cost[row, j] - of_row[row] - of_column[j]
                    if through < distance[j]:
                        distance[j], came_from[j] = through, row
                    # Of equally near columns one that ends the path.
                    if distance[j] < nearest or (distance[j] == nearest and row_of[j] == NOBODY):
                        nearest, best = distance[j], position
                reached, j = nearest, left[best]
                remaining -= 1
                left[best], left[remaining] = left[remaining], j  # those looked at lie behind the remaining ones
                if row_of[j] == NOBODY:
                    end = j
                else:
                    row = row_of[j]
            of_row[start] += reached
            for position in range(remaining, size):
                j = left[position]
                of_column[j] -= reached - distance[j]
                if row_of[j] != NOBODY:
                    of_row[row_of[j]] += reached - distance[j]
            j, row = end, NOBODY
            while row != start:
                row = came_from[j]
                row_of[j] = row
                j, column_of[row] = column_of[row], j
