"""The default engine: CP-SAT where the instance is small enough for a proof; the common start has done the rest."""

from __future__ import annotations

from collections.abc import Iterator

from problem.instance import Instance
from solvers import cpsat
from solvers.engine import Finding, Incumbent, Limits

MAX_COMPACT_SLOTS = 24  # above this the compact model's bound stays at the mean and its search adds nothing


def search(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield what CP-SAT finds and proves on instances of up to 24 slots, nothing on larger ones."""
    if instance.num_slots <= MAX_COMPACT_SLOTS:
        yield from cpsat.search(instance, incumbent, limits)


def search_nothing(instance: Instance, incumbent: Incumbent, limits: Limits) -> Iterator[Finding]:
    """Yield nothing: the closed-form bounds and the greedy map that every solve starts from are the answer."""
    return iter(())
