"""Branch and cut over the need-model of one threshold: a tree that the kernel recounts, or counts within the threshold.

HiGHS solves linear relaxations, warm from one to the next. Their duals, rounded to integers, are checked by
:class:`eplb_gap.problem.bounds.pairing_rows.Rows` at once: they refute a node or rule out counts in it. Rounded rows
(:mod:`eplb_gap.solvers.engines.pairing_cuts`), valid everywhere, are added at the root until they gain nothing, and a few at
every node; what is left is branched on, by an expert's count being at most m or more, chosen by strong branching. Nothing
that the linear solver says enters the proof unchecked.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from eplb_gap.problem.bounds.pairing_dual import Multipliers
from eplb_gap.problem.bounds.pairing_rows import MAX_CELLS, Columns, Rows, Weights, columns
from eplb_gap.problem.bounds.pairing_tree import MAX_WORK, Cut, Node, Tree
from eplb_gap.problem.errors import InputError
from eplb_gap.problem.instance import Instance
from eplb_gap.solvers.engine import Limits
from eplb_gap.solvers.engines.need_model import Inventory
from eplb_gap.solvers.engines.pairing_cuts import MOST_ADDED, Sum, spread, violated
from eplb_gap.solvers.engines.pairing_lp import FEASIBILITY, WEIGHT_UNITS, NodeLP, breakpoints, inventory

MAX_CUTS = 3_000
MAX_COEFFICIENT = 2_000
IDLE_ROUNDS = 5
STALL_ROUNDS = 8
"""Rounds at the root that are judged together."""
NODE_ROUNDS = 3
CANDIDATES = 8
TRIAL_ITERATIONS = 60
LEAST_GAIN = 1e-4
FINE_ABOVE = 1e-2
"""A relaxation that exceeds S by less is rounded more finely if need be."""
CHECKED_PER_SECOND = 2e8
"""Products of a weight and a column that the kernel recounts in a second, at the least."""
WORTH_A_VECTOR = 0.9
"""A vector is kept if it leaves no more than this part of the columns."""


@dataclass
class _Case:
    """A node of the tree as it grows."""

    vectors: list[int] = field(default_factory=list)
    expert: int = -1
    most: int = 0
    children: tuple[_Case, ...] = ()


class PairingSearch:
    """The search at one threshold.

    Parameters
    ----------
    everything : Columns
        All counts possible at the threshold.
    first : sequence of (int, int)
        Weights of slots and ``points`` that rule out some of them.
    points : list of (int, int)
        Expert and count of the breakpoints' replicas.
    limits : Limits

    Attributes
    ----------
    counts : list of int or None
        Counts of at most S replicas that satisfy all rows of breakpoints, once found.
    """

    def __init__(self, everything: Columns, first: Weights, points: list[tuple[int, int]], limits: Limits) -> None:
        self.limits = limits
        self.counts: list[int] | None = None
        self.nodes = self.work = 0
        keys = [everything.point(*point) for point in points]
        among = everything.kept(Rows(everything, keys, 0).possible(first, np.ones(everything.expert.size, dtype=bool)))
        # Fewer columns need fewer breakpoints, each at the last big replica of a run: not always one of the first vector's.
        own = breakpoints(among)
        known = {point: row for row, point in enumerate(points, start=1)}
        for point in own:
            known.setdefault(point, len(known) + 1)
        keys = [everything.point(*point) for point in known]
        capacity = max(0, min(MAX_CUTS, MAX_CELLS // among.expert.size - len(keys) - 1))
        self.rows = Rows(among, keys, capacity)
        self.first_cut = len(self.rows.constants)
        self.last_row = self.first_cut + capacity
        self.lp = NodeLP(self.rows, [known[point] for point in own])
        self.base: np.ndarray | None = None
        # A tree that ends before any rows are rounded has a base all the same.
        self.tree = Tree(first, list(known), self.rows.columns.count[self.rows.starts].tolist())
        self.seen: set[bytes] = set()
        self.left = np.ones(among.expert.size, dtype=bool)
        self.root = _Case()
        self.open = [(self.root, self.left)]

    @property
    def refuted(self) -> bool:
        """Whether the tree is whole."""
        return not self.open and self.counts is None

    def remaining(self) -> Inventory:
        """Return the model of the counts that the root leaves."""
        return inventory(self.rows.columns.kept(self.left))

    @property
    def ended(self) -> bool:
        """Whether the tree is whole or counts are found."""
        return not self.open or self.counts is not None

    @property
    def missing(self) -> float:
        """By how much the last relaxation fell short of refuting its case."""
        return self.rows.columns.num_slots - self.lp.objective

    def rounded(self, generator: np.random.Generator, noise: float) -> np.ndarray:
        """Return counts near the last solution of the relaxation, with S as their sum; no row need hold for them.

        Parameters
        ----------
        generator : Generator
        noise : float
            Largest random amount that is added to a fractional part before the largest are rounded up.
        """
        columns = self.rows.columns
        mean = np.add.reduceat(self.lp.values * columns.count, self.rows.starts)
        counts = np.maximum(1, np.floor(mean + FEASIBILITY)).astype(np.int64)
        parts: np.ndarray = mean - counts
        parts = parts + noise * generator.random(parts.size) * (parts > FEASIBILITY)
        for _ in range(int(columns.num_slots - counts.sum())):
            expert = int(np.argmax(parts))
            counts[expert] += 1
            parts[expert] -= 1
        return counts

    def cut_root(self, deadline: float, patience: float) -> bool:
        """Add rounded rows at the root; return False if the deadline came before they refuted it or slowed down.

        Parameters
        ----------
        deadline : float
            On the clock of :func:`time.monotonic`.
        patience : float
            End when the last rounds gained less than this share of what is missing.
        """
        if len(self.open) != 1 or self.root.children:
            return True
        case, alive = self.open.pop()
        history: list[float] = []
        while not self._late(deadline):
            left = self._bounded(case, alive)
            if left is None:
                break
            alive = left
            if not alive.any() or self.counts is not None:
                return True
            self.lp.allow(alive)
            history.append(self.lp.objective)
            stalled = len(history) > STALL_ROUNDS and history[-1] - history[-1 - STALL_ROUNDS] < patience * self.missing
            self.lp.relieve()
            if stalled or not self._separate():
                break
        self.open.append((case, alive))
        self.left = alive
        return not self._late(deadline)

    def branch(self, deadline: float, most_nodes: int) -> bool:
        """Branch until the tree is whole or counts are found; return False if time or nodes ended before."""
        while self.open and self.counts is None:
            if self._late(deadline) or self.nodes >= most_nodes:
                return False
            case, alive = self.open.pop()
            if not self._process(case, alive):
                self.open.append((case, alive))
                return False
            self.nodes += 1
        return True

    def proof(self) -> Tree:
        """Return the whole tree, with the rounded rows and vectors that it uses and no others."""
        nodes, stack = [], [self.root]
        while stack:
            case = stack.pop()
            nodes.append(Node(case.expert, case.most, tuple(case.vectors)))
            stack.extend(reversed(case.children))
        self.tree.nodes = nodes
        return compacted(self.tree)

    def _late(self, deadline: float) -> bool:
        """Whether the time is up, or would be once the tree is recounted; the kernel recounts none of too much work."""
        now = time.monotonic()
        return now >= deadline or now + self.work / CHECKED_PER_SECOND >= self.limits.deadline or self.work > MAX_WORK

    def _bounded(self, case: _Case, alive: np.ndarray) -> np.ndarray | None:
        """Solve the relaxation; return the columns it leaves, or None if it was not solved.

        Duals that rule out many columns, or all, become a vector of the case. A whole solution becomes the counts.
        """
        if not np.logical_or.reduceat(alive, self.rows.starts).all():
            return np.zeros_like(alive)
        self.lp.allow(alive)
        if not self.lp.solve(self.limits):
            return None
        beyond = self.lp.objective - self.rows.columns.num_slots
        for unit in WEIGHT_UNITS if 0 < beyond < FINE_ABOVE else WEIGHT_UNITS[:1]:
            weights = self.lp.weights(unit)
            try:
                left = self.rows.possible(weights, alive)
            except InputError:  # too large to be added
                continue
            if left.sum() <= WORTH_A_VECTOR * alive.sum():
                case.vectors.append(len(self.tree.vectors))
                self.tree.vectors.append(weights)
                self.work += (1 + len(weights)) * self.rows.columns.expert.size
                alive = left
                break
        if beyond <= FEASIBILITY and alive.any():
            self._take()
        return alive

    def _take(self) -> None:
        """Keep the solution as counts if it is whole and satisfies all rows exactly."""
        x, starts = self.lp.values, self.rows.starts
        if np.minimum(x, 1 - x).max() > FEASIBILITY:
            return
        chosen = np.flatnonzero(x > 0.5)
        if chosen.size == starts.size and np.array_equal(self.rows.columns.expert[chosen], np.arange(starts.size)):
            sums = self.rows.values[: self.first_cut, chosen].sum(axis=1) + self.rows.constants[: self.first_cut]
            if sums.min() >= 0:
                self.counts = self.rows.columns.count[chosen].tolist()

    def _separate(self) -> bool:
        """Add rounded rows that the solution violates; return whether there were any."""
        x, expert = self.lp.values, self.rows.columns.expert
        order = np.lexsort((x, expert))
        base = order[np.concatenate([expert[order][1:] != expert[order][:-1], [True]])]
        if self.base is None:
            self.base = base
            self.tree.base = self.rows.columns.count[base].tolist()
        self.lp.drop_idle(IDLE_ROUNDS)
        candidates = np.array([*range(self.first_cut), *self.lp.cuts], dtype=np.int64)
        added: list[int] = []
        for entry in spread(violated(self.rows, candidates, x, base)):
            if len(added) == MOST_ADDED or len(self.rows.constants) == self.last_row:
                break
            if self._keep(entry, base):
                added.append(len(self.rows.constants) - 1)
        self.lp.add(added)
        return bool(added)

    def _keep(self, entry: Sum, base: np.ndarray) -> bool:
        """Append the rounded row of a sum unless it is known or its numbers are large; return whether it was kept."""
        assert self.base is not None
        starts, columns = self.rows.starts, self.rows.columns
        try:
            sums = self.rows.add(entry.weights)[0]
            # What is subtracted counts only modulo q: most experts can keep the tree's base.
            own = np.where((sums[base] - sums[self.base]) % entry.modulus == 0, self.base, base)
            values, constant = self.rows.rounded(entry.weights, own, entry.modulus)
        except InputError:  # too large to be added
            return False
        lifted = values - np.minimum.reduceat(values, starts)[columns.expert]
        name = lifted.tobytes()
        if lifted.max() > MAX_COEFFICIENT or name in self.seen:
            return False
        self.seen.add(name)
        changed = np.flatnonzero(own != self.base)
        bases = zip(changed.tolist(), columns.count[own[changed]].tolist(), strict=True)
        self.tree.cuts.append(Cut(entry.modulus, entry.weights, tuple(bases)))
        self.rows.append(values, constant)
        return True

    def _process(self, case: _Case, alive: np.ndarray) -> bool:
        """Bound a case and branch on it if need be; return False if the relaxation was not solved."""
        rounds = 0
        while True:
            left = self._bounded(case, alive)
            if left is None:
                return False
            alive = left
            if not alive.any() or self.counts is not None:
                return True
            if self.lp.values[~alive].max(initial=0.0) > FEASIBILITY:
                continue  # the solution uses columns that its own duals have ruled out
            if rounds == NODE_ROUNDS or not self._separate():
                break
            rounds += 1
        expert, most, first_lower = self._branching(alive)
        own, few = self.rows.columns.expert == expert, self.rows.columns.count <= most
        case.expert, case.most, case.children = expert, most, (_Case(), _Case())
        below, above = (case.children[0], alive & ~(own & ~few)), (case.children[1], alive & ~(own & few))
        # The child with the lower bound, where counts are likelier, is next.
        self.open += [above, below] if first_lower else [below, above]
        return True

    def _branching(self, alive: np.ndarray) -> tuple[int, int, bool]:
        """Return expert and count to branch on, and whether the child with few replicas has the lower bound."""
        columns, x, objective = self.rows.columns, self.lp.values.copy(), self.lp.objective
        mean = np.add.reduceat(x * columns.count, self.rows.starts)
        spare = np.add.reduceat(alive, self.rows.starts) > 1
        ranked = []
        for expert in np.unique(columns.expert[(x > FEASIBILITY) & (x < 1 - FEASIBILITY)]):
            at = np.flatnonzero((columns.expert == expert) & (x > FEASIBILITY))
            if at.size < 2:
                continue
            most = min(max(math.floor(mean[expert]), int(columns.count[at[0]])), int(columns.count[at[-1]]) - 1)
            share = float(x[at[columns.count[at] <= most]].sum())
            ranked.append((min(share, 1 - share), int(expert), most))
        if not ranked:  # whole, but a rounded count: any expert with a choice
            expert = int(np.flatnonzero(spare)[0])
            at = np.flatnonzero((columns.expert == expert) & alive)
            return expert, int(columns.count[at[0]]), True
        best, best_score = (ranked[0][1], ranked[0][2], True), -1.0
        for _, expert, most in sorted(ranked, reverse=True)[:CANDIDATES]:
            own, few = columns.expert == expert, columns.count <= most
            gains = []
            for child in (alive & ~(own & ~few), alive & ~(own & few)):
                self.lp.allow(child)
                self.lp.solve(self.limits, TRIAL_ITERATIONS)
                gains.append(max(self.lp.objective - objective, LEAST_GAIN))
            cap = max(self.rows.columns.num_slots - objective, LEAST_GAIN)
            score = min(gains[0], cap) * min(gains[1], cap)
            if score > best_score:
                best, best_score = (expert, most, gains[0] <= gains[1]), score
        return best


def search_at(instance: Instance, threshold: Fraction, multipliers: Multipliers, limits: Limits) -> PairingSearch | None:
    """Return the search at a threshold that multipliers of the relaxation do not refute; None if it is too large to be held.

    Parameters
    ----------
    instance : Instance
        With two slots per GPU.
    threshold : Fraction
    multipliers : sequence of (Fraction, Fraction)
        Breakpoints that are keys of big replicas, each with its multiplier (:mod:`eplb_gap.problem.bounds.pairing_dual`).
    limits : Limits
    """
    everything = columns(instance, threshold)
    assert everything is not None  # counting slots would have refuted it
    big = np.flatnonzero(~everything.small)
    owner = {int(everything.keys[j]): (int(everything.expert[j]), int(everything.count[j])) for j in big}
    points = [owner[int(point * everything.scale)] for point, _ in multipliers]
    factors = [*(factor for _, factor in multipliers), Fraction(0)]
    unit = math.lcm(*(factor.denominator for factor in factors))
    steps = (upper - lower for upper, lower in itertools.pairwise(factors))
    first = [(0, unit), *((row, int(step * unit)) for row, step in enumerate(steps, start=1))]
    try:
        return PairingSearch(everything, first, points, limits)
    except InputError:
        return None


def compacted(tree: Tree) -> Tree:
    """Return a tree without the rounded rows and vectors that nothing refers to."""
    plain = 1 + len(tree.points)
    numbers: dict[int, int] = {}
    vectors: list[Weights] = []
    for node in tree.nodes:
        for vector in node.vectors:
            if vector not in numbers:
                numbers[vector] = len(vectors)
                vectors.append(tree.vectors[vector])
    used, stack = set(), [row for vector in vectors for row, _ in vector if row >= plain]
    while stack:
        row = stack.pop()
        if row not in used:
            used.add(row)
            stack += [source for source, _ in tree.cuts[row - plain].weights if source >= plain]
    rows = {row: row for row in range(plain)} | {row: plain + at for at, row in enumerate(sorted(used))}

    def renamed(weights: Weights) -> tuple[tuple[int, int], ...]:
        return tuple((rows[row], weight) for row, weight in weights)

    return Tree(
        tree.first,
        tree.points,
        tree.base,
        [replace(cut, weights=renamed(cut.weights)) for cut in (tree.cuts[row - plain] for row in sorted(used))],
        [renamed(vector) for vector in vectors],
        [replace(node, vectors=tuple(numbers[vector] for vector in node.vectors)) for node in tree.nodes],
    )
