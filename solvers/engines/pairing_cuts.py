"""Which rounded rows cut off a fractional solution of a need-model: sums of one, two or three tight rows, small moduli.

For a sum of rows and a modulus q let ``p`` be the remainder of its demand (:mod:`eplb_gap.problem.bounds.pairing_rows`). With
``bump(t) = min(t, p) - t p/q`` a solution x violates the rounded row by ::

    p (1 - p/q)  -  (p/q) slack of the sum  -  sum over columns of x bump(value mod q)

if every expert's base is one of its columns with x > 0: the bump of 0 is 0, so only the fractional experts count. That makes it
cheap to try many sums. Rounded rows may be rounded again: most of the strength is in that.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from eplb_gap.problem.bounds.pairing_rows import Rows

MODULI = (2, 3, 4)
TIGHT = 0.9
MOST_TIGHT, MOST_TRIPLED = 200, 90
"""Tightest rows that are added up in pairs and in triples."""
LEAST_VIOLATION = 0.08
"""Of the largest possible one, p (1 - p/q)."""
ENOUGH = 20
"""Sums with which no triples are tried."""
MOST_ADDED, MOST_USES = 40, 4
"""Rounded rows taken from one solution, and how many of them one row may enter."""
PLENTY = 400
"""Sums with which no larger modulus is tried."""
MOST_NOTED, CHUNK = 100, 10_000
"""Sums that are noted out of so many tried at once."""


@dataclass(frozen=True)
class Sum:
    """A sum of rows and its modulus, with the share of the largest possible violation."""

    violation: float
    modulus: int
    weights: tuple[tuple[int, int], ...]


def violated(rows: Rows, candidates: np.ndarray, x: np.ndarray, base: np.ndarray) -> list[Sum]:
    """Return sums of rows whose rounded rows the solution violates, the most violated first; few of them share a row.

    Parameters
    ----------
    rows : Rows
    candidates : ndarray
        Numbers of the rows to be added up.
    x : ndarray
        Solution, float64 [columns].
    base : ndarray
        The column with the largest x of every expert.
    """
    fractional = np.flatnonzero(x > 1e-7)
    fractional = fractional[base[rows.columns.expert[fractional]] != fractional]
    support = np.union1d(np.flatnonzero(x), base)
    constants = np.array([rows.constants[row] for row in candidates])
    values = rows.values[np.ix_(candidates, support)]
    slack = np.maximum(values.astype(float) @ x[support] + constants, 0.0)
    tight = np.argsort(slack, kind="stable")[:MOST_TIGHT]
    tight = np.sort(tight[slack[tight] < TIGHT])
    at_base = values[:, np.searchsorted(support, base)]
    demand = -(at_base.sum(axis=1) + constants)
    moved = values[:, np.searchsorted(support, fractional)] - at_base[:, rows.columns.expert[fractional]]
    tried = _Trial(candidates, slack, demand, moved, x[fractional])
    pairs = tight[np.stack(np.triu_indices(tight.size, 1), axis=1)]
    for modulus in MODULI:
        if len(tried.found) >= PLENTY:
            break
        for factor in range(1, modulus):
            tried.add(tight[:, None], (factor,), modulus)
            for other in range(1, modulus):
                tried.add(pairs, (factor, other), modulus)
    if len(tried.found) < ENOUGH:
        some = tight[:MOST_TRIPLED]
        tried.add(np.array(list(itertools.combinations(some, 3)), dtype=np.int64).reshape(-1, 3), (1, 1, 1), 2)
    return sorted(tried.found, key=lambda entry: -entry.violation)


class _Trial:
    """The sums found so far for one solution."""

    def __init__(self, candidates: np.ndarray, slack: np.ndarray, demand: np.ndarray, moved: np.ndarray, x: np.ndarray) -> None:
        self.candidates, self.slack, self.demand, self.moved = candidates, slack, demand, moved
        self.x = x.astype(np.float32)
        self.found: list[Sum] = []

    def add(self, chosen: np.ndarray, factors: tuple[int, ...], modulus: int) -> None:
        """Try sums of the chosen rows, [sums, rows of a sum], each with its factor."""
        small = (self.moved % modulus).astype(np.uint8)
        demand = self.demand % modulus
        remainders = range(1, modulus)
        steps = np.arange(modulus)
        # Row p: the bump of every possible value, also before it is reduced by the modulus.
        reach = sum(factors) * (modulus - 1) + 1
        table = np.array([np.minimum(steps, p) - steps * (p / modulus) for p in [0, *remainders]], dtype=np.float32)
        table = table[:, np.arange(reach) % modulus]
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            rest = sum(f * demand[part[:, i]] for i, f in enumerate(factors)) % modulus
            left = sum(f * self.slack[part[:, i]] for i, f in enumerate(factors))
            # Worth a look only if the slack alone does not use up the violation.
            hopeful = (rest > 0) & (left * rest / modulus < (1 - LEAST_VIOLATION) * rest * (1 - rest / modulus))
            part, rest, left = part[hopeful], rest[hopeful], left[hopeful]
            for p in remainders:
                these = np.flatnonzero(rest == p)
                if not these.size:
                    continue
                rows = part[these]
                shift = small[rows[:, 0]] * np.uint8(factors[0])
                for i, f in enumerate(factors[1:], start=1):
                    shift += small[rows[:, i]] * np.uint8(f)
                used = p / modulus * left[these] + table[p, shift] @ self.x
                share = 1 - used / (p * (1 - p / modulus))
                best = np.flatnonzero(share > LEAST_VIOLATION)
                if best.size > MOST_NOTED:
                    best = best[np.argpartition(-share[best], MOST_NOTED)[:MOST_NOTED]]
                for at in best:
                    weights = tuple((int(self.candidates[row]), f) for row, f in zip(rows[at], factors, strict=True))
                    self.found.append(Sum(float(share[at]), modulus, weights))


def spread(sums: list[Sum]) -> list[Sum]:
    """Return a choice of the sums in their order, with no row in too many of them."""
    uses: Counter[int] = Counter()
    chosen = []
    for entry in sums:
        if all(uses[row] < MOST_USES for row, _ in entry.weights):
            uses.update(row for row, _ in entry.weights)
            chosen.append(entry)
    return chosen
