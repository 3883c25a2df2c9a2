"""What an engine is, and the one incumbent, clock and interrupt that all of them share.

An engine works on one flat :class:`eplb_gap.problem.Instance`. It is not trusted: it hands over maps and bounds, the incumbent
recomputes every map exactly and keeps the best of both.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from eplb_gap.problem.bounds.bounds import Bound, reachable
from eplb_gap.problem.deployment import Deployment
from eplb_gap.problem.errors import PlacementError
from eplb_gap.problem.instance import Instance
from eplb_gap.problem.metrics import optimality_gap
from eplb_gap.problem.proofs import TRUSTS, trust

Map = tuple[int, ...]
Finding = Map | Bound


@dataclass(frozen=True)
class Limits:
    """When to stop, and with what means.

    Parameters
    ----------
    deadline : float
        On the clock of :func:`time.monotonic`, seconds.
    target_gap : float
        Stop once ``upper / lower - 1`` is at most this.
    workers : int
        Threads a solver may use.
    seed : int
    enough : Fraction, optional
        A makespan that needs no improvement, whatever the bound: other nodes decide the layer.
    """

    deadline: float
    target_gap: float = 0.0
    workers: int = 1
    seed: int = 0
    enough: Fraction | None = None

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline - time.monotonic())


@dataclass
class Incumbent:
    """Best map and best bound known for one instance.

    A certified bound (one that the kernel can recompute) is preferred to a solver's claim of the same value.
    """

    instance: Instance
    slots: tuple[int, ...] | None = None
    upper: Fraction | None = None
    bound: Bound = field(default_factory=lambda: Bound(Fraction(0), "mean"))

    def offer(self, finding: Finding) -> bool:
        """Take a map or a bound if it is better than what is known; return whether it was."""
        return self.offer_bound(finding) if isinstance(finding, Bound) else self.offer_map(finding)

    def offer_map(self, slots: Sequence[int]) -> bool:
        """Take a map if it is legal and better; return whether it was. An illegal one raises PlacementError."""
        self._check(slots)
        value = self.instance.makespan(slots)
        if self.upper is not None and value >= self.upper:
            return False
        self.slots, self.upper = tuple(int(e) for e in slots), value
        self._check_order()
        return True

    def offer_bound(self, bound: Bound) -> bool:
        """Take a bound if it is stronger, or as strong with less to be believed; return whether it was taken.

        It is rounded up to what is reachable: no map has a makespan between.
        """
        if bound.value > self.bound.value and bound.kind != "hierarchical":  # whose check does not round
            bound = replace(bound, value=reachable(self.instance, bound.value))
        better = bound.value > self.bound.value
        firmer = bound.value == self.bound.value and TRUSTS.index(trust(bound)) < TRUSTS.index(trust(self.bound))
        if better or firmer:
            self.bound = bound
            self._check_order()
        return better or firmer

    @property
    def gap(self) -> float:
        """Optimality gap ``upper / lower - 1``; infinite without a map or a positive bound."""
        return float("inf") if self.upper is None else optimality_gap(self.upper, self.bound.value)

    def reaches(self, makespan: Fraction) -> bool:
        """Whether a map of at most this makespan is known."""
        return self.upper is not None and self.upper <= makespan

    @property
    def proven(self) -> bool:
        """Whether upper equals lower as fractions."""
        return self.upper is not None and self.upper == self.bound.value

    def closed(self, limits: Limits) -> bool:
        """Whether the target gap or a makespan that is enough is reached."""
        if limits.enough is not None and self.reaches(limits.enough):
            return True
        return self.proven or self.gap <= limits.target_gap

    def _check_order(self) -> None:
        if self.upper is not None and self.bound.value > self.upper:
            raise ContradictionError(
                f"instance {self.instance.digest}: lower bound {self.bound.value} ({self.bound.kind} {self.bound.witness}) "
                f"exceeds the makespan {self.upper} of a legal map; the bound is false"
            )

    def _check(self, slots: Sequence[int]) -> None:
        instance = self.instance
        if len(slots) != instance.num_slots or set(slots) != set(range(instance.num_experts)):
            raise PlacementError(
                f"an engine returned a map of {len(slots)} slots over {len(set(slots))} experts; every expert is needed"
            )
        if instance.duplicates == "forbidden":
            for gpu, (start, end) in enumerate(itertools.pairwise(instance.starts)):
                if len(set(slots[start:end])) < end - start:
                    raise PlacementError(f"an engine returned a map with a duplicate on GPU {gpu}, where they are forbidden")


class ContradictionError(RuntimeError):
    """A lower bound exceeds an upper bound: a solver or a bound is wrong, and the result must not be used."""


Search = Callable[[Instance, Incumbent, Limits], Iterator[Finding]]
"""A search yields better maps and stronger bounds until it is done or the limits are reached; it never mutates the incumbent."""
ANY_SLOTS = range(1, sys.maxsize)


@dataclass(frozen=True)
class Engine:
    """An engine, and what it is for.

    Parameters
    ----------
    name : str
        Key of :data:`eplb_gap.solvers.METHODS`.
    search : Search
    slots_per_gpu : range
        Slots per GPU that it is for.
    unequal : bool
        Whether it works on GPUs with unequal slots.
    exact : bool
        Whether it ends with a proof of the optimum on small instances; others end where their maps and bounds do not improve.
    swept : bool
        Whether ``bench solvers`` holds it against brute force on all its random instances; the tests do so with every engine.
    compile : callable, optional
        Compiles what it needs for a deployment without dead GPUs, where that takes longer than a user's time limit may be.
    """

    name: str
    search: Search
    slots_per_gpu: range = ANY_SLOTS
    unequal: bool = False
    exact: bool = True
    swept: bool = True
    compile: Callable[[Deployment], None] | None = None


def drive(search: Search, incumbent: Incumbent, limits: Limits, on_progress: Callable[[], None]) -> None:
    """Run a search and feed what it finds to the incumbent until the instance is closed or the search ends.

    The clock is the search's to obey: a bound that it hands over at its deadline, behind its last map, still counts.
    """
    findings = search(incumbent.instance, incumbent, limits)
    try:
        while not incumbent.closed(limits):
            finding = next(findings, None)
            if finding is None:
                return
            if incumbent.offer(finding):
                on_progress()
    finally:
        close = getattr(findings, "close", None)
        if close is not None:
            close()
