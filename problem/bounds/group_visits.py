"""The fewest node visits under the hierarchical policy, exactly: an expert's replicas are on its group's node, whatever the map.

What a token visits then depends on which groups share a node and on nothing else. The tokens that a set of groups is needed by
follow for all sets at once from how many tokens need which groups; the best division into nodes is found set by set.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np

from eplb_gap.problem.errors import InputError

MOST_GROUPS = 16
"""Sets of groups are gone through."""


def fewest_group_visits(groups: np.ndarray, num_groups: int, num_nodes: int) -> int:
    """Return the node visits of all tokens, summed, under the best division of groups over nodes.

    Parameters
    ----------
    groups : ndarray of int [tokens, topk]
        The groups of every token's experts.
    num_groups, num_nodes : int
        Equally many groups go to each node.

    Raises
    ------
    InputError
        If groups do not divide over nodes, are unknown, or are more than :data:`MOST_GROUPS`.

    Examples
    --------
    >>> import numpy as np
    >>> from eplb_gap.problem.bounds.group_visits import fewest_group_visits
    >>> fewest_group_visits(np.array([[0, 2], [0, 2], [1, 3], [0, 1]]), num_groups=4, num_nodes=2)  # {0, 2} and {1, 3}
    5
    """
    if not 1 <= num_groups <= MOST_GROUPS or num_nodes < 1 or num_groups % num_nodes:
        raise InputError(f"num_groups is {num_groups}; a multiple of num_nodes = {num_nodes} of at most {MOST_GROUPS} is needed")
    if groups.size and not 0 <= int(groups.min()) <= int(groups.max()) < num_groups:
        raise InputError(f"groups are {groups.min()} to {groups.max()}; 0 to {num_groups - 1} are there")
    together = num_groups // num_nodes
    needed = np.bitwise_or.reduce(1 << groups.astype(np.int64), axis=1)
    within = np.bincount(needed, minlength=1 << num_groups)  # tokens that need these groups and no others
    sets = np.arange(1 << num_groups)
    for group in range(num_groups):  # tokens that need no group outside
        larger = sets[sets >> group & 1 == 1]
        within[larger] += within[larger ^ (1 << group)]
    visits: list[int] = (
        len(groups) - within[::-1]
    ).tolist()  # tokens that need one of the set: all without those that need none of it

    @cache
    def fewest(left: int) -> int:
        if not left:
            return 0
        first, *others = (group for group in range(num_groups) if left >> group & 1)
        nodes = (sum(1 << group for group in (first, *some)) for some in combinations(others, together - 1))
        return min(visits[node] + fewest(left ^ node) for node in nodes)

    return fewest((1 << num_groups) - 1)
